"""Answer requests at once and send nothing: the transport for tests."""

from collections.abc import Callable
from dataclasses import replace

from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.mailbox import Mailbox


class MemoryTransport:
    """Keeps every request in *requests* and answers it with *answer*: a status, or a function of the request."""

    def __init__(self, answer: Callable[[Request], Reply] | int = 200, *, concurrency: int | None = None) -> None:
        self.concurrency = concurrency or 128
        self.answer = answer
        self.requests: list[Request] = []
        self._mailbox = Mailbox()

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        reply = Reply(request.key, status=self.answer) if isinstance(self.answer, int) else self.answer(request)
        self._mailbox.put(replace(reply, key=request.key))

    def wait(self, timeout: float) -> list[Reply]:
        return self._mailbox.collect(timeout) or []

    def wake(self) -> None:
        self._mailbox.wake()

    def abort(self) -> None:
        """Do nothing: whatever was submitted is answered already."""

    def close(self) -> None:
        """Do nothing: there are neither threads nor connections."""
