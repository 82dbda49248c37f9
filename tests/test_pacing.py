"""Rates in the worker's loop: what uses one up, what must not, and what a worker does while one holds something back."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction

from djwebhooks.database import DatabaseNow
from djwebhooks.decorators import hook
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Lane
from djwebhooks.models.deliveries import Status
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import Worker, work
from tests.builders import make_target, make_user
from tests.connections import second_connection, server_only
from tests.engines.processes import PATIENCE

pytestmark = pytest.mark.django_db

#: A rate at which a second request would come long after a test.
SLOW = {"rate_limit": 1, "rate_period": "hour"}


@hook("thing.built")
def thing_built(number: int, owner: User) -> dict[str, int]:
    return {"number": number}


@pytest.fixture
def owner() -> User:
    return make_user()


class Holding(MemoryTransport):
    """A transport that answers when a test wants it."""

    def __init__(self, concurrency: int = 16) -> None:
        super().__init__(concurrency=concurrency)
        self.unanswered: list[Request] = []
        self.waits: list[float] = []

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self.unanswered.append(request)

    def wait(self, timeout: float) -> list[Reply]:
        self.waits.append(timeout)
        return []


def start_worker(transport: MemoryTransport) -> Worker:
    worker = Worker(transport=transport, threaded=False)
    worker.enlist()
    return worker


def turn(worker: Worker, count: int = 1, but: str = "") -> None:
    """Let the worker take each step, *count* times, as if the time for the next poll had come."""
    for _ in range(count):
        worker._next_poll = 0.0
        for step in worker.steps:
            if step.__name__ != but:
                step()


def test_building_a_payload_uses_up_nothing_of_a_rate(owner: User) -> None:
    """The first event goes as soon as its function has run: nobody waits for a whole pause of the rate."""
    make_target(owner, **SLOW)
    thing_built(1, owner=owner)
    transport = MemoryTransport()

    work(burst=True, transport=transport, threaded=False)

    assert len(transport.requests) == 1


def test_what_has_expired_uses_up_nothing_of_a_rate(owner: User) -> None:
    """Else a target that was overloaded for a while would never get anything again."""
    make_target(owner, **SLOW)
    for number in range(5):
        fire("a.b", number, owner=owner)
    dispatch("default")
    Delivery.objects.update(expires_at=DatabaseNow())
    fresh = fire("a.b", "fresh", owner=owner)
    transport = MemoryTransport()

    work(burst=True, transport=transport, threaded=False)

    assert [request.headers["webhook-id"] for request in transport.requests] == [str(fresh.uid)]
    assert Delivery.objects.filter(status=Status.EXPIRED, reason="expired").count() == 5


def test_one_slow_answer_stops_no_others(owner: User) -> None:
    """Further instants are reserved while it is waited for."""
    make_target(owner, rate_limit=50)
    for number in range(120):
        fire("a.b", number, owner=owner)

    class AllButOne(Holding):
        def wait(self, timeout: float) -> list[Reply]:
            slow = self.requests[1:2]
            answered = [request for request in self.unanswered if request not in slow]
            self.unanswered = [request for request in self.unanswered if request in slow]
            return [Reply(request.key, status=200) for request in answered]

    transport = AllButOne()
    worker = start_worker(transport)
    until = time.monotonic() + PATIENCE
    while len(transport.requests) < 80 and time.monotonic() < until:  # About 51 are reserved at first.
        turn(worker)

    assert len(transport.unanswered) == 1
    assert len(transport.requests) == 80


def test_instants_that_are_not_used_are_given_back(owner: User) -> None:
    """A lane that has to make room for others, before anything of it was sent, is due as if nothing had been reserved."""
    target = make_target(owner, **SLOW)
    fire("a.b", 1, owner=owner)
    worker = start_worker(Holding())
    turn(worker, but="_hand_over")
    assert worker._held[target.pk].not_before

    worker._make_room()

    lane = Lane.objects.get()
    assert lane.holder is None
    assert Lane.objects.filter(due_at__lte=DatabaseNow(), next_free_at__lte=DatabaseNow() + timedelta(seconds=1)).exists()


def test_what_is_cancelled_in_time_uses_up_nothing_of_a_rate(owner: User) -> None:
    """The next one is sent at once, also if the lane was given back in between."""
    make_target(owner, **SLOW)
    fire("a.b", 1, owner=owner)
    transport = Holding()
    worker = start_worker(transport)
    turn(worker, but="_hand_over")
    Delivery.objects.get().cancel()
    turn(worker, 3)
    assert not worker._held
    fire("a.b", 2, owner=owner)
    turn(worker, 2)

    assert len(transport.requests) == 1


def test_what_waits_for_something_else_than_its_instant_keeps_nobody_busy(owner: User) -> None:
    """A work whose time has come, but whose target has as many requests as it may, waits for an answer."""
    make_target(owner, rate_limit=1000, concurrency_limit=1)
    for number in range(5):
        fire("a.b", number, owner=owner)
    transport = Holding()
    worker = start_worker(transport)
    turn(worker, 3)
    while not worker._held or any(at > worker._clock() for held in worker._held.values() for at in held.not_before.values()):
        turn(worker)
    for step in worker.steps:
        step()

    assert len(transport.requests) == 1
    assert transport.waits[-1] > 0.01


def test_what_a_rate_held_back_and_that_is_cancelled_keeps_nobody_busy(owner: User) -> None:
    """With a request on its way, the worker waits for its answer, also once the time has come for what there is no more."""
    target = make_target(owner, **SLOW)
    for number in range(3):
        fire("a.b", number, owner=owner)
    transport = Holding()
    worker = start_worker(transport)
    turn(worker, 2)
    held = worker._held[target.pk]
    assert held.paced_until is not None
    target.cancel_pending()
    held.paced_until = worker._clock() - timedelta(seconds=1)
    turn(worker, 2)
    for step in worker.steps:
        step()

    assert len(transport.requests) == 1
    assert transport.waits[-1] > 0.01


def test_a_worker_that_ends_leaves_the_distance_to_whoever_is_next(owner: User) -> None:
    """A request that started late keeps the next one away for as long as if it had been in time."""
    target = make_target(owner, **SLOW)
    fire("a.b", 1, owner=owner)
    fire("a.b", 2, owner=owner)
    transport = MemoryTransport()
    worker = start_worker(transport)
    turn(worker, but="_hand_over")
    # Its instant was reserved half an hour ago.
    began = worker._clock()
    Lane.objects.update(next_free_at=began + timedelta(minutes=30))
    worker._held[target.pk].next_free_at = began + timedelta(minutes=30)
    turn(worker, but="_release")
    worker._end()

    assert len(transport.requests) == 1
    lane = Lane.objects.get()
    assert lane.holder is None
    assert lane.next_free_at is not None
    assert lane.next_free_at >= began + timedelta(hours=1)


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_lane_that_an_application_keeps_locked_keeps_nobody_busy(owner: User) -> None:
    """The result is recorded a little later, and not tried again at once."""
    target = make_target(owner)
    fire("a.b", 1, owner=owner)
    worker = start_worker(MemoryTransport())
    turn(worker, but="_record")
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=target.pk))
        turn(worker)

        assert worker._outcomes
        assert worker._find_wait() > 0.01
    worker._record_again_at = 0.0
    turn(worker, but="")
    assert Delivery.objects.get().status == Status.SUCCEEDED
    worker._end()


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_lane_in_which_nothing_can_be_reserved_keeps_nobody_busy(owner: User) -> None:
    """An application keeps it locked: the instants are reserved a little later."""
    target = make_target(owner, rate_limit=1000)
    fire("a.b", 1, owner=owner)
    transport = MemoryTransport()
    worker = start_worker(transport)
    worker._next_poll = 0.0
    for step in worker.steps[:2]:
        step()
    # As after the next poll, which finds nothing, and an attempt to give the lane back.
    worker._has_more, worker._next_poll, worker._next_release = False, time.monotonic() + PATIENCE, time.monotonic() + PATIENCE
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=target.pk))
        for step in worker.steps[2:5]:
            step()

        assert transport.requests == []
        assert worker._find_wait() > 0.01
    worker._held[target.pk].paced_until = worker._clock()
    turn(worker, 2)
    assert len(transport.requests) == 1
    worker._end()


def test_what_is_cancelled_while_its_payload_is_built_is_not_sent(owner: User) -> None:
    """It was not on its way yet."""
    make_target(owner)
    thing_built(1, owner=owner)
    transport = MemoryTransport()
    worker = start_worker(transport)
    built: list[Callable[[], Any]] = []
    submit = worker.builder.submit
    worker.builder.submit = lambda *ids: built.append(lambda: submit(*ids))  # type: ignore[method-assign]  # when the test wants it
    turn(worker)
    assert len(built) == 1
    Delivery.objects.get().cancel()
    turn(worker)
    built[0]()
    turn(worker, 2)

    assert transport.requests == []
    assert Delivery.objects.get().status == Status.CANCELLED
