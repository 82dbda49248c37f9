"""The transport that answers at once."""

from typing import Any

import pytest

from djwebhooks.transports.base import Reply, Request, Transport
from djwebhooks.transports.memory import MemoryTransport
from tests.transports.contract.base import TransportContract
from tests.transports.exchanges import build_request, post


class TestMemoryTransport(TransportContract):
    def build(self, **options: Any) -> Transport:
        return MemoryTransport(**options)

    @pytest.fixture
    def url(self) -> str:
        return "https://receiver.example/"

    def test_requests_are_kept(self) -> None:
        """Every request is kept as it was, in the order of submission."""
        transport = MemoryTransport()
        sent = [build_request("https://receiver.example/", key=key) for key in range(3)]
        for request in sent:
            transport.submit(request)

        assert transport.requests == sent

    def test_answer_is_a_status(self) -> None:
        """A number is the status of every answer."""
        assert post(MemoryTransport(503), "https://receiver.example/").status == 503

    def test_answer_is_a_function(self) -> None:
        """A function makes the answer from the request; its reply gets the request's key."""

        def answer(request: Request) -> Reply:
            return Reply("whatever", error="timeout", detail=request.url)

        reply = post(MemoryTransport(answer), "https://receiver.example/", key=9)

        assert reply == Reply(9, error="timeout", detail="https://receiver.example/")
