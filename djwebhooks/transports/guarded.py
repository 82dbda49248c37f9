"""Connections that go to checked addresses only, and keep to one deadline for all they do."""

import http
import http.client
import io
import socket
import ssl
import threading
import time
from collections import OrderedDict
from email.errors import (
    InvalidMultipartContentTransferEncodingDefect,
    MultipartInvariantViolationDefect,
    NoBoundaryInMultipartDefect,
    StartBoundaryNotFoundDefect,
)
from typing import Any

from django.views.decorators.debug import sensitive_variables
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_ import create_urllib3_context

from djwebhooks import certificates
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.network import GetAddrInfo
from djwebhooks.retry import OUR_OWN_FAULTS
from djwebhooks.transports import faults
from djwebhooks.transports.answers import CHUNKING_FACTOR, HEAD_LIMIT, check_framing
from djwebhooks.transports.base import IDLE_SECONDS, UNTIMED, Reply, Request, Timing, count_ms
from djwebhooks.transports.faults import ExchangeFailed
from djwebhooks.transports.lookups import find_addresses

#: How many origins have a pool of connections.
POOLS = 256
#: How many client certificates are ready to be shown; each takes some 700 KiB, with all authorities that are trusted.
CERTIFICATES = 64
#: What the parser says of a body that it is not given, or of how headers describe it.
MULTIPART_DEFECTS = (
    InvalidMultipartContentTransferEncodingDefect,
    MultipartInvariantViolationDefect,
    NoBoundaryInMultipartDefect,
    StartBoundaryNotFoundDefect,
)


class ReceivedTooMuch(http.client.HTTPException):
    """The receiver sends more than any answer needs."""


class IdleConnections:
    """Connections that wait in pools to be used again: all of them together few and young."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._since: OrderedDict[HTTPConnection, float] = OrderedDict()

    def add(self, connection: HTTPConnection) -> None:
        with self._lock:
            self._since[connection] = time.monotonic()
        self.sweep()

    def claim(self, connection: HTTPConnection) -> bool:
        """Take *connection* out to use it; False if it was swept, or is too old to be sure of."""
        with self._lock:
            return self._since.pop(connection, 0.0) > time.monotonic() - IDLE_SECONDS

    def sweep(self, limit: int | None = None) -> None:
        """Close the connections that are too old, and the oldest beyond *limit*."""
        limit = self._limit if limit is None else limit
        oldest_good = time.monotonic() - IDLE_SECONDS
        # Closed under the lock, as whoever fails to claim one opens it anew.
        with self._lock:
            while self._since:
                connection, since = next(iter(self._since.items()))
                if since > oldest_good and len(self._since) <= limit:
                    return
                del self._since[connection]
                connection.close()


class Exchange:
    """One request on its way, as the sockets of the thread that makes it know it."""

    def __init__(self, request: Request, idle: IdleConnections, getaddrinfo: GetAddrInfo) -> None:
        self.request = request
        self.idle = idle
        self.getaddrinfo = getaddrinfo
        self.submitted_at = time.monotonic()
        self.started_at: float | None = None
        self.is_connecting = False
        self.is_aborted = False
        #: Whether the connection must not be used again.
        self.is_spoilt = False
        self.has_head = False
        self.has_ended = False
        #: Whether the answer was read to its end, so that nothing more is received.
        self.is_complete = False
        self.received = 0
        self.receive_limit = HEAD_LIMIT
        self.status: int | None = None
        self.address = ""
        self.timing = UNTIMED
        self.sent_at: float | None = None
        self._connected_at = 0.0
        self._socket: socket.socket | None = None

    @property
    def deadline(self) -> float:
        """When the present phase must be over, on the monotonic clock."""
        seconds = self.request.timeout
        if self.is_connecting:
            seconds = min(seconds, self.request.connect_timeout)
        return (self.started_at or self.submitted_at) + seconds

    def limit(self, sock: socket.socket, share: int = 1) -> None:
        """Give *sock* the time that is left, or one of so many shares of it, before it blocks."""
        self._socket = sock
        if self.is_aborted:
            raise self.aborted()
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise self.timed_out()
        sock.settimeout(remaining / share)

    def count_received(self, count: int) -> None:
        if count:
            if not self.received and self.sent_at is not None:
                self.timing = self.timing._replace(first_byte_ms=count_ms(self.sent_at, time.monotonic()))
            self.received += count
            if self.received > self.receive_limit:
                raise ReceivedTooMuch(f"more than {self.receive_limit} bytes")
            return
        self.has_ended = True
        if self.is_aborted:
            raise self.aborted()
        if not self.has_head:
            raise faults.closed_early()

    def read_head(self, status: int) -> None:
        self.has_head = True
        self.status = status
        self.receive_limit = self.received + CHUNKING_FACTOR * self.request.response_limit + HEAD_LIMIT

    def break_off(self) -> None:
        """End the exchange from another thread, by shutting its socket down."""
        self.is_aborted = True
        if self._socket is not None:
            try:
                # Not SSLSocket's own shutdown: it changes an object that its thread is using.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
            except OSError:
                # It is closed, or not connected yet.
                return

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to one of the checked addresses of *host*; raise ExchangeFailed otherwise."""
        failures = []
        begun = time.monotonic()
        addresses = find_addresses(host, port, self.getaddrinfo)
        looked_up = time.monotonic()
        self.timing = Timing(lookup_ms=count_ms(begun, looked_up))
        for number, address in enumerate(addresses):
            try:
                sock = self.connect_to(address, port, share=len(addresses) - number)
            except OSError as exc:
                failures.append(self.blame(exc))
            else:
                self._connected_at = time.monotonic()
                self.timing = self.timing._replace(connect_ms=count_ms(looked_up, self._connected_at))
                return sock
        # What a receiver does says more than that this machine has no IPv6.
        raise next((failure for failure in failures if failure.error not in OUR_OWN_FAULTS), failures[0])

    def note_handshake(self) -> None:
        self.timing = self.timing._replace(tls_ms=count_ms(self._connected_at, time.monotonic()))

    def connect_to(self, address: str, port: int, share: int) -> socket.socket:
        sock = TimedSocket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.address = address
            # An address that does not answer leaves time for the others.
            self.limit(sock, share)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect((address, port))
        except BaseException:
            sock.close()
            raise
        return sock

    def blame(self, exc: OSError) -> ExchangeFailed:
        """Return *exc* in the words of Reply."""
        if self.is_aborted:
            return self.aborted()
        if isinstance(exc, TimeoutError):
            return self.timed_out()
        if isinstance(exc, ssl.SSLError):
            return faults.tls_failed(str(getattr(exc, "verify_message", "") or exc.reason or exc))
        return faults.name_os_error(exc)

    def timed_out(self) -> ExchangeFailed:
        return faults.timed_out(self.request, is_connecting=self.is_connecting)

    def aborted(self) -> ExchangeFailed:
        return faults.aborted()

    def fail(self, failure: ExchangeFailed) -> Reply:
        detail = faults.add_status(failure.detail, self.status)
        return Reply(
            self.request.key,
            error=failure.error,
            detail=detail,
            duration=self.duration,
            address=self.address,
            timing=self.timing,
        )

    @property
    def duration(self) -> float:
        return time.monotonic() - (self.started_at or self.submitted_at)


class Current(threading.local):
    """The exchange that this thread makes."""

    exchange: Exchange


current = Current()


class TimedSocket(socket.socket):
    """A socket that keeps to the deadline of its thread's exchange, however slowly bytes trickle."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        exchange = current.exchange
        if exchange.is_complete:
            return 0
        exchange.limit(self)
        try:
            count = super().recv_into(*args, **kwargs)
        except OSError as exc:
            raise exchange.blame(exc) from exc
        exchange.count_received(count)
        return count

    def send(self, *args: Any) -> int:
        current.exchange.limit(self)
        return super().send(*args)

    def sendall(self, *args: Any) -> None:
        exchange = current.exchange
        exchange.limit(self)
        if exchange.sent_at is None:
            exchange.sent_at = time.monotonic()
        try:
            super().sendall(*args)
        except ConnectionError:
            # The receiver may have answered before it closed: urllib3 goes on to read.
            exchange.is_spoilt = True
            raise
        except OSError as exc:
            raise exchange.blame(exc) from exc


class TimedTLSSocket(TimedSocket, ssl.SSLSocket):
    """A ``TimedSocket`` whose handshake has the exchange's deadline too."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            self._shake_hands(block)
        except ExchangeFailed:
            # SSLSocket closes itself after an OSError only.
            self.close()
            raise

    def _shake_hands(self, block: bool) -> None:
        exchange = current.exchange
        exchange.limit(self)
        try:
            super().do_handshake(block)
        except OSError as exc:
            raise exchange.blame(exc) from exc


def has_strays(head: http.client.HTTPMessage) -> bool:
    """Whether a line of *head* is no header. After it the parser drops the rest, and with it where the body ends."""
    if any(not isinstance(defect, MULTIPART_DEFECTS) for defect in head.defects):
        return True
    # As in mail, the parser has nothing against "From " as the first line or the last.
    return head.get_unixfrom() is not None or str(head.get_payload()).startswith("From ")


class Lines(io.BufferedReader):
    """What comes from a receiver. A line with a carriage return in it would be two to the parser of heads, and is refused."""

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if b"\r" in line.removesuffix(b"\r\n"):
            raise http.client.HTTPException("a carriage return in a line")
        return line


class Response(http.client.HTTPResponse):
    """The final answer of an exchange, which is refused unless its head says clearly where the body ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = Lines(self.fp.detach())
        self.exchange = current.exchange

    def begin(self) -> None:
        """Read the head of the final answer. The standard library takes every 1xx but 100 for it (RFC 9110 section 15.2)."""
        super().begin()
        while 100 <= self.status < 200:
            if self.status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                raise http.client.HTTPException("a protocol that nobody asked for")
            self.headers = self.msg = None  # type: ignore[assignment]  # as http.client has them before a head is read
            super().begin()
        if has_strays(self.msg):
            raise http.client.HTTPException("a malformed header line")
        self.msg.defects.clear()  # urllib3 would log what is left of them.
        self.check_framing()
        self.exchange.read_head(self.status)

    def check_framing(self) -> None:
        """Refuse a head that does not say clearly where the body ends: the standard library guesses (RFC 9112 section 6.3)."""
        try:
            is_clear = check_framing(self.msg.get_all("transfer-encoding", []), self.msg.get_all("content-length", []))
        except ValueError as exc:
            raise http.client.HTTPException(str(exc)) from exc
        self.exchange.is_spoilt |= not is_clear

    def _close_conn(self) -> None:
        """Let go of the socket's buffer at the end of the answer; what is left in it is no part of the next one."""
        # Not when it is thrown away in the middle, by whichever thread comes past.
        if getattr(current, "exchange", None) is self.exchange:
            self.exchange.is_complete = True
            self.exchange.is_spoilt |= bool(self.fp.peek())
        super()._close_conn()  # type: ignore[misc]  # typeshed does not know it


class GuardedConnection(HTTPConnection):
    """Connects to the address that was checked, under the name that was asked for."""

    response_class = Response
    address = ""

    def _new_conn(self) -> socket.socket:
        exchange = current.exchange
        sock = exchange.connect(self._dns_host.strip("[]"), self.port)
        self.address = exchange.address
        return sock

    def connect(self) -> None:
        exchange = current.exchange
        exchange.is_connecting = True
        super().connect()
        exchange.is_connecting = False
        if isinstance(self.sock, ssl.SSLSocket):
            exchange.note_handshake()

    @property
    def is_connected(self) -> bool:
        # Only the pool asks, when it is about to use the connection again.
        exchange = current.exchange
        if exchange.idle.claim(self) and super().is_connected:
            exchange.address = self.address
            return True
        return False


class GuardedTLSConnection(GuardedConnection, HTTPSConnection):
    """The same over TLS."""


class GuardedPool(HTTPConnectionPool):
    """Guarded connections to one origin, of which one that was left with something to read is closed, and not kept."""

    ConnectionCls = GuardedConnection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and not conn.is_closed:
            if current.exchange.is_spoilt or holds_more(conn.sock):
                conn.close()
            else:
                current.exchange.idle.add(conn)
        super()._put_conn(conn)


def holds_more(sock: socket.socket) -> bool:
    """Whether TLS has decrypted more than was read."""
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


class GuardedTLSPool(GuardedPool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = GuardedTLSConnection


class GuardedAdapter(HTTPAdapter):
    """The pools of requests with guarded connections. Proxies, netrc, cookies and redirects are its Session's, and unused."""

    def __init__(self, maxsize: int, ca_bundle: str, *, certificates: int = CERTIFICATES) -> None:
        self.ca_bundle = ca_bundle
        self._most_contexts = certificates
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(pool_connections=POOLS, pool_maxsize=maxsize)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=make_tls_context(self.ca_bundle), **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": GuardedPool, "https": GuardedTLSPool}

    @sensitive_variables("certificate")
    def find_pool(self, scheme: str, host: str, port: int | None, certificate: str = "") -> HTTPConnectionPool:
        """Return the connections to an origin that were made with this client certificate, or without one."""
        # urllib3 shares no connections between contexts: they are part of a pool's key.
        own = {"ssl_context": self._find_context(certificate)} if certificate and scheme == "https" else None
        pool: HTTPConnectionPool = self.poolmanager.connection_from_host(host, port=port, scheme=scheme, pool_kwargs=own)
        return pool

    @sensitive_variables()
    def _find_context(self, certificate: str) -> ssl.SSLContext:
        with self._lock:
            try:
                context = self._contexts.get(certificate) or make_tls_context(self.ca_bundle, certificate)
            except (InvalidTarget, ssl.SSLError):
                raise faults.useless_certificate() from None
            self._contexts[certificate] = context
            self._contexts.move_to_end(certificate)
            if len(self._contexts) > self._most_contexts:
                self._contexts.popitem(last=False)
        return context


@sensitive_variables("certificate")
def make_tls_context(ca_bundle: str, certificate: str = "") -> ssl.SSLContext:
    context = create_urllib3_context(ssl_minimum_version=ssl.TLSVersion.TLSv1_2)
    context.load_verify_locations(ca_bundle)
    context.sslsocket_class = TimedTLSSocket
    if certificate:
        certificates.read(certificate).load_into(context)
    return context
