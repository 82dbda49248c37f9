"""What every transport must do, as classes of tests for each of them to inherit."""

import contextlib
import errno
import gzip
import json
import logging
import os
import resource
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme
from django.conf import LazySettings

from djwebhooks.testing.receiver import Answer, Conversation, Receiver, answer, answer_all, hang, raw, reset
from djwebhooks.transports.base import Reply, Request, Transport
from tests.keys import YESTERDAY, make_certificate

Make = Callable[..., Transport]


def build_request(url: str, key: object = 1, **changes: Any) -> Request:
    values: dict[str, Any] = {
        "body": b'{"a": 1}',
        "headers": {"content-type": "application/json", "webhook-id": "msg_1"},
        "timeout": 10.0,
        "connect_timeout": 5.0,
        "response_limit": 1024,
    }
    return Request(key=key, url=url, **{**values, **changes})  # type: ignore[arg-type]  # keys are hashable in these tests


def collect(transport: Transport, count: int, timeout: float = 20.0) -> list[Reply]:
    """Return *count* replies; fail when they take longer than *timeout* seconds."""
    replies: list[Reply] = []
    deadline = time.monotonic() + timeout
    while len(replies) < count:
        assert time.monotonic() < deadline, f"only {len(replies)} of {count} replies"
        replies += transport.wait(1.0)
    return replies


def drive(transport: Transport, receiver: Receiver, count: int, timeout: float = 10.0) -> None:
    """Have what is in flight go on, without a reply, until *receiver* has *count* requests."""
    deadline = time.monotonic() + timeout
    while len(receiver.requests) < count:
        assert time.monotonic() < deadline, f"only {len(receiver.requests)} of {count} requests"
        assert transport.wait(0.01) == []


def post(transport: Transport, url: str, **changes: Any) -> Reply:
    transport.submit(build_request(url, **changes))
    [reply] = collect(transport, 1)
    return reply


def lookup(*answers: Sequence[str]) -> Callable[..., list[tuple[Any, ...]]]:
    """Return a ``getaddrinfo`` that gives one of *answers* after the other, and the last for ever."""
    remaining = list(answers)
    lock = threading.Lock()

    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
        with lock:
            addresses = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return [(socket.AF_INET6 if ":" in a else socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    return getaddrinfo


SLOW_LOOKUP_MS = 20


def look_up_slowly(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
    """A ``getaddrinfo`` that takes its time."""
    time.sleep(SLOW_LOOKUP_MS / 1000)
    return lookup(["127.0.0.1"])(host, port)


def fail_lookup(fault: OSError) -> Callable[..., list[tuple[Any, ...]]]:
    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
        raise fault

    return getaddrinfo


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


class NetworkContract(TransportContract):
    """What a transport does on a real network, with receivers that misbehave."""

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

    # What is sent.

    def test_request_arrives_as_it_was_given(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Method, path, query, headers and body bytes are those of the request."""
        receiver = serve()
        post(transport, receiver.url + "/a%20b?x=1&y=%C3%A9", body=b"\x00\xff body")
        [received] = receiver.requests

        assert (received.method, received.path, received.body) == ("POST", "/hook/a%20b?x=1&y=%C3%A9", b"\x00\xff body")
        assert received.headers["webhook-id"] == "msg_1"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["content-length"] == "7"
        assert received.headers["host"] == f"127.0.0.1:{receiver.port}"

    def test_no_compression_is_asked_for(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The receiver is asked not to compress, as bodies are kept as they come."""
        receiver = serve()
        post(transport, receiver.url)

        assert receiver.requests[0].headers["accept-encoding"] == "identity"

    def test_empty_body(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A request without a body says so and is answered."""
        receiver = serve()

        assert post(transport, receiver.url, body=b"").status == 200
        assert receiver.requests[0].body == b""

    @pytest.mark.parametrize("method", ["GET", "OPTIONS"])
    def test_some_methods_have_no_body(self, method: str, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """And the next request is a POST again."""
        receiver = serve()

        assert post(transport, receiver.url, method=method, body=b"").status == 200
        assert post(transport, receiver.url).status == 200
        assert [(received.method, received.body) for received in receiver.requests] == [(method, b""), ("POST", b'{"a": 1}')]
        assert "content-length" not in receiver.requests[0].headers

    def test_environment_is_ignored(
        self, make: Make, serve: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Neither a proxy nor a netrc of the environment gets a request or adds to it."""
        receiver, proxy = serve(), serve()
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        netrc.chmod(0o600)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url_for("127.0.0.1"))
        monkeypatch.setenv("NETRC", str(netrc))

        assert post(make(), receiver.url).status == 200
        assert "authorization" not in receiver.requests[0].headers
        assert proxy.connections == 0

    # What is answered.

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

    # Limits.

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

    # One deadline.

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

    # Faults.

    def test_close_before_the_answer(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A receiver that closes instead of answering has reset the connection."""
        assert post(transport, serve(script=lambda conversation: conversation.read() and None).url).error == "connection_reset"

    @pytest.mark.parametrize(
        "partial",
        [
            b"HTTP/1.1 20",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/pl",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ],
        ids=["status line", "head", "body", "chunk", "chunks"],
    )
    def test_close_in_the_middle(self, transport: Transport, serve: Callable[..., Receiver], partial: bytes) -> None:
        """An answer that breaks off is none, wherever it does."""
        reply = post(transport, serve(raw(partial)).url)

        assert (reply.status, reply.error) == (None, "connection_reset")

    def test_reset(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A RST instead of an answer is told as such."""

        assert post(transport, serve(reset).url).error == "connection_reset"

    def test_early_answer_is_read(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """An answer that comes before the whole body is sent counts (413), though the receiver then closes."""

        def script(conversation: Conversation) -> None:
            conversation.answer(413, b"too large", connection="close")
            # Read what has come, so that closing does not reset the answer away.
            conversation.read()

        assert post(transport, serve(script=script).url, body=bytes(200_000)).status == 413

    def test_early_answer_and_reset(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Whoever answers and resets may have lost the answer by it, and the connection is never used again."""

        def script(conversation: Conversation) -> None:
            conversation.answer(413)
            conversation.reset()

        receiver = serve(script=script)
        replies = [post(transport, receiver.url, body=bytes(20_000_000)) for _ in range(3)]

        assert {(reply.status, reply.error) for reply in replies} <= {(413, ""), (None, "connection_reset")}
        assert receiver.connections == 3

    @pytest.mark.parametrize(
        "junk",
        [
            b"hello there\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nthis is no header\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        ],
        ids=["HTTP/0.9", "TLS", "status", "header", "lengths", "upgrade"],
    )
    def test_answer_that_is_not_http(
        self, transport: Transport, serve: Callable[..., Receiver], junk: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What is not HTTP/1 is an invalid answer, and no receiver can fill the log with it."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(junk)
            conversation.wait_closed()

        with caplog.at_level(logging.WARNING):
            reply = post(transport, serve(script=script).url, timeout=5.0)

        assert (reply.status, reply.error) == (None, "invalid_response")
        assert caplog.records == []

    def test_junk_chunk_size(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A chunk size that is no number is an invalid answer."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n")
            conversation.wait_closed()

        assert post(transport, serve(script=script).url).error == "invalid_response"

    def test_refused_port(self, transport: Transport) -> None:
        """A port that nothing listens on refuses."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        reply = post(transport, f"http://127.0.0.1:{port}/")

        assert (reply.error, reply.status, reply.address) == ("connection_refused", None, "127.0.0.1")
        assert reply.detail

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (socket.gaierror(socket.EAI_NONAME, "failed"), "dns_error"),
            (socket.gaierror(socket.EAI_FAIL, "failed"), "dns_error"),
            (socket.gaierror(socket.EAI_AGAIN, "failed"), "no_dns_server"),
            (OSError(errno.EMFILE, "too many"), "out_of_sockets"),
            (OSError(errno.EBUSY, "busy"), "out_of_sockets"),
        ],
    )
    def test_failed_lookup(self, make: Make, fault: OSError, error: str) -> None:
        """A name that does not exist is the receiver's fault; a DNS server that does not answer and a lack of files are ours."""
        reply = post(make(getaddrinfo=fail_lookup(fault)), "http://receiver.example/")

        assert (reply.error, reply.address) == (error, "")

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://127.0.0.1/",
            "http://",
            "/path",
            "http://127.0.0.1:99999/",
            "http://me@127.0.0.1/",
            "http://[::1/",
            f"http://{'a' * 64}.example/",
        ],
    )
    def test_unusable_url(self, transport: Transport, url: str) -> None:
        """A URL that cannot be sent to is told as such, should one get this far."""
        assert post(transport, url).error == "invalid_url"

    @pytest.mark.parametrize("value", ["secret\r\nx-b: 1", "secret\u2603"])
    def test_unusable_header(
        self, transport: Transport, serve: Callable[..., Receiver], value: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A header that would smuggle another is not sent, and its value is shown nowhere."""
        receiver = serve()
        # The second time on a connection that is open.
        replies = [post(transport, receiver.url), post(transport, receiver.url, headers={"x-a": value})]

        assert [reply.error for reply in replies] == ["", "invalid_url"]
        assert len(receiver.requests) == 1
        assert "secret" not in replies[1].detail + caplog.text

    def test_out_of_sockets(self, transport: Transport, url: str) -> None:
        """Without a file descriptor for a socket the fault is ours, and it passes."""
        assert post(transport, url).status == 200
        with Receiver() as other, no_more_files():
            failed = post(transport, other.url)

        assert failed.error == "out_of_sockets"
        assert post(transport, url).status == 200

    def test_starving_process(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str, tmp_path: Path
    ) -> None:
        """However few files are left, and wherever the want of them shows, what fails for it is our own fault."""
        receiver = serve(tls=make_strict_context(authority, "localhost"))
        certificate = tmp_path / "certificate.pem"
        certificate.write_text(make_certificate(authority))
        made = type(make())
        path = f"{made.__module__}.{made.__qualname__}"
        arguments = [path, receiver.url_for("localhost"), ca_bundle, str(certificate)]
        command = [sys.executable, "-m", "tests.transports.starving", *arguments]
        printed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)

        assert printed["lookups"] == ["out_of_sockets"] * 2
        assert (printed["requests"][0], printed["requests"][-1]) == ("out_of_sockets", "")
        assert set(printed["requests"]) == {"out_of_sockets", ""}

    # Addresses.

    def test_forbidden_address(self, transport: Transport, settings: LazySettings, url: str) -> None:
        """Nothing is sent to a forbidden address, though it is written in the URL."""
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
        reply = post(transport, url)

        assert (reply.error, reply.status) == ("forbidden_address", None)

    @pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"])
    def test_forbidden_address_in_other_words(
        self, transport: Transport, serve: Callable[..., Receiver], settings: LazySettings, host: str
    ) -> None:
        """It is the address that counts, however it is written."""
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
        receiver = serve()

        assert post(transport, receiver.url_for(host)).error == "forbidden_address"
        assert receiver.connections == 0

    @pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"]])
    def test_one_forbidden_address_is_enough(self, make: Make, serve: Callable[..., Receiver], addresses: list[str]) -> None:
        """A name that has a forbidden address beside a good one is refused, and what it means is not told to tenants."""
        receiver = serve()
        reply = post(make(getaddrinfo=lookup(addresses)), receiver.url_for("mixed.example"))

        assert reply.error == "forbidden_address"
        assert not any(address in reply.detail for address in addresses)
        assert receiver.connections == 0

    def test_rebinding(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """The address that is connected to is the one that was checked: one lookup for each connection, each checked."""
        receiver = serve(answer(200, connection="close"))
        # Where a second lookup for the same connection would lead.
        trap = socket.create_server(("127.0.0.2", receiver.port))
        with trap:
            transport = make(getaddrinfo=lookup(["127.0.0.1"], ["127.0.0.2"]))
            replies = [post(transport, receiver.url_for("rebinding.example")) for _ in range(2)]
            trap.setblocking(False)
            with pytest.raises(BlockingIOError):
                trap.accept()

        assert [(reply.status, reply.error, reply.address) for reply in replies] == [
            (200, "", "127.0.0.1"),
            (None, "forbidden_address", ""),
        ]
        assert receiver.requests[0].headers["host"] == f"rebinding.example:{receiver.port}"

    def test_next_address_is_tried(self, make: Make, serve: Callable[..., Receiver], settings: LazySettings) -> None:
        """A name with an address that refuses and one that answers is delivered to."""
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)
        reply = post(make(getaddrinfo=lookup(["127.0.0.3", "127.0.0.1"])), serve().url_for("two.example"))

        assert (reply.status, reply.address) == (200, "127.0.0.1")

    # TLS.

    def test_tls(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str) -> None:
        """A certificate of a trusted authority for the URL's host is accepted, and the connection kept."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        replies = [post(transport, receiver.url_for("receiver.example")) for _ in range(3)]

        assert [(reply.status, reply.address) for reply in replies] == [(200, "127.0.0.1")] * 3
        assert receiver.connections == 1

    def test_tls_of_another_host(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str) -> None:
        """A certificate for another name is refused, and nothing is sent."""
        receiver = serve(tls=make_server_context(authority, "somebody-else.example"))
        reply = post(make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle), receiver.url_for("receiver.example"))

        assert (reply.status, reply.error) == (None, "tls_error")
        assert receiver.requests == []

    def test_tls_of_an_unknown_authority(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA) -> None:
        """A certificate that no known authority signed is refused."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        reply = post(make(getaddrinfo=lookup(["127.0.0.1"])), receiver.url_for("receiver.example"))

        assert (reply.status, reply.error) == (None, "tls_error")
        assert receiver.requests == []

    def test_old_tls(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str) -> None:
        """Nothing older than TLS 1.2 is spoken."""
        context = make_server_context(authority, "receiver.example")
        # Without the lower security level the server itself would refuse, and prove nothing.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        reply = post(make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle), serve(tls=context).url_for("receiver.example"))

        assert reply.error == "tls_error"

    def test_receiver_without_tls(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """https:// to a receiver that does not speak TLS fails as such."""

        def script(conversation: Conversation) -> None:
            conversation.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            conversation.wait_closed()

        receiver = serve(script=script)

        assert post(make(), f"https://127.0.0.1:{receiver.port}/").error == "tls_error"

    # Client certificates.

    def test_certificate_is_shown(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """A receiver that asks for a certificate gets the request's, whatever kind of key it has."""
        receiver = serve(tls=make_strict_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        url = receiver.url_for("receiver.example")

        for pem in (make_certificate(authority), make_certificate(authority, kind=trustme.KeyType.RSA)):
            assert post(transport, url, client_certificate=pem).status == 200

    def test_wrong_or_no_certificate(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """A receiver that refuses the certificate, or the lack of one, is a TLS error, and it gets nothing of the request."""
        receiver = serve(tls=make_strict_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        url = receiver.url_for("receiver.example")
        stranger, expired = make_certificate(trustme.CA()), make_certificate(authority, expires_at=YESTERDAY)
        replies = [post(transport, url, client_certificate=pem) for pem in ("", stranger, expired, "no certificate")]

        assert [(reply.status, reply.error) for reply in replies] == [(None, "tls_error")] * 4
        assert receiver.requests == []

    def test_connections_are_not_shared_between_certificates(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """Two senders at one host are told apart: each request uses a connection that was made with its own certificate."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        url = receiver.url_for("receiver.example")
        ada, bob = make_certificate(authority), make_certificate(authority)
        for pem in (ada, bob, "", ada, bob, ""):
            assert post(transport, url, client_certificate=pem).status == 200

        connections = [received.connection for received in receiver.requests]
        assert connections[:3] == connections[3:] == [1, 2, 3]

    def test_certificate_over_plain_http(self, transport: Transport, url: str) -> None:
        """Without TLS there is nobody to show it to."""
        assert post(transport, url, client_certificate="no certificate").status == 200

    def test_handshake_that_hangs(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """The connect timeout covers the TLS handshake."""
        receiver = serve(script=Conversation.wait_closed)
        reply = post(make(), f"https://127.0.0.1:{receiver.port}/", connect_timeout=0.3)

        assert (reply.error, reply.address) == ("connect_timeout", "127.0.0.1")

    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def ca_bundle(self, authority: trustme.CA, tmp_path: Path) -> str:
        path = tmp_path / "ca.pem"
        authority.cert_pem.write_to_path(path)
        return str(path)

    # Many.

    def test_connection_is_kept(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Requests one after the other to one receiver share a connection, and each tells its address."""
        receiver = serve()
        replies = [post(transport, receiver.url) for _ in range(10)]

        assert receiver.connections == 1
        assert {reply.address for reply in replies} == {"127.0.0.1"}

    def test_connection_that_the_receiver_closed_is_not_used(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A kept connection that has been closed since is found out before anything is sent on it."""
        closed = threading.Semaphore(0)

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.answer()
            conversation.close()
            closed.release()

        receiver = serve(script=script)
        replies = []
        for _ in range(5):
            replies.append(post(transport, receiver.url))
            assert closed.acquire(timeout=10)

        assert [reply.status for reply in replies] == [200] * 5

    def test_answer_that_comes_unasked(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """What a receiver says between two requests is no answer to the second: that one has a connection of its own."""
        rest, said = threading.Event(), threading.Semaphore(0)

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.answer(200)
            assert rest.wait(10)
            conversation.answer(500)
            said.release()
            conversation.wait_closed()

        receiver = serve(script=script)
        first = post(transport, receiver.url)
        rest.set()
        assert said.acquire(timeout=10)
        second = post(transport, receiver.url)

        assert [first.status, second.status] == [200, 200]
        assert receiver.connections == 2

    def test_request_is_sent_once(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A kept connection that dies under a request is told as such: the request may have been read, so nobody repeats it."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.answer()
            conversation.read()

        receiver = serve(script=script)
        replies = [post(transport, receiver.url) for _ in range(2)]

        assert [(reply.status, reply.error) for reply in replies] == [(200, ""), (None, "connection_reset")]
        assert len(receiver.requests) == 2

    def test_connections_are_bounded_over_all_hosts(self, make: Make) -> None:
        """Idle connections to many hosts are together no more than twice the concurrency."""
        open_now: set[int] = set()

        def script(conversation: Conversation) -> None:
            open_now.add(conversation.number)
            try:
                answer_all(conversation)
            finally:
                open_now.discard(conversation.number)

        with Receiver(script=script) as receiver:
            transport = make(concurrency=2, getaddrinfo=lookup(["127.0.0.1"]))
            for number in range(12):
                assert post(transport, receiver.url_for(f"host{number}.example")).status == 200
            while len(open_now) > 4:
                transport.wait(0.01)

            assert receiver.connections == 12

    def test_forked_process_sends_with_its_own(self, transport: Transport, url: str) -> None:
        """A process that was forked from one that sends makes its own connections, and leaves those of the other alone."""
        assert post(transport, url).status == 200
        pid = os.fork()
        if pid == 0:
            try:
                status = post(transport, url).status
                transport.close()
            finally:
                os._exit(0 if status == 200 else 1)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert post(transport, url).status == 200

    def test_many_at_once(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """As many requests as the concurrency allows are in flight together, and a slow receiver delays no other."""
        everybody = threading.Barrier(30)

        def script(conversation: Conversation) -> None:
            while conversation.read():
                everybody.wait(20)
                conversation.answer(202)

        receiver = serve(script=script)
        transport = make(concurrency=30)
        for key in range(30):
            transport.submit(build_request(receiver.url, key=key, timeout=20.0))
        replies = collect(transport, 30)

        assert [reply.status for reply in replies] == [202] * 30

    # Ending.

    def test_abort(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """What is in flight comes back as aborted, and the receiver sees the connections go."""
        gone = threading.Semaphore(0)

        def vanish(conversation: Conversation) -> None:
            hang(conversation)
            gone.release()

        receiver = serve(vanish)
        for key in range(3):
            transport.submit(build_request(receiver.url, key=key))
        drive(transport, receiver, 3)
        transport.abort()
        replies = collect(transport, 3)

        assert {reply.key: reply.error for reply in replies} == dict.fromkeys(range(3), "aborted")
        assert all(gone.acquire(timeout=10) for _ in range(3))

    def test_abort_of_what_waits(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """What was submitted and not yet begun is aborted, too, and never sent."""
        receiver = serve(hang)
        transport = make(concurrency=1)
        for key in range(2):
            transport.submit(build_request(receiver.url, key=key))
        drive(transport, receiver, 1)
        transport.abort()
        replies = collect(transport, 2)
        receiver.answers = [200]

        assert {reply.key: reply.error for reply in replies} == {0: "aborted", 1: "aborted"}
        assert post(transport, receiver.url).status == 200
        assert len(receiver.requests) == 2

    def test_abort_while_connecting(self, transport: Transport) -> None:
        """An attempt to connect is broken off, too, and the transport goes on."""
        with full_listener() as port, Receiver() as receiver:
            transport.submit(build_request(f"http://127.0.0.1:{port}/", key="stuck"))
            transport.wait(0.1)
            transport.abort()
            [reply] = collect(transport, 1)

            assert (reply.key, reply.error) == ("stuck", "aborted")
            assert post(transport, receiver.url).status == 200

    def test_close_leaves_nothing_behind(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """After a close there are no threads and no connections of the transport, whatever was in flight."""
        before = set(threading.enumerate())
        ended = threading.Semaphore(0)

        def script(conversation: Conversation) -> None:
            while conversation.read():
                if len(conversation.receiver.requests) > 5:
                    break
                conversation.answer()
            conversation.wait_closed()
            ended.release()

        with Receiver(script=script) as receiver:
            transport = make()
            for _ in range(5):
                post(transport, receiver.url)
            for key in range(4):
                transport.submit(build_request(receiver.url, key=key))
            drive(transport, receiver, 9)
            transport.close()

            assert all(ended.acquire(timeout=10) for _ in range(receiver.connections))
        assert set(threading.enumerate()) <= before


def make_server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def make_strict_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """The context of a receiver that talks only to those with a certificate of the same authority."""
    context = make_server_context(authority, name)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


@contextlib.contextmanager
def full_listener() -> Iterator[int]:
    """A port on loopback whose listener accepts nothing more, so that connecting to it hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """A process that cannot open another file or socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The standard streams have the numbers below, whatever is closed meanwhile.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
