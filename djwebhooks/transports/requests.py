"""Send requests with threads that do nothing else, over the connection pools of requests."""

import http.client
import logging
import os
import socket
import threading
import time
from functools import lru_cache
from queue import SimpleQueue
from urllib.parse import urlsplit

import urllib3.exceptions
from requests.adapters import DEFAULT_CA_BUNDLE_PATH
from urllib3 import BaseHTTPResponse

from djwebhooks.hidden import HiddenBytes
from djwebhooks.network import GetAddrInfo
from djwebhooks.transports import faults
from djwebhooks.transports.answers import keep_headers
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.faults import ExchangeFailed
from djwebhooks.transports.files import fit_concurrency
from djwebhooks.transports.guarded import Exchange, GuardedAdapter, IdleConnections, current
from djwebhooks.transports.mailbox import Mailbox

logger = logging.getLogger(__name__)

#: Requests in flight, if the process may have the files for it: half of them may be one target's, which is 200 a second if it
#: takes a second and a half. And connections that are kept for later ones.
CONCURRENCY, IDLE = 704, 192
#: Threads to begin with. Fast receivers need no more, and each further one only contends for the interpreter lock.
FIRST_THREADS = 8
#: Seconds that a request may wait for a thread before there are more threads.
PATIENCE = 0.02
#: Above this share of a processor, more threads would not send faster.
BUSY_SHARE = 0.7
#: Seconds past its deadline after which a request is given up on whose thread does not come back.
GRACE = 0.1
#: Seconds for all threads together to end in.
CLOSE_TIMEOUT = 1.0

#: Bytes of a body that are read at once: until they are put together, each may be an object of its own.
READ_SIZE = 2048
#: How many times at most that is done, as far as it is in our hands.
MOST_READS = 256


@lru_cache(maxsize=1024)
def split_url(url: str) -> tuple[str, str, int | None, str]:
    """Return the scheme, host, port and request target of *url*. Raises ValueError if it is no http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("no http:// or https:// URL with a host and without a user")
    query = f"?{parts.query}" if parts.query else ""
    return parts.scheme, parts.hostname, parts.port, (parts.path or "/") + query


def read_body(response: BaseHTTPResponse, limit: int) -> bytes:
    """Return the body as it is on the wire, cut at *limit* bytes, and let go of the connection."""
    # Hidden, as it may be an access token.
    body = HiddenBytes()
    # With a large limit in larger parts, as each is put together with all before it.
    size = max(READ_SIZE, limit // MOST_READS)
    try:
        # The last read tells whether the body ended where its head said.
        while data := HiddenBytes(response.read(min(max(limit - len(body), 1), size))):
            body = HiddenBytes(body + data)
            if len(body) >= limit or response.closed:
                break
    finally:
        if not response.closed:
            # What is left unread would be taken for the next answer.
            response.close()
            response.release_conn()
    return HiddenBytes(body[:limit])


def make_exchange(exchange: Exchange, adapter: GuardedAdapter) -> Reply:
    """Make the request of *exchange* in this thread, and return what came of it, whatever that is."""
    current.exchange = exchange
    try:
        return post(exchange, adapter)
    except ExchangeFailed as exc:
        return exchange.fail(exc)
    except (ValueError, http.client.HTTPException, urllib3.exceptions.HTTPError) as exc:
        return exchange.fail(describe_fault(exchange, exc))
    except Exception:
        logger.exception("The request %r failed unexpectedly.", exchange.request.key)
        return exchange.fail(faults.unexpected())


def describe_fault(exchange: Exchange, exc: Exception) -> ExchangeFailed:
    if not exchange.received:
        return faults.unsendable()
    return faults.closed_early() if exchange.has_ended else faults.not_http(describe_cause(exc))


def describe_cause(exc: Exception) -> str:
    """Return what the parser says, without what urllib3 wraps it in."""
    return str(next((part for part in exc.args if isinstance(part, Exception)), exc))


def post(exchange: Exchange, adapter: GuardedAdapter) -> Reply:
    request = exchange.request
    scheme, host, port, target = split_url(request.url)
    response = adapter.find_pool(scheme, host, port, request.client_certificate).urlopen(
        request.method,
        target,
        body=request.body if request.method == "POST" else None,
        headers={"accept-encoding": "identity", **request.headers},
        preload_content=False,
        decode_content=False,
        redirect=False,
        retries=False,
        # The sockets know better: they keep to what is left of the deadline.
        timeout=None,
    )
    return Reply(
        request.key,
        status=response.status,
        headers=keep_headers(response.headers.items(), request.response_limit),
        body=read_body(response, request.response_limit),
        duration=exchange.duration,
        address=exchange.address,
        timing=exchange.timing,
    )


class RequestsTransport:
    """Sends with up to *concurrency* threads; there are only as many as have something to wait for.

    *ca_bundle* is the path of the certificates to trust, by default those that requests trusts. *getaddrinfo* looks names up.
    Threads and connections are made at the first ``submit``, so that a process may fork before it.
    """

    def __init__(
        self, concurrency: int | None = None, *, ca_bundle: str | None = None, getaddrinfo: GetAddrInfo = socket.getaddrinfo
    ) -> None:
        self.concurrency = concurrency or fit_concurrency(CONCURRENCY, IDLE)
        self._ca_bundle = ca_bundle or DEFAULT_CA_BUNDLE_PATH
        self._getaddrinfo = getaddrinfo
        self._mailbox = Mailbox()
        self._crew: Crew | None = None

    def submit(self, request: Request) -> None:
        self._get_crew().submit(request)

    def wait(self, timeout: float) -> list[Reply]:
        deadline = time.monotonic() + timeout
        while True:
            remaining = deadline - time.monotonic()
            pause = remaining if self._crew is None else min(remaining, self._crew.tend())
            replies = self._mailbox.collect(pause)
            if replies is not None or remaining <= 0:
                return replies or []

    def wake(self) -> None:
        self._mailbox.wake()

    def abort(self) -> None:
        if self._crew is not None:
            self._crew.abort()

    def close(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            crew.close()

    def _get_crew(self) -> "Crew":
        # After a fork the child has the parent's connections, but none of its threads.
        if self._crew is None or self._crew.pid != os.getpid():
            self._mailbox = Mailbox()
            adapter = GuardedAdapter(self.concurrency, self._ca_bundle)
            self._crew = Crew(self.concurrency, adapter, self._mailbox, self._getaddrinfo)
        return self._crew


class Crew:
    """The threads of one process and what is in flight; every request that is submitted is answered exactly once."""

    def __init__(self, concurrency: int, adapter: GuardedAdapter, mailbox: Mailbox, getaddrinfo: GetAddrInfo) -> None:
        self.pid = os.getpid()
        self._concurrency = concurrency
        self._adapter = adapter
        self._mailbox = mailbox
        self._getaddrinfo = getaddrinfo
        self._idle = IdleConnections(IDLE)
        self._queue: SimpleQueue[Exchange | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._in_flight: dict[Exchange, None] = {}
        #: Answered in place of threads that have not come back, and may never.
        self._given_up: set[Exchange] = set()
        self._tend_at = 0.0
        self._tended = (time.monotonic(), time.process_time())

    def submit(self, request: Request) -> None:
        exchange = Exchange(request, self._idle, self._getaddrinfo)
        with self._lock:
            self._in_flight[exchange] = None
            if self._count() < min(FIRST_THREADS, len(self._in_flight)) and self._room() > 0:
                self._add_thread()
        self._queue.put(exchange)

    def tend(self) -> float:
        """Give up on what is overdue, add threads if all are waiting; return in how many seconds to look again."""
        now = time.monotonic()
        if now >= self._tend_at:
            self._tend_at = now + PATIENCE
            with self._lock:
                in_flight = list(self._in_flight)
            for exchange in in_flight:
                if now > exchange.deadline + GRACE:
                    self._give_up(exchange)
            self._grow(now, in_flight)
            self._idle.sweep()
        return self._tend_at - now

    def abort(self) -> None:
        with self._lock:
            in_flight = list(self._in_flight)
            # First those that no thread has begun, or the next free one would.
            waiting = [exchange for exchange in in_flight if exchange.started_at is None]
            for exchange in waiting:
                del self._in_flight[exchange]
        for exchange in waiting:
            self._mailbox.put(exchange.fail(faults.aborted()))
        for exchange in in_flight:
            exchange.break_off()
            self._answer_instead(exchange, exchange.fail(faults.aborted()))

    def close(self) -> None:
        """Abort, and end all threads; one that a name lookup holds for longer ends when that does."""
        self.abort()
        with self._lock:
            threads = list(self._threads)
        for _ in threads:
            self._queue.put(None)
        deadline = time.monotonic() + CLOSE_TIMEOUT
        for thread in threads:
            while thread.is_alive() and time.monotonic() < deadline:
                thread.join(PATIENCE)
                self._break_off_again()
        self._idle.sweep(limit=0)
        self._adapter.close()

    def _count(self) -> int:
        """The threads that make requests or are ready to."""
        return len(self._threads) - len(self._given_up)

    def _room(self) -> int:
        """How many threads may be added. Those that do not come back are replaced, but not without end."""
        return min(self._concurrency - self._count(), 2 * self._concurrency - len(self._threads))

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="djwebhooks-post", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            logger.warning("There cannot be more than %d threads: %s", len(self._threads), exc)
            return
        self._threads.add(thread)

    def _grow(self, now: float, in_flight: list[Exchange]) -> None:
        """Double the threads while requests wait for one and the processor does not."""
        (last, last_used), used = self._tended, time.process_time()
        self._tended = (now, used)
        waiting = sum(exchange.started_at is None and now - exchange.submitted_at > PATIENCE for exchange in in_flight)
        if not waiting or used - last_used > BUSY_SHARE * (now - last):
            return
        with self._lock:
            for _ in range(min(waiting, self._room(), max(self._count(), 1))):
                self._add_thread()

    def _give_up(self, exchange: Exchange) -> None:
        failure = faults.no_free_thread() if exchange.started_at is None else exchange.timed_out()
        # Before it is broken off: its thread, which is woken by that, would say only that it was.
        if self._answer_instead(exchange, exchange.fail(failure)):
            exchange.break_off()

    def _answer_instead(self, exchange: Exchange, reply: Reply) -> bool:
        """Deliver *reply*; False if the exchange has its own by now, and its connection may be another's."""
        with self._lock:
            if exchange not in self._in_flight:
                return False
            del self._in_flight[exchange]
            if exchange.started_at is not None:
                self._given_up.add(exchange)
        self._mailbox.put(reply)
        return True

    def _break_off_again(self) -> None:
        """Reach the sockets that were not connected yet when their exchange was broken off."""
        with self._lock:
            given_up = list(self._given_up)
        for exchange in given_up:
            exchange.break_off()

    def _work(self) -> None:
        while (exchange := self._queue.get()) is not None:
            if self._start(exchange) and not self._finish(exchange, make_exchange(exchange, self._adapter)):
                return
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _start(self, exchange: Exchange) -> bool:
        with self._lock:
            if exchange not in self._in_flight:
                return False
            exchange.started_at = time.monotonic()
            return True

    def _finish(self, exchange: Exchange, reply: Reply) -> bool:
        """Deliver *reply*; False if another was delivered instead and this thread replaced, so that it must end."""
        with self._lock:
            if exchange in self._given_up:
                self._given_up.discard(exchange)
                self._threads.discard(threading.current_thread())
                return False
            del self._in_flight[exchange]
        self._mailbox.put(reply)
        return True
