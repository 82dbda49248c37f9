"""Single statements of plain SQL, and what goes into them and comes out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connections

#: Statements that are sent at once.
STATEMENTS = 500


def execute(using: str, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows, if it has any."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall()) if cursor.description else []


def execute_many(using: str, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run one statement once per row, without a round trip for each."""
    if not rows:
        return
    with connections[using].cursor() as cursor:
        if connections[using].vendor != "mysql":
            cursor.executemany(sql, rows)
            return
        # Its driver would wait for each but inserts.
        for start in range(0, len(rows), STATEMENTS):
            page = rows[start : start + STATEMENTS]
            cursor.execute("; ".join([sql] * len(page)), [value for row in page for value in row])
            while cursor.nextset():
                pass


def quote(using: str, name: str) -> str:
    """Return a column's name as this database wants it."""
    return connections[using].ops.quote_name(name)


def clean_text(text: str) -> str:
    """Return *text* without what a database cannot hold: NUL and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def to_database(using: str, value: datetime | None) -> object:
    """Return an aware time as this database's driver wants it in plain SQL."""
    return connections[using].ops.adapt_datetimefield_value(value) if value is not None else None


def as_uuid(value: UUID | str) -> UUID:
    """Return an id that plain SQL selected, as one."""
    return value if isinstance(value, UUID) else UUID(value)


def as_time(value: datetime | str) -> datetime:
    """Return a time that plain SQL selected, as an aware one."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
