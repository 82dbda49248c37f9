"""A receiver that writes down what arrived, in the order in which it arrived, and what it answered."""

import heapq
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.client import HTTPConnection
from types import TracebackType
from typing import Self

#: The path that is answered but not written down.
BARRIER = "/barrier"
#: An attempt, as both sides know it: the target's path, the webhook-id and the number.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Arrival:
    """A request that was read to its end, at a time of the monotonic clock."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def attempt(self) -> int:
        return int(self.headers["webhook-attempt"])

    @property
    def pair(self) -> tuple[str, str]:
        """The delivery that it is an attempt of."""
        return self.path, self.id

    @property
    def key(self) -> Key:
        """The attempt that it is: no other request may be the same, unless a worker was killed."""
        return self.path, self.id, self.attempt


@dataclass(frozen=True)
class Answer:
    """A status, after so many seconds; without a status the request is kept waiting."""

    status: int | None = 200
    after: float = 0.0
    retry_after: str = ""


@dataclass(frozen=True)
class Entry:
    """A line of the ledger. The answer is written down with the request, before it is sent."""

    arrival: Arrival
    answer: Answer


@dataclass(eq=False)
class Connection:
    """One sender's connection, and what of a request has come."""

    socket: socket.socket
    pending: bytes = field(default=b"")


class Ledger:
    """Serves HTTP on loopback in one thread, so that what was sent first is written down first; a context manager.

    *decide* says what to answer to each request; it runs in that thread and must not wait.
    """

    def __init__(self, decide: Callable[[Arrival], Answer] = lambda arrival: Answer()) -> None:
        self.decide = decide
        self.entries: list[Entry] = []
        #: How often each attempt has arrived.
        self.arrived: Counter[Key] = Counter()
        self._later: list[tuple[float, int, Connection, Answer]] = []
        self._kept_waiting: list[tuple[int, Connection]] = []
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._is_stopping = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def url_for(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def path_of(self, url: str) -> str:
        return url.removeprefix(self.url_for(""))

    def settle(self) -> None:
        """Return when everything is written down that was sent before by processes that have ended."""
        for _ in range(2):  # The first may be read in the same round as what was accepted with it.
            connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", BARRIER)
            assert connection.getresponse().read() == b""
            connection.close()

    def answer_waiting(self) -> None:
        """Answer now, and well, what was kept waiting."""
        for number, connection in self._kept_waiting:
            self.entries[number] = replace(self.entries[number], answer=Answer())
            self._send(connection, Answer())
        self._kept_waiting.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self._is_stopping = True
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._is_stopping:
            wait = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    self._accept()
                else:
                    self._read(key.data)
            while self._later and self._later[0][0] <= time.monotonic():
                _, _, connection, answer = heapq.heappop(self._later)
                self._send(connection, answer)

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                accepted, _ = self._listener.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(accepted, selectors.EVENT_READ, Connection(accepted))

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.socket.recv(65536)
        except OSError:
            data = b""
        if not data:  # The sender has gone, in order or not.
            self._selector.unregister(connection.socket)
            connection.socket.close()
            return
        connection.pending += data
        head, found, rest = connection.pending.partition(b"\r\n\r\n")
        if found:
            self._read_body(connection, head.decode("latin-1"), rest)

    def _read_body(self, connection: Connection, head: str, rest: bytes) -> None:
        request, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if len(rest) < int(headers.get("content-length", 0)):
            return
        connection.pending = b""
        path = request.split(" ")[1]
        if path == BARRIER:
            self._send(connection, Answer())
            return
        arrival = Arrival(path, headers, rest, time.monotonic())
        answer = self.decide(arrival)
        number = len(self.entries)
        self.entries.append(Entry(arrival, answer))
        self.arrived[arrival.key] += 1
        if answer.status is None:
            self._kept_waiting.append((number, connection))
        else:
            heapq.heappush(self._later, (arrival.at + answer.after, number, connection, answer))

    def _send(self, connection: Connection, answer: Answer) -> None:
        retry_after = f"retry-after: {answer.retry_after}\r\n" if answer.retry_after else ""
        with suppress(OSError):  # The sender may have been killed.
            connection.socket.sendall(f"HTTP/1.1 {answer.status} Whatever\r\ncontent-length: 0\r\n{retry_after}\r\n".encode())
