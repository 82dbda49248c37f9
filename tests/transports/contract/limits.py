"""No receiver gets more read than the limits allow."""

from collections.abc import Callable

import pytest

from djwebhooks.testing.receiver import Conversation, Receiver, answer, raw
from djwebhooks.transports.base import Transport
from tests.transports.contract.base import Loopback
from tests.transports.exchanges import post


class Limits(Loopback):
    """How much is read and kept."""

    def test_endless_body_is_cut(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """No more than the limit is kept of a body, and the rest of it is not waited for."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                conversation.send(bytes(65536))

        reply = post(transport, serve(script=script).url)

        assert (reply.status, reply.body, reply.error) == (200, bytes(1024), "")

    def test_connection_with_unread_rest_is_not_used_again(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """After a body was cut, the next request has a new connection and its own answer."""
        receiver = serve(answer(200, bytes(100_000)))
        replies = [post(transport, receiver.url) for _ in range(3)]

        assert [(reply.status, reply.body) for reply in replies] == [(200, bytes(1024))] * 3
        assert receiver.connections == 3

    def test_body_of_exactly_the_limit(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A body as long as the limit is whole, and its connection good."""
        receiver = serve(answer(200, bytes(1024)))

        assert [len(post(transport, receiver.url).body) for _ in range(2)] == [1024, 1024]
        assert receiver.connections == 1

    def test_body_of_no_interest(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A limit of 0 keeps nothing of a body."""
        reply = post(transport, serve(answer(200, b"text")).url, response_limit=0)

        assert (reply.status, reply.body) == (200, b"")

    def test_headers_are_cut(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Of the headers no more is kept than of a body, save for those that are obeyed."""
        junk = b"".join(b"x-%d: " % number + b"y" * 600 + b"\r\n" for number in range(20))
        obeyed = b"retry-after: 7\r\nretry-after: 8\r\nwebhook-delivery: disable\r\ncontent-length: 0\r\n"
        reply = post(transport, serve(raw(b"HTTP/1.1 503 Busy\r\n" + junk + obeyed + b"\r\n")).url)

        assert reply.status == 503
        assert reply.headers == {"x-0": "y" * 600, "retry-after": "7", "webhook-delivery": "disable"}

    def test_obeyed_header_that_is_endless(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A header that is obeyed does not get round the limit."""
        head = b"HTTP/1.1 503 Busy\r\nretry-after: " + b"1" * 5000 + b"\r\ncontent-length: 0\r\n\r\n"

        assert "retry-after" not in post(transport, serve(raw(head)).url).headers

    @pytest.mark.parametrize(
        "junk",
        [
            b"x-a: b\r\n" * 5000,
            b"x-a: " + b"b" * 1_000_000 + b"\r\n",
            b"x-a: " + b"b" * 20_000 + b"\r\n" + b"x-b: c\r\n" * 90_000,
        ],
        ids=["lines", "long line", "long lines"],
    )
    def test_endless_head(self, transport: Transport, serve: Callable[..., Receiver], junk: bytes) -> None:
        """A head of too many or too long lines is an invalid answer."""
        reply = post(transport, serve(raw(b"HTTP/1.1 200 OK\r\n" + junk + b"\r\n")).url)

        assert (reply.status, reply.error) == (None, "invalid_response")

    def test_endless_informational_answers(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A receiver that only ever answers 1xx is not read for longer than a head may be."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            while True:
                conversation.send(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

        assert post(transport, serve(script=script).url).error == "invalid_response"

    @pytest.mark.parametrize("size", [b"-1", b"1;x=" + b"y" * 100])
    def test_hostile_chunks(self, transport: Transport, serve: Callable[..., Receiver], size: bytes) -> None:
        """Sizes that mean everything, and endless words about each chunk, do not get more read than the limits allow."""
        sent: list[int] = []

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            while True:
                conversation.send((size + b"\r\nz\r\n") * 1000)
                sent.append(1)

        reply = post(transport, serve(script=script).url, response_limit=16_384)

        assert (reply.status, reply.error) == (None, "invalid_response")
        # What the kernel takes off a sender's hands comes on top of what is read.
        assert len(sent) * 1000 * (len(size) + 5) < 50_000_000
