"""Clock, locks, transactions and bulk writes: the only module that knows which database it is talking to."""

import base64
import json
import selectors
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from operator import attrgetter
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from django.db import Error, OperationalError, connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.ddl_references import Statement
from django.db.models.expressions import DatabaseDefault
from django.db.models.functions import Now
from django.utils.module_loading import import_string

#: How long, in seconds, an engine's statement or its idle transaction may hold locks before the server breaks it off.
STATEMENT_TIMEOUT, IDLE_TIMEOUT = 30, 10
#: How long, in milliseconds, an engine waits for a row that an application has locked; MariaDB knows whole seconds only.
LOCK_TIMEOUT, MARIADB_LOCK_TIMEOUT = 250, 1000
#: SELECTs in one UNION; SQLite takes 500 at most.
UNION_SIZE = 100
#: Statements that are sent at once.
STATEMENTS = 500
#: Rows that PostgreSQL gets as one parameter, and how many characters of them at most: it refuses hundreds of megabytes.
JSON_ROWS, JSON_LIMIT = "jsonb_array_elements(%s::jsonb) AS rows (row)", 8_000_000
#: What is the same in all of these rows.
JSON_SAME = "(SELECT %s::jsonb) AS constants (same)"
#: Stands for a value that the database finds by itself.
BY_DATABASE = "DEFAULT"
#: How often a transaction that lost a deadlock or a race is run again, and the seconds after which it is not.
TRIES, TRY_SECONDS = 5, 10.0
#: What commits are told of on PostgreSQL, and how soon a listener notices that the server is gone, if nothing else is set.
CHANNEL = "djwebhooks"
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}

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


class ExactCharField(models.CharField):  # type: ignore[type-arg]  # not subscriptable at run time
    """A text that is compared letter by letter: to MariaDB's usual collations ``ORDER-1`` and ``order-1`` are one."""

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters = super().db_parameters(connection)
        # Not utf8mb4_bin, which takes no notice of spaces at the end.
        return parameters | {"collation": "utf8mb4_nopad_bin"} if connection.vendor == "mysql" else parameters


class PartialIndex(models.Index):
    """An index of the rows *where* something is so; MariaDB, which cannot have one, gets one of all rows on *otherwise*.

    Without *otherwise* it gets none: another index does there.
    """

    def __init__(self, *, fields: Sequence[str], name: str, where: models.Q, otherwise: Sequence[str] = ()) -> None:
        # Not as Django's own ``condition``, or every ``migrate`` there would warn of what is provided for.
        super().__init__(fields=fields, name=name)
        self.where = where
        self.otherwise = list(otherwise)

    def deconstruct(self) -> Any:
        path, arguments, options = super().deconstruct()
        return path, arguments, options | {"where": self.where, "otherwise": self.otherwise}

    def create_sql(self, model: Any, schema_editor: BaseDatabaseSchemaEditor, using: str = "", **options: Any) -> Statement:
        if schema_editor.connection.features.supports_partial_indexes:
            index = models.Index(fields=self.fields, name=self.name, condition=self.where)
        elif self.otherwise:
            index = models.Index(fields=self.otherwise, name=self.name)
        else:
            return Statement(NO_STATEMENT)
        return index.create_sql(model, schema_editor, using, **options)

    def remove_sql(self, model: Any, schema_editor: BaseDatabaseSchemaEditor, **options: Any) -> Any:
        if schema_editor.connection.features.supports_partial_indexes or self.otherwise:
            return super().remove_sql(model, schema_editor, **options)
        return Statement(NO_STATEMENT)


#: Does nothing, where a statement is expected.
NO_STATEMENT = "DO 0"


class DatabaseClock:
    """The database's time, read seldom and carried on by the monotonic clock, so that a worker's wrong clock does no harm."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.read()

    def read(self) -> None:
        """Ask the database. The monotonic anchor is taken first: a slow answer makes us late, never early."""
        self._monotonic = time.monotonic()
        self._database = read_clock(self.using)

    def keep_up(self, now: datetime) -> None:
        """Be no earlier than *now*, which the database has just told: what was written then must be due."""
        if now > self():
            self._monotonic, self._database = time.monotonic(), now

    def __call__(self) -> datetime:
        return self._database + timedelta(seconds=time.monotonic() - self._monotonic)


def read_clock(using: str) -> datetime:
    """Return the database's time, aware and in UTC."""
    [(now,)] = execute(using, f"SELECT {sql_now(using)}")
    return as_time(now).astimezone(UTC)


def sql_now(using: str) -> str:
    """Return the expression of plain SQL that is ``DatabaseNow``."""
    match connections[using].vendor:
        case "postgresql":
            return "STATEMENT_TIMESTAMP()"
        case "mysql":
            return "UTC_TIMESTAMP(6)"
        case _:
            return "STRFTIME('%%Y-%%m-%%d %%H:%%M:%%f000', 'NOW')"


def has_read_committed(using: str) -> bool:
    """Whether the connection's transactions see what others have committed meanwhile; Django's own choice for it does."""
    connection = connections[using]
    options = connection.settings_dict.get("OPTIONS", {})
    match connection.vendor:
        case "postgresql":
            return options.get("isolation_level") in (None, import_string(LEVELS).READ_COMMITTED)
        case "mysql":
            return str(options.get("isolation_level", "read committed")).lower() == "read committed"
    return True


#: PostgreSQL's levels have other numbers in each driver.
LEVELS = "django.db.backends.postgresql.psycopg_any.IsolationLevel"


def find_fault(using: str) -> str:
    """Say what is wrong with the server; empty if nothing is."""
    connection: Any = connections[using]
    if connection.vendor != "mysql":
        return ""
    [(charset,)] = execute(using, "SELECT @@character_set_database")
    return describe_fault(connection.mysql_version, charset, is_mariadb=connection.mysql_is_mariadb)


def describe_fault(version: tuple[int, ...], charset: str, *, is_mariadb: bool) -> str:
    """See ``find_fault``: the same for a server of the MySQL family."""
    if not is_mariadb:
        return "is a MySQL, which djwebhooks does not support: it misses limits and collations of MariaDB. Use MariaDB."
    if version < OLDEST_MARIADB:
        return f"is a MariaDB {'.'.join(map(str, version))}: djwebhooks needs SKIP LOCKED, which came with 10.6."
    if charset != "utf8mb4":
        return f"has the character set {charset}, which cannot hold every text: ALTER DATABASE … CHARACTER SET utf8mb4."
    return ""


#: The first MariaDB with SKIP LOCKED.
OLDEST_MARIADB = (10, 6)


def can_listen(using: str) -> bool:
    """Whether the server tells who listens that somebody has committed work, and the driver can hear it."""
    return _is_psycopg(connections[using])


def notify(using: str) -> None:
    """Tell who listens that work was committed, where the database can.

    Not for the inside of a transaction: its commit would wait for all others that tell something, with its locks in hand.
    """
    if can_listen(using):
        execute(using, f"NOTIFY {CHANNEL}")


def listen(using: str, on_notice: Callable[[], None], end: socket.socket) -> None:
    """Call *on_notice* as soon as this listens, and then at each ``notify``, until something can be read from *end*.

    It has a connection of its own. Raises ``DatabaseError`` when that cannot be made, or breaks.
    """
    wrapper: Any = connections[using]
    with wrapper.wrap_database_errors:
        options = KEEPALIVES | wrapper.get_connection_params() | {"autocommit": True}
        # Not out of Django's pool, which wants its connections back.
        with closing(wrapper.Database.connect(**options)) as connection, selectors.DefaultSelector() as selector:
            connection.execute(f"LISTEN {CHANNEL}")
            on_notice()
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(end, selectors.EVENT_READ)
            while all(key.fileobj is not end for key, _ in selector.select()):
                connection.pgconn.consume_input()
                if connection.pgconn.notifies():
                    while connection.pgconn.notifies():
                        pass
                    on_notice()


@contextmanager
def engine_transaction(using: str) -> Iterator[None]:
    """Run the engine's own writes: short, bounded, and never failing half-way for want of SQLite's write lock."""
    connection = connections[using]
    if connection.in_atomic_block:
        with transaction.atomic(using=using):
            yield
    elif connection.vendor == "mysql":
        with _bounded_session(connection), transaction.atomic(using=using):
            yield
    else:
        with transaction.atomic(using=using):
            _prepare(connection)
            yield


def _prepare(connection: BaseDatabaseWrapper) -> None:
    # In one batch with the transaction's BEGIN.
    with batched(connection.alias), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # A frozen holder of locks must not stop everybody else for good.
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}s'")
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}s'")
        elif connection.vendor == "sqlite" and getattr(connection, "transaction_mode", None) != "IMMEDIATE":
            # Reading first and writing later fails at once there, whatever the timeout: so write first.
            cursor.execute("UPDATE sqlite_sequence SET seq = seq WHERE 0")


@contextmanager
def _bounded_session(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """See ``_prepare``. MariaDB's limits are the session's, so the application's own come back afterwards."""
    # idle_write_transaction_timeout would let live who has locked rows, but written none.
    limits = {"max_statement_time": STATEMENT_TIMEOUT, "idle_transaction_timeout": IDLE_TIMEOUT}
    with connection.cursor() as cursor:
        cursor.execute("SET " + ", ".join(f"@djw_{name} = @@{name}, SESSION {name} = {value}" for name, value in limits.items()))
    session = connection.connection
    try:
        yield
    finally:
        # One that broke, or was broken off, has no limits any more.
        if connection.connection is session:
            with suppress(Error), connection.cursor() as cursor:
                cursor.execute("SET " + ", ".join(f"SESSION {name} = @djw_{name}" for name in limits))


@contextmanager
def batched(using: str) -> Iterator[None]:
    """Send the statements in here one behind the other, where the driver can, and wait for all of them at the end.

    They may only write; one that fails raises at the end, and nobody learns how many rows one has written. Inside of a
    transaction only, and without savepoints. Raises ``RuntimeError`` for a statement that reads.
    """
    connection: Any = connections[using]
    with connection.wrap_database_errors, _pipeline(connection), connection.execute_wrapper(_refuse_to_read):
        yield


def _refuse_to_read(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
    if str(sql).lstrip("( \n").startswith("SELECT"):
        raise RuntimeError(f"In a batch nothing can be read, as its statements may not have run yet: {sql}")
    return execute(sql, *arguments)


def _pipeline(connection: Any) -> AbstractContextManager[Any]:
    has_pipelines = _is_psycopg(connection) and connection.Database.Pipeline.is_supported()
    pipeline: AbstractContextManager[Any] = connection.connection.pipeline() if has_pipelines else nullcontext()
    return pipeline


def _is_psycopg(connection: Any) -> bool:
    """Whether the driver is the one for PostgreSQL that can do more than psycopg2."""
    return bool(connection.vendor == "postgresql" and connection.Database.__name__ == "psycopg")


def run_transaction(using: str, act: Callable[[], T], *, tries: int = TRIES) -> T:
    """Run *act* in an engine transaction, all of it again when it lost a deadlock or a race.

    Not for long: each try may wait for SQLite's lock until its timeout, and a worker has its lease to keep.
    """
    started = time.monotonic()
    for _ in range(tries - 1):
        try:
            with engine_transaction(using):
                return act()
        except OperationalError as error:
            is_late = time.monotonic() - started > TRY_SECONDS
            if connections[using].in_atomic_block or not is_transient(error) or is_late:
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
    try:
        with _impatient(using):
            return list(rows.select_for_update())
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return lock_free_rows(rows, using)


def insert_unless_locked(using: str, insert: Callable[[], object]) -> None:
    """Call *insert*, which leaves alone what is there; give up when it waits for somebody's lock for longer than a moment."""
    try:
        with _impatient(using):
            insert()
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise


@contextmanager
def _impatient(using: str) -> Iterator[None]:
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


def lock_many(
    using: str, model: type[models.Model], columns: Sequence[str], keys: Collection[object], *, match: str = "id"
) -> list[tuple[Any, ...]]:
    """As ``lock_rows``, with ``read_many``: lock the rows and return their values."""
    try:
        with _impatient(using):
            return _select_many(using, model, columns, keys, match, "FOR UPDATE")
    except OperationalError as error:
        if not is_lock_timeout(error):
            raise
        return read_many(using, model, columns, keys, match=match, lock=True)


def lock_free_rows(rows: models.QuerySet[M], using: str) -> list[M]:
    """Lock those of *rows* that nobody else has locked; SQLite has one writer, so there all of them."""
    return list(rows.select_for_update(skip_locked=connections[using].features.has_select_for_update_skip_locked))


def sql_lock_free(using: str) -> str:
    """Return what ends a SELECT of plain SQL that is to lock rows, except those that somebody else has locked."""
    return "FOR UPDATE SKIP LOCKED" if connections[using].features.has_select_for_update_skip_locked else ""


def lock_against_changes(rows: models.QuerySet[Any], using: str) -> None:
    """Lock *rows* until the transaction ends; where the database knows the difference, others may still refer to them."""
    no_key = connections[using].features.has_select_for_no_key_update
    list(rows.select_for_update(no_key=no_key).values_list("pk"))


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


def clean_text(text: str) -> str:
    """Return *text* without what a database cannot hold: NUL and lone surrogates."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def quote(using: str, name: str) -> str:
    """Return a column's name as this database wants it."""
    return connections[using].ops.quote_name(name)


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
        return _execute_on_json(using, sql, rows, list(constants.values())) == len(rows)
    first, same = table.columns[0], tuple(constants.values())
    rows = [(*row, *same) for row in rows] if same else rows
    # INSERT IGNORE would cut off what is too long, too.
    conflict = f"DUPLICATE KEY UPDATE {first} = {first}" if connection.vendor == "mysql" else "CONFLICT DO NOTHING"
    with connection.cursor() as cursor:
        cursor.executemany(f"{insert} VALUES ({', '.join(['%s'] * len(table.columns))}) ON {conflict}", table.adapt(rows))
        # MariaDB counts those that were there, too.
        return connection.vendor != "mysql" and cursor.rowcount == len(rows)


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
    among, parameters = _among(connection, keys)
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
    among, parameters = _among(connection, keys)
    assign, _ = table.pair(["%s"] * len(values), len(values))
    [adapted] = table.adapt([tuple(values.values())])
    execute(using, f"UPDATE {table.name} SET {assign} WHERE {key} {among}", [*adapted, *parameters])


def _among(connection: BaseDatabaseWrapper, keys: Collection[object]) -> tuple[str, list[object]]:
    """Return what compares a column with *keys*, and its parameters."""
    if connection.vendor == "postgresql":
        return "= ANY(%s)", [list(keys)]  # One parameter, however many keys.
    return f"IN ({', '.join(['%s'] * len(keys))})", list(keys)


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
        _execute_on_json(using, f"UPDATE {table.name} SET {assign} FROM {JSON_ROWS} WHERE {where}", rows)
    else:
        assign, where = table.pair(["%s"] * len(table.columns), len(columns))
        execute_many(using, f"UPDATE {table.name} SET {assign} WHERE {where}", table.adapt(rows))


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
    return _select_many(using, model, columns, keys, match, "FOR UPDATE SKIP LOCKED" if lock else "")


def lock_at(using: str, model: type[models.Model], keys: Collection[object]) -> tuple[datetime, set[Any]]:
    """Lock those of the rows with these ids that nobody else has locked; return the database's time of then, and their ids."""
    if not keys:
        return read_clock(using), set()
    connection = connections[using]
    table = Table(connection, model, ["id"])
    [key], (among, parameters) = table.columns, _among(connection, keys)
    columns = f"{key}, {sql_now(using)}"
    sql = f"SELECT {columns} FROM {table.name} WHERE {key} {among} ORDER BY {key} {sql_lock_free(using)}"
    rows = execute(using, sql, parameters)
    return as_time(rows[0][1]).astimezone(UTC) if rows else read_clock(using), {pk for pk, _ in rows}


def _select_many(
    using: str, model: type[models.Model], columns: Sequence[str], keys: Collection[object], match: str, locking: str
) -> list[tuple[Any, ...]]:
    if not keys:
        return []
    connection = connections[using]
    table = Table(connection, model, columns)
    [key] = Table(connection, model, [match]).columns
    among, parameters = _among(connection, keys)
    sql = f"SELECT {', '.join(table.columns)} FROM {table.name} WHERE {key} {among} ORDER BY {key}"
    if connection.features.has_select_for_update:  # SQLite has one writer: nothing is locked but by itself.
        sql = f"{sql} {locking}"
    return table.restore(execute(using, sql, parameters))


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


def _execute_on_json(using: str, sql: str, rows: Sequence[Sequence[object]], *same: Sequence[object]) -> int:
    """Run one statement over ``JSON_ROWS``, and ``JSON_SAME`` where it has that; return how many rows it wrote.

    *rows* go as one text: to adapt each value by itself costs four times as much.
    """
    text, *others = (json.dumps(part, default=_write_json, ensure_ascii=False, separators=(",", ":")) for part in (rows, *same))
    if len(text) > JSON_LIMIT and len(rows) > 1:
        middle = len(rows) // 2
        return _execute_on_json(using, sql, rows[:middle], *same) + _execute_on_json(using, sql, rows[middle:], *same)
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
