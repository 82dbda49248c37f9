"""A database that is gone for good: a worker that waits for it costs next to nothing, and ends when it is told to."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event
from djwebhooks.models import Worker as WorkerRow
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import FIRST_PAUSE, Worker
from tests.builders import make_target, make_user
from tests.connections import Thread, other_way
from tests.engines.processes import PROJECT, wait_until
from tests.faults.workers import Sent, count_failures, wait_for_failures

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

#: Settings of a connection that leads nowhere, for each database.
NOWHERE: dict[str, dict[str, Any]] = {
    "sqlite": {"NAME": "/no-such-directory/database.sqlite3"},
    "postgresql": {"HOST": "127.0.0.1", "PORT": 1},
    "mysql": {"HOST": "127.0.0.1", "PORT": 1},
}
PAUSES = re.compile(r"the worker goes on in ([\d.]+) seconds")


@pytest.fixture
def owner(db: None) -> User:
    user = make_user()
    make_target(user)
    return user


@contextmanager
def without(table: str) -> Iterator[None]:
    """Have a database that fails wherever this table is needed."""
    rename(table, "djw_elsewhere")
    try:
        yield
    finally:
        rename("djw_elsewhere", table)


def rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


def test_a_worker_that_waits_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Pauses grow, each failure is one entry in the log, and no threads, sockets or files are left behind."""

    def count_resources() -> tuple[int, int]:
        return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    with other_way(**NOWHERE[connection.vendor]):
        worker = Worker(using="other", transport=MemoryTransport())
        thread = Thread(worker.run)
        wait_for_failures(caplog, 1)
        before = count_resources()
        wait_for_failures(caplog, 4)
        after = count_resources()
        worker.stop()
        assert thread.result() == 0

    assert all(now <= then for now, then in zip(after, before, strict=True))  # What others had left behind may be gone.
    pauses = [float(pause) for pause in PAUSES.findall(caplog.text)]
    assert pauses == [FIRST_PAUSE * 2**number for number in range(len(pauses))]
    assert len(caplog.records) == len(pauses)


def test_a_worker_that_waits_can_be_stopped(tmp_path: Path) -> None:
    """SIGTERM ends ``manage.py webhooks work`` at once while its database is gone: in order, and without another try."""
    log = tmp_path / "log"
    overrides = {**connection.settings_dict, "TEST": {}, **NOWHERE[connection.vendor]}
    database = {key: value for key, value in overrides.items() if key in ("ENGINE", "NAME", "HOST", "PORT")}
    script = SCRIPT.format(database=database)
    with log.open("wb") as file:
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        process = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, env=environment, stdout=file, stderr=file)
    try:
        wait_until(lambda: len(PAUSES.findall(log.read_text())) >= 5, "it waits for longer and longer")
        process.send_signal(signal.SIGTERM)
        tries = len(PAUSES.findall(log.read_text()))
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()

    assert len(PAUSES.findall(log.read_text())) <= tries + 1, "none but the one that it may have been at"
    assert "Ended, with 0 results recorded." in log.read_text()


SCRIPT = """
from django.conf import settings

settings.DATABASES["default"] = {database}
from django.core.management import execute_from_command_line

# Without Django's own checks: from 6.1 on, one of them asks the database what columns it can generate.
execute_from_command_line(["manage.py", "webhooks", "--skip-checks", "work"])
"""


def test_nothing_more_is_sent_until_results_are_recorded(owner: User, caplog: pytest.LogCaptureFixture) -> None:
    """While answers cannot be recorded, what comes in meanwhile waits; then each event has been sent once."""
    sent = Sent()
    worker = Worker(transport=sent.transport())
    with without("djw_attempt"):
        fire("a.b", 1, owner=owner)
        thread = Thread(worker.run)
        wait_for_failures(caplog, 1)
        for number in range(20):
            fire("a.b", number, owner=owner)
        wait_for_failures(caplog, 3)
        assert len(sent.requests) == 1
    wait_until(lambda: not Event.objects.waiting().exists() and not Delivery.objects.pending().exists(), "all is sent")
    worker.stop()
    thread.result()

    sent.check_each_once()


@pytest.mark.parametrize("options", [{}, {"burst": True}], ids=["stopped", "burst"])
def test_a_worker_with_an_end_gives_up(owner: User, caplog: pytest.LogCaptureFixture, options: dict[str, Any]) -> None:
    """With results that the database does not take, it fails in the end; the next worker sends the same again."""
    sent = Sent()
    event = fire("a.b", 1, owner=owner)
    worker = Worker(transport=sent.transport(), **options)
    with without("djw_attempt"):
        thread = Thread(worker.run)
        wait_for_failures(caplog, 1)
        if not options:
            worker.stop()
        with pytest.raises(DatabaseError, match="djw_attempt"):
            thread.result()
        assert count_failures(caplog) < 10

    assert not WorkerRow.objects.exists()
    Worker(transport=sent.transport(), burst=True).run()
    assert [request.headers["webhook-id"] for request in sent.requests] == [str(event.uid)] * 2
    assert Attempt.objects.count() == 1
