"""The engine without a worker: sends in the caller's own thread, right after the commit."""

import threading
from datetime import datetime

from djwebhooks.engines.base import Engine
from djwebhooks.worker import Worker

_here = threading.local()


class ImmediateEngine(Engine):
    """Sends what is due before the call that committed returns. Retries wait for the next event, or for a worker."""

    def wake(self, using: str, at: datetime | None = None) -> None:
        if at is not None or getattr(_here, "is_working", False):
            return
        _here.is_working = True
        try:
            Worker(using=using, burst=True, threaded=False).run()
        finally:
            _here.is_working = False
