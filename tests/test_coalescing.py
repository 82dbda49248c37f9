"""Newer events take the place of older ones about the same thing, where that was asked for, and nowhere else."""

import re
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from djwebhooks.coalescing import COALESCED
from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.decorators import hook
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidEvent
from djwebhooks.explain import explain_uid
from djwebhooks.lanes import claim
from djwebhooks.models import Delivery, Event, Lane
from djwebhooks.models import Worker as WorkerRow
from djwebhooks.models.deliveries import Status
from djwebhooks.models.replays import make_criteria
from djwebhooks.replays import carry_on
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from djwebhooks.worker import Worker
from tests.builders import make_target, make_user
from tests.connections import second_connection, server_only

DB = "default"
#: Longer than any test takes.
HOUR = timedelta(hours=1)

pytestmark = pytest.mark.django_db


@pytest.fixture
def owner() -> User:
    return make_user()


def change(owner: User, number: int, *, key: str = "k", name: str = "thing.changed", **options: Any) -> Delivery:
    """Fire an event that is coalesced, dispatch it, and return its first delivery."""
    options = {"coalesce": HOUR} | options
    event = fire(name, number, owner=owner, ordering_key=key, **options)
    dispatch(DB)
    return Delivery.objects.filter(event=event).order_by("pk")[0]


def pending() -> list[int]:
    """What waits, as the payloads of its events, in the order of the lanes."""
    waiting = Delivery.objects.pending().order_by("target_id", "sequence")
    return [int(payload) for payload in waiting.values_list("event__payload", flat=True)]


def be_later() -> None:
    """Let an hour pass: what waits for newer events has waited for long enough."""
    for delivery in Delivery.objects.pending().filter(due_at__isnull=False):
        Delivery.objects.filter(pk=delivery.pk).update(due_at=delivery.due_at - HOUR)
    Delivery.objects.pending().filter(coalesce_until__isnull=False).update(coalesce_until=DatabaseNow())
    Lane.objects.update(due_at=DatabaseNow())


def payloads(requests: list[Request]) -> list[bytes]:
    return [request.body.partition(b'"data":')[2].rstrip(b"}") for request in requests]


# -- what is replaced --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_newer_event_takes_the_place_of_one_that_waits(owner: User, is_ordered: bool) -> None:
    """The older delivery ends, and says which one has taken its place; the newer one says for how many it stands."""
    target = make_target(owner, is_ordered=is_ordered)
    first, second, third = (change(owner, number) for number in range(3))

    first.refresh_from_db()
    second.refresh_from_db()

    assert [(d.status, d.reason) for d in (first, second)] == [(Status.CANCELLED, COALESCED)] * 2
    assert (first.replaced_by, second.replaced_by) == (second.uid, third.uid)
    assert (first.due_at, first.finished_at is None) == (None, False)
    assert (third.status, third.coalesced_count) == (Status.PENDING, 2)
    assert [delivery.sequence for delivery in (first, second, third)] == [1, 2, 3]
    assert Lane.objects.get(pk=target.pk).tail == 3


@pytest.mark.parametrize("is_ordered", [True, False])
def test_events_of_one_dispatch_coalesce_with_each_other(owner: User, is_ordered: bool) -> None:
    """Of what was fired since the last dispatch, too, only the newest is sent; every number of the lane is given out."""
    make_target(owner, is_ordered=is_ordered)
    waiting = change(owner, 0)
    events = [fire("thing.changed", number, owner=owner, ordering_key="k", coalesce=HOUR) for number in (1, 2, 3)]
    dispatch(DB)

    newest = Delivery.objects.get(event=events[-1])
    rows = Delivery.objects.order_by("pk").values_list("sequence", "status", "replaced_by")

    ended = (Status.CANCELLED, newest.uid)
    assert list(rows) == [(1, *ended), (2, *ended), (3, *ended), (4, Status.PENDING, None)]
    assert newest.coalesced_count == 3
    assert newest.due_at == waiting.due_at


def test_the_first_decides_how_long_they_wait(owner: User) -> None:
    """However often a thing changes, it is sent when the first of the changes has waited for as long as it may."""
    make_target(owner)
    first = change(owner, 1)
    later = [change(owner, number) for number in range(5)]

    assert {delivery.due_at for delivery in later} == {first.due_at}
    assert first.due_at is not None
    assert first.due_at > read_clock(DB) + HOUR / 2


@pytest.mark.parametrize("column", ["created_at", "deliver_at"])
def test_the_wait_begins_with_the_change(owner: User, column: str) -> None:
    """Not when a worker finds the event; one that was found too late is sent at once."""
    make_target(owner)
    now = read_clock(DB)
    for number, age in enumerate([HOUR / 2, 2 * HOUR]):
        event = fire("thing.changed", number, owner=owner, ordering_key=str(number), coalesce=HOUR)
        Event.objects.filter(pk=event.pk).update(**{column: now - age})
    dispatch(DB)

    soon, overdue = Delivery.objects.order_by("event_id")
    assert soon.due_at == now + HOUR / 2
    assert overdue.due_at is not None
    assert now <= overdue.due_at <= read_clock(DB)


def test_a_shorter_wait_is_kept(owner: User) -> None:
    """An event that may wait less than what it replaces is sent as soon as it says."""
    make_target(owner)
    first = change(owner, 1)
    second = change(owner, 2, coalesce=60)

    assert first.due_at is not None
    assert second.due_at is not None
    assert second.due_at < first.due_at


def test_the_lane_is_looked_at_when_it_is_time(owner: User) -> None:
    """A worker is not called for an event that waits, but when it has waited."""
    target = make_target(owner)
    first = change(owner, 1)

    assert Lane.objects.get(pk=target.pk).due_at == first.due_at
    assert deliver() == []
    assert Lane.objects.get(pk=target.pk).due_at == first.due_at


def test_true_waits_for_nothing(owner: User) -> None:
    """``coalesce=True`` delays no event: it takes the place of what waits anyway."""
    target = make_target(owner)
    target.pause()
    for number in range(5):
        change(owner, number, coalesce=True)
    target.resume()

    (request,) = deliver()

    assert payloads([request]) == [b"4"]
    change(owner, 5, coalesce=True)
    assert payloads(deliver()) == [b"5"]


@pytest.mark.parametrize(
    "other", [{"name": "thing.moved"}, {"key": "l"}, {"coalesce": None}], ids=["another name", "another key", "not asked for"]
)
@pytest.mark.parametrize("is_ordered", [True, False])
def test_what_differs_is_left_alone(owner: User, other: dict[str, Any], is_ordered: bool) -> None:
    """Events of another name or key, and those that did not ask for it, replace nothing and are not replaced."""
    make_target(owner, is_ordered=is_ordered)
    change(owner, 1)
    change(owner, 2, **other)
    change(owner, 3)
    change(owner, 4, **other)

    expected = [2, 3, 4] if other == {"coalesce": None} else [3, 4]
    assert pending() == expected


def test_events_of_others_are_left_alone(owner: User) -> None:
    """On a system target, events of different owners, of different identifiers and to everybody are about different things."""
    make_target(None)
    fires = [{"owner": owner}, {"owner": make_user("other")}, {"owner": owner, "identifier": "p-1"}, {}, {"broadcast": True}]
    for number in (0, 10):
        for place, options in enumerate(fires):
            fire("thing.changed", number + place, ordering_key="k", coalesce=HOUR, **options)
        dispatch(DB)

    assert pending() == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("wait", [HOUR, 60])
def test_an_older_event_that_comes_late_replaces_nothing(owner: User, wait: Any, is_ordered: bool) -> None:
    """One that was planned, or committed late, ends if something newer waits, which is sent no later than it would have been."""
    make_target(owner, is_ordered=is_ordered)
    late = fire("thing.changed", 1, owner=owner, ordering_key="k", coalesce=wait, deliver_at=read_clock(DB) + HOUR)
    change(owner, 2)
    newer = change(owner, 3)
    Event.objects.filter(pk=late.pk).update(deliver_at=read_clock(DB))
    dispatch(DB)

    older = Delivery.objects.get(event=late)
    before = newer.due_at
    newer.refresh_from_db()
    assert pending() == [3]
    assert (older.reason, older.due_at, older.replaced_by) == (COALESCED, None, newer.uid)
    assert newer.coalesced_count == 2
    assert newer.due_at == newer.coalesce_until
    assert (newer.due_at == before) == (wait is HOUR)


def test_the_newest_of_a_batch_is_the_one_fired_last(owner: User) -> None:
    """In whatever order events are dispatched, and though the first of a batch is the newest."""
    make_target(owner)
    events = [fire("thing.changed", number, owner=owner, ordering_key="k", coalesce=HOUR) for number in range(3)]
    Event.objects.filter(pk=events[1].pk).update(deliver_at=read_clock(DB))
    assert dispatch(DB) == 3

    assert pending() == [2]


@pytest.mark.parametrize("is_ordered", [True, False])
def test_it_is_sent_before_it_expires(owner: User, is_ordered: bool) -> None:
    """An event that would expire while it waits does not wait, or what it replaced would be lost with it."""
    make_target(owner, is_ordered=is_ordered)
    change(owner, 1)
    newer = change(owner, 2, expires_at=read_clock(DB) + HOUR / 2)

    assert pending() == [2]
    assert newer.due_at is not None
    assert newer.due_at <= read_clock(DB)


def test_each_target_is_on_its_own(owner: User) -> None:
    """What one target has got already may still wait for another one."""
    make_target(owner, url="http://127.0.0.1/fast")
    slow = make_target(owner, url="http://127.0.0.1/slow")
    slow.pause()
    change(owner, 1, coalesce=True)
    assert len(deliver()) == 1
    change(owner, 2, coalesce=True)

    statuses = Delivery.objects.order_by("target_id", "sequence").values_list("status", flat=True)
    assert list(statuses) == [Status.SUCCEEDED, Status.PENDING, Status.CANCELLED, Status.PENDING]


# -- order -------------------------------------------------------------------------------------------------------------


def test_what_stands_behind_goes_on(owner: User) -> None:
    """On an ordered target the newer event stands at the end of its line, and what stood behind the older goes first."""
    make_target(owner, is_ordered=True)
    change(owner, 1)
    fire("thing.moved", 2, owner=owner, ordering_key="k")
    dispatch(DB)
    assert deliver() == []
    change(owner, 3)

    assert payloads(deliver()) == [b"2"]
    assert pending() == [3]
    be_later()
    assert payloads(deliver()) == [b"3"]


def test_it_waits_for_newer_ones_when_it_is_first(owner: User) -> None:
    """On an ordered target what stood behind another one waits out its own time when that is done."""
    make_target(owner, is_ordered=True)
    fire("thing.moved", 1, owner=owner, ordering_key="k")
    dispatch(DB)
    change(owner, 2)

    assert payloads(deliver()) == [b"1"]
    waiting = Delivery.objects.pending().get()
    assert waiting.due_at == waiting.coalesce_until


def test_it_goes_on_waiting_when_its_target_is_put_out_of_order(owner: User) -> None:
    """Whoever makes a target unordered has nothing sent that newer events may take the place of."""
    target = make_target(owner, is_ordered=True)
    fire("thing.moved", 0, owner=owner, ordering_key="k")
    waiting = change(owner, 1)
    assert waiting.due_at is None
    target.is_ordered = False
    target.save()

    assert payloads(deliver()) == [b"0"]
    waiting.refresh_from_db()
    assert waiting.due_at == waiting.coalesce_until


def test_it_goes_on_waiting_when_its_target_is_put_in_order_again(owner: User) -> None:
    """The first of a key waits out its own time, though it stood behind something that is gone."""
    target = make_target(owner, is_ordered=True)
    waiting = change(owner, 1)
    Delivery.objects.filter(pk=waiting.pk).update(due_at=None)
    Lane.objects.filter(pk=target.pk).update(is_ordered=None, due_at=DatabaseNow())
    assert deliver() == []

    waiting.refresh_from_db()
    assert waiting.due_at == waiting.coalesce_until


def test_one_batch_keeps_its_line(owner: User) -> None:
    """Also within one dispatch what stands between two events that coalesce goes before the newer."""
    make_target(owner, is_ordered=True)
    for number, name in enumerate(["thing.changed", "thing.moved", "thing.changed"]):
        fire(name, number, owner=owner, ordering_key="k", coalesce=HOUR if name == "thing.changed" else None)
    dispatch(DB)

    assert payloads(deliver()) == [b"1"]
    be_later()
    assert payloads(deliver()) == [b"2"]


def test_a_page_is_not_overtaken_by_what_is_newer(owner: User) -> None:
    """While a large event is dispatched page by page, newer ones of its key wait, or the older would be sent after them."""
    targets = [make_target(owner, url=f"http://127.0.0.1/{number}") for number in range(5)]
    fire("thing.changed", 1, owner=owner, ordering_key="k", coalesce=HOUR)
    newer = fire("thing.changed", 2, owner=owner, ordering_key="k", coalesce=HOUR)
    Event.objects.filter(pk=newer.pk).update(target_ids=f"[{targets[-1].pk}]")
    dispatch(DB, page=3)
    dispatch(DB, page=3)
    assert 2 not in pending()
    while Event.objects.waiting().exists():
        dispatch(DB, page=3)

    assert pending() == [1] * 4 + [2]


# -- what is being sent ------------------------------------------------------------------------------------------------


class Slow:
    """A transport that answers nothing until it is told to."""

    concurrency = 5

    def __init__(self) -> None:
        self.waiting: list[Request] = []
        self.answered: list[Reply] = []

    def submit(self, request: Request) -> None:
        self.waiting.append(request)

    def answer(self, status: int) -> None:
        self.answered.append(Reply(self.waiting.pop(0).key, status=status))

    def wait(self, timeout: float) -> list[Reply]:
        replies, self.answered = self.answered, []
        return replies

    def wake(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def worker() -> Worker:
    """A worker that is moved a turn at a time."""
    worker = Worker(transport=Slow(), threaded=False)
    worker.enlist()
    return worker


def turn(worker: Worker) -> None:
    worker._has_more = True
    for step in worker.steps:
        step()


def test_what_is_in_flight_is_not_replaced(owner: User, worker: Worker) -> None:
    """A request that is on its way counts: the newer event is sent besides it."""
    make_target(owner, retry_schedule=[3600])
    change(owner, 1, coalesce=True)
    turn(worker)
    change(owner, 2, coalesce=True)

    assert pending() == [1, 2]
    worker.transport.answer(200)
    turn(worker)
    turn(worker)
    worker.transport.answer(200)
    turn(worker)
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.SUCCEEDED}


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_pending_retry_is_replaced(owner: User, worker: Worker, is_ordered: bool) -> None:
    """An attempt that failed is not repeated when there is something newer; what replaces it is sent no later."""
    make_target(owner, is_ordered=is_ordered, retry_schedule=[60])
    change(owner, 1, coalesce=True)
    turn(worker)
    worker.transport.answer(500)
    turn(worker)
    assert pending() == [1]
    retry = Delivery.objects.get(sequence=1)
    newest = change(owner, 2)

    assert pending() == [2]
    assert newest.due_at == retry.due_at
    retry.refresh_from_db()
    assert (retry.attempt_count, retry.reason) == (1, COALESCED)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_what_fails_is_not_repeated_when_something_newer_waits(owner: User, worker: Worker, is_ordered: bool) -> None:
    """The newer one is sent no later than the retry would have been, and stands for what failed, too."""
    make_target(owner, is_ordered=is_ordered, retry_schedule=[60])
    older = change(owner, 1, coalesce=True)
    turn(worker)
    newer = change(owner, 2)
    worker.transport.answer(500)
    turn(worker)

    older.refresh_from_db()
    newer.refresh_from_db()
    assert (older.status, older.reason, older.due_at, older.replaced_by) == (Status.CANCELLED, COALESCED, None, newer.uid)
    assert (newer.status, newer.coalesced_count, older.attempt_count) == (Status.PENDING, 1, 1)
    assert newer.due_at == newer.coalesce_until
    assert newer.due_at is not None
    assert newer.due_at < read_clock(DB) + timedelta(minutes=5)


def get_known(worker: Worker, owner: User) -> None:
    """Let the target answer well, so that it gets several requests at a time."""
    for number in range(8):
        fire("thing.known", number, owner=owner)
        turn(worker)
        worker.transport.answer(200)
        turn(worker)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["older first", "newer first"])
@pytest.mark.parametrize("is_at_once", [True, False])
def test_what_failed_is_not_repeated_after_something_newer(
    owner: User, worker: Worker, order: tuple[int, int], is_at_once: bool
) -> None:
    """While one is on its way a newer one goes out and succeeds: the receiver must not end with the older state."""
    make_target(owner, retry_schedule=[60])
    get_known(worker, owner)
    older = change(owner, 1, coalesce=True)
    turn(worker)
    newer = change(owner, 2, coalesce=True)
    turn(worker)
    for place in order:
        worker.transport.answered.append(Reply(worker.transport.waiting[place].key, status=(500, 200)[place]))
        if not is_at_once:
            turn(worker)
            worker._oldest_outcome = 0.0  # As if the moment were over that results wait for each other.
            turn(worker)
    turn(worker)

    older.refresh_from_db()
    newer.refresh_from_db()
    assert (older.status, older.reason, older.replaced_by, older.due_at) == (Status.CANCELLED, COALESCED, newer.uid, None)
    assert newer.status == Status.SUCCEEDED


def test_what_arrives_after_something_newer_has_arrived(owner: User, worker: Worker) -> None:
    """What was ended for something newer while it was on its way, and succeeds, says nothing of that any more."""
    make_target(owner)
    get_known(worker, owner)
    older = change(owner, 1, coalesce=True)
    turn(worker)
    change(owner, 2, coalesce=True)
    turn(worker)
    worker.transport.waiting.reverse()
    for status in (Status.CANCELLED, Status.SUCCEEDED):
        worker.transport.answer(200)
        turn(worker)
        worker._oldest_outcome = 0.0
        turn(worker)
        older.refresh_from_db()
        assert older.status == status

    assert (older.reason, older.replaced_by) == ("", None)


def test_what_people_want_sent_is_not_ended_for_something_newer(owner: User, worker: Worker) -> None:
    """Neither when it fails nor when something newer succeeds; nor is what did not ask for it."""
    make_target(owner, retry_schedule=[3600])
    worker.transport.concurrency = 20
    get_known(worker, owner)
    wanted = change(owner, 1, coalesce=True)
    change(owner, 2, coalesce=None)
    turn(worker)
    wanted.cancel()
    wanted.retry()
    change(owner, 3, coalesce=True)
    turn(worker)
    for request in worker.transport.waiting:
        status = 200 if payloads([request]) == [b"3"] else 500
        worker.transport.answered.append(Reply(request.key, status=status))
    turn(worker)

    assert pending() == [1, 2]


def test_what_a_dead_worker_had_in_hand_is_not_replaced(owner: User, worker: Worker) -> None:
    """Its request may have arrived, so it is sent again, with its own id, like any other."""
    make_target(owner)
    change(owner, 1, coalesce=True)
    turn(worker)
    WorkerRow.objects.update(expires_at=DatabaseNow() - timedelta(seconds=1))
    change(owner, 2, coalesce=True)

    assert pending() == [1, 2]
    assert payloads(deliver()) == [b"1", b"2"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["older first", "newer first"])
def test_what_a_dead_worker_had_in_hand_is_not_repeated_after_something_newer(
    owner: User, worker: Worker, order: tuple[int, int]
) -> None:
    """Nobody may replace it any more, but when it fails it is out of date all the same."""
    make_target(owner, retry_schedule=[60])
    get_known(worker, owner)
    older = change(owner, 1, coalesce=True)
    claim(DB, [older.pk])
    newer = change(owner, 2, coalesce=True)
    claim(DB, [newer.pk])
    turn(worker)
    for place in order:
        worker.transport.answered.append(Reply(worker.transport.waiting[place].key, status=(500, 200)[place]))
        turn(worker)
        worker._oldest_outcome = 0.0
        turn(worker)

    older.refresh_from_db()
    assert (older.status, older.reason, older.replaced_by, older.due_at) == (Status.CANCELLED, COALESCED, newer.uid, None)


def test_what_a_dead_worker_had_in_hand_is_replaced_once_it_has_failed(owner: User, worker: Worker) -> None:
    """Its retry waits as any other does, so that something newer takes its place."""
    make_target(owner, retry_schedule=[3600])
    claim(DB, [change(owner, 1, coalesce=True).pk])
    turn(worker)
    worker.transport.answer(500)
    turn(worker)
    change(owner, 2, coalesce=True)

    assert pending() == [2]


def test_what_is_ready_is_dropped_when_it_was_replaced(owner: User, worker: Worker) -> None:
    """What a worker has taken, and not sent yet, makes room for what is newer, also right before it is sent."""
    make_target(owner, rate_limit=1, rate_period="minute")
    change(owner, 1, coalesce=True)
    before_sending = worker.steps.index(worker._hand_over)
    for step in worker.steps[:before_sending]:
        step()
    change(owner, 2, coalesce=True)
    for step in worker.steps[before_sending:]:
        step()
    assert worker.transport.waiting == []
    turn(worker)

    assert payloads(worker.transport.waiting) == [b"2"]


def test_a_rate_lets_the_newest_out_however_often_it_is_replaced(owner: User, worker: Worker) -> None:
    """The instant that was reserved for what was replaced is left to what has taken its place."""
    make_target(owner, rate_limit=1, rate_period="hour")
    before_sending = worker.steps[: worker.steps.index(worker._hand_over)]
    for number in range(5):
        change(owner, number, coalesce=True)
        worker._has_more = True
        for step in before_sending:
            step()
    turn(worker)

    assert payloads(worker.transport.waiting) == [b"4"]


def test_a_slow_function_does_not_keep_it_from_being_sent(owner: User, worker: Worker) -> None:
    """Once it is its turn, an event is sent, though newer ones come while its payload is built."""
    make_target(owner, event="thing.built")
    event = thing_built(1, owner=owner)
    dispatch(DB)
    before_building = worker.steps.index(worker._hand_over) + 1
    for step in worker.steps[:before_building]:
        step()
    thing_built(2, owner=owner)
    turn(worker)

    assert [request.headers["webhook-id"] for request in worker.transport.waiting] == [str(event.uid)]


@hook("thing.built", ordering_key=lambda number, owner: "k", coalesce=True)
def thing_built(number: int, owner: User) -> int:
    return number


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_delivery_that_somebody_has_locked_is_left_out(owner: User, worker: Worker) -> None:
    """It keeps no worker, and no other target, waiting, and is sent when it is free."""
    make_target(owner, url="http://127.0.0.1/locked")
    make_target(owner, url="http://127.0.0.1/free")
    locked = change(owner, 1, coalesce=True)
    with second_connection() as other, transaction.atomic(using=other):
        list(Delivery.objects.using(other).select_for_update().filter(pk=locked.pk))
        turn(worker)
        assert [request.url for request in worker.transport.waiting] == ["http://127.0.0.1/free"]
    worker._held[locked.target_id].not_before.clear()  # As if the moment were over.
    turn(worker)

    assert [request.url for request in worker.transport.waiting] == ["http://127.0.0.1/free", "http://127.0.0.1/locked"]


# -- what people do ----------------------------------------------------------------------------------------------------


def test_what_people_want_sent_is_not_replaced(owner: User) -> None:
    """A delivery that somebody has retried is sent, whatever comes after it."""
    target = make_target(owner)
    first = change(owner, 1)
    change(owner, 2)
    first.retry()
    target.pause()
    change(owner, 3)

    assert pending() == [1, 3]
    first.refresh_from_db()
    assert first.replaced_by is None


def test_a_replay_sends_what_was_replaced_in_its_order(owner: User) -> None:
    """What was coalesced may be replayed as all that was cancelled: in the order of the lane."""
    make_target(owner, is_ordered=True)
    for number in range(4):
        change(owner, number)
    be_later()
    assert payloads(deliver()) == [b"3"]
    Delivery.objects.replay(make_criteria(everybody=True, status=["cancelled"]), rate=100)
    carry_on(DB)

    assert payloads(deliver()) == [b"0", b"1", b"2"]


def test_the_receiver_is_told_how_many_there_were(owner: User) -> None:
    """``webhook-coalesced`` is the number of earlier events that this one stands for, and is missing where that is none."""
    make_target(owner)
    for number in range(3):
        change(owner, number)
    be_later()

    (request,) = deliver()
    change(owner, 4, coalesce=True)
    (single,) = deliver()

    assert request.headers["webhook-coalesced"] == "2"
    assert "webhook-coalesced" not in single.headers


def test_it_is_explained(owner: User) -> None:
    """Of the older one one sees which took its place, of the newer for how many it stands and until when it waits."""
    make_target(owner)
    older, newer = change(owner, 1), change(owner, 2)

    def lines(uid: UUID) -> str:
        explanation = explain_uid(uid)
        assert explanation is not None
        return "\n".join(line for section in explanation.sections for line in section.lines)

    assert f"Coalesced: its place was taken by delivery {newer.uid}" in lines(older.uid)
    assert f"cancelled (coalesced with delivery {newer.uid})" in lines(older.event.uid)
    assert "Stands for: 1 earlier event, whose place it took" in lines(newer.uid)
    assert "It waits for newer events, which take its place, until" in lines(newer.uid)
    assert "may take its place, and waits for them for 60 min at most" in lines(newer.event.uid)
    assert "pending, 0 attempts, waits for newer ones until " in lines(newer.event.uid)
    assert ", for 1 earlier event as well\n" in lines(newer.event.uid)
    be_later()
    assert "pending, 0 attempts, due " in lines(newer.event.uid)


# -- asking for it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, False])
def test_nothing_is_coalesced_unless_that_is_asked_for(owner: User, value: bool | None) -> None:
    """Without ``coalesce``, each event is sent."""
    make_target(owner)
    for number in range(3):
        change(owner, number, coalesce=value)

    assert pending() == [0, 1, 2]


@pytest.mark.parametrize(("value", "seconds"), [(30, 30.0), (0, 0.0), (True, 0.0), (timedelta(minutes=2), 120.0)])
def test_a_wait_is_seconds_or_a_timedelta(owner: User, value: Any, seconds: float) -> None:
    """``True`` and 0 wait for nothing."""
    assert fire("thing.changed", 1, owner=owner, ordering_key="k", coalesce=value).coalesce == seconds


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "30", timedelta(days=2)])
def test_a_wait_that_cannot_be_is_refused(owner: User, value: Any) -> None:
    """What is no duration, negative or longer than a day is refused at once, and named."""
    with pytest.raises(InvalidEvent, match=f"coalesce .*{re.escape(repr(value))}"):
        fire("thing.changed", 1, owner=owner, ordering_key="k", coalesce=value)


def test_events_without_a_key_are_not_coalesced(owner: User) -> None:
    """Nothing says that they are about the same thing, so that is refused; an identifier is a key as good as any."""
    with pytest.raises(InvalidEvent, match="coalesce needs an ordering_key"):
        fire("thing.changed", 1, owner=owner, coalesce=30)
    with pytest.raises(InvalidEvent, match="coalesce needs an ordering_key"):
        fire("thing.changed", 1, owner=owner, identifier="p-42", ordering_key="", coalesce=30)

    assert fire("thing.changed", 1, owner=owner, identifier="p-42", coalesce=30).ordering_key == "p-42"


@hook("thing.listed", ordering_key=lambda owner, wait: "k", coalesce=lambda owner, wait: wait)
def thing_listed(owner: User, wait: float) -> None: ...


def test_a_hook_takes_it_as_any_option(owner: User) -> None:
    """On a hook it is a constant, or a function of the arguments."""
    assert thing_built(1, owner=owner).coalesce == 0.0
    assert thing_listed(owner=owner, wait=5).coalesce == 5.0


# -- costs -------------------------------------------------------------------------------------------------------------


def test_events_that_do_not_ask_for_it_pay_nothing(owner: User) -> None:
    """Their dispatch and their sending know nothing of it: not a statement and not a column."""
    make_target(owner)
    change(owner, 1, coalesce=None)
    deliver()
    fire("thing.changed", 2, owner=owner, ordering_key="k")
    with CaptureQueriesContext(connection) as dispatched:
        dispatch(DB)
    with CaptureQueriesContext(connection) as sent:
        assert len(deliver()) == 1

    written = [query["sql"] for query in [*dispatched, *sent] if not query["sql"].lstrip("(").startswith("SELECT")]
    assert [sql for sql in written if "coalesce" in sql] == []
    assert [query["sql"] for query in dispatched if "coalesce_until" in query["sql"]] == []


def test_queries_do_not_grow_with_what_is_coalesced(owner: User) -> None:
    """Events are coalesced by sets: 50 cost as many statements as 5."""
    make_target(owner, is_ordered=True)
    counts = []
    for number in (5, 5, 50):
        for n in range(number):
            fire("thing.changed", n, owner=owner, ordering_key=str(n), coalesce=HOUR)
        with CaptureQueriesContext(connection) as captured:
            assert dispatch(DB) == number
        counts.append(len(captured))

    assert counts[1] == counts[2]
