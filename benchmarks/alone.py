"""A worker without a network: its transport answers at once, and it tells what each of its steps costs."""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from django.db import connections

from djwebhooks.transports.base import Reply, Request
from djwebhooks.worker import Worker


class Instant:
    """A transport that answers everything with 200 at once, *at_once* requests a turn."""

    concurrency = 1000

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once
        self.submitted = 0
        #: Called with each request.
        self.on_request: Callable[[], object] = bool
        self._replies: list[Reply] = []

    def submit(self, request: Request) -> None:
        self.submitted += 1
        self.on_request()
        self._replies.append(Reply(request.key, status=200, duration=0.001))

    def wait(self, timeout: float) -> list[Reply]:
        replies, self._replies = self._replies[: self.at_once], self._replies[self.at_once :]
        return replies

    def wake(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


class TimedWorker(Worker):
    """Adds up the processor seconds of each step of its turns, and those from its first look to its first request."""

    def __init__(self, transport: Instant) -> None:
        super().__init__(transport=transport, burst=True)
        transport.on_request = self._note_request
        self.spent: dict[str, float] = defaultdict(float)
        self.statements = 0
        #: Processor seconds and statements until the first request.
        self.first_request: tuple[float, int] | None = None

    @property
    def steps(self) -> tuple[Callable[[], None], ...]:
        return tuple(partial(self._time, step) for step in super().steps)

    def run(self) -> int:
        with connections[self.using].execute_wrapper(self._count):
            return super().run()

    def _time(self, step: Callable[[], None]) -> None:
        name = step.__name__.strip("_")
        if name == "poll" and name not in self.spent:
            self.statements, self._looked_at = 0, time.process_time()
        before = time.process_time()
        step()
        self.spent[name] += time.process_time() - before

    def _count(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.statements += 1
        return execute(*arguments)

    def _note_request(self) -> None:
        if self.first_request is None:
            self.first_request = time.process_time() - self._looked_at, self.statements
