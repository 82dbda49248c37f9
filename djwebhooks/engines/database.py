"""The engine without a broker: ``manage.py webhooks work`` looks into the database, and is told when to where that can tell."""

from datetime import datetime

from djwebhooks import database
from djwebhooks.engines.base import Engine
from djwebhooks.wakeups import Spacing


class DatabaseEngine(Engine):
    """Needs no wake-up: its workers look by themselves. With PostgreSQL they hear of a commit and look at once."""

    def __init__(self) -> None:
        self._spacing = Spacing()

    def wake(self, using: str, at: datetime | None = None) -> None:
        if at is None and self._spacing.needs(using):
            database.notify(using)
