"""What is answered is on the reply, as it came."""

import gzip
import time
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from djwebhooks.testing.receiver import Conversation, Receiver, answer, hang, raw
from djwebhooks.transports.base import Transport
from tests.keys import make_server_context
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import lookup, post

SLOW_LOOKUP_MS = 20


def look_up_slowly(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
    """A ``getaddrinfo`` that takes its time."""
    time.sleep(SLOW_LOOKUP_MS / 1000)
    return lookup(["127.0.0.1"])(host, port)


class Answers(Loopback):
    """What is answered."""

    def test_answer_is_returned(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Status, headers with lower-case names, body, duration and address are on the reply."""
        reply = post(transport, serve(answer(418, b"short and stout", X_Tea="yes")).url)

        assert (reply.status, reply.body, reply.error, reply.address) == (418, b"short and stout", "", "127.0.0.1")
        assert reply.headers == {"content-length": "15", "x-tea": "yes"}
        assert reply.duration > 0

    def test_timing_of_a_new_connection(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """Lookup, connect, TLS and the wait for an answer are told apart, and together take no longer than the whole."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        transport = make(getaddrinfo=look_up_slowly, ca_bundle=ca_bundle)
        reply = post(transport, receiver.url_for("receiver.example"))
        lookup_ms, connect_ms, tls_ms, first_byte_ms = reply.timing

        assert lookup_ms is not None
        assert lookup_ms >= SLOW_LOOKUP_MS
        assert connect_ms is not None
        assert tls_ms is not None
        assert first_byte_ms is not None
        # Each of them is rounded.
        assert lookup_ms + connect_ms + tls_ms + first_byte_ms <= reply.duration * 1000 + 4

    def test_timing_of_a_kept_connection(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Where a connection is used again there is no lookup, no connecting and no TLS, and without TLS there is never any."""

        def script(conversation: Conversation) -> None:
            while conversation.read():
                conversation.receiver.stopping.wait(SLOW_LOOKUP_MS / 1000)
                conversation.answer()

        url = serve(script=script).url
        first, second = post(transport, url).timing, post(transport, url).timing

        assert first.lookup_ms is not None
        assert first.connect_ms is not None
        assert first.tls_ms is None
        assert second[:3] == (None, None, None)
        assert second.first_byte_ms is not None
        assert second.first_byte_ms >= SLOW_LOOKUP_MS

    def test_timing_of_what_was_not_reached(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """What a failed exchange did not come to has no time."""
        refused = post(make(getaddrinfo=lookup(["10.0.0.1"])), "http://receiver.example/")
        hanging = post(make(), serve(hang).url, timeout=0.3)

        assert (refused.error, refused.timing[1:]) == ("forbidden_address", (None, None, None))
        assert hanging.timing.connect_ms is not None
        assert hanging.timing.first_byte_ms is None

    def test_no_content(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A 204 without a length is complete with its head."""
        reply = post(transport, serve(raw(b"HTTP/1.1 204 No Content\r\n\r\n")).url)

        assert (reply.status, reply.body, reply.error) == (204, b"", "")

    def test_body_that_ends_with_the_connection(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Without a length the body is what comes until the receiver closes."""
        reply = post(transport, serve(raw(b"HTTP/1.1 200 OK\r\n\r\nall of it")).url)

        assert (reply.status, reply.body) == (200, b"all of it")

    def test_chunked_body(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Chunks are put together."""
        head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        reply = post(transport, serve(raw(head + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n")).url)

        assert (reply.status, reply.body) == (200, b"abcdefg")

    def test_repeated_headers_are_joined(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The values of a header that comes twice are joined with a comma (RFC 9110 section 5.2)."""
        head = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\ncontent-length: 0\r\n\r\n"

        assert post(transport, serve(raw(head)).url).headers["x-a"] == "1, 2"

    def test_set_cookie_is_dropped(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Cookies are neither kept on the reply nor sent with the next request."""
        receiver = serve(answer(200, Set_Cookie="session=secret"))
        replies = [post(transport, receiver.url) for _ in range(2)]

        assert all("set-cookie" not in reply.headers for reply in replies)
        assert all("cookie" not in received.headers for received in receiver.requests)

    def test_odd_bytes_in_headers(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Header bytes are read as latin-1, and none that a database refuses is left."""
        head = b"HTTP/1.1 200 OK\r\nx-a: caf\xe9\x01\x7f\r\ncontent-length: 0\r\n\r\n"

        assert post(transport, serve(raw(head)).url).headers["x-a"] == "café\ufffd\ufffd"

    def test_compressed_body_is_kept_as_it_is(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A gzip bomb is not decoded: what is kept is what was on the wire, up to the limit."""
        bomb = gzip.compress(bytes(50_000_000))
        reply = post(transport, serve(answer(200, bomb, Content_Encoding="gzip")).url)

        assert (reply.status, reply.body) == (200, bomb[:1024])

    def test_informational_answers_are_skipped(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The answer is the first that is not 1xx (RFC 9110 section 15.2), and the connection can be used again."""

        def script(conversation: Conversation) -> None:
            while conversation.read():
                early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
                conversation.send(early + b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok")

        receiver = serve(script=script)
        replies = [post(transport, receiver.url) for _ in range(3)]

        assert [(reply.status, reply.body) for reply in replies] == [(201, b"ok")] * 3
        assert "link" not in replies[0].headers

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_redirect_is_not_followed(self, transport: Transport, serve: Callable[..., Receiver], status: int) -> None:
        """A redirect is an answer like any other, and where it leads nothing is sent."""
        elsewhere = serve()
        reply = post(transport, serve(answer(status, Location=elsewhere.url)).url)

        assert (reply.status, reply.headers["location"]) == (status, elsewhere.url)
        assert elsewhere.connections == 0
