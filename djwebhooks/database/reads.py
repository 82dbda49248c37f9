"""Read many rows without the cost of a query set, and lock them on the way."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any, TypeVar

from django.db import OperationalError, connections, models

from djwebhooks.database.clock import read_clock, sql_now
from djwebhooks.database.locks import impatient, is_lock_timeout, sql_lock_free
from djwebhooks.database.statements import as_time, execute
from djwebhooks.database.tables import Table, compare_with

#: SELECTs in one UNION; SQLite takes 500 at most.
UNION_SIZE = 100

M = TypeVar("M", bound=models.Model)


def read_many(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    keys: Collection[object],
    *,
    match: str = "id",
    lock: bool = False,
) -> list[tuple[Any, ...]]:
    """Return the values of *columns* in the rows whose column *match* is one of *keys*, in its order.

    It is a tenth of what a query set costs. With *lock* the rows are locked; those that somebody else has locked are left out.
    """
    return _select_many(using, model, columns, keys, match, sql_lock_free(using) if lock else "")


def load_many(using: str, model: type[M], keys: Collection[object]) -> dict[Any, M]:
    """Return the rows whose primary keys are among *keys*, by these: as ``in_bulk``, at a third of its cost."""
    fields = model._meta.concrete_fields
    match = str(model._meta.pk.name)
    rows = read_many(using, model, [field.name for field in fields], keys, match=match)
    loaded = (model.from_db(using, [field.attname for field in fields], row) for row in rows)
    return {row.pk: row for row in loaded}


def load_first(using: str, model: type[M], columns: Sequence[str], conditions: Sequence[str], limit: int) -> list[M]:
    """Load these columns of the first *limit* rows, by their ids, that one of the *conditions* of plain SQL is true for.

    No row may meet two of them.
    """
    connection = connections[using]
    fields = [field for field in model._meta.concrete_fields if field.name in columns]  # In the order of ``from_db``.
    table = Table(connection, model, [field.name for field in fields])
    key = connection.ops.quote_name("id")
    selects = [f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {condition}" for condition in conditions]
    end = f"ORDER BY {key} LIMIT {limit}"
    if connection.vendor == "mysql":
        # There a UNION writes all rows into a table of its own before it cuts off the rest.
        rows = [row for select in selects for row in execute(using, f"{select} {end}")]
    else:
        # Not an OR: behind that, SQLite sees no partial index and reads the whole table.
        rows = execute(using, f"{' UNION ALL '.join(selects)} {end}")
    loaded = [model.from_db(using, [field.attname for field in fields], row) for row in table.restore(rows)]
    return sorted(loaded, key=attrgetter("pk"))[:limit]


def union_all(using: str, select: str, parameters: Iterable[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Run the same limited SELECT for each set of parameters in few round trips, so that every one of them gets its share.

    The select's own ORDER BY and LIMIT count for each set alone.
    """
    found: list[tuple[Any, ...]] = []
    todo = list(parameters)
    for start in range(0, len(todo), UNION_SIZE):
        page = todo[start : start + UNION_SIZE]
        parts = " UNION ALL ".join(f"SELECT * FROM ({select}) AS part{number}" for number in range(len(page)))
        found += execute(using, parts, [value for values in page for value in values])
    return found


def lock_many(
    using: str, model: type[models.Model], columns: Sequence[str], keys: Collection[object], *, match: str = "id"
) -> list[tuple[Any, ...]]:
    """As ``lock_rows``, with ``read_many``: lock the rows and return their values."""
    try:
        with impatient(using):
            return _select_many(using, model, columns, keys, match, "FOR UPDATE")
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return read_many(using, model, columns, keys, match=match, lock=True)


def lock_at(using: str, model: type[models.Model], keys: Collection[object], *, empty: str) -> tuple[datetime, set[Any]]:
    """Lock those of the rows with these ids that nobody else has locked, and return the database's time of then.

    Besides, return the ids of those whose column *empty* is null by then, whatever it was when they were read.
    """
    if not keys:
        return read_clock(using), set()
    connection = connections[using]
    table = Table(connection, model, ["id", empty])
    [key, column], (among, parameters) = table.columns, compare_with(connection, keys)
    # Not a condition: MariaDB could find the rows by an index of that column, and lock what lies between them.
    columns = f"{key}, {sql_now(using)}, {column} IS NULL"
    sql = f"SELECT {columns} FROM {table.name} WHERE {key} {among} ORDER BY {key} {sql_lock_free(using)}"
    rows = execute(using, sql, parameters)
    return as_time(rows[0][1]).astimezone(UTC) if rows else read_clock(using), {pk for pk, _, is_empty in rows if is_empty}


def _select_many(
    using: str, model: type[models.Model], columns: Sequence[str], keys: Collection[object], match: str, locking: str
) -> list[tuple[Any, ...]]:
    if not keys:
        return []
    connection = connections[using]
    table = Table(connection, model, columns)
    [key] = Table(connection, model, [match]).columns
    among, parameters = compare_with(connection, keys)
    sql = f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {key} {among} ORDER BY {key}"
    if connection.features.has_select_for_update:  # SQLite has one writer: nothing is locked but by itself.
        sql = f"{sql} {locking}"
    return table.restore(execute(using, sql, parameters))
