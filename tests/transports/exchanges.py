"""A transport's exchanges in tests: requests, their replies, and what is found by looking names up."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from djwebhooks.testing.receiver import Receiver
from djwebhooks.transports.base import Reply, Request, Transport


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
