"""The numbers are those of the tables, their cost is bounded, and what is missing is said."""

import json
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.utils import timezone
from rq import Worker as RQWorker
from rq.scheduler import RQScheduler

from djwebhooks.engines.jobs import fast_queue
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget, Worker
from djwebhooks.stats import collect
from djwebhooks.testing import deliver

pytestmark = pytest.mark.django_db

RQ_ENGINE = "djwebhooks.engines.rq.RQEngine"


@pytest.fixture
def owner() -> User:
    return User.objects.create(username="owner")


def make_target(owner: User, path: str) -> WebhookTarget:
    return WebhookTarget.objects.register(f"http://127.0.0.1:9/{path}", ["a"], owner=owner)


def test_nothing_is_counted_as_nothing() -> None:
    """An empty installation has no numbers and nothing to complain about."""
    stats = collect()

    assert (stats.events_waiting, stats.deliveries_pending, stats.deliveries_due, stats.failed_lately) == (0, 0, 0, 0)
    assert (stats.oldest_waiting_age, stats.oldest_due_age) == (None, None)
    assert (stats.workers, stats.targets, stats.notices, stats.queue) == ([], [], [], None)


def test_events_that_wait_are_counted_apart_from_planned_ones(owner: User) -> None:
    """deliver_at is no backlog."""
    fire("a", {}, owner=owner)
    fire("a", {}, owner=owner, deliver_at=timezone.now() + timedelta(hours=1))
    Event.objects.update(created_at=timezone.now() - timedelta(seconds=500))

    stats = collect()

    assert (stats.events_waiting, stats.events_planned) == (1, 1)
    assert stats.oldest_waiting_age == pytest.approx(500, abs=60)


def test_a_planned_event_waits_once_its_time_has_come(owner: User) -> None:
    """It is dispatched like the others then, and as long as nobody does so, it is late."""
    fire("a", {}, owner=owner, deliver_at=timezone.now() + timedelta(hours=1))
    Event.objects.update(deliver_at=timezone.now() - timedelta(seconds=500))

    stats = collect()

    assert (stats.events_waiting, stats.events_planned) == (1, 0)
    assert stats.oldest_waiting_age == pytest.approx(500, abs=60)


def test_payloads_that_cannot_be_built_are_counted_among_the_newest_events() -> None:
    """No index tells of them, so that it takes a look at each; what was erased is no trouble any more."""
    for error in ("ValueError: one", "", "ValueError: two"):
        Event.objects.create(name="a", build_error=error)
    Event.objects.create(name="a", build_error="ValueError: three", erased_at=timezone.now())

    assert collect().events_failing == 2
    assert collect(limit=2).events_failing == 1
    assert "Events whose payload cannot be built: 2." in " ".join(collect().notices)


def test_deliveries_are_counted_by_what_becomes_of_them(owner: User) -> None:
    """Held ones are pending, but not due, however long they wait; failures count for a day."""
    make_target(owner, "paused").pause()
    make_target(owner, "open")
    for _ in range(4):
        fire("a", {}, owner=owner)
    deliver(503)
    opened = Delivery.objects.filter(target__target_url__endswith="open").order_by("pk")
    late, _, failed, long_failed = opened
    Delivery.objects.filter(pk=late.pk).update(due_at=timezone.now() - timedelta(seconds=300))
    Delivery.objects.filter(pk__in=[failed.pk, long_failed.pk]).update(
        status="failed", due_at=None, finished_at=timezone.now() - timedelta(hours=1)
    )
    Delivery.objects.filter(pk=long_failed.pk).update(finished_at=timezone.now() - timedelta(days=2))

    stats = collect()

    assert (stats.deliveries_pending, stats.deliveries_due, stats.deliveries_held, stats.failed_lately) == (6, 1, 4, 1)
    assert stats.oldest_due_age == pytest.approx(300, abs=60)
    assert stats.targets_paused == 1
    paused, other = stats.targets
    assert (paused.target_url, paused.state, paused.pending, paused.failed_lately) == (
        "http://127.0.0.1:9/paused",
        "paused",
        4,
        0,
    )
    assert (other.pending, other.due, other.failed_lately) == (2, 1, 1)
    assert other.oldest_due_age == pytest.approx(300, abs=60)


def test_counting_stops_at_the_limit(owner: User) -> None:
    """A backlog of millions costs as much as one at the limit."""
    make_target(owner, "paused").pause()
    for _ in range(5):
        fire("a", {}, owner=owner)
    deliver()
    for _ in range(5):
        fire("a", {}, owner=owner)

    stats = collect(limit=3)

    assert (stats.limit, stats.events_waiting, stats.deliveries_pending, stats.deliveries_held) == (3, 3, 3, 3)
    assert [target.pending for target in stats.targets] == [3]


def test_the_oldest_is_found_behind_any_number_that_may_not_be_sent(owner: User) -> None:
    """What is late is what one has to know of, so that no limit cuts it off."""
    make_target(owner, "paused").pause()
    for _ in range(5):
        fire("a", {}, owner=owner)
    late = make_target(owner, "late")
    fire("a", {}, owner=owner)
    deliver(503)
    late.deliveries.update(due_at=timezone.now() - timedelta(seconds=300))

    assert collect(limit=2).oldest_due_age == pytest.approx(300, abs=60)

    late.pause()
    assert collect().oldest_due_age is None


def test_lanes_are_counted_by_state(owner: User) -> None:
    """Held by a worker, due, disabled, suspended."""
    now = timezone.now()
    states = {
        "held": {"holder": 1, "due_at": now - timedelta(days=1)},
        "due": {"due_at": now - timedelta(days=1)},
        "disabled": {"disabled_at": now, "held_until": now + timedelta(days=1)},
        "suspended": {"held_until": now + timedelta(days=1)},
        "idle": {},
    }
    for path, state in states.items():
        Lane.objects.create(target=make_target(owner, path), **state)

    stats = collect()

    assert (stats.lanes_leased, stats.lanes_due, stats.targets_disabled, stats.targets_suspended) == (1, 1, 1, 1)
    assert (stats.targets_healthy, stats.targets_degraded, stats.targets_paused) == (3, 0, 0)
    assert "Targets disabled: 1." in " ".join(stats.notices)


def test_workers_are_listed_with_the_age_of_their_heartbeat(owner: User, settings: LazySettings) -> None:
    """A heartbeat is a lease younger than the lease lasts, and a dead worker is told from a live one."""
    settings.DJWEBHOOKS_TIMEOUT = 40
    now = timezone.now()
    live = Worker.objects.create(name="worker", place="host:1", started_at=now, expires_at=now + timedelta(seconds=90))
    Worker.objects.create(name="rq", place="host:2", started_at=now, expires_at=now - timedelta(seconds=900))
    Lane.objects.create(target=make_target(owner, "one"), holder=live.pk)

    first, second = collect().workers

    assert (first.name, first.place, first.is_live, first.lanes_leased) == ("worker", "host:1", True, 1)
    assert first.heartbeat_age == pytest.approx(10, abs=9)
    assert (second.is_live, second.lanes_leased) == (False, 0)
    assert second.heartbeat_age > 900


def test_old_work_without_a_worker_is_noticed(owner: User) -> None:
    """With the engine that needs no broker nobody else would say it."""
    make_target(owner, "one")
    fire("a", {}, owner=owner)
    Event.objects.update(created_at=timezone.now() - timedelta(hours=1))
    assert any("run manage.py webhooks work" in notice for notice in collect().notices)

    Worker.objects.create(name="worker", place="host:1", expires_at=timezone.now() + timedelta(hours=1))

    assert collect().notices == []


def test_a_redis_that_is_down_is_noticed(settings: LazySettings) -> None:
    """It is said that nothing is lost, and how to go on."""
    settings.DJWEBHOOKS_ENGINE = RQ_ENGINE
    stats = collect()

    assert stats.queue is not None
    assert stats.queue.error
    assert "Nothing is lost" in stats.notices[0]
    assert "webhooks work --burst" in stats.notices[0]


def test_a_missing_rqworker_and_a_missing_scheduler_are_noticed(redis: str, settings: LazySettings) -> None:
    """What must be started is said, until it runs."""
    settings.DJWEBHOOKS_ENGINE = RQ_ENGINE
    queue = fast_queue("default")

    assert "run manage.py rqworker default --with-scheduler" in collect().notices[0]

    worker = RQWorker([queue], connection=queue.connection)
    worker.register_birth()
    assert "start rqworker with --with-scheduler" in collect().notices[0]

    RQScheduler([queue], connection=queue.connection).acquire_locks()
    stats = collect()
    assert stats.notices == []
    assert stats.queue is not None
    assert (stats.queue.error, stats.queue.has_scheduler, stats.queue.workers) == ("", True, 1)


def test_the_numbers_can_be_written_as_json(owner: User) -> None:
    """Nested ones too."""
    make_target(owner, "one")
    fire("a", {}, owner=owner)
    deliver(503)

    assert json.loads(json.dumps(collect().as_dict()))["targets"][0]["pending"] == 1
