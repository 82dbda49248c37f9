"""A receiver on loopback that does to each connection what its script says."""

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: *headers* with lower-case names, *connection* the number of its connection from 1."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


class Conversation:
    """One connection, from the receiver's side."""

    def __init__(self, receiver: "Receiver", sock: socket.socket, number: int) -> None:
        self.receiver = receiver
        self.number = number
        self._socket = sock
        self._file = sock.makefile("rb")

    def read(self) -> Received | None:
        """Return the next request, None once the sender has closed."""
        line = self._file.readline().decode()
        if not line:
            return None
        method, path, _ = line.split(" ", 2)
        headers = {}
        while (line := self._file.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self._file.read(int(headers.get("content-length", 0)))
        received = Received(method, path, headers, body, self.number)
        self.receiver.note(received)
        return received

    def receive(self, most: int) -> bytes:
        """Return *most* bytes or fewer of what comes next, none once the sender has closed."""
        return self._socket.recv(most)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; ``_`` in the names of *headers* is sent as ``-``."""
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def wait_closed(self) -> None:
        """Block until the sender closes, or the receiver stops."""
        while self._file.read(1):
            pass

    def trickle(self, data: bytes, every: float = 0.02) -> None:
        """Send *data* over and over, byte by byte, until the sender has had enough."""
        while True:
            for index in range(len(data)):
                self.send(data[index : index + 1])
                if self.receiver.stopping.wait(every):
                    return

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def shut_down(self) -> None:
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


Script = Callable[[Conversation], None]


def answer_with(status: int = 200, body: bytes = b"", **headers: str) -> Script:
    """Return a script that answers every request of a connection alike."""

    def script(conversation: Conversation) -> None:
        while conversation.read():
            conversation.answer(status, body, **headers)

    return script


def send_raw(data: bytes) -> Script:
    """Return a script that reads a request, sends *data* and closes."""

    def script(conversation: Conversation) -> None:
        conversation.read()
        conversation.send(data)

    return script


def hang(conversation: Conversation) -> None:
    """Read a request and never answer it."""
    conversation.read()
    conversation.wait_closed()


class Receiver:
    """Serves HTTP on *port* of *host*, by default a free one, or HTTPS with the context *tls*; a context manager.

    *script* is run in a thread for each connection; it may be exchanged at any time for those to come.
    """

    def __init__(
        self, script: Script | None = None, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.script = script or answer_with(200)
        self.host = host
        self.requests: list[Received] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._tls = tls
        self._changed = threading.Condition()
        self._open: set[Conversation] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((host, port), backlog=1024)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/hook"

    def url_for(self, name: str) -> str:
        return f"{'https' if self._tls else 'http'}://{name}:{self.port}/hook"

    def note(self, received: Received) -> None:
        with self._changed:
            self.requests.append(received)
            self._changed.notify_all()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """Return the requests once there are *count*; fail after *timeout* seconds."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, timeout), f"only {len(self.requests)} requests"
            return list(self.requests)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        self.stopping.set()
        # On Linux this wakes accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        deadline = time.monotonic() + 10
        while alive := [thread for thread in self._threads if thread.is_alive()]:
            assert time.monotonic() < deadline, "a script of the receiver does not end"
            for conversation in list(self._open):
                conversation.shut_down()
            alive[0].join(0.05)

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._converse, sock, self.connections)

    def _converse(self, sock: socket.socket, number: int) -> None:
        # A sender that goes away in the middle is what many scripts are about.
        with contextlib.suppress(OSError, ValueError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._secure(self._tls, sock)
            conversation = Conversation(self, sock, number)
            self._open.add(conversation)
            try:
                self.script(conversation)
            finally:
                self._open.discard(conversation)
                conversation.close()

    def _secure(self, tls: ssl.SSLContext, sock: socket.socket) -> socket.socket:
        try:
            sock.settimeout(5)
            secured = tls.wrap_socket(sock, server_side=True)
            secured.settimeout(None)
            return secured
        except OSError:
            sock.close()
            raise
