"""A worker's shift: what the jobs of any queue have in common that are a worker for a while."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType

from djwebhooks import dispatch, lanes, replays
from djwebhooks.database import read_clock

#: Seconds that a job works at most, and goes on looking when there is nothing to do.
BUDGET, LINGER = 60.0, 1.0


def next_due(using: str) -> datetime | None:
    """When there is something to do next, by the database's clock; a time that has passed for now."""
    if dispatch.has_waiting(using):
        return read_clock(using)
    times = (lanes.next_due_lane(using), lanes.next_expiry(using), dispatch.next_planned(using), replays.next_replay(using))
    return min((at for at in times if at is not None), default=None)


@contextmanager
def stopping_on_sigterm(stop_work: Callable[[], None]) -> Iterator[None]:
    """Let a deploy's SIGTERM end the work cleanly: without a handler it would kill the job with requests in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        stop_work()
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        # RQ's SimpleWorker has set one of its own if it was called, for a second SIGTERM.
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, previous)
