"""The transport over requests, and what it relies on in urllib3."""

import inspect
import socket
import threading
from collections.abc import Callable
from http.client import HTTPResponse
from typing import Any

import pytest
import trustme
from requests.adapters import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.connection import is_connection_dropped

from djwebhooks.testing.receiver import Conversation, Receiver
from djwebhooks.transports.base import Transport
from djwebhooks.transports.faults import ExchangeFailed
from djwebhooks.transports.guarded import (
    IDLE_SECONDS,
    Exchange,
    GuardedAdapter,
    IdleConnections,
    Response,
    current,
)
from djwebhooks.transports.requests import FIRST_THREADS, RequestsTransport
from tests.keys import make_certificate
from tests.transports.contract import NetworkContract
from tests.transports.exchanges import build_request, collect, drive, lookup, post


def find_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "djwebhooks-post"}


class TestRequestsTransport(NetworkContract):
    def build(self, **options: Any) -> Transport:
        return RequestsTransport(**options)

    def test_no_thread_before_the_first_request(self) -> None:
        """A transport that only exists has no threads, so that a process may fork."""
        before = threading.active_count()
        RequestsTransport()

        assert threading.active_count() == before

    def test_threads_are_no_more_than_requests(self, transport: Transport, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Requests one after the other need one thread, unless that is kept from running."""
        monkeypatch.setattr("djwebhooks.transports.requests.PATIENCE", 60.0)
        others = find_threads()
        for _ in range(10):
            post(transport, url)

        assert len(find_threads() - others) == 1

    def test_concurrency_bounds_threads(self, make: Callable[..., Transport], serve: Callable[..., Receiver]) -> None:
        """However many requests wait, there are no more threads than the concurrency says."""
        hold = threading.Event()

        def script(conversation: Conversation) -> None:
            while conversation.read():
                hold.wait(20)
                conversation.answer()

        receiver = serve(script=script)
        others = find_threads()
        concurrency = 2 * FIRST_THREADS
        transport = make(concurrency=concurrency)
        for key in range(2 * concurrency):
            transport.submit(build_request(receiver.url, key=key, timeout=20.0))
        while len(receiver.requests) < concurrency:
            assert transport.wait(0.05) == []
        for _ in range(5):
            assert transport.wait(0.03) == []

        assert len(find_threads() - others) == concurrency
        hold.set()
        assert len(collect(transport, 2 * concurrency)) == 2 * concurrency

    def test_lookups_that_hang_cost_nobody_an_answer(self, make: Callable[..., Transport]) -> None:
        """With every thread in a lookup that hangs, later requests are answered as our own fault, not left waiting."""
        release = threading.Event()

        def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
            release.wait(30)
            return lookup(["127.0.0.1"])(host, port)

        transport = make(getaddrinfo=getaddrinfo, concurrency=2)
        try:
            # Threads may begin late, but there are none for those that come last.
            errors = [post(transport, f"http://host{n}.example/", timeout=15.0, connect_timeout=0.1).error for n in range(4)]
            errors += [post(transport, f"http://host{n}.example/", timeout=0.2).error for n in range(2)]
        finally:
            release.set()

        assert errors == ["connect_timeout"] * 4 + ["out_of_sockets"] * 2

    def test_close_does_not_wait_for_a_lookup(self, make: Callable[..., Transport]) -> None:
        """A lookup that hangs does not hold up the end; its thread ends with it, without connecting."""
        begun, release = threading.Event(), threading.Event()

        def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
            begun.set()
            release.wait(30)
            return lookup(["127.0.0.1"])(host, port)

        others = find_threads()
        with Receiver() as receiver:
            transport = make(getaddrinfo=getaddrinfo)
            transport.submit(build_request(receiver.url_for("slow.example")))
            assert begun.wait(10)
            transport.close()
            threads = find_threads() - others
            release.set()
            for thread in threads:
                thread.join(10)

            assert [thread.is_alive() for thread in threads] == [False]
            assert receiver.connections == 0

    def test_who_is_given_up_on_is_late_and_not_broken_off(
        self, make: Callable[..., Transport], serve: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its thread, which is woken by that, may be the first to answer, and knows only that its socket was shut down."""

        def read_and_hang(conversation: Conversation) -> None:
            conversation.read()
            conversation.wait_closed()

        receiver, transport = serve(script=read_and_hang), make()
        for key in range(32):
            transport.submit(build_request(receiver.url, key=key, timeout=300.0))
        drive(transport, receiver, 32)
        monkeypatch.setattr("djwebhooks.transports.requests.GRACE", -300.0)

        assert {reply.error for reply in collect(transport, 32)} == {"timeout"}

    def test_no_thread_can_be_started(self, transport: Transport, url: str) -> None:
        """A machine that gives no thread is our own fault, and it passes."""
        before = threading.stack_size(2**46)
        try:
            failed = post(transport, url, timeout=0.2)
        finally:
            threading.stack_size(before)

        assert failed.error == "out_of_sockets"
        assert post(transport, url).status == 200

    def test_unexpected_fault_is_a_reply(self, make: Callable[..., Transport], caplog: pytest.LogCaptureFixture) -> None:
        """A fault that nobody thought of is logged and answered as our own, and the thread goes on."""

        def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
            raise ZeroDivisionError("unexpected")

        transport = make(getaddrinfo=getaddrinfo)
        errors = [post(transport, "http://receiver.example/", key=key).error for key in ("a", "b")]

        assert errors == ["internal_error"] * 2
        assert [record.getMessage() for record in caplog.records] == [
            "The request 'a' failed unexpectedly.",
            "The request 'b' failed unexpectedly.",
        ]


def test_certificates_that_are_ready_are_bounded() -> None:
    """However many targets have one, only the last few are in memory, and the same one is not made ready twice."""
    authority = trustme.CA()
    adapter = GuardedAdapter(1, DEFAULT_CA_BUNDLE_PATH, certificates=2)
    pems = [make_certificate(authority) for _ in range(3)]
    pools = [adapter.find_pool("https", "receiver.example", 443, pem) for pem in (*pems, pems[2], pems[1], pems[0])]

    assert len(adapter._contexts) == 2
    assert pools[3:5] == [pools[2], pools[1]]
    assert pools[5] is not pools[0]


def test_exchange_without_a_connection_is_broken_off() -> None:
    """An exchange whose socket is not connected yet is broken off at its next step."""
    exchange = Exchange(build_request("http://receiver.example/"), IdleConnections(limit=1), lookup(["127.0.0.1"]))
    with socket.socket() as sock:
        exchange.limit(sock)
        exchange.break_off()
        with pytest.raises(ExchangeFailed) as caught:
            exchange.limit(sock)

    assert caught.value.error == "aborted"


def test_answer_that_is_thrown_away_later() -> None:
    """An answer that was left in the middle, and is closed while its thread makes another request, does not touch that one."""
    first, second = (Exchange(build_request("http://receiver.example/"), IdleConnections(limit=1), lookup([])) for _ in range(2))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        current.exchange = first
        response = Response(ours, method="POST")
        current.exchange = second
        response.close()

    assert not first.is_complete
    assert not second.is_complete


def test_idle_connections_age() -> None:
    """A connection that is not in the store, or was swept from it, cannot be claimed."""
    idle = IdleConnections(limit=1)
    first, second = HTTPConnection("127.0.0.1"), HTTPConnection("127.0.0.1")
    assert not idle.claim(first)
    idle.add(first)
    idle.add(second)

    assert [idle.claim(first), idle.claim(second), idle.claim(second)] == [False, True, False]
    assert IDLE_SECONDS < 5


def test_what_is_relied_on_in_urllib3() -> None:
    """The private names that the guard hangs on are where they were: without them no address would be checked.

    Nor would be seen what a receiver sends after the end of its answer.
    """
    assert "self._new_conn()" in inspect.getsource(HTTPConnection.connect)
    assert "self._new_conn()" in inspect.getsource(HTTPSConnection.connect)
    assert "_dns_host" in inspect.getsource(HTTPConnection.host.fset)
    assert "self.ConnectionCls(" in inspect.getsource(HTTPConnectionPool._new_conn)
    assert "is_connection_dropped(conn)" in inspect.getsource(HTTPConnectionPool._get_conn)
    assert "conn.is_connected" in inspect.getsource(is_connection_dropped)
    assert "_put_conn" in vars(HTTPConnectionPool)
    assert "self._close_conn()" in inspect.getsource(HTTPResponse.read)
    assert "self.pool_classes_by_scheme[scheme]" in inspect.getsource(PoolManager._new_pool)
