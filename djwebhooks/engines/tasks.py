"""The engine on Django's own tasks: a wake-up is a task, and the task is a worker for a while."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

import django
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, close_old_connections

from djwebhooks import lanes
from djwebhooks.conf import conf
from djwebhooks.database import read_clock
from djwebhooks.engines import get_engine
from djwebhooks.engines.base import Engine
from djwebhooks.engines.shift import BUDGET, LINGER, inline, next_due, wake_next
from djwebhooks.engines.stopping import stopping_on_sigterm
from djwebhooks.wakeups import Spacing
from djwebhooks.worker import Worker

try:
    tasks = import_module("django.tasks" if django.VERSION >= (6, 0) else "django_tasks")
except ModuleNotFoundError as error:
    raise ImproperlyConfigured("Before version 6.0 Django has no tasks: pip install django-tasks.") from error

logger = logging.getLogger(__name__)

#: The name of the workers that tasks are.
TASK_WORKER = "tasks"
#: Seconds for which a backend is left alone after it failed, and after which a task that the database failed comes again.
PAUSE = 5.0
#: Seconds after which somebody looks whether a task that found work was killed: it has ended by then, and its worker is silent.
LOOK_AFTER = BUDGET + 2 * lanes.SILENCE
#: Seconds between warnings that a backend cannot plan.
WARN_AFTER = 60.0


class Here(threading.local):
    """What this thread is about."""

    is_enqueueing = False


_here = Here()


class TasksEngine(Engine):
    """Wakes a worker by a task of the backend ``DJWEBHOOKS_TASK_BACKEND``, whose troubles never become the caller's."""

    advice = "one begins with the next task, if a worker of your tasks' backend runs"

    def __init__(self) -> None:
        self._spacing = Spacing()
        #: The last task of each database that is to work at once, and the next that is to work later.
        self._rung: dict[str, Any] = {}
        self._planned: dict[str, tuple[datetime, Any]] = {}
        self._silent_until = self._warn_again_at = 0.0

    def wake(self, using: str, at: datetime | None = None) -> None:
        if inline.is_working:
            inline.run(using)
            return
        if time.monotonic() < self._silent_until:
            return
        try:
            if at is not None and at > datetime.now(UTC):
                self._plan(using, at)
            elif self._spacing.needs(using):
                self._ring(using)
        except Exception as error:  # noqa: BLE001  # each backend fails in ways of its own
            self._silent_until = time.monotonic() + PAUSE
            logger.warning(
                "The tasks' backend failed, so workers were not woken; the next one does what was committed: %s", error
            )

    def _ring(self, using: str) -> None:
        """Enqueue a task, unless one has not begun yet, or as many as may be are at work: each of these will look once more."""
        if not is_waiting(self._rung.get(using)) and lanes.count_workers(using, TASK_WORKER) < conf.RQ_JOBS:
            self._rung[using] = enqueue(using)

    def _plan(self, using: str, at: datetime) -> None:
        """Have a task begin at a time, unless one of this process begins until then."""
        planned_at, planned = self._planned.get(using, (at, None))
        if datetime.now(UTC) < planned_at <= at and is_waiting(planned, unless_told=True):
            return
        if tasks.task_backends[conf.TASK_BACKEND].supports_defer:
            self._planned[using] = (at, enqueue(using, at))
        elif time.monotonic() >= self._warn_again_at:
            self._warn_again_at = time.monotonic() + WARN_AFTER
            logger.warning(
                "The backend %r cannot plan tasks, so retries wait for events: let cron run manage.py webhooks work --burst.",
                conf.TASK_BACKEND,
            )


def enqueue(using: str, at: datetime | None = None) -> Any:
    """Enqueue a task, for a time if *at* says so; return what the backend says of it."""
    task = run_task.using(queue_name=conf.QUEUE, backend=conf.TASK_BACKEND, run_after=at)
    with enqueueing():
        return task.enqueue(using)


@contextmanager
def enqueueing() -> Iterator[None]:
    """Let a task that begins meanwhile in this very thread know that its caller waits for it."""
    _here.is_enqueueing = True
    try:
        yield
    finally:
        _here.is_enqueueing = False


def is_waiting(result: Any, *, unless_told: bool = False) -> bool:
    """Whether a task has not begun yet; *unless_told* if there was one and its backend does not tell."""
    if result is None:
        return False
    if not tasks.task_backends[result.backend].supports_get_result:
        return unless_told
    try:
        result.refresh()
    except tasks.exceptions.TaskResultDoesNotExist:
        return False
    return bool(result.status == tasks.TaskResultStatus.READY)


@tasks.task(queue_name=conf.QUEUE, backend=conf.TASK_BACKEND)  # type: ignore[untyped-decorator]  # it is one of two modules'
def run_task(using: str) -> None:
    """Be a worker until there is nothing to do, or the budget is spent, and see to it that another comes if need be."""
    if _here.is_enqueueing:
        inline.run(using)
        return
    engine = get_engine()
    try:
        close_old_connections()
        run_worker(engine, using)
    except (DatabaseError, InterfaceError):
        engine.wake(using, datetime.now(UTC) + timedelta(seconds=PAUSE))
        raise


def run_worker(engine: Engine, using: str) -> None:
    lanes.reap(using)
    at = next_due(using)
    if at is None or at > read_clock(using):
        # No worker, that others would rely on: nobody would look after it.
        wake_next(engine, using)
        return
    engine.wake(using, datetime.now(UTC) + timedelta(seconds=LOOK_AFTER))
    worker = Worker(using=using, budget=BUDGET, linger=LINGER, name=TASK_WORKER, most=conf.RQ_JOBS)
    with stopping_on_sigterm(worker.stop):
        worker.run()
        wake_next(engine, using, worker.retry_enlisting_at)
