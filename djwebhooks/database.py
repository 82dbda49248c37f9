"""Clock, locks, transactions and bulk writes: the only module that knows which database it is talking to."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import OperationalError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

#: How long, in milliseconds, an engine's statement or its idle transaction may hold locks before PostgreSQL breaks it off.
STATEMENT_TIMEOUT, IDLE_TIMEOUT = 30_000, 10_000
#: How long, in milliseconds, an engine waits for a row that an application has locked.
LOCK_TIMEOUT = 250
#: SELECTs in one UNION; SQLite takes 500 at most.
UNION_SIZE = 100
#: How often a transaction that lost a deadlock or a race is run again.
TRIES = 5

T = TypeVar("T")
M = TypeVar("M", bound=models.Model)


class DatabaseNow(Now):
    """The database's own clock, as Django stores times."""

    def as_sqlite(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        # Times are compared as texts there, and Python writes six digits: with three, what is due now would not be due yet.
        return self.as_sql(compiler, connection, template="STRFTIME('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f000', 'NOW')", **extra)

    def as_mysql(self, compiler: Any, connection: BaseDatabaseWrapper, **extra: Any) -> Any:
        # There Now() is the server's zone, while stored values are UTC.
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra)


class DatabaseClock:
    """The database's time, read seldom and carried on by the monotonic clock, so that a worker's wrong clock does no harm."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.read()

    def read(self) -> None:
        """Ask the database. The monotonic anchor is taken first: a slow answer makes us late, never early."""
        self._monotonic = time.monotonic()
        self._database = read_clock(self.using)

    def __call__(self) -> datetime:
        return self._database + timedelta(seconds=time.monotonic() - self._monotonic)


def read_clock(using: str) -> datetime:
    """Return the database's time, aware and in UTC."""
    connection = connections[using]
    with connection.cursor() as cursor:
        match connection.vendor:
            case "postgresql":
                cursor.execute("SELECT statement_timestamp()")
            case "mysql":
                cursor.execute("SELECT UTC_TIMESTAMP(6)")
            case _:
                cursor.execute("SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')")
        return as_time(cursor.fetchone()[0]).astimezone(UTC)


@contextmanager
def engine_transaction(using: str) -> Iterator[None]:
    """Run the engine's own writes: short, bounded, and never failing half-way for want of SQLite's write lock."""
    connection = connections[using]
    is_outermost = not connection.in_atomic_block
    with transaction.atomic(using=using):
        if is_outermost:
            _prepare(connection)
        yield


def _prepare(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # A frozen holder of locks must not stop everybody else for good.
            cursor.execute(
                f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT}; "
                f"SET LOCAL idle_in_transaction_session_timeout = {IDLE_TIMEOUT}"
            )
        elif connection.vendor == "sqlite" and getattr(connection, "transaction_mode", None) != "IMMEDIATE":
            # Reading first and writing later fails at once there, whatever the timeout: so write first.
            cursor.execute("UPDATE djw_dispatcher SET id = id WHERE id = 0")


def run_transaction(using: str, act: Callable[[], T], *, tries: int = TRIES) -> T:
    """Run *act* in an engine transaction, all of it again when it lost a deadlock or a race."""
    for _ in range(tries - 1):
        try:
            with engine_transaction(using):
                return act()
        except OperationalError as error:
            if connections[using].in_atomic_block or not is_transient(error):
                raise
    with engine_transaction(using):
        return act()


def is_transient(error: OperationalError) -> bool:
    """Whether the same transaction may well succeed at the next try."""
    state = getattr(error.__cause__, "sqlstate", None)
    code = error.args[0] if error.args else None
    return state in {"40001", "40P01"} or code in {1205, 1213} or "database is locked" in str(error)


def lock_rows(rows: models.QuerySet[M], using: str) -> list[M]:
    """Lock *rows* in their order; those that somebody else keeps locked for longer than a moment are left out."""
    if connections[using].vendor != "postgresql":
        return lock_free_rows(rows, using)
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
            locked = list(rows.select_for_update())
            cursor.execute("SET LOCAL lock_timeout = 0")
            return locked
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return lock_free_rows(rows, using)


def insert_unless_locked(using: str, insert: Callable[[], object]) -> None:
    """Call *insert*, which leaves alone what is there; give up when it waits for somebody's lock for longer than a moment."""
    if connections[using].vendor != "postgresql":
        insert()
        return
    try:
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
            insert()
            cursor.execute("SET LOCAL lock_timeout = 0")
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise


def is_lock_timeout(error: OperationalError) -> bool:
    """Whether PostgreSQL gave up waiting for a lock."""
    return getattr(error.__cause__, "sqlstate", None) == "55P03"


def lock_free_rows(rows: models.QuerySet[M], using: str) -> list[M]:
    """Lock those of *rows* that nobody else has locked; SQLite has one writer, so there all of them."""
    return list(rows.select_for_update(skip_locked=connections[using].features.has_select_for_update_skip_locked))


def clean_text(text: str) -> str:
    """Return *text* without what a database cannot hold: NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def quote(using: str, name: str) -> str:
    """Return a column's name as this database wants it."""
    return connections[using].ops.quote_name(name)


def execute(using: str, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement and return its rows, if it has any."""
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def execute_many(using: str, sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run one statement once per row, without a round trip for each."""
    if rows:
        with connections[using].cursor() as cursor:
            cursor.executemany(sql, rows)


def insert_many(using: str, model: type[models.Model], columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Insert rows of plain values, without the cost of a model instance each; rows that are there already are left alone."""
    connection = connections[using]
    quote = connection.ops.quote_name
    fields: list[Any] = [model._meta.get_field(column) for column in columns]
    values = [[field.get_db_prep_save(value, connection) for field, value in zip(fields, row, strict=True)] for row in rows]
    names = ", ".join(quote(field.column) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    ignore = "INSERT IGNORE" if connection.vendor == "mysql" else "INSERT"
    on_conflict = "" if connection.vendor == "mysql" else " ON CONFLICT DO NOTHING"
    sql = f"{ignore} INTO {quote(model._meta.db_table)} ({names}) VALUES ({marks}){on_conflict}"
    execute_many(using, sql, values)


def to_database(using: str, value: datetime | None) -> object:
    """Return an aware time as this database's driver wants it in plain SQL."""
    return connections[using].ops.adapt_datetimefield_value(value) if value is not None else None


def as_time(value: datetime | str) -> datetime:
    """Return a time that plain SQL selected, as an aware one."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


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
