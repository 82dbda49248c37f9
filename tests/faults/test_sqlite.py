"""SQLite is locked, full, read-only or away: workers go on by themselves, and nothing is lost or doubled."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from djwebhooks.events import fire
from djwebhooks.models import Event
from tests.connections import other_way, second_connection, swapped
from tests.engines.processes import wait_until
from tests.faults.workers import Sent, fire_at_once, fire_some, make_owner, wait_for_failures, wait_for_more, working

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(transaction=True, databases=["default", "other"])]

WAL, ROLLBACK_JOURNAL = "PRAGMA journal_mode=WAL;", "PRAGMA journal_mode=DELETE;"


@pytest.fixture
def owner(db: None) -> User:
    return make_owner()


@contextmanager
def opened(init: str = WAL, *, timeout: float = 0.1, mode: str = "IMMEDIATE", name: str = "") -> Iterator[str]:
    """The alias ``other`` for connections that are set up like this."""
    options = {"init_command": init, "timeout": timeout, "transaction_mode": mode, "uri": True}
    with other_way(OPTIONS=options, **({"NAME": name} if name else {})) as alias:
        yield alias


@contextmanager
def locked() -> Iterator[None]:
    """Keep SQLite's one lock for writers, as an application does that writes for long."""
    with second_connection() as application, transaction.atomic(using=application):
        Event.objects.using(application).update(identifier="x")
        yield


@pytest.mark.parametrize("mode", ["DEFERRED", "IMMEDIATE"])
def test_an_application_keeps_the_lock(owner: User, sent: Sent, caplog: pytest.LogCaptureFixture, mode: str) -> None:
    """While an application writes for longer than the timeout, a worker waits, from its start on and in the middle."""
    fire_at_once(owner, 50)
    with opened(mode=mode), ExitStack() as at_the_start:
        at_the_start.enter_context(locked())
        with working(sent):
            wait_for_failures(caplog, 2)
            at_the_start.close()
            wait_for_more(sent)
            with locked():
                wait_for_failures(caplog, 2)

    assert "database is locked" in caplog.text
    sent.check_each_once()


def test_the_disk_is_full(owner: User, sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot grow for a while stops nothing for good, and an event's function is not to blame for it."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM")
        pages = cursor.execute("PRAGMA page_count").fetchone()[0]
    fire_some(owner)
    with opened(f"{WAL} PRAGMA max_page_count={pages + 5};") as alias, working(sent):
        for _ in range(5):
            fire("thing.grown", "x" * 100_000, owner=owner)
        wait_until(lambda: "database or disk is full" in caplog.text, "the file is full")
        wait_for_failures(caplog, 1)
        connections.settings[alias]["OPTIONS"]["init_command"] = WAL

    sent.check_each_once()
    assert not Event.objects.filter(build_attempts__gt=1).exists()


def test_the_file_is_read_only_and_then_away(sent: Sent, caplog: pytest.LogCaptureFixture, tmp_path: Path, db: None) -> None:
    """A file that may not be written to, or is moved away and put back, as when it is restored, is only waited for."""
    path, away = tmp_path / "moved.sqlite3", tmp_path / "away.sqlite3"
    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM INTO '{path}'")
    with opened(ROLLBACK_JOURNAL, name=f"file:{path}", timeout=5) as alias, swapped(alias):
        fire_some(make_owner())
        connections.settings[alias]["NAME"] = f"file:{path}?mode=ro"
        with working(sent):
            wait_for_failures(caplog, 1)
            connections.settings[alias]["NAME"] = f"file:{path}"
            wait_until(lambda: sent.requests, "it works")
            connections["default"].close()
            path.rename(away)
            wait_for_failures(caplog, 2)
            away.replace(path)
        sent.check_each_once()

    assert "attempt to write a readonly database" in caplog.text
    assert "no such table" in caplog.text
