"""The engine without a worker: sends in the caller's own thread, right after the commit."""

from datetime import datetime

from djwebhooks.engines.base import Engine
from djwebhooks.engines.shift import inline


class ImmediateEngine(Engine):
    """Sends what is due before the call that committed returns. Retries wait for the next event, or for a worker."""

    advice = "the next event takes it along, or run manage.py webhooks work"

    def wake(self, using: str, at: datetime | None = None) -> None:
        if at is None:
            inline.run(using)
