"""The engine on Django's own tasks: what is enqueued and when, and that tasks send everything, whatever is killed."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from threading import Event as Gate
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, transaction
from django.db.models.signals import post_save
from django_tasks_db import DatabaseBackend
from django_tasks_db.models import DBTaskResult

from djwebhooks import checks, engines, lanes
from djwebhooks.database import DatabaseNow
from djwebhooks.decorators import hook
from djwebhooks.engines import tasks
from djwebhooks.engines.tasks import TASK_WORKER, TasksEngine, run_task
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.testing.receiver import Receiver
from tests.builders import make_target, make_user
from tests.engines.processes import PATIENCE, PROJECT, answer_after, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

Environment = Callable[..., dict[str, str]]
ENGINE = "djwebhooks.engines.tasks.TasksEngine"
IMMEDIATE = f"{tasks.tasks.__name__}.backends.immediate.ImmediateBackend"


@hook("order.placed")
def order_placed(number: int, owner: User) -> dict[str, int]:
    """Fires something itself, in the worker."""
    fire("order.counted", {"count": number}, owner=owner)
    return {"number": number}


@pytest.fixture(autouse=True)
def engine(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No wake-up stands for the next, and a task ends as soon as there is nothing to do."""
    settings.DJWEBHOOKS_ENGINE = ENGINE
    engines._make.cache_clear()
    monkeypatch.setattr("djwebhooks.wakeups.MOMENT", 0.0)
    monkeypatch.setattr(tasks, "LINGER", 0.0)
    yield
    engines._make.cache_clear()


@pytest.fixture
def owner(receiver: Receiver) -> User:
    """Somebody who wants every event; what making the target wakes is gone."""
    user = make_user()
    make_target(user, url=receiver.url)
    DBTaskResult.objects.all().delete()
    return user


def waiting() -> list[DBTaskResult]:
    """The tasks that have not begun."""
    return list(DBTaskResult.objects.filter(status="READY").order_by("run_after"))


def planned_in(task: DBTaskResult) -> float:
    """Seconds from now until *task* may begin."""
    return (task.run_after - datetime.now(UTC)).total_seconds()


def run_tasks() -> None:
    """Run what is due, in this process."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)}
    call_command("db_worker", batch=True, interval=0, startup_delay=False, reload=False, verbosity=0)
    for number, handler in kept.items():
        signal.signal(number, handler)


def all_have_succeeded() -> bool:
    return not Event.objects.waiting().exists() and not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()


# -- what is enqueued --------------------------------------------------------------------------------------------------


def test_one_task_stands_for_many_commits(owner: User) -> None:
    """Until it begins, no other is enqueued; it says nothing but where to look."""
    for number in range(3):
        fire("a.b", {"n": number}, owner=owner)

    [task] = waiting()
    assert task.task_path == "djwebhooks.engines.tasks.run_task"
    assert task.args_kwargs == {"args": ["default"], "kwargs": {}}


def test_a_task_that_is_gone_stands_for_nothing(owner: User) -> None:
    """Who deletes what waits loses nothing: the next commit enqueues another."""
    fire("a.b", {}, owner=owner)
    DBTaskResult.objects.all().delete()

    fire("a.b", {}, owner=owner)

    assert len(waiting()) == 1


def test_a_rollback_enqueues_nothing(owner: User) -> None:
    """An event that was not committed wakes nobody."""
    with transaction.atomic():
        fire("a.b", {}, owner=owner)
        transaction.set_rollback(True)

    assert waiting() == []


def test_no_task_comes_beside_one_at_work(owner: User, settings: LazySettings) -> None:
    """As many as may work at once are at work, so that one of them takes what was committed along."""
    lanes.enlist("default", TASK_WORKER, "elsewhere")
    fire("a.b", {}, owner=owner)
    assert waiting() == []

    settings.DJWEBHOOKS_RQ_JOBS = 2
    fire("a.b", {}, owner=owner)

    assert len(waiting()) == 1


def test_the_queue_and_the_backend_are_chosen(owner: User, settings: LazySettings) -> None:
    """Both follow their settings."""
    settings.TASKS = {**settings.TASKS, "hooks": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": ["urgent"]}}
    settings.DJWEBHOOKS_TASK_BACKEND, settings.DJWEBHOOKS_QUEUE = "hooks", "urgent"

    fire("a.b", {}, owner=owner)

    [task] = waiting()
    assert (task.backend_name, task.queue_name) == ("hooks", "urgent")


def test_a_queue_that_is_not_there_is_found_by_a_check(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine cannot be imported then, and the check says why."""
    settings.DJWEBHOOKS_QUEUE = "mail"
    monkeypatch.delitem(sys.modules, tasks.__name__)

    [found] = [message for message in checks.check_paths() if message.id == "djwebhooks.E002"]

    assert "'djwebhooks.engines.tasks.TasksEngine', which cannot be imported" in found.msg
    assert "'mail'" in found.msg


# -- what a task does --------------------------------------------------------------------------------------------------


def test_a_task_sends_what_is_due(owner: User, receiver: Receiver) -> None:
    """Everything that was committed, once; nothing is left of the worker that it was, and no other task."""
    for number in range(3):
        fire("a.b", {"n": number}, owner=owner)

    run_tasks()

    assert len(receiver.requests) == 3
    assert all_have_succeeded()
    assert not Worker.objects.exists()
    assert [task for task in waiting() if planned_in(task) <= 0] == []


def test_a_retry_is_planned(owner: User, receiver: Receiver, settings: LazySettings) -> None:
    """The next task may begin when the delivery is due, and sends it."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = (60,)
    receiver.answers = [503, 200]
    fire("a.b", {}, owner=owner)
    run_tasks()

    due_at = Lane.objects.get().due_at
    assert due_at is not None
    assert abs((waiting()[0].run_after - due_at).total_seconds()) < 5

    Lane.objects.update(due_at=DatabaseNow())
    Delivery.objects.update(due_at=DatabaseNow())
    DBTaskResult.objects.filter(status="READY").update(run_after=datetime.now(UTC))
    run_tasks()

    assert [request.headers["webhook-attempt"] for request in receiver.requests] == ["1", "2"]
    assert all_have_succeeded()


def test_plans_do_not_pile_up(owner: User, receiver: Receiver, settings: LazySettings) -> None:
    """However many tasks see that something is due later, one waits for it."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = (600,)
    receiver.answers = [503]
    fire("a.b", {}, owner=owner)
    run_tasks()
    planned = len(waiting())

    other = make_user("somebody else")
    for _ in range(3):
        fire("a.c", {}, owner=other)
        run_tasks()

    assert len(waiting()) == planned


def test_what_is_fired_by_a_hook_is_sent_too(owner: User, receiver: Receiver) -> None:
    """What is committed while a task is at work is taken along, or enqueues another."""
    order_placed(7, owner=owner)

    run_tasks()

    assert sorted(request.content["type"] for request in receiver.requests) == ["order.counted", "order.placed"]
    assert all_have_succeeded()


def test_a_task_that_found_work_is_followed_by_one_that_looks_after_it(owner: User) -> None:
    """If its process is killed, the work goes on when that one begins; it begins once the first has ended for sure."""
    fire("a.b", {}, owner=owner)

    run_tasks()

    [task] = waiting()
    assert 0 < planned_in(task) - tasks.BUDGET <= 2 * lanes.SILENCE


def test_a_task_without_work_plans_nothing() -> None:
    """Where nothing is due, tasks come to an end."""
    run_task.enqueue("default")

    run_tasks()

    assert waiting() == []


def test_a_task_without_work_is_no_worker() -> None:
    """Whoever commits meanwhile would enqueue no other, though nobody looks after this one: killed then, it would strand that."""
    enlisted = list[Worker]()

    def note(instance: Worker, **_: Any) -> None:
        enlisted.append(instance)

    post_save.connect(note, sender=Worker)
    run_task.enqueue("default")

    run_tasks()

    assert enlisted == []


def test_a_task_frees_a_lane_that_could_not_be_given_back(owner: User) -> None:
    """An application had it locked when its worker ended; nobody else may ever do it, as nothing is due."""
    fire("a.b", {}, owner=owner)
    run_tasks()
    Lane.objects.update(holder=12345)
    run_task.enqueue("default")

    run_tasks()

    assert Lane.objects.get().holder is None


def test_a_task_beyond_the_allowed_ones_comes_again(owner: User) -> None:
    """The one at work may have been killed: another looks when that has been silent for too long."""
    lanes.enlist("default", TASK_WORKER, "elsewhere")
    fire("a.b", {}, owner=owner)
    run_task.enqueue("default")

    run_tasks()

    assert 0 < planned_in(waiting()[0]) <= lanes.SILENCE


def test_a_database_error_is_tried_again(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task fails, and another one comes some seconds later."""
    monkeypatch.setattr(tasks, "run_worker", raise_database_error)
    run_task.enqueue("default")

    run_tasks()

    assert DBTaskResult.objects.get(status="FAILED").exception_class_path == "django.db.utils.OperationalError"
    [task] = waiting()
    assert 0 < planned_in(task) <= tasks.PAUSE


def raise_database_error(*_: object) -> None:
    raise OperationalError("the server closed the connection")


# -- other backends ----------------------------------------------------------------------------------------------------


def test_a_backend_that_runs_tasks_at_once_sends_before_fire_returns(
    owner: User, receiver: Receiver, settings: LazySettings
) -> None:
    """With Django's own default backend; what is fired meanwhile is sent after it, and without a task within the task."""
    settings.TASKS = {"default": {"BACKEND": IMMEDIATE}}

    order_placed(7, owner=owner)

    assert [request.content["type"] for request in receiver.requests] == ["order.placed", "order.counted"]
    assert all_have_succeeded()


class BrokenBackend(DatabaseBackend):
    """Enqueues nothing."""

    def enqueue(self, *_: Any) -> Any:
        raise OSError("no broker")


class HastyBackend(DatabaseBackend):
    """Can plan nothing, and tells nothing of its tasks."""

    supports_defer = supports_get_result = False


class SilentBackend(DatabaseBackend):
    """Tells nothing of its tasks."""

    supports_get_result = False


def test_a_backend_that_fails_harms_nobody(owner: User, settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """The call that fires goes on, the backend is left alone for a while, and the log says so once."""
    settings.TASKS = {"default": {"BACKEND": f"{__name__}.BrokenBackend"}}

    for number in range(3):
        fire("a.b", {"n": number}, owner=owner)

    assert [record.levelname for record in caplog.records if record.name == tasks.__name__] == ["WARNING"]
    assert "The tasks' backend failed, so workers were not woken" in caplog.text
    assert Event.objects.waiting().count() == 3


def test_a_backend_that_cannot_plan_is_said(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else would make retries, which is worth a warning, once a minute."""
    settings.TASKS = {"default": {"BACKEND": f"{__name__}.HastyBackend"}}
    engine = TasksEngine()

    for seconds in (100, 200):
        engine.wake("default", datetime.now(UTC) + timedelta(seconds=seconds))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "webhooks work --burst" in caplog.text
    assert waiting() == []


def test_what_a_backend_does_not_tell_is_taken_for_granted(settings: LazySettings) -> None:
    """A plan stands until its time, an earlier one is made besides; who rings cannot know, so that each of these enqueues."""
    settings.TASKS = {"default": {"BACKEND": f"{__name__}.SilentBackend"}}
    engine = TasksEngine()

    for seconds in (200, 200, 300, 100):
        engine.wake("default", datetime.now(UTC) + timedelta(seconds=seconds))
    assert [round(planned_in(task), -2) for task in waiting()] == [100, 200]

    engine.wake("default")
    engine.wake("default")

    assert len(waiting()) == 4


# -- real processes ----------------------------------------------------------------------------------------------------


@contextmanager
def db_worker(environment: dict[str, str], *options: str) -> "Iterator[subprocess.Popen[bytes]]":
    """Run ``manage.py db_worker``; whatever of it is left at the end is killed."""
    command = [sys.executable, "-m", "django", "db_worker", "--no-startup-delay", "--interval", "0.1", "--no-reload", *options]
    process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_worker_of_tasks_delivers(owner: User, receiver: Receiver, process_environment: Environment) -> None:
    """What is fired while it runs is sent by it; asked to end in the middle of a request, it records the answer first."""
    gate = Gate()
    with db_worker(process_environment(DJWEBHOOKS_ENGINE=ENGINE)) as process:
        fire("a.b", {}, owner=owner)
        wait_until(all_have_succeeded, "the first event is delivered")
        receiver.answers = [answer_after(gate)]
        fire("a.b", {}, owner=owner)
        wait_until(lambda: len(receiver.requests) == 2, "the second one is under way")
        process.send_signal(signal.SIGTERM)
        gate.set()
        assert process.wait(PATIENCE) == 0

    assert all_have_succeeded()
    assert len(receiver.requests) == 2
    assert not Worker.objects.exists()


def test_a_killed_task_strands_nothing(owner: User, receiver: Receiver, process_environment: Environment) -> None:
    """The task that was planned to look after it sends again what was in flight, with the same id."""
    environment = process_environment(DJWEBHOOKS_ENGINE=ENGINE)
    gate = Gate()
    receiver.answers = [answer_after(gate)]
    fire("a.b", {}, owner=owner)
    with db_worker(environment) as process:
        wait_until(lambda: receiver.requests, "the request is under way")
        process.kill()
        process.wait()
    gate.set()

    [task] = waiting()
    assert planned_in(task) > 0
    # As if that time had passed.
    DBTaskResult.objects.filter(pk=task.pk).update(run_after=datetime.now(UTC))
    Worker.objects.update(expires_at=DatabaseNow() - timedelta(seconds=1))
    with db_worker(environment, "--batch") as process:
        assert process.wait(PATIENCE) == 0

    assert all_have_succeeded()
    assert len({request.headers["webhook-id"] for request in receiver.requests}) == 1
    assert len(receiver.requests) == 2
