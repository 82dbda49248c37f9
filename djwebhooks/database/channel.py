"""Tell, and hear, that work was committed, where the database can."""

import selectors
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

from django.db import connections

from djwebhooks.database.server import is_psycopg
from djwebhooks.database.statements import execute

#: What commits are told of on PostgreSQL, and how soon a listener notices that the server is gone, if nothing else is set.
CHANNEL = "djwebhooks"
KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def can_listen(using: str) -> bool:
    """Whether the server tells who listens that somebody has committed work, and the driver can hear it."""
    return is_psycopg(connections[using])


def notify(using: str) -> None:
    """Tell who listens that work was committed, where the database can.

    Not for the inside of a transaction: its commit would wait for all others that tell something, with its locks in hand.
    """
    if can_listen(using):
        execute(using, f"NOTIFY {CHANNEL}")


def listen(using: str, on_notice: Callable[[], None], end: socket.socket) -> bool:
    """Call *on_notice* as soon as this listens, and then at each ``notify``, until something can be read from *end*.

    It has a connection of its own. Return ``False`` at once, and leave it alone, where that leads to a pooler. Raises
    ``DatabaseError`` when it cannot be made, or breaks.
    """
    wrapper: Any = connections[using]
    with wrapper.wrap_database_errors:
        options = KEEPALIVES | wrapper.get_connection_params() | {"autocommit": True}
        # Not out of Django's pool, which wants its connections back.
        with closing(wrapper.Database.connect(**options)) as connection, selectors.DefaultSelector() as selector:
            if _is_pooled(connection):
                return False
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
    return True


def _is_pooled(connection: Any) -> bool:
    """Whether a pooler answers: it says that it is a process of the server that it is not.

    What listens there is a connection that others get next, who would be sent what they have not asked for.
    """
    [(pid,)] = connection.execute("SELECT pg_backend_pid()")
    return bool(pid != connection.info.backend_pid)
