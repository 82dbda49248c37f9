"""Write rows without the cost of a model instance each."""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from django.db import connections, models, transaction
from django.db.models.expressions import DatabaseDefault

from djwebhooks.database.statements import execute, execute_many
from djwebhooks.database.tables import JSON_ROWS, JSON_SAME, Table, compare_with, execute_on_json

#: Stands for a value that the database finds by itself.
BY_DATABASE = "DEFAULT"


def insert_row(using: str, row: models.Model) -> None:
    """Insert a new row and give it what the database adds: as its ``save``, at a third of the cost, but no signal is sent.

    What is empty is written into the statement itself, which is made once for all rows that have the same columns to fill.
    """
    connection = connections[using]
    values = {field: getattr(row, field.attname) for field in row._meta.local_concrete_fields if not field.primary_key}
    words = tuple(_write_empty(value) for value in values.values())
    sql, added = _prepare_insert(using, type(row), words)
    given = [(field, value) for (field, value), word in zip(values.items(), words, strict=True) if word == "%s"]
    parameters = [field.get_db_prep_save(value, connection) for field, value in given]
    with transaction.mark_for_rollback_on_error(using):
        [found] = Table(connection, type(row), added).restore(execute(using, sql, parameters))
    for name, value in zip(added, found, strict=True):
        setattr(row, name, value)
    row._state.adding, row._state.db = False, using


@lru_cache
def _prepare_insert(using: str, model: type[models.Model], words: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the statement, and the names of the columns that the database adds."""
    connection = connections[using]
    fields = [field for field in model._meta.local_concrete_fields if not field.primary_key]
    written = {field.name: word for field, word in zip(fields, words, strict=True) if word != BY_DATABASE}
    added = [model._meta.pk.name, *(field.name for field, word in zip(fields, words, strict=True) if word == BY_DATABASE)]
    into, back = Table(connection, model, list(written)), Table(connection, model, added)
    insert = f"INSERT INTO {into.name} ({', '.join(into.columns)}) VALUES ({', '.join(written.values())})"
    return f"{insert} RETURNING {', '.join(back.columns)}", added


def _write_empty(value: object) -> str:
    """Return how a statement says *value*, if it is an empty one; else the place of a parameter."""
    match value:
        case None:
            return "NULL"
        case "":
            return "''"
        case False:
            return "FALSE"
        case 0:
            return "0"
        case DatabaseDefault():
            return BY_DATABASE
        case _:
            return "%s"


def insert_many(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    constants: Mapping[str, object] = MappingProxyType({}),
) -> bool:
    """Insert rows of plain values, without the cost of a model instance each; rows that are there already are left alone.

    *constants* are columns that have the same value in all of them. Return whether it is sure that none of them was there.
    """
    if not rows:
        return True
    connection = connections[using]
    table = Table(connection, model, (*columns, *constants))
    insert = f"INSERT INTO {table.name} ({', '.join(table.columns)})"
    if connection.vendor == "postgresql":
        values = ", ".join(table.read_json(len(constants)))
        sql = f"{insert} SELECT {values} FROM {JSON_ROWS}, {JSON_SAME} ON CONFLICT DO NOTHING"
        return execute_on_json(using, sql, rows, list(constants.values())) == len(rows)
    first, same = table.columns[0], tuple(constants.values())
    rows = [(*row, *same) for row in rows] if same else rows
    # INSERT IGNORE would cut off what is too long, too.
    conflict = f"DUPLICATE KEY UPDATE {first} = {first}" if connection.vendor == "mysql" else "CONFLICT DO NOTHING"
    with connection.cursor() as cursor:
        cursor.executemany(f"{insert} VALUES ({', '.join(['%s'] * len(table.columns))}) ON {conflict}", table.adapt(rows))
        # MariaDB counts those that were there, too.
        return connection.vendor != "mysql" and cursor.rowcount == len(rows)


def copy_many(
    using: str, model: type[models.Model], columns: Mapping[str, str], source: type[models.Model], keys: Collection[object]
) -> None:
    """Insert a row for each row of *source* whose id is one of *keys*; rows that are there already are left alone.

    *columns* names what they get, and the columns of *source* that this comes from; their values do not leave the database.
    """
    if not keys:
        return
    connection = connections[using]
    new, old = Table(connection, model, tuple(columns)), Table(connection, source, ("id", *columns.values()))
    key, *values = old.columns
    among, parameters = compare_with(connection, keys)
    conflict = "CONFLICT DO NOTHING"
    if connection.vendor == "mysql":
        conflict = f"DUPLICATE KEY UPDATE {new.name}.{new.columns[0]} = {new.name}.{new.columns[0]}"
    insert = f"INSERT INTO {new.name} ({', '.join(new.columns)}) SELECT {', '.join(values)} FROM {old.name}"
    execute(using, f"{insert} WHERE {key} {among} ON {conflict}", parameters)


def set_many(using: str, model: type[models.Model], values: Mapping[str, object], keys: Collection[object]) -> None:
    """Give the columns in *values* the same value in all rows with these ids."""
    if not keys:
        return
    connection = connections[using]
    table, key = Table(connection, model, tuple(values)), Table(connection, model, ["id"]).columns[0]
    among, parameters = compare_with(connection, keys)
    assign, _ = table.pair(["%s"] * len(values), len(values))
    [adapted] = table.adapt([tuple(values.values())])
    execute(using, f"UPDATE {table.name} SET {assign} WHERE {key} {among}", [*adapted, *parameters])


def update_many(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    match: Sequence[str] = ("id",),
) -> None:
    """Write each row's values into *columns* of the row that its last values, those of the columns *match*, stand for.

    No two rows may stand for the same one.
    """
    if not rows:
        return
    table = Table(connections[using], model, (*columns, *match))
    if connections[using].vendor == "postgresql":
        assign, where = table.pair(table.read_json(), len(columns))
        execute_on_json(using, f"UPDATE {table.name} SET {assign} FROM {JSON_ROWS} WHERE {where}", rows)
    else:
        assign, where = table.pair(["%s"] * len(table.columns), len(columns))
        execute_many(using, f"UPDATE {table.name} SET {assign} WHERE {where}", table.adapt(rows))
