"""Lock rows without waiting for long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import OperationalError, connections, models, transaction

from djwebhooks.database.statements import execute, quote

#: How long, in milliseconds, an engine waits for a row that an application has locked; MariaDB knows whole seconds only.
LOCK_TIMEOUT, MARIADB_LOCK_TIMEOUT = 250, 1000

#: What lets nobody delete a row that is read, and stands in the way of as little else as the database can.
KEEP = {"postgresql": "FOR KEY SHARE", "mysql": "LOCK IN SHARE MODE", "sqlite": ""}

M = TypeVar("M", bound=models.Model)


def lock_rows(rows: models.QuerySet[M], using: str) -> list[M]:
    """Lock *rows* in their order; those that somebody else keeps locked for longer than a moment are left out."""
    try:
        with impatient(using):
            return list(rows.select_for_update())
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return lock_free_rows(rows, using)


def lock_free_rows(rows: models.QuerySet[M], using: str) -> list[M]:
    """Lock those of *rows* that nobody else has locked; SQLite has one writer, so there all of them."""
    return list(rows.select_for_update(skip_locked=connections[using].features.has_select_for_update_skip_locked))


def sql_lock_free(using: str) -> str:
    """Return what ends a SELECT of plain SQL that is to lock rows, except those that somebody else has locked."""
    return "FOR UPDATE SKIP LOCKED" if connections[using].features.has_select_for_update_skip_locked else ""


def lock_against_changes(rows: models.QuerySet[Any], using: str) -> bool:
    """Lock *rows* until the transaction ends, and return whether there are any.

    Where the database knows the difference, others may still refer to them.
    """
    no_key = connections[using].features.has_select_for_no_key_update
    return bool(list(rows.select_for_update(no_key=no_key).values_list("pk")))


def keep_row(using: str, model: type[models.Model], pk: object) -> bool:
    """Let nobody delete the row until the transaction ends; return whether it is there."""
    sql = f"SELECT 1 FROM {quote(using, model._meta.db_table)} WHERE id = %s {KEEP[connections[using].vendor]}"
    return bool(execute(using, sql, [pk]))


def insert_unless_locked(using: str, insert: Callable[[], object]) -> None:
    """Call *insert*, which leaves alone what is there; give up when it waits for somebody's lock for longer than a moment."""
    try:
        with impatient(using):
            insert()
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise


@contextmanager
def impatient(using: str) -> Iterator[None]:
    """Wait for no lock longer than a moment: then what is run in here fails, and is undone."""
    connection = connections[using]
    match connection.vendor:
        case "postgresql":
            with transaction.atomic(using=using), connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
                yield
                cursor.execute("SET LOCAL lock_timeout = 0")
        case "mysql":
            with transaction.atomic(using=using), connection.execute_wrapper(_wait_briefly):
                yield
        case _:  # SQLite has one writer: no row is locked but by itself.
            yield


def _wait_briefly(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
    return execute(f"SET STATEMENT innodb_lock_wait_timeout = {MARIADB_LOCK_TIMEOUT // 1000} FOR {sql}", *arguments)


def is_lock_timeout(error: OperationalError) -> bool:
    """Whether the server gave up waiting for a lock."""
    return getattr(error.__cause__, "sqlstate", None) == "55P03" or error.args[:1] == (1205,)
