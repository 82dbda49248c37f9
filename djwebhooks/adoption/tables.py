"""The tables of other packages, read as they are in the database: the packages themselves may be gone."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connections

from djwebhooks.database import as_time, quote
from djwebhooks.exceptions import InvalidAdoption

#: A row with all of its columns, also those that a project has added.
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OldSecret:
    """A secret as ``whsec_…``, empty if it cannot be one, and since when it is there, if that is known."""

    text: str = field(repr=False)
    created_at: datetime | None = field(compare=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What a row says of an endpoint."""

    row: Row
    url: str
    events: tuple[str, ...]
    identifier: str = ""
    #: As they are, and not checked yet.
    headers: Any = field(default_factory=dict, repr=False)
    is_active: bool = True
    envelope: str = ""
    #: What signs, the newest first; without any, a new one is made.
    secrets: tuple[OldSecret, ...] = ()
    uid: UUID | None = None
    created_at: datetime | None = None
    #: What is not as it was.
    remark: str = ""

    @property
    def name(self) -> str:
        return f"row {self.row['id']}"


def read_rows(using: str, table: str, columns: Collection[str], *, package: str) -> list[Row]:
    """Return the rows of *table* in their order. Raises ``InvalidAdoption`` where it is not there, or without these *columns*."""
    connection = connections[using]
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            raise InvalidAdoption(
                f"The database {using!r} has no table {table!r}: say --table if {package} has had another, "
                "or --database if it is in another database."
            )
        names = [column.name for column in connection.introspection.get_table_description(cursor, table)]
        if missing := [name for name in ("id", *columns) if name not in names]:
            raise InvalidAdoption(f"The table {table!r} has no column {missing[0]!r}, as that of {package} has.")
        # SQLite holds whatever it was given, and its driver would stop at the first time that is none: a sum has no type to read.
        sign = "+" if connection.vendor == "sqlite" else ""
        selected = ", ".join(sign + quote(using, name) for name in names)
        cursor.execute(f"SELECT {selected} FROM {quote(using, table)} ORDER BY id")
        return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]


def read_time(value: object) -> datetime | None:
    """Return the time that a row has; nothing for what is none, as some databases let it be."""
    try:
        return as_time(value).astimezone(UTC) if isinstance(value, str | datetime) else None
    except (ValueError, OverflowError):
        return None
