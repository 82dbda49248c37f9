"""The contract of engines."""

from abc import ABC, abstractmethod
from datetime import datetime


class Engine(ABC):
    """Rings for a worker. The database is the truth; what an engine loses costs latency, never a webhook."""

    #: What people are told to do when no worker is at work.
    advice = "run manage.py webhooks work"

    @abstractmethod
    def wake(self, using: str, at: datetime | None = None) -> None:
        """Have a worker look at the database *using*, now or at a time. Called after a commit; must return fast."""
