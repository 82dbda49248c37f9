"""Handlers on django-rq: a message that is committed wakes a worker, and Redis' troubles are nobody else's."""

import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import DatabaseError, transaction
from rq import Queue
from rq.timeouts import JobTimeoutException

from djwebhooks.engines import jobs
from djwebhooks.inbox import bell
from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.worker import InboxWorker
from tests.connections import manual_commits, other_way, second_connection, server_only
from tests.engines.processes import rqworker, run_jobs
from tests.inbox.senders import send, store
from tests.inbox.shop.models import Effect

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def queue_name(settings: LazySettings) -> Iterator[None]:
    settings.DJWEBHOOKS_INBOX_QUEUE = "default"
    bell._bell._silent_until = 0.0
    yield
    jobs._make_queue.cache_clear()


def all_are_processed() -> bool:
    return not Message.objects.exclude(status=Status.PROCESSED).exists()


def test_a_message_wakes_a_worker(queue: Queue) -> None:
    """One job stands for any number of messages, until it has begun."""
    for _ in range(3):
        send("order.paid")

    assert len(queue) == 1
    run_jobs(queue)
    assert all_are_processed()
    assert Effect.objects.count() == 6

    send("order.paid")
    assert len(queue) == 1


def test_a_job_is_made_at_the_commit(queue: Queue) -> None:
    """Or not at all."""
    with transaction.atomic():
        send("order.paid")
        assert len(queue) == 0
        transaction.set_rollback(True)

    assert len(queue) == 0


def test_who_commits_by_hand_wakes_nobody(queue: Queue) -> None:
    """With autocommit off nobody can say when that is; the message is taken in, and a worker that looks by itself finds it."""
    with manual_commits():
        send("order.paid")
        transaction.commit()

    assert len(queue) == 0
    assert Message.objects.count() == 1


def test_no_queue_no_job(queue: Queue, settings: LazySettings) -> None:
    """Workers look by themselves then."""
    settings.DJWEBHOOKS_INBOX_QUEUE = None

    send("order.paid")
    bell.wake("default")

    assert len(queue) == 0


def test_a_redis_that_is_down_keeps_nothing_out(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """The message is stored and acknowledged; the log says so once."""
    for _ in range(2):
        assert send("order.paid").status_code == 200

    assert Message.objects.count() == 2
    assert [record.getMessage()[:12] for record in caplog.records] == ["Redis failed"]


def test_a_retry_is_planned(queue: Queue, settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """When a handler has failed, a job comes once the pause is over."""
    caplog.set_level(logging.ERROR)
    settings.DJWEBHOOKS_INBOX = {"shop": {**settings.DJWEBHOOKS_INBOX["shop"], "retry_schedule": [timedelta(hours=1)]}}
    send("order.broken")
    run_jobs(queue)

    assert len(queue) == 0
    assert len(queue.scheduled_job_registry) == 1
    assert Message.objects.get().attempt_count == 1


def test_what_the_budget_left_is_for_the_next_job(queue: Queue) -> None:
    """A job is short, so that others on its queue have their turn."""
    store()
    bell.run_job("default", budget=-1)

    assert len(queue) == 1


@server_only
def test_what_another_job_holds_is_looked_at_again_later(queue: Queue) -> None:
    """Its handlers run for longer than its lease, and a job at once after each other would find that out without end."""
    held = store()
    with second_connection() as other, transaction.atomic(using=other):
        Message.objects.using(other).select_for_update().get(pk=held.pk)
        bell.run_job("default")

    assert len(queue) == 0
    assert len(queue.scheduled_job_registry) == 1


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_database_that_fails_is_tried_again(queue: Queue) -> None:
    """The job fails, as RQ is to know, and another one is planned."""
    with other_way(NAME="/nowhere/at_all") as other, pytest.raises(DatabaseError):
        bell.run_job(other)

    assert len(queue.scheduled_job_registry) == 1


@pytest.mark.parametrize("error", [JobTimeoutException("Task exceeded maximum timeout value"), KeyboardInterrupt()])
def test_a_job_that_ends_badly_is_followed_by_another(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Else what waits behind the message would wait for the next one to come."""

    def end_badly(worker: InboxWorker) -> int:
        raise error

    monkeypatch.setattr(InboxWorker, "run", end_badly)
    with pytest.raises(type(error)):
        bell.run_job("default")

    assert len(queue.scheduled_job_registry) == 1


def test_a_job_that_is_killed_is_followed_by_another(
    queue: Queue, process_environment: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """RQ runs it again, and that one plans for when the dead one's lease is over."""
    send("order.killer")
    with rqworker(process_environment(DJWEBHOOKS_INBOX_QUEUE="default"), tmp_path, "--burst") as running:
        running.wait()

    assert Message.objects.get().attempt_count == 1
    assert len(queue.scheduled_job_registry) == 1


def test_a_queue_without_workers_runs_handlers_at_once(redis: str, settings: LazySettings) -> None:
    """``ASYNC: False`` is for development: the sender waits for its own answer."""
    settings.RQ_QUEUES = {"default": {"URL": redis, "ASYNC": False}}

    assert send("order.paid").status_code == 200
    assert all_are_processed()


def test_a_real_rqworker_runs_handlers(queue: Queue, process_environment: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    """From the request to the effects."""
    send("order.paid")
    with rqworker(process_environment(DJWEBHOOKS_INBOX_QUEUE="default"), tmp_path, "--burst") as running:
        running.wait()

    assert all_are_processed()
    assert Effect.objects.count() == 2
