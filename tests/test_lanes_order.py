"""Of an ordered lane, the first of each key is due; a change of order lines up anew, a page at a time."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection

from djwebhooks import lanes
from djwebhooks.lanes import Held, Outcome, Work
from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status
from tests.lanes import (
    DB,
    SECOND,
    due_sequences,
    enlist,
    exchange,
    failure,
    hold,
    lane_of,
    make_work,
    now,
    record,
    take,
    take_one,
)

pytestmark = pytest.mark.django_db


def take_when_settled(held: dict[int, Held]) -> list[Work]:
    """Look as often as it takes until all pages are done; nothing may be sent before."""
    works = take(held)
    while any(one.is_unfinished for one in held.values()):
        assert works == []
        works = take(held)
    return works


def test_a_lane_that_becomes_ordered_is_lined_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a target becomes ordered, only the first of each key stays due, in pages; a retry's time is kept."""
    monkeypatch.setattr(lanes, "PAGE", 3)
    target = make_work(6, keys=["a", "b"])
    at = now() + timedelta(hours=1)
    Delivery.objects.filter(sequence=1).update(due_at=at)
    WebhookTarget.objects.filter(pk=target.pk).update(is_ordered=True)
    held = hold(enlist())

    works = take_when_settled(held)

    assert due_sequences(target) == [1, 2]
    assert Delivery.objects.get(sequence=1).due_at == at
    assert [work.sequence for work in works] == [2]
    assert lane_of(target).is_ordered


def test_a_lane_that_is_no_longer_ordered_is_let_loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a target stops being ordered, all its deliveries are due; a retry's time is kept."""
    monkeypatch.setattr(lanes, "PAGE", 3)
    target = make_work(6, keys=["a", "b"], is_ordered=True)
    at = now() + timedelta(hours=1)
    Delivery.objects.filter(sequence=1).update(due_at=at)
    WebhookTarget.objects.filter(pk=target.pk).update(is_ordered=False)
    held = hold(enlist())

    take_when_settled(held)

    assert due_sequences(target) == list(range(1, 13))
    assert Delivery.objects.get(sequence=1).due_at == at
    assert not lane_of(target).is_ordered
    assert {work.sequence for work in take(held)} == set(range(2, 13))


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_change_of_order_that_is_taken_back_halfway_is_undone(monkeypatch: pytest.MonkeyPatch, is_ordered: bool) -> None:
    """A page at a time leaves a lane in neither order; whichever is wanted then, it ends in that."""
    monkeypatch.setattr(lanes, "PAGE", 3)
    target = make_work(6, keys=["a", "b"], is_ordered=not is_ordered)
    before = due_sequences(target)
    held = hold(enlist())
    WebhookTarget.objects.filter(pk=target.pk).update(is_ordered=is_ordered)
    assert take(held) == []
    assert due_sequences(target) != before

    WebhookTarget.objects.filter(pk=target.pk).update(is_ordered=not is_ordered)
    works = take_when_settled(held)

    assert due_sequences(target) == before == sorted(work.sequence for work in works)
    assert lane_of(target).is_ordered is not is_ordered


def expire_all(target: WebhookTarget) -> None:
    WebhookTarget.objects.filter(pk=target.pk).update(is_active=False)
    Delivery.objects.update(expires_at=now() - SECOND)


def delete_by_sql(target: WebhookTarget) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM djw_subscription")
        cursor.execute("DELETE FROM djw_target")


@pytest.mark.parametrize(
    ("act", "left"),
    [
        (lambda target: WebhookTarget.objects.filter(pk=target.pk).update(is_ordered=True), [4, 1, 1]),
        (expire_all, [4, 1, 0]),
        (delete_by_sql, [4, 1, 0]),
    ],
    ids=["order", "expiry", "deletion"],
)
def test_a_look_at_a_lane_does_one_page(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[WebhookTarget], object], left: list[int]
) -> None:
    """However much is to be changed at once, all other lanes wait for one page of it; it goes on at once, whoever does that."""
    monkeypatch.setattr(lanes, "PAGE", 3)
    target = make_work(7)
    act(target)
    due = Delivery.objects.pending().filter(due_at__isnull=False)

    counts = []
    for _ in left:
        worker_id = enlist()
        held = hold(worker_id)
        take(held)
        lanes.release(DB, worker_id, held.values(), now())
        counts.append(due.count())

    assert counts == left


def test_a_change_of_order_is_seen_by_release() -> None:
    """Lining up anew makes work due, so a lane that was looked at before is not given back asleep."""
    target = make_work(2, is_ordered=True)
    worker_id = enlist()
    held = hold(worker_id)
    take(held)
    version = held[target.pk].version
    WebhookTarget.objects.filter(pk=target.pk).update(is_ordered=False)

    take(held)

    assert lane_of(target).version > version


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.EXPIRED, Status.CANCELLED])
def test_the_successor_is_due_when_its_predecessor_has_ended(status: Status) -> None:
    """However the first of a key ends, the next one of that key gets its due_at, and no other."""
    target = make_work(2, keys=["a", "b"], is_ordered=True)
    worker_id = enlist()
    work = take(hold(worker_id))[0]

    record(worker_id, Outcome(work, status, sent=exchange()))

    assert due_sequences(target) == [2, 3]


def test_the_successor_waits_while_its_predecessor_is_retried() -> None:
    """A failing delivery keeps its place at the head of its key."""
    target = make_work(2, is_ordered=True)
    worker_id = enlist()
    work = take_one(worker_id)

    record(worker_id, failure(work))

    assert due_sequences(target) == [1]


def test_the_successor_is_due_when_a_person_cancels_its_predecessor() -> None:
    """A cancelled delivery steps aside at once."""
    target = make_work(2, keys=["a", "b"], is_ordered=True)

    Delivery.objects.get(sequence=1).cancel()

    assert due_sequences(target) == [2, 3]


def test_a_successor_with_a_time_of_its_own_keeps_it() -> None:
    """Lining up gives a due_at to those that have none, and changes nobody's."""
    target = make_work(2, is_ordered=True)
    at = now() + timedelta(hours=1)
    Delivery.objects.filter(sequence=2).update(due_at=at)

    Delivery.objects.line_up([(target.pk, "")], now())
    Delivery.objects.get(sequence=1).cancel()

    assert Delivery.objects.get(sequence=2).due_at == at
