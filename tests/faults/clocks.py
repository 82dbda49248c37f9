"""Wrong clocks: of a process's machine, and of the database."""

import ctypes
import gc
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, tzinfo
from typing import Any

from django.db import connection


def shift_machine(seconds: float) -> None:
    """Let the clock of this process's machine be wrong from now on; the database's clock stays as it is.

    The very functions are exchanged, as C code and modules that are imported already must see it, too.
    """
    true_time, true_time_ns = time.time, time.time_ns

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        return cls.fromtimestamp(true_time() + seconds, tz)

    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + int(seconds * 1e9)
    exchange(datetime, "now", now)
    exchange(datetime, "utcnow", lambda cls: now(cls, UTC).replace(tzinfo=None))
    exchange(date, "today", lambda cls: cls.fromtimestamp(true_time() + seconds))  # a datetime's, too


def exchange(kind: type, name: str, function: Callable[..., Any]) -> None:
    """Replace a class method of a type that is written in C."""
    [names] = gc.get_referents(kind.__dict__)
    names[name] = classmethod(function)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


@contextmanager
def database_clock_at(moment: datetime) -> Iterator[None]:
    """Let the database's clock go on from *moment*, for what this connection asks it."""
    seconds = (moment - datetime.now(UTC)).total_seconds()
    clocks = {
        r"STATEMENT_TIMESTAMP\(\)": f"(STATEMENT_TIMESTAMP() + INTERVAL '{seconds} seconds')",
        r"'NOW'": f"'NOW', '{seconds:+} seconds'",
        r"UTC_TIMESTAMP\(6\)": f"(UTC_TIMESTAMP(6) + INTERVAL {seconds} SECOND)",
    }

    def ask_later(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        for clock, shifted in clocks.items():
            sql = re.sub(clock, lambda _, shifted=shifted: shifted, str(sql), flags=re.IGNORECASE)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(ask_later):
        yield
