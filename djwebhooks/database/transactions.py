"""Short, bounded transactions, which are run again when they lose."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, TypeVar

from django.db import Error, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from djwebhooks.database.server import is_psycopg
from djwebhooks.exceptions import ConfigurationError

#: How long, in seconds, an engine's statement or its idle transaction may hold locks before the server breaks it off.
STATEMENT_TIMEOUT, IDLE_TIMEOUT = 30, 10
#: How often a transaction that lost a deadlock or a race is run again, and the seconds after which it is not.
TRIES, TRY_SECONDS = 5, 10.0

T = TypeVar("T")


def is_manual(using: str) -> bool:
    """Whether only the caller knows when what is written is committed: autocommit is off, and no ``atomic`` is open."""
    connection = connections[using]
    return not connection.in_atomic_block and not connection.get_autocommit()


def check_autocommit(using: str) -> None:
    """Raise ``ConfigurationError`` where a worker's transactions would never be committed."""
    if is_manual(using):
        raise ConfigurationError(
            f"The connection {using!r} has autocommit off: a worker would send and commit nothing of it. "
            f"Leave AUTOCOMMIT out of DATABASES[{using!r}], and call set_autocommit(True) where it was switched off."
        )


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
    has_pipelines = is_psycopg(connection) and connection.Database.Pipeline.is_supported()
    pipeline: AbstractContextManager[Any] = connection.connection.pipeline() if has_pipelines else nullcontext()
    return pipeline


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
