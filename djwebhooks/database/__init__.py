"""Clock, locks, transactions and bulk writes: the only package that knows which database it is talking to."""

from djwebhooks.database.channel import can_listen, listen, notify
from djwebhooks.database.clock import DatabaseClock, read_clock, sql_now
from djwebhooks.database.locks import (
    insert_unless_locked,
    keep_row,
    lock_against_changes,
    lock_free_rows,
    lock_rows,
    sql_lock_free,
)
from djwebhooks.database.reads import load_first, load_many, lock_at, lock_many, read_many, union_all
from djwebhooks.database.schema import DatabaseNow, ExactCharField, PartialIndex, VacuumAfter
from djwebhooks.database.server import describe_fault, find_fault, has_read_committed
from djwebhooks.database.statements import as_time, as_uuid, clean_text, execute, execute_many, quote, to_database
from djwebhooks.database.transactions import (
    batched,
    check_autocommit,
    engine_transaction,
    is_manual,
    is_transient,
    run_transaction,
)
from djwebhooks.database.writes import copy_many, insert_many, insert_row, set_many, update_many

__all__ = [
    "DatabaseClock",
    "DatabaseNow",
    "ExactCharField",
    "PartialIndex",
    "VacuumAfter",
    "as_time",
    "as_uuid",
    "batched",
    "can_listen",
    "check_autocommit",
    "clean_text",
    "copy_many",
    "describe_fault",
    "engine_transaction",
    "execute",
    "execute_many",
    "find_fault",
    "has_read_committed",
    "insert_many",
    "insert_row",
    "insert_unless_locked",
    "is_manual",
    "is_transient",
    "keep_row",
    "listen",
    "load_first",
    "load_many",
    "lock_against_changes",
    "lock_at",
    "lock_free_rows",
    "lock_many",
    "lock_rows",
    "notify",
    "quote",
    "read_clock",
    "read_many",
    "run_transaction",
    "set_many",
    "sql_lock_free",
    "sql_now",
    "to_database",
    "union_all",
    "update_many",
]
