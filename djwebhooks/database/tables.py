"""Some columns of a table, and rows of them, as plain SQL and drivers want them."""

import base64
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

#: Rows that PostgreSQL gets as one parameter, and how many characters of them at most: it refuses hundreds of megabytes.
JSON_ROWS, JSON_LIMIT = "jsonb_array_elements(%s::jsonb) AS rows (row)", 8_000_000
#: What is the same in all of these rows.
JSON_SAME = "(SELECT %s::jsonb) AS constants (same)"


class Table:
    """Some columns of a model's table, as plain SQL and drivers want them."""

    def __init__(self, connection: BaseDatabaseWrapper, model: type[models.Model], names: Sequence[str]) -> None:
        self._connection = connection
        self._fields: list[Any] = [model._meta.get_field(name) for name in names]
        quote = connection.ops.quote_name
        self.name = quote(model._meta.db_table)
        self.columns = [quote(field.column) for field in self._fields]

    def pair(self, values: Sequence[str], count: int) -> tuple[str, str]:
        """Return what assigns the first *count* values to their columns, and what compares the others with theirs."""
        pairs = [f"{column} = {value}" for column, value in zip(self.columns, values, strict=True)]
        return ", ".join(pairs[:count]), " AND ".join(pairs[count:])

    def adapt(self, rows: Sequence[Sequence[object]]) -> list[tuple[Any, ...]]:
        """Return *rows* as the driver wants them, which takes most values as they are."""
        columns: list[Sequence[object]] = list(zip(*rows, strict=True))
        for place, field in enumerate(self._fields):
            prepare = partial(field.get_db_prep_value, connection=self._connection, prepared=True)
            if isinstance(field, models.JSONField):
                columns[place] = [prepare(value) for value in columns[place]]
            elif isinstance(field, models.DateTimeField | models.UUIDField):
                # Often they are all the same.
                known = {value: prepare(value) for value in set(columns[place])}
                columns[place] = [known[value] for value in columns[place]]
        return list(zip(*columns, strict=True))

    def restore(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return what the driver gave as models have it."""
        ways = [(place, way) for place, field in enumerate(self._fields) for way in self._list_converters(field)]
        if not rows or not ways:
            return rows
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for place, way in ways:
            columns[place] = [way(value) for value in columns[place]]
        return list(zip(*columns, strict=True))

    def _list_converters(self, field: Any) -> Iterator[Callable[[Any], Any]]:
        column = field.get_col(field.model._meta.db_table)
        ways = [*self._connection.ops.get_db_converters(column), *column.get_db_converters(self._connection)]
        for way in ways:
            yield partial(lambda way, value: way(value, column, self._connection), way)

    def read_json(self, constants: int = 0) -> list[str]:
        """Return the expressions that read each column out of ``JSON_ROWS``, the last *constants* out of ``JSON_SAME``."""
        count = len(self._fields) - constants
        each = [self._read_json(field, "row", place) for place, field in enumerate(self._fields[:count])]
        return each + [self._read_json(field, "same", place) for place, field in enumerate(self._fields[count:])]

    def _read_json(self, field: Any, row: str, place: int) -> str:
        match field:
            case models.JSONField():
                return f"{row} -> {place}"
            case models.BinaryField():
                return f"decode({row} ->> {place}, 'base64')"
            case models.CharField() | models.TextField():
                return f"{row} ->> {place}"  # Not cast to what the column has: that would cut off what is too long.
            case _:
                return f"({row} ->> {place})::{field.db_type(self._connection)}"


def compare_with(connection: BaseDatabaseWrapper, keys: Collection[object]) -> tuple[str, list[object]]:
    """Return what compares a column with *keys*, and its parameters."""
    if connection.vendor == "postgresql":
        return "= ANY(%s)", [list(keys)]  # One parameter, however many keys.
    return f"IN ({', '.join(['%s'] * len(keys))})", list(keys)


def execute_on_json(using: str, sql: str, rows: Sequence[Sequence[object]], *same: Sequence[object]) -> int:
    """Run one statement over ``JSON_ROWS``, and ``JSON_SAME`` where it has that; return how many rows it wrote.

    *rows* go as one text: to adapt each value by itself costs four times as much.
    """
    text, *others = (json.dumps(part, default=_write_json, ensure_ascii=False, separators=(",", ":")) for part in (rows, *same))
    if len(text) > JSON_LIMIT and len(rows) > 1:
        middle = len(rows) // 2
        return execute_on_json(using, sql, rows[:middle], *same) + execute_on_json(using, sql, rows[middle:], *same)
    with connections[using].cursor() as cursor:
        cursor.execute(sql, [text, *others])
        return int(cursor.rowcount)


def _write_json(value: object) -> str:
    match value:
        case datetime():
            return value.isoformat()
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return str(value)
