"""The transport over libcurl, and what it relies on there."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pycurl
import pytest
import trustme
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from requests.adapters import DEFAULT_CA_BUNDLE_PATH

from djwebhooks.testing.receiver import Conversation, Receiver, hang
from djwebhooks.transports.base import Transport
from djwebhooks.transports.curl import CurlTransport
from djwebhooks.transports.handles import Connections, Handle
from tests.keys import make_server_context
from tests.transports.contract import NetworkContract
from tests.transports.exchanges import build_request, collect, drive, lookup, post

Answer = Callable[[H2Connection, int], None]


class MultiplexedReceiver:
    """Speaks HTTP/2 over TLS on loopback, and answers each stream in the way of *answer*; a context manager's target."""

    def __init__(self, context: ssl.SSLContext, answer: Answer) -> None:
        context.set_alpn_protocols(["h2"])
        self._context = context
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"https://receiver.example:{self.port}/hook"

    @contextmanager
    def serve(self) -> Iterator["MultiplexedReceiver"]:
        threads = [threading.Thread(target=self._accept, daemon=True)]
        threads[0].start()
        try:
            yield self
        finally:
            self._listener.shutdown(socket.SHUT_RDWR)
            threads[0].join(10)
            self._listener.close()

    def _accept(self) -> None:
        threads = []
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                break
            self.connections += 1
            threads.append(threading.Thread(target=self._converse, args=(sock,), daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join(10)

    def _converse(self, sock: socket.socket) -> None:
        # A sender may go away at any time.
        with suppress(OSError), self._context.wrap_socket(sock, server_side=True) as secured:
            connection = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
            connection.initiate_connection()
            secured.sendall(connection.data_to_send())
            while data := secured.recv(65536):
                for event in connection.receive_data(data):
                    self._see(connection, event)
                secured.sendall(connection.data_to_send())

    def _see(self, connection: H2Connection, event: object) -> None:
        if isinstance(event, RequestReceived):
            self.heads.append(dict(event.headers))
        elif isinstance(event, DataReceived):
            self.bodies.append(event.data)
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self._answer(connection, event.stream_id)


def answer_ok(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "103"), ("link", "</x>")])
    connection.send_headers(stream, [(":status", "202"), ("x-a", b"caf\xe9"), ("x-a", "b"), ("set-cookie", "c=d")])
    connection.send_data(stream, b"ok", end_stream=True)


def reset_stream(connection: H2Connection, stream: int) -> None:
    connection.reset_stream(stream, error_code=2)


def send_much(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "200")])
    for _ in range(4):
        connection.send_data(stream, bytes(8192))


class TestCurlTransport(NetworkContract):
    def build(self, **options: Any) -> Transport:
        return CurlTransport(**options)

    @pytest.fixture
    def multiplexed(
        self, make: Callable[..., Transport], authority: trustme.CA, ca_bundle: str
    ) -> Iterator[Callable[[Answer], tuple[Transport, MultiplexedReceiver]]]:
        stacks = []

        def multiplexed(answer: Answer) -> tuple[Transport, MultiplexedReceiver]:
            stacks.append(MultiplexedReceiver(make_server_context(authority, "receiver.example"), answer).serve())
            receiver = stacks[-1].__enter__()
            return make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle), receiver

        yield multiplexed
        for stack in stacks:
            stack.__exit__(None, None, None)

    def test_http_2(self, multiplexed: Callable[[Answer], tuple[Transport, MultiplexedReceiver]]) -> None:
        """Where a receiver speaks HTTP/2 it is spoken, with the same request and the same answer."""
        transport, receiver = multiplexed(answer_ok)
        reply = post(transport, receiver.url)
        [head] = receiver.heads

        assert (reply.status, reply.body, reply.address) == (202, b"ok", "127.0.0.1")
        assert reply.headers == {"x-a": "café, b"}
        assert (head[":method"], head[":path"], head["webhook-id"]) == ("POST", "/hook", "msg_1")
        assert not {"accept", "user-agent", "expect", "cookie"} & head.keys()
        assert receiver.bodies == [b'{"a": 1}']
        transport.close()

    def test_streams_share_a_connection(self, multiplexed: Callable[[Answer], tuple[Transport, MultiplexedReceiver]]) -> None:
        """Requests that are in flight together go over the connection that there is."""
        transport, receiver = multiplexed(answer_ok)
        assert post(transport, receiver.url).status == 202
        for key in range(50):
            transport.submit(build_request(receiver.url, key=key))
        replies = collect(transport, 50)

        assert [reply.status for reply in replies] == [202] * 50
        assert receiver.connections == 1
        transport.close()

    def test_stream_that_is_reset(self, multiplexed: Callable[[Answer], tuple[Transport, MultiplexedReceiver]]) -> None:
        """A stream that a receiver resets is one attempt that failed, and not sent again."""
        transport, receiver = multiplexed(reset_stream)
        reply = post(transport, receiver.url)

        assert (reply.status, reply.error) == (None, "connection_reset")
        assert len(receiver.heads) == 1
        transport.close()

    def test_stream_that_is_cut(self, multiplexed: Callable[[Answer], tuple[Transport, MultiplexedReceiver]]) -> None:
        """An answer that is longer than the limit is cut, and the next request is answered all the same."""
        transport, receiver = multiplexed(send_much)
        replies = [post(transport, receiver.url) for _ in range(2)]

        assert [(reply.status, reply.body) for reply in replies] == [(200, bytes(1024))] * 2
        transport.close()

    def test_lookups_are_the_only_threads(self, make: Callable[..., Transport]) -> None:
        """However many requests are in flight, there is no thread for any of them once the name is known."""
        before = set(threading.enumerate())
        with Receiver(hang) as receiver:
            transport = make(getaddrinfo=lookup(["127.0.0.1"]))
            for key in range(40):
                transport.submit(build_request(receiver.url_for("receiver.example"), key=key))
            drive(transport, receiver, 40)
            added = {thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("djwebhooks")}
            transport.close()

        assert added == {"djwebhooks-lookup"}

    def test_lookup_answers_those_only_who_still_wait(self, make: Callable[..., Transport]) -> None:
        """A lookup that ends after its request was given up on harms nobody, whoever has its handle by then."""
        release = threading.Event()

        def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
            assert host != "slow.example" or release.wait(10)
            return lookup(["127.0.0.1"])(host, port)

        with Receiver() as receiver:
            transport = make(getaddrinfo=getaddrinfo)
            slow = post(transport, receiver.url_for("slow.example"), connect_timeout=0.05)
            release.set()
            replies = [post(transport, receiver.url_for("fast.example")) for _ in range(3)]
            assert transport.wait(0.05) == []

            assert slow.error == "connect_timeout"
            assert [reply.status for reply in replies] == [200] * 3
            assert len(receiver.requests) == 3

    def test_close_does_not_wait_for_a_lookup(self, make: Callable[..., Transport]) -> None:
        """A lookup that hangs does not hold up the end; its thread ends with it, and rings at no closed door."""
        begun, release = threading.Event(), threading.Event()

        def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
            begun.set()
            release.wait(30)
            return lookup(["127.0.0.1"])(host, port)

        transport = make(getaddrinfo=getaddrinfo)
        transport.submit(build_request("http://slow.example/"))
        while not begun.is_set():
            transport.wait(0.01)
        transport.close()
        threads = [thread for thread in threading.enumerate() if thread.name == "djwebhooks-lookup"]
        release.set()
        for thread in threads:
            thread.join(10)

        assert [thread.is_alive() for thread in threads] == [False]

    def test_answer_that_says_two_ways_where_it_ends(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """After an answer with a length and chunks nothing is sent on its connection, even at once."""

        def script(conversation: Conversation) -> None:
            while conversation.read():
                conversation.send(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
                )

        receiver = serve(script=script)
        replies = [post(transport, receiver.url) for _ in range(3)]

        assert [(reply.status, reply.body) for reply in replies] == [(200, b"ok")] * 3
        assert receiver.connections == 3


def test_what_libcurl_lacks_is_our_own_fault(caplog: pytest.LogCaptureFixture) -> None:
    """When libcurl fails for a reason of its own before there is a connection, that is logged and says nothing of the URL."""
    handle = Handle(DEFAULT_CA_BUNDLE_PATH, Connections())
    handle.prepare(build_request("http://receiver.example/", key="a"), time.monotonic())
    handle.begin()
    reply = handle.read_result(pycurl.E_OUT_OF_MEMORY, "Out of memory")
    handle.close()

    assert reply is not None
    assert reply.error == "internal_error"
    assert [record.getMessage() for record in caplog.records] == ["The request 'a' failed unexpectedly: Out of memory"]
