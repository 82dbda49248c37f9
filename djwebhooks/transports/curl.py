"""Send thousands of requests at once from one thread, with libcurl."""

import os
import select
import socket
import threading
import time
from collections import deque
from contextlib import suppress

from requests.adapters import DEFAULT_CA_BUNDLE_PATH

from djwebhooks.network import GetAddrInfo
from djwebhooks.transports import faults
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.faults import ExchangeFailed
from djwebhooks.transports.files import fit_concurrency
from djwebhooks.transports.handles import Connections, Handle
from djwebhooks.transports.libcurl import pycurl
from djwebhooks.transports.lookups import PATIENCE, Lookup, Lookups

#: Requests in flight, if the process may have the files for it.
CONCURRENCY = 1024

#: What to wait for while libcurl wants nothing of a socket: that something comes, or the end.
IDLE = select.EPOLLIN | select.EPOLLRDHUP
#: What to wait for when libcurl wants something.
EVENTS = {pycurl.POLL_IN: IDLE, pycurl.POLL_OUT: select.EPOLLOUT, pycurl.POLL_INOUT: IDLE | select.EPOLLOUT}
#: What happened to a socket, for libcurl.
ACTIONS = tuple(
    (pycurl.CSELECT_IN if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) else 0)
    | (pycurl.CSELECT_OUT if events & select.EPOLLOUT else 0)
    | (pycurl.CSELECT_ERR if events & select.EPOLLERR else 0)
    for events in range(32)
)
#: Sockets that are looked at in one go.
BATCH = 512


class CurlTransport:
    """Sends with one thread: the one that calls. What is in flight goes on while ``wait`` is called.

    *ca_bundle* is the path of the certificates to trust, by default those that requests trusts. *getaddrinfo* looks names up.
    Connections, and threads that look names up, are made when they are needed, so that a process may fork before.
    """

    def __init__(
        self, concurrency: int | None = None, *, ca_bundle: str | None = None, getaddrinfo: GetAddrInfo = socket.getaddrinfo
    ) -> None:
        self.concurrency = concurrency or fit_concurrency(CONCURRENCY)
        self._ca_bundle = ca_bundle or DEFAULT_CA_BUNDLE_PATH
        self._getaddrinfo = getaddrinfo
        self._is_woken = False
        self._loop: Loop | None = None

    def submit(self, request: Request) -> None:
        self._get_loop().submit(request)

    def wait(self, timeout: float) -> list[Reply]:
        loop = self._get_loop()
        deadline = time.monotonic() + timeout
        while True:
            remaining = deadline - time.monotonic()
            replies = loop.turn(0.0 if self._is_woken else max(0.0, remaining))
            if replies or self._is_woken or remaining <= 0:
                self._is_woken = False
                return replies

    def wake(self) -> None:
        self._is_woken = True
        loop = self._loop
        if loop is not None:
            loop.ring()

    def abort(self) -> None:
        if self._loop is not None:
            self._get_loop().abort()

    def close(self) -> None:
        if self._loop is not None:
            self._get_loop().close()
            self._loop = None

    def _get_loop(self) -> "Loop":
        # After a fork the child has the parent's connections, which it must not even close.
        if self._loop is not None and self._loop.pid != os.getpid():
            INHERITED.append(self._loop)
            self._loop = None
        if self._loop is None:
            self._loop = Loop(self.concurrency, self._ca_bundle, self._getaddrinfo)
        return self._loop


#: What belongs to the process that this one was forked from: to let go of it would end TLS on its connections.
INHERITED: list["Loop"] = []


class Loop:
    """What is in flight in one process; every request that is submitted is answered exactly once."""

    def __init__(self, concurrency: int, ca_bundle: str, getaddrinfo: GetAddrInfo) -> None:
        self.pid = os.getpid()
        self._concurrency = concurrency
        self._ca_bundle = ca_bundle
        self._poll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._bell_lock = threading.Lock()
        self._is_closed = False
        self._poll.register(self._bell, select.EPOLLIN)
        self._lookups = Lookups(getaddrinfo, self.ring)
        #: Submitted beyond the concurrency.
        self._waiting: deque[tuple[Request, float]] = deque()
        self._in_flight: set[Handle] = set()
        self._looking: dict[Handle, Lookup] = {}
        self._free: list[Handle] = []
        self._replies: list[Reply] = []
        #: What epoll was told of libcurl's sockets, and those that are not used at present.
        self._watched: dict[int, int] = {}
        self._idle: set[int] = set()
        self._connections = Connections()
        self._timer_at: float | None = None
        self._tend_at = 0.0
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, 2 * concurrency)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def submit(self, request: Request) -> None:
        now = time.monotonic()
        if len(self._in_flight) >= self._concurrency:
            self._waiting.append((request, now))
        else:
            self._begin(request, now)

    def turn(self, timeout: float) -> list[Reply]:
        """Let what is in flight go on, wait up to *timeout* seconds for something to happen, and return what is done."""
        if self._replies:
            timeout = 0.0
        self._see_sockets(self._shorten(timeout))
        self._see_results()
        now = time.monotonic()
        if self._looking or self._waiting:
            self._see_lookups()
            if now >= self._tend_at:
                self._tend(now)
        replies, self._replies = self._replies, []
        return replies

    def ring(self) -> None:
        """Have a ``turn`` in another thread, or the next one, wait no longer."""
        with self._bell_lock:
            # Its number may be that of another file by now.
            if not self._is_closed:
                os.eventfd_write(self._bell, 1)

    def abort(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for handle in list(self._in_flight):
            self._remove(handle)
            self._fail(handle, faults.aborted())
        for request, _ in waiting:
            self._replies.append(Reply(request.key, error="aborted", detail=faults.aborted().detail))

    def close(self) -> None:
        self.abort()
        self._lookups.close()
        for handle in self._free:
            handle.close()
        self._multi.close()
        self._poll.close()
        with self._bell_lock:
            self._is_closed = True
            os.close(self._bell)

    # -- libcurl's wishes -----------------------------------------------------------------------------------------------

    def _watch(self, what: int, fd: int, multi: object, data: object) -> None:
        # Sockets stay with epoll while they are not used: libcurl itself would not see in time that one was closed.
        if what != pycurl.POLL_REMOVE:
            self._idle.discard(fd)
            self._tell(fd, EVENTS[what])
        else:
            self._idle.add(fd)
            if self._watched.get(fd) != IDLE:
                self._tell(fd, IDLE)

    def _tell(self, fd: int, events: int) -> None:
        self._watched[fd] = events
        try:
            self._poll.modify(fd, events)
        except FileNotFoundError:
            self._poll.register(fd, events)

    def _see_idle(self, fd: int, events: int) -> None:
        """See that something has come where no answer is due: a connection's end, or what HTTP/2 has to say between answers."""
        with suppress(OSError):
            self._poll.unregister(fd)
            sock = socket.socket(fileno=fd)
            end = sock.getsockname()[:2]
            sock.detach()
            if end not in self._connections.multiplexed or events & ~select.EPOLLIN:
                self._connections.spoilt.add(end)

    def _set_timer(self, milliseconds: int) -> None:
        self._timer_at = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _shorten(self, timeout: float) -> float:
        now = time.monotonic()
        if self._timer_at is not None:
            timeout = min(timeout, self._timer_at - now)
        if self._looking or self._waiting:
            timeout = min(timeout, self._tend_at - now)
        return max(timeout, 0.0)

    def _see_sockets(self, timeout: float) -> None:
        act = self._multi.socket_action
        happened = self._poll.poll(timeout, BATCH)
        # First what ends connections: libcurl would use them, whatever it is called for.
        for fd, events in happened:
            if fd in self._idle:
                self._see_idle(fd, events)
            elif fd == self._bell:
                os.eventfd_read(fd)
        for fd, events in happened:
            if fd not in self._idle and fd != self._bell:
                act(fd, ACTIONS[events & 31])
        if self._timer_at is not None and self._timer_at <= time.monotonic():
            self._timer_at = None
            act(pycurl.SOCKET_TIMEOUT, 0)

    def _see_results(self) -> None:
        queued = 1
        while queued:
            queued, done, failed = self._multi.info_read(BATCH)
            for curl in done:
                self._end(curl.handle, 0, "")
            for curl, code, words in failed:
                self._end(curl.handle, code, words)

    # -- the way of a request -------------------------------------------------------------------------------------------

    def _begin(self, request: Request, submitted_at: float) -> None:
        handle = self._free.pop() if self._free else Handle(self._ca_bundle, self._connections)
        self._in_flight.add(handle)
        try:
            handle.prepare(request, submitted_at)
        except ExchangeFailed as exc:
            self._fail(handle, exc)
        else:
            self._send(handle)

    def _send(self, handle: Handle) -> None:
        try:
            handle.begin()
        except ExchangeFailed as exc:
            self._fail(handle, exc)
        else:
            handle.is_sending = True
            self._multi.add_handle(handle.curl)

    def _end(self, handle: Handle, code: int, words: str) -> None:
        """See what came of a handle: mostly an answer, or it had no connection that could be used again."""
        reply = handle.read_result(code, words)
        self._remove(handle)
        if reply is not None:
            self._answer(handle, reply)
        elif handle.needs_lookup:
            self._looking[handle] = self._lookups.ask(handle.origin.host, handle.origin.port, handle)
        else:
            self._send(handle)

    def _see_lookups(self) -> None:
        for lookup in self._lookups.collect():
            for handle in lookup.askers:
                # It may have been given up on, and be used for another request since.
                if self._looking.get(handle) is lookup:
                    del self._looking[handle]
                    self._go_on(handle, lookup)

    def _go_on(self, handle: Handle, lookup: Lookup) -> None:
        handle.end_lookup(lookup.addresses)
        if lookup.failure is not None:
            self._fail(handle, lookup.failure)
        else:
            self._send(handle)

    def _tend(self, now: float) -> None:
        """Give up on what is overdue, and add threads if lookups wait for one."""
        self._tend_at = now + PATIENCE
        for handle, lookup in list(self._looking.items()):
            if now >= handle.connect_by:
                failure = handle.timed_out() if lookup.has_begun else faults.no_free_thread()
                del self._looking[handle]
                self._fail(handle, failure)
        self._lookups.tend(now)

    def _remove(self, handle: Handle) -> None:
        self._looking.pop(handle, None)
        if handle.is_sending:
            handle.is_sending = False
            self._multi.remove_handle(handle.curl)

    def _fail(self, handle: Handle, failure: ExchangeFailed) -> None:
        self._answer(handle, handle.fail(failure))

    def _answer(self, handle: Handle, reply: Reply) -> None:
        self._replies.append(reply)
        self._in_flight.remove(handle)
        if handle.release():
            self._free.append(handle)
        if self._waiting:
            self._begin(*self._waiting.popleft())
