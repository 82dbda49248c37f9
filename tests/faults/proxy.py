"""A proxy on loopback that passes bytes between clients and a server, until a test has it do something else."""

import itertools
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(eq=False)
class Link:
    """A client's connection, and the one to the server that was made for it."""

    client: socket.socket
    server: socket.socket
    #: For the rules: whether it is to break when the server answers.
    is_doomed: bool = False

    def cut(self) -> None:
        for each in (self.client, self.server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


#: Says whether these bytes are passed on; if not, the link is cut. It runs in a thread of the link and may take its time.
Rule = Callable[[Link, bytes], bool]


def pass_on(link: Link, data: bytes) -> bool:
    """The rule of a network that works."""
    return True


class Proxy:
    """Listens on a free port; a context manager. The rules may be exchanged at any time."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.on_request: Rule = pass_on
        self.on_answer: Rule = pass_on
        self._connect = connect
        self._links: list[Link] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.cut()
        for thread in self._threads:
            thread.join()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._link(client)

    def _link(self, client: socket.socket) -> None:
        try:
            link = Link(client, self._connect())
        except OSError:  # The server is gone, and so is what stands before it.
            client.close()
            return
        self._links.append(link)
        self._start(self._carry, link, link.client, link.server, lambda data: self.on_request(link, data))
        self._start(self._carry, link, link.server, link.client, lambda data: self.on_answer(link, data))

    def _carry(self, link: Link, source: socket.socket, sink: socket.socket, may_pass: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and may_pass(data):
                sink.sendall(data)
        link.cut()


class CutAt:
    """Cuts the link at the *number*-th time that a client says *said*: before the server hears it, or after it did."""

    def __init__(self, proxy: Proxy, number: int, said: bytes, *, is_heard: bool) -> None:
        self.has_cut = False
        self._number = number
        self._said = said
        self._is_heard = is_heard
        self._count = itertools.count(1)
        proxy.on_request, proxy.on_answer = self._hear, self._answer

    def _hear(self, link: Link, data: bytes) -> bool:
        if self._said not in data or next(self._count) != self._number:
            return True
        self.has_cut = True
        link.is_doomed = self._is_heard
        return self._is_heard

    def _answer(self, link: Link, data: bytes) -> bool:
        return not link.is_doomed
