"""Hearing of commits: where the database can tell, over connections that break, and nothing at all elsewhere."""

import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from djwebhooks import database
from djwebhooks.engines.database import DatabaseEngine
from djwebhooks.listener import Listener
from tests.connections import other_way, postgresql_only
from tests.engines.processes import PATIENCE, list_listeners, terminate_listeners, wait_until
from tests.faults.proxy import Proxy

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@contextmanager
def listening(using: str = "default") -> Iterator["SimpleQueue[None]"]:
    """Listen, and yield a queue of what is heard."""
    heard: SimpleQueue[None] = SimpleQueue()
    listener = Listener(using, lambda: heard.put(None))
    listener.start()
    try:
        yield heard
    finally:
        listener.close()


def list_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "djwebhooks-listener"]


@postgresql_only
def test_it_hears_at_the_start_and_at_each_notice() -> None:
    """What was committed before it listened counts as told."""
    with listening() as heard:
        heard.get(timeout=PATIENCE)
        for _ in range(3):
            database.notify("default")
            heard.get(timeout=PATIENCE)

        assert heard.empty()
        assert len(list_listeners()) == 1
    wait_until(lambda: not list_listeners(), "its connection is closed")
    assert not list_threads()


@postgresql_only
def test_a_connection_that_was_cut_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so, what was missed counts as told, and it hears again."""
    with listening() as heard:
        heard.get(timeout=PATIENCE)
        for _ in range(2):
            assert terminate_listeners() == 1
            heard.get(timeout=PATIENCE)
            database.notify("default")
            heard.get(timeout=PATIENCE)

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "only polls" in caplog.text


@postgresql_only
def test_a_connection_that_cannot_be_made_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """Each time after a longer pause, and the end does not wait for it."""
    with other_way(HOST="127.0.0.1", PORT="1") as alias, listening(alias) as heard:
        wait_until(lambda: len(caplog.records) >= 2, "it has tried twice")

        assert heard.empty()
    assert "for 0.1 seconds" in caplog.records[0].getMessage()
    assert "for 0.2 seconds" in caplog.records[1].getMessage()
    assert not list_threads()


class Pooled(socket.socket):
    """The server as poolers show it: as a process of another number, which they make up when a client comes."""

    def recv(self, *arguments: int) -> bytes:
        return re.sub(rb"K\0\0\0\x0c....", b"K\0\0\0\x0c\0\0\0\x01", super().recv(*arguments), flags=re.DOTALL)


@postgresql_only
def test_behind_a_pooler_it_only_polls(caplog: pytest.LogCaptureFixture) -> None:
    """What listened would be a connection of the pool, which others get next. The log says so once."""
    settings = connection.settings_dict

    def connect() -> socket.socket:
        server = Pooled(socket.AF_UNIX)
        server.connect(f"{settings['HOST']}/.s.PGSQL.{settings['PORT'] or 5432}")
        return server

    with Proxy(connect) as proxy, other_way(HOST="127.0.0.1", PORT=proxy.port) as alias, listening(alias) as heard:
        wait_until(lambda: not list_threads(), "it has given up")

        assert heard.empty()
        assert not list_listeners()
    [record] = caplog.records
    assert "behind a pooler" in record.getMessage()


@postgresql_only
def test_a_second_start_changes_nothing() -> None:
    """There is one thread with one connection."""
    heard = threading.Event()
    listener = Listener("default", heard.set)
    listener.start()
    listener.start()
    try:
        assert heard.wait(PATIENCE)
        assert len(list_threads()) == len(list_listeners()) == 1
    finally:
        listener.close()


def test_another_database_is_left_alone() -> None:
    """Where the database cannot tell, there is no thread to listen, and a wake-up asks the database nothing."""
    with listening() as heard, CaptureQueriesContext(connection) as queries:
        DatabaseEngine().wake("default")
        can_listen = database.can_listen("default")

        assert can_listen == (connections["default"].vendor == "postgresql")
        assert len(list_threads()) == len(queries) == can_listen
        if can_listen:
            heard.get(timeout=PATIENCE)
