"""What server this is, how it is set up, and whether it will do."""

from typing import Any

from django.db import connections
from django.utils.module_loading import import_string

from djwebhooks.database.statements import execute

#: The first MariaDB with SKIP LOCKED.
OLDEST_MARIADB = (10, 6)
#: PostgreSQL's levels have other numbers in each driver.
LEVELS = "django.db.backends.postgresql.psycopg_any.IsolationLevel"


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


def is_psycopg(connection: Any) -> bool:
    """Whether the driver is the one for PostgreSQL that can do more than psycopg2."""
    return bool(connection.vendor == "postgresql" and connection.Database.__name__ == "psycopg")
