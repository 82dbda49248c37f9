"""Further connections to a test's database, for what only happens between transactions, or at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import connections, transaction

from djwebhooks.exceptions import DjWebhooksError

#: SQLite has one writer: there nothing can happen while another transaction is open.
server_only = pytest.mark.server
#: What PostgreSQL alone has, or is told in other words there.
postgresql_only = pytest.mark.postgresql
#: The same for MariaDB.
mariadb_only = pytest.mark.mariadb


def plain(sql: str) -> str:
    """A statement as every database but MariaDB quotes its names."""
    return sql.replace("`", '"')


@contextmanager
def second_connection(alias: str = "second") -> Iterator[str]:
    """Yield the alias of one more connection to the default database; what it left open is rolled back."""
    connections[alias] = connections["default"].copy(alias)
    try:
        yield alias
    finally:
        connections[alias].close()
        del connections[alias]


class Thread(threading.Thread):
    """Runs a function on connections of its own; ``result`` waits for it and raises what it raised."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._result: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # noqa: BLE001 (raised again by result)
            self._error = error
        finally:
            connections.close_all()

    def result(self, timeout: float = 30) -> Any:
        self.join(timeout)
        assert not self.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


def run_together(*works: Callable[[], Any]) -> list[Any]:
    """Run *works* all at once, each on connections of its own; return what they returned, or which error of ours they raised."""
    barrier = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        connections["default"].ensure_connection()
        barrier.wait(30)
        try:
            return work()
        except DjWebhooksError as error:
            return error

    return [thread.result() for thread in [Thread(partial(run, work)) for work in works]]


@contextmanager
def other_way(**changes: Any) -> Iterator[str]:
    """Yield the alias ``other``, by which all threads reach the default database with other settings of the connection."""
    settings = connections.settings["other"]
    before = dict(settings)
    connections["other"].close()
    settings.update({**connections["default"].settings_dict, **changes})
    try:
        yield "other"
    finally:
        connections["other"].close()
        settings.clear()
        settings.update(before)


@contextmanager
def manual_commits() -> Iterator[None]:
    """Switch the default connection's autocommit off; what is not committed by the end is rolled back."""
    transaction.set_autocommit(False)
    try:
        yield
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


@contextmanager
def swapped(alias: str) -> Iterator[None]:
    """Have the alias ``default`` lead to where *alias* leads."""
    settings = connections.settings["default"]
    before = dict(settings)
    connections["default"].close()
    settings.update(connections.settings[alias])
    try:
        yield
    finally:
        connections["default"].close()
        settings.clear()
        settings.update(before)
