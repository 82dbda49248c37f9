"""What a transport must do without a network, and what the tests of it on one have in common."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.conf import LazySettings

from djwebhooks.testing.receiver import Answer, Receiver
from djwebhooks.transports.base import Transport
from tests.transports.exchanges import build_request, collect, post

Make = Callable[..., Transport]


class TransportContract:
    """The few methods of a transport. ``build`` makes one; the fixture ``url`` is something that answers 200."""

    def build(self, **options: Any) -> Transport:
        raise AssertionError("A test class of a transport says how to build it.")

    @pytest.fixture
    def make(self) -> Iterator[Make]:
        made: list[Transport] = []

        def make(**options: Any) -> Transport:
            made.append(self.build(**options))
            return made[-1]

        yield make
        for transport in made:
            transport.close()

    @pytest.fixture
    def transport(self, make: Make) -> Transport:
        return make()

    def test_key_comes_back(self, transport: Transport, url: str) -> None:
        """Whatever is hashable as the key of a request is the key of its reply."""
        reply = post(transport, url, key=("delivery", 7))

        assert (reply.key, reply.status, reply.error) == (("delivery", 7), 200, "")

    def test_every_request_is_answered_once(self, transport: Transport, url: str) -> None:
        """As many replies come as requests were submitted, one for each key."""
        for key in range(50):
            transport.submit(build_request(url, key=key))
        replies = collect(transport, 50)

        assert sorted(reply.key for reply in replies) == list(range(50))
        assert transport.wait(0.0) == []

    def test_wait_returns_empty_after_its_timeout(self, transport: Transport) -> None:
        """With nothing in flight a wait ends by its timeout, with no reply."""
        assert transport.wait(0.01) == []

    def test_wake_ends_the_next_wait(self, transport: Transport) -> None:
        """A wake that nobody waits for is kept for the next wait."""
        transport.wake()
        started = time.monotonic()

        assert transport.wait(30.0) == []
        assert time.monotonic() - started < 15

    def test_wake_ends_a_wait_in_another_thread(self, transport: Transport) -> None:
        """A wait in progress returns when another thread wakes it."""
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(transport.wait, 30.0)
            transport.wake()

            assert waiting.result(timeout=15) == []

    def test_concurrency_is_what_was_asked_for(self, make: Make) -> None:
        """A transport says how many requests it takes at once."""
        assert make(concurrency=3).concurrency == 3

    def test_default_concurrency_is_set(self, transport: Transport) -> None:
        """Without a number the transport has its own."""
        assert transport.concurrency > 0

    def test_close_of_an_unused_transport(self, transport: Transport) -> None:
        """A transport that sent nothing can be aborted and closed, and closed again."""
        transport.abort()
        transport.close()
        transport.close()

    def test_abort_of_an_idle_transport_harms_nothing(self, transport: Transport, url: str) -> None:
        """After an abort the transport sends again."""
        transport.abort()

        assert post(transport, url).status == 200


class Loopback(TransportContract):
    """A contract on a real network, with receivers on loopback."""

    @pytest.fixture(autouse=True)
    def allow_loopback(self, settings: LazySettings) -> None:
        settings.DJWEBHOOKS_ALLOW_HTTP = True
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.1/32",)

    @pytest.fixture
    def serve(self) -> Iterator[Callable[..., Receiver]]:
        started: list[Receiver] = []

        def serve(*answers: Answer | int, **options: Any) -> Receiver:
            started.append(Receiver(*answers, **options).__enter__())
            return started[-1]

        yield serve
        for receiver in started:
            receiver.__exit__(None, None, None)

    @pytest.fixture
    def url(self, serve: Callable[..., Receiver]) -> str:
        return serve().url

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def ca_bundle(self, authority: trustme.CA, tmp_path: Path) -> str:
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(path)
        return str(path)
