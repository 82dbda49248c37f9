"""What the benchmarks know of a system that sends webhooks."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.notes.models import Note

#: What each Celery worker is started with; the pool comes after.
CELERY = (sys.executable, "-m", "celery", "--app", "benchmarks.celery_app", "worker", "--loglevel", "ERROR")
#: Celery's own pool, with a process for each core.
PREFORK = ("--pool", "prefork", "--concurrency", "2")
#: The pool for those who wait much, with its hundred greenlets.
GEVENT = ("--pool", "gevent", "--concurrency", "100")


class System(ABC):
    """A way to send webhooks, set up as its documentation says, with what makes it fast where it leaves a choice.

    The class is read before Django is set up, and also where its packages are not installed: so methods import, not modules.
    """

    #: What tables and options call it.
    name: str
    #: What pip installs into its own environment; nothing for what runs in this one.
    requirements: Sequence[str] = ()
    #: Deliveries per second, roughly: how much work a trial gives it.
    pace: float
    #: Additional entries of ``INSTALLED_APPS``, of ``DATABASES["default"]`` and other settings.
    apps: Sequence[str] = ()
    database_options: Mapping[str, Any] = {"CONN_MAX_AGE": None}
    settings: Mapping[str, Any] = {}
    #: Modules that the project imports at its start.
    imports: Sequence[str] = ()
    #: What starts one worker; nothing for what sends in the caller's own process.
    worker: Sequence[str] = ()
    #: The databases that it can work on.
    databases: Sequence[str] = ("postgresql", "sqlite")
    #: Whether a delivery leaves a row.
    is_recording = True

    def connect(self) -> None:
        """Do what the project does at its start, before Django is set up."""
        for module in self.imports:
            import_module(module)

    @abstractmethod
    def subscribe(self, urls: Sequence[str]) -> None:
        """Have every new note sent to *urls*."""

    def save(self, note: "Note") -> None:
        """Save a new note so that it is sent; called in a transaction."""
        note.save()

    def count_recorded(self) -> int:
        """How many deliveries are recorded as succeeded; none by who is not *is_recording*."""
        return 0
