"""A real HTTP server on loopback that answers as it is told, or does not, and keeps what it was sent."""

import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from django.views.decorators.debug import sensitive_variables

from djwebhooks import signing
from djwebhooks.exceptions import InvalidSignature

#: Settings that let requests through to receivers on this machine: ``override_settings(**LOOPBACK)``.
LOOPBACK: Mapping[str, Any] = {"DJWEBHOOKS_ALLOW_HTTP": True, "DJWEBHOOKS_ALLOWED_NETWORKS": ("127.0.0.0/8",)}


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: *headers* with lower-case names, *connection* the number of its connection from 1."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def content(self) -> Any:
        """The JSON value that the body is. Raises ValueError if it is none."""
        return json.loads(self.body)

    @sensitive_variables("keys")
    def verify(self, keys: str | signing.Verifier | Iterable[str | signing.Verifier]) -> int:
        """Return which of *keys* it was signed with, as ``djwebhooks.signing.verify`` does. Raises InvalidSignature."""
        return signing.verify(self.body, self.headers, keys)


class Conversation:
    """One connection, from the receiver's side."""

    def __init__(self, receiver: "Receiver", sock: socket.socket, number: int) -> None:
        self.receiver = receiver
        self.number = number
        #: The request that was read last.
        self.request: Received | None = None
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
        self.request = Received(method, path, headers, body, self.number)
        self.receiver.note(self.request)
        return self.request

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


#: What is done with a request that was read, and what is done with a whole connection.
Answer = Callable[[Conversation], object]
Script = Callable[[Conversation], object]


def answer(status: int = 200, body: bytes = b"", **headers: str) -> Answer:
    """Return what answers with a whole answer; ``_`` in the names of *headers* is sent as ``-``."""
    return lambda conversation: conversation.answer(status, body, **headers)


def slow(seconds: float, status: int = 200) -> Answer:
    """Return what answers with *status* after so many seconds."""

    def answer_late(conversation: Conversation) -> None:
        if not conversation.receiver.stopping.wait(seconds):
            conversation.answer(status)

    return answer_late


def raw(data: bytes) -> Answer:
    """Return what sends these bytes, be they an answer or not, and closes the connection."""

    def send_and_close(conversation: Conversation) -> None:
        conversation.send(data)
        conversation.close()

    return send_and_close


def hang(conversation: Conversation) -> None:
    """Never answer, and keep the connection open until the sender closes it."""
    conversation.wait_closed()


def reset(conversation: Conversation) -> None:
    """Break the connection off instead of answering."""
    conversation.reset()


def answer_all(conversation: Conversation) -> None:
    """Answer the requests of a connection as the receiver's *answers* say."""
    while conversation.read():
        conversation.receiver.choose_answer(conversation)(conversation)


def read_answer(given: Answer | int) -> Answer:
    if isinstance(given, int) and not isinstance(given, bool) and 100 <= given <= 599:
        return answer(given)
    if callable(given):
        return given
    raise TypeError(f"An answer is a status from 100 to 599, or a function of the conversation, not {given!r}.")


class Receiver:
    """Serves HTTP on *port* of *host*, by default a free one, or HTTPS with the context *tls*; a context manager.

    The first of *answers* is for the first request, and so on; the last one stays. Each is a status, or ``hang``, ``reset``,
    ``slow(seconds)``, ``raw(data)``, ``answer(status, body, name=value)``, or another function of the ``Conversation``.
    With *keys*, such as a target's secret, what has no right signature is answered 401 instead. A *script* does what it likes
    with each connection, in a thread of its own. All of these may be assigned anew at any time.

    Raises TypeError for what is no answer, and ValueError for a malformed key.
    """

    @sensitive_variables("keys")
    def __init__(
        self,
        *answers: Answer | int,
        keys: str | Sequence[str] = (),
        script: Script = answer_all,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.answers = answers or [200]
        self.keys = keys
        self.script = script
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
    def answers(self) -> Sequence[Answer]:
        """What is still to be answered, one request after the other; the last one stays."""
        return self._answers

    @answers.setter
    def answers(self, answers: Iterable[Answer | int]) -> None:
        self._answers = [read_answer(each) for each in answers]
        if not self._answers:
            raise TypeError("A receiver needs one answer or more, such as 200 or hang.")

    @property
    def keys(self) -> Sequence[signing.Verifier]:
        """What requests must be signed with one of; empty if that does not matter."""
        return self._keys

    @keys.setter
    @sensitive_variables("keys")
    def keys(self, keys: str | Sequence[str]) -> None:
        self._keys = [signing.read_verifier(key) for key in ([keys] if isinstance(keys, str) else keys)]

    @property
    def url(self) -> str:
        """An address of it, for a target."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/hook"

    def url_for(self, name: str) -> str:
        return f"{'https' if self._tls else 'http'}://{name}:{self.port}/hook"

    def choose_answer(self, conversation: Conversation) -> Answer:
        """Return what to do with the request that was read last."""
        if self.keys and conversation.request is not None:
            try:
                conversation.request.verify(self.keys)
            except InvalidSignature as error:
                return answer(401, str(error).encode())
        with self._changed:
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def note(self, received: Received) -> None:
        with self._changed:
            self.requests.append(received)
            self._changed.notify_all()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """Return the requests once there are *count*. Raises AssertionError after *timeout* seconds."""
        __tracebackhide__ = True
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.requests) >= count, timeout):
                raise AssertionError(f"Only {len(self.requests)} of {count} requests have come within {timeout:g} s.")
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
            if time.monotonic() > deadline:
                raise RuntimeError("An answer or a script of the receiver does not end, though its connection is closed.")
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
