"""The database's time, which all workers go by."""

import time
from datetime import UTC, datetime, timedelta

from django.db import connections

from djwebhooks.database.statements import as_time, execute

#: MariaDB's time in UTC, as values are stored; its NOW() is in the server's zone.
MARIADB_NOW = "UTC_TIMESTAMP(6)"
#: SQLite's time as Django stores times, which are compared as texts: with three digits of the second instead of the six that
#: Python writes, what is due now would not be due yet.
SQLITE_NOW = "STRFTIME('%Y-%m-%d %H:%M:%f000', 'NOW')"


def sql_now(using: str) -> str:
    """Return the expression of plain SQL that is ``DatabaseNow``."""
    match connections[using].vendor:
        case "postgresql":
            return "STATEMENT_TIMESTAMP()"
        case "mysql":
            return MARIADB_NOW
        case _:
            return SQLITE_NOW.replace("%", "%%")


def read_clock(using: str) -> datetime:
    """Return the database's time, aware and in UTC."""
    [(now,)] = execute(using, f"SELECT {sql_now(using)}")
    return as_time(now).astimezone(UTC)


class DatabaseClock:
    """The database's time, read seldom and carried on by the monotonic clock, so that a worker's wrong clock does no harm."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.read()

    def read(self) -> None:
        """Ask the database. The monotonic anchor is taken first, so that by a slow answer we are early, and never late.

        What the database has leased as due must be due by this clock too, or the lane would be given back untouched.
        """
        self._monotonic = time.monotonic()
        self._database = read_clock(self.using)

    def keep_up(self, now: datetime) -> None:
        """Be no earlier than *now*, which the database has just told: what was written then must be due."""
        if now > self():
            self._monotonic, self._database = time.monotonic(), now

    def __call__(self) -> datetime:
        return self._database + timedelta(seconds=time.monotonic() - self._monotonic)
