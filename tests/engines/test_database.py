"""The engine without a broker: workers look by themselves, or hear of commits, and neither Redis nor django-rq is needed."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from djwebhooks.engines.database import DatabaseEngine
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event
from djwebhooks.models.deliveries import Status
from djwebhooks.testing.receiver import Receiver
from djwebhooks.worker import Worker, work
from tests.builders import make_target, make_user
from tests.connections import postgresql_only
from tests.engines.processes import list_listeners, terminate_listeners, wait_until
from tests.faults.processes import Launcher

PROJECT = Path(__file__).parent.parent.parent

SETTINGS = """
SECRET_KEY = "the key of a small project, long enough for every check"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "djwebhooks"]
OPTIONS = {{"transaction_mode": "IMMEDIATE"}}
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": {database!r}, "OPTIONS": OPTIONS}}}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
DJWEBHOOKS_ALLOW_HTTP = True
DJWEBHOOKS_ALLOWED_NETWORKS = ["127.0.0.0/8"]
"""
SCRIPT = """
import sys

import django
from django.core.management import call_command

django.setup()
from djwebhooks.events import fire
from djwebhooks.models import Delivery, WebhookTarget

call_command("check")
call_command("migrate", verbosity=0)
WebhookTarget.objects.register(sys.argv[1], ["a.b"], owner=None)
fire("a.b", {"x": 1})
print("sent before work:", Delivery.objects.count())
print("django_rq loaded by fire:", "django_rq" in sys.modules)
from djwebhooks.worker import Worker, work

print("recorded:", work(burst=True))
print("status:", Delivery.objects.get().status)
print("django_rq loaded by work:", "django_rq" in sys.modules)
"""


@pytest.mark.django_db(transaction=True)
def test_a_commit_leaves_the_work_to_workers(settings: LazySettings) -> None:
    """Nothing is sent by the call that commits, and any worker that looks sends it."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
    owner = make_user()
    with Receiver() as receiver:
        make_target(owner, url=receiver.url)
        fire("a.b", {}, owner=owner)
        assert receiver.requests == []
        assert Event.objects.waiting().count() == 1

        assert work(burst=True) == 1

    assert Delivery.objects.get().status == Status.SUCCEEDED


@pytest.mark.django_db
def test_a_later_wake_up_is_nothing() -> None:
    """What is due later is found by workers that poll."""
    with CaptureQueriesContext(connection) as queries:
        DatabaseEngine().wake("default", datetime.now(UTC))

    assert len(queries) == 0


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_workers_are_told_after_the_commit() -> None:
    """A notice inside the transaction would have its commit wait for those of others."""
    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        fire("a.b", {})

    assert [query["sql"] for query in queries][-2:] == ["COMMIT", "NOTIFY djwebhooks"]


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_a_commit_wakes_an_idle_worker(launcher: Launcher, receiver: Receiver) -> None:
    """A worker in another process that would not look again for years sends each event as it comes."""
    make_target(make_user(), url=receiver.url)
    launcher.call("tests.engines.processes.work_sleepily")
    wait_until(list_listeners, "the worker listens")
    for number in range(5):
        fire("a.b", {"number": number}, owner=User.objects.get())
        wait_until(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).count() > number, "it is sent")  # noqa: B023

    assert len(receiver.requests) == 5


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_commits_shortly_after_one_another_share_a_notice(long_moment: None) -> None:
    """Each would cost the application a round trip."""
    with CaptureQueriesContext(connection) as queries:
        for _ in range(3):
            fire("a.b", {})

    assert [query["sql"] for query in queries].count("NOTIFY djwebhooks") == 1


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_who_shares_a_notice_is_served_nevertheless(launcher: Launcher, receiver: Receiver) -> None:
    """A worker that was told of the first one looks again for the others, though it would not look by itself for years."""
    owner = make_user()
    make_target(owner, url=receiver.url)
    launcher.call("tests.engines.processes.work_sleepily")
    wait_until(list_listeners, "the worker listens")
    for burst in range(1, 6):
        for number in range(20):
            fire("a.b", {"number": number}, owner=owner)
        wait_until(lambda: Delivery.objects.filter(status=Status.SUCCEEDED).count() == 20 * burst, "all are sent")  # noqa: B023


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_became_deaf_hears_again(launcher: Launcher, receiver: Receiver) -> None:
    """What is committed while its listening connection is cut is sent as soon as there is another, with nobody polling."""
    owner = make_user()
    make_target(owner, url=receiver.url)
    launcher.call("tests.engines.processes.work_sleepily")
    wait_until(list_listeners, "the worker listens")
    for number in range(3):
        assert terminate_listeners() == 1
        fire("a.b", {"number": number}, owner=owner)
        wait_until(lambda: len(receiver.requests) > number, "it is sent")  # noqa: B023
        wait_until(list_listeners, "the worker listens again")


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_ends_anyway_does_not_listen() -> None:
    """Only one that runs until it is stopped pays for a connection more."""
    worker = Worker(burst=True)
    worker.run()

    assert worker.listener._thread is None


def test_a_project_needs_neither_rq_queues_nor_django_rq(tmp_path: Path) -> None:
    """Without any setting of RQ, in a project that has not installed django-rq's app, everything works and nothing imports it."""
    (tmp_path / "small_settings.py").write_text(SETTINGS.format(database=str(tmp_path / "small.sqlite3")))
    with Receiver() as receiver:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCRIPT, receiver.url],
            env={"DJANGO_SETTINGS_MODULE": "small_settings", "PYTHONPATH": f"{tmp_path}:{PROJECT}", "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )

    assert done.stderr == ""
    assert done.stdout.splitlines()[1:] == [
        "sent before work: 0",
        "django_rq loaded by fire: False",
        "recorded: 1",
        "status: succeeded",
        "django_rq loaded by work: False",
    ]
    assert len(receiver.requests) == 1


def test_the_command_works_without_rq(tmp_path: Path) -> None:
    """So does `manage.py webhooks work --burst`."""
    (tmp_path / "small_settings.py").write_text(SETTINGS.format(database=str(tmp_path / "small.sqlite3")))
    environment = {"DJANGO_SETTINGS_MODULE": "small_settings", "PYTHONPATH": f"{tmp_path}:{PROJECT}", "PATH": ""}
    for command in (["migrate", "-v", "0"], ["webhooks", "work", "--burst"], ["webhooks", "stats"]):
        done = subprocess.run(
            [sys.executable, "-m", "django", *command], env=environment, capture_output=True, text=True, timeout=60
        )

        assert done.returncode == 0, done.stderr
