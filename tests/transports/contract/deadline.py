"""One deadline ends an exchange, and a shorter one the connecting, whatever they hang in."""

import threading
from collections.abc import Callable
from typing import Any

from djwebhooks.testing.receiver import Conversation, Receiver, hang
from djwebhooks.transports.base import Transport
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import build_request, collect, full_listener, lookup, post


class Deadline(Loopback):
    """When an exchange ends at the latest."""

    def test_receiver_that_never_answers(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The deadline ends the wait for an answer."""
        reply = post(transport, serve(hang).url, timeout=0.3, connect_timeout=0.3)

        assert (reply.status, reply.error, reply.address) == (None, "timeout", "127.0.0.1")
        assert reply.duration >= 0.3

    def test_head_byte_by_byte(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The deadline is for the whole exchange: a head that keeps coming does not move it."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(b"HTTP/1.1 200 OK\r\n")
            conversation.trickle(b"x: y\r\n")

        assert post(transport, serve(script=script).url, timeout=0.5).error == "timeout"

    def test_body_byte_by_byte(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Nor does a body that keeps coming."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            conversation.trickle(b"x")

        reply = post(transport, serve(script=script).url, timeout=0.5)

        assert (reply.status, reply.error) == (None, "timeout")

    def test_receiver_that_reads_nothing(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The deadline ends the sending, too."""
        receiver = serve(script=lambda conversation: conversation.receiver.stopping.wait(30))

        assert post(transport, receiver.url, body=bytes(50_000_000), timeout=0.5).error == "timeout"

    def test_no_time_at_all(self, transport: Transport, url: str) -> None:
        """A deadline that is over from the start is a timeout like any other."""
        assert post(transport, url, timeout=0.0).error == "timeout"

    def test_host_that_does_not_answer_connections(self, transport: Transport) -> None:
        """The connect timeout ends the attempt to connect, long before the deadline."""
        with full_listener() as port:
            reply = post(transport, f"http://127.0.0.1:{port}/", connect_timeout=0.3)

        assert (reply.error, reply.address) == ("connect_timeout", "127.0.0.1")

    def test_slow_lookup_does_not_hold_the_caller(self, make: Make) -> None:
        """A name lookup that hangs ends by the connect timeout for the caller, and other requests go on."""
        release = threading.Event()

        def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
            if host == "slow.example":
                release.wait(30)
            return lookup(["127.0.0.1"])(host, port)

        with Receiver() as receiver:
            transport = make(getaddrinfo=getaddrinfo, concurrency=4)
            try:
                for key in range(3):
                    transport.submit(build_request(receiver.url_for("slow.example"), key=key, connect_timeout=0.3))
                slow = collect(transport, 3)
                fast = [post(transport, receiver.url_for("fast.example")) for _ in range(8)]
            finally:
                release.set()

        assert [reply.error for reply in slow] == ["connect_timeout"] * 3
        assert [reply.status for reply in fast] == [200] * 8

    def test_handshake_that_hangs(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """The connect timeout covers the TLS handshake."""
        receiver = serve(script=Conversation.wait_closed)
        reply = post(make(), f"https://127.0.0.1:{receiver.port}/", connect_timeout=0.3)

        assert (reply.error, reply.address) == ("connect_timeout", "127.0.0.1")
