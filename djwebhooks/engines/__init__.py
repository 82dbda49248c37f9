"""What wakes a worker after a transaction that wrote work has committed."""

from functools import lru_cache
from typing import Any

from django.db import connections, transaction
from django.utils.module_loading import import_string

from djwebhooks.conf import conf
from djwebhooks.database import is_manual
from djwebhooks.engines.base import Engine


def get_engine() -> Engine:
    """Return the engine that ``DJWEBHOOKS_ENGINE`` names. Raises ``ImportError`` when there is none."""
    return _make(conf.ENGINE)


@lru_cache
def _make(path: str) -> Engine:
    engine: Engine = import_string(path)()
    return engine


class Ring:
    """The one wake-up of a transaction, so that it can be told from its other callbacks."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.is_over = False
        # Django's log names a callback that failed by it, and fails itself where there is none.
        self.__qualname__ = type(self).__qualname__

    def __call__(self) -> None:
        self.is_over = True
        get_engine().wake(self.using)


def ring(sender: Any, *, using: str, **_: Any) -> None:
    """Wake the engine once the transaction commits, at most once for each: receives ``work_written``.

    A wake-up that fails is logged and harms nobody: it costs latency only. So does one that is left out, where nobody can say
    when the caller commits.
    """
    if not is_manual(using) and not any(is_to_come(entry[1]) for entry in connections[using].run_on_commit):
        transaction.on_commit(Ring(using), using=using, robust=True)


def is_to_come(callback: object) -> bool:
    """Whether *callback* is a wake-up, and nobody has run it yet: a test may do so before its transaction ends."""
    return isinstance(callback, Ring) and not callback.is_over
