"""What sessions of the server wait for, and what limits they have."""

from django.db import connection

from djwebhooks import database
from tests.database.rows import DB

#: Names of the limits on a statement, on an idle transaction and on waiting for a lock; and how to set one for the session.
LIMITS = {
    "postgresql": ("SHOW {}", "SET {} = '{}s'", ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")),
    "mysql": (
        "SELECT @@{}",
        "SET SESSION {} = {}",
        ("max_statement_time", "idle_transaction_timeout", "innodb_lock_wait_timeout"),
    ),
}


def wait_until_blocked() -> None:
    sql = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mysql": (
            "SELECT CAST(variable_value AS INTEGER) FROM information_schema.global_status "
            "WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
        ),
    }
    for _ in range(100_000):
        [(count,)] = database.execute(DB, sql[connection.vendor])
        if count:
            return
    raise AssertionError("nobody waits")


def show_limits() -> list[object]:
    show, _, names = LIMITS[connection.vendor]
    return [database.execute(DB, show.format(name))[0][0] for name in names]


def limit_idle_transaction(seconds: int) -> None:
    _, assign, names = LIMITS[connection.vendor]
    database.execute(DB, assign.format(names[1], seconds))
