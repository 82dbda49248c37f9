"""The engine without a broker: ``manage.py webhooks work`` polls the database."""

from datetime import datetime

from djwebhooks.engines.base import Engine


class DatabaseEngine(Engine):
    """Needs no wake-up: its workers look by themselves."""

    def wake(self, using: str, at: datetime | None = None) -> None:
        pass
