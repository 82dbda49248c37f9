"""What a job does when a deploy stops its process: that of the sender as that of the inbox, which has none of its tables."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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
