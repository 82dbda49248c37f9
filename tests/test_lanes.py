"""Leases, what is taken under them, what is recorded, and when a lane is due again."""

import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from djwebhooks import lanes, replays
from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.lanes import Held, LeaseLost, Outcome, Sent, Work
from djwebhooks.models import Attempt, Delivery, Lane, Replay, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.models.lanes import RECHECK
from tests.builders import make_target, make_user
from tests.connections import Thread, second_connection, server_only

DB = "default"
SECOND = timedelta(seconds=1)

pytestmark = pytest.mark.django_db


def now() -> datetime:
    return read_clock(DB)


def enlist(name: str = "test") -> int:
    worker_id = lanes.enlist(DB, name, "here:1")
    assert isinstance(worker_id, int)
    return worker_id


def make_owner() -> User:
    return User.objects.filter(username="ada").first() or make_user("ada")


def make_work(count: int = 1, *, keys: Iterable[str] = ("",), name: str = "a", **fields: Any) -> WebhookTarget:
    """Make a target called *name* with *count* deliveries of each key."""
    target = make_target(make_owner(), event=f"for.{name}", url=f"http://127.0.0.1/{name}", **fields)
    for _ in range(count):
        for key in keys:
            fire(f"for.{name}", 1, owner=make_owner(), ordering_key=key)
    dispatch(DB)
    return target


def hold(worker_id: int, limit: int = 100) -> dict[int, Held]:
    return {held.target_id: held for held in lanes.lease(DB, worker_id, limit)}


def take(held: dict[int, Held], limit: int = 100, at: datetime | None = None) -> list[Work]:
    return lanes.take(DB, dict.fromkeys(held, limit), held, at or now())


def take_when_settled(held: dict[int, Held]) -> list[Work]:
    """Look as often as it takes until all pages are done; nothing may be sent before."""
    works = take(held)
    while any(one.is_unfinished for one in held.values()):
        assert works == []
        works = take(held)
    return works


def take_one(worker_id: int) -> Work:
    works = take(hold(worker_id))
    assert len(works) == 1
    return works[0]


def exchange(status: int | None = 200, **fields: Any) -> Sent:
    values: dict[str, Any] = {
        "url": "http://127.0.0.1/", "started_at": now(), "duration": 0.1, "status_code": status, "response_headers": {},
        "response_body": "", "error": "", "detail": "", "address": "127.0.0.1",
    }  # fmt: skip
    return Sent(**(values | fields))


def success(work: Work) -> Outcome:
    return Outcome(work, Status.SUCCEEDED, sent=exchange())


def failure(work: Work, status: Status = Status.PENDING, **fields: Any) -> Outcome:
    due_at = now() + timedelta(hours=1) if status == Status.PENDING else None
    return Outcome(work, status, "http_500", **({"due_at": due_at, "sent": exchange(500)} | fields))


def own_fault(work: Work) -> Outcome:
    sent = exchange(None, error="network_unreachable")
    return Outcome(work, Status.PENDING, "network_unreachable", due_at=now() + SECOND, sent=sent, counts=False)


def record(worker_id: int, *outcomes: Outcome, at: datetime | None = None) -> lanes.Recorded:
    return lanes.record(DB, worker_id, outcomes, at or now())


def delivery_of(work: Work) -> Delivery:
    return Delivery.objects.get(pk=work.delivery_id)


def lane_of(work: Work | Held | WebhookTarget) -> Lane:
    return Lane.objects.get(pk=work.pk if isinstance(work, WebhookTarget) else work.target_id)


def due_sequences(target: WebhookTarget) -> list[int]:
    due = Delivery.objects.filter(target=target, due_at__isnull=False).order_by("sequence")
    return list(due.values_list("sequence", flat=True))


def kill(worker_id: int) -> None:
    Worker.objects.filter(pk=worker_id).update(expires_at=DatabaseNow() - SECOND)


# -- workers -----------------------------------------------------------------------------------------------------------


def test_at_most_so_many_workers_of_a_name_enlist() -> None:
    """Whoever is one too many learns when the first of the others will have been silent; other names do not count."""
    first, _ = enlist("rq"), enlist("other")
    assert isinstance(lanes.enlist(DB, "rq", "here:2", 2), int)

    refused = lanes.enlist(DB, "rq", "here:3", 2)

    begun_at = Worker.objects.get(pk=first).expires_at - timedelta(seconds=lanes.lease_seconds())
    assert refused == begun_at + timedelta(seconds=lanes.SILENCE)
    assert lanes.count_workers(DB, "rq") == 2


def test_a_worker_that_was_killed_keeps_nobody_from_beginning() -> None:
    """Its lanes rest until its lease ends, but what it did not hold is sent as soon as its heartbeat is missed."""
    dead = enlist("rq")
    silent = timedelta(seconds=lanes.lease_seconds() - lanes.SILENCE) - SECOND
    Worker.objects.filter(pk=dead).update(expires_at=DatabaseNow() + silent)

    assert lanes.count_workers(DB, "rq") == 0
    assert isinstance(lanes.enlist(DB, "rq", "here:2", 1), int)


@server_only
@pytest.mark.django_db(transaction=True)
def test_workers_that_enlist_at_once_keep_to_the_number() -> None:
    """Of many that enlist at the same moment, as many get in as may."""
    barrier = threading.Barrier(6)

    def enlist_with_others() -> object:
        barrier.wait(30)
        return lanes.enlist(DB, "rq", "here:1", 2)

    threads = [Thread(enlist_with_others) for _ in range(6)]

    assert sum(isinstance(thread.result(), int) for thread in threads) == 2


def test_a_heartbeat_renews_the_lease() -> None:
    """One update keeps all the worker's lanes."""
    worker_id = enlist()
    kill(worker_id)

    lanes.beat(DB, worker_id)

    assert lanes.reap(DB) == 0
    assert Worker.objects.get(pk=worker_id).expires_at > now() + timedelta(seconds=lanes.start_seconds())


def test_a_lease_outlasts_an_exchange(settings: LazySettings) -> None:
    """A lease lasts longer than an exchange and half a minute; an attempt that may start ends within it."""
    settings.DJWEBHOOKS_TIMEOUT = 100

    assert lanes.lease_seconds() > 130
    assert 100 < lanes.start_seconds() < lanes.lease_seconds()


def test_a_worker_that_was_struck_off_finds_out() -> None:
    """After reaping, neither a heartbeat nor a lease goes on as if nothing had happened."""
    make_work()
    worker_id = enlist()
    kill(worker_id)

    assert lanes.reap(DB) == 1

    with pytest.raises(LeaseLost):
        lanes.beat(DB, worker_id)
    with pytest.raises(LeaseLost):
        lanes.lease(DB, worker_id, 10)


def test_reaping_frees_the_lanes_of_the_dead_only() -> None:
    """Lanes of a worker that stopped beating can be leased again, with another token; those of the living cannot."""
    dead, alive = enlist(), enlist()
    make_work(name="a")
    lost = next(iter(hold(dead).values()))
    make_work(name="b")
    kept = next(iter(hold(alive).values()))
    kill(dead)

    lanes.reap(DB)

    found = hold(enlist())
    assert list(found) == [lost.target_id]
    assert found[lost.target_id].token > lost.token
    assert lane_of(kept).holder == alive


def test_a_retired_worker_leaves_nothing_behind() -> None:
    """A worker that ends gives its lanes back at once."""
    make_work()
    worker_id = enlist()
    held = hold(worker_id)

    lanes.retire(DB, worker_id)

    assert not Worker.objects.filter(pk=worker_id).exists()
    assert list(hold(enlist())) == list(held)


@server_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [lanes.reap, lambda using: lanes.retire(using, Worker.objects.get().pk)], ids=["reap", "retire"])
def test_freeing_lanes_waits_for_no_application(end: Any) -> None:
    """A lane that an application keeps locked is freed later; the others of its dead worker at once."""
    busy, free = make_work(name="a"), make_work(name="b")
    worker_id = enlist()
    assert set(hold(worker_id)) == {busy.pk, free.pk}
    kill(worker_id)
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=busy.pk))
        Thread(lambda: end(DB)).result(timeout=10)
        assert lane_of(free).holder is None
        with pytest.raises(LeaseLost):
            lanes.beat(DB, worker_id)

    lanes.reap(DB)
    assert lane_of(busy).holder is None


# -- leasing -----------------------------------------------------------------------------------------------------------


def test_two_workers_never_hold_the_same_lane() -> None:
    """What one worker has leased, the next does not get."""
    for name in "abcd":
        make_work(name=name)
    first, second = enlist(), enlist()

    ours, theirs, nothing = hold(first, 3), hold(second, 3), hold(first, 3)

    assert (len(ours), len(theirs), len(nothing)) == (3, 1, 0)
    assert not set(ours) & set(theirs)


@server_only
@pytest.mark.django_db(transaction=True)
def test_workers_that_lease_at_once_share_the_lanes() -> None:
    """While one worker's leasing transaction is open, another gets other lanes, and waits for nothing."""
    for name in "abcd":
        make_work(name=name)
    first, second = enlist(), enlist()
    with second_connection() as other, transaction.atomic(using=other):
        ours = lanes.lease(other, first, 2)
        theirs = lanes.lease(DB, second, 4)

    assert len({held.target_id for held in ours + theirs}) == len(ours) + len(theirs) == 4


def test_every_lease_has_a_new_token() -> None:
    """The fencing token grows with each lease, and is what the holder knows."""
    target = make_work()
    worker_id = enlist()
    tokens = []
    for _ in range(3):
        held = hold(worker_id)[target.pk]
        assert lane_of(target).token == held.token
        tokens.append(held.token)
        Lane.objects.update(holder=None)

    assert tokens == sorted(set(tokens))


def test_only_due_lanes_are_leased_the_longest_waiting_first() -> None:
    """A lane with nothing to do, or not yet, is left alone; of the others, the first that fell due goes first."""
    targets = [make_work(name=name) for name in "abcd"]
    moments = [now() - SECOND, now() - 2 * SECOND, now() + timedelta(hours=1), None]
    for target, at in zip(targets, moments, strict=True):
        Lane.objects.filter(pk=target.pk).update(due_at=at)
    worker_id = enlist()

    assert list(hold(worker_id, 1)) == [targets[1].pk]
    assert list(hold(worker_id, 9)) == [targets[0].pk]


def test_a_worker_for_some_targets_leases_no_others() -> None:
    """``only`` limits what is leased."""
    wanted, _ = make_work(name="a"), make_work(name="b")

    assert [held.target_id for held in lanes.lease(DB, enlist(), 9, only=[wanted.pk])] == [wanted.pk]


# -- taking ------------------------------------------------------------------------------------------------------------


def test_each_lane_gives_so_many_of_its_due_deliveries() -> None:
    """Each lane gives at most what is wanted of it, the first due first, and nothing that is not due."""
    a, b = make_work(5, name="a"), make_work(2, name="b")
    Delivery.objects.filter(target=a, sequence=1).update(due_at=now() + timedelta(hours=1))
    Delivery.objects.filter(target=a, sequence=4).update(due_at=now() - timedelta(hours=1))
    held = hold(enlist())

    works = lanes.take(DB, {a.pk: 3, b.pk: 3}, held, now())

    assert [(work.target_id, work.sequence) for work in works] == [(a.pk, 4), (a.pk, 2), (a.pk, 3), (b.pk, 1), (b.pk, 2)]


def test_taking_knows_all_that_is_needed() -> None:
    """A work carries its delivery's state and the token of its lease."""
    at = now() + timedelta(hours=1)
    target = make_work(keys=["k"])
    Delivery.objects.update(attempt_count=3, schedule_offset=2, trigger="manual", expires_at=at)
    delivery = Delivery.objects.get()
    worker_id = enlist()
    held = hold(worker_id)

    assert take(held) == [
        Work(delivery.pk, delivery.event_id, target.pk, held[target.pk].token, 1, "k", 3, 2, "manual", at)
    ]  # fmt: skip


def test_a_stolen_lane_gives_nothing() -> None:
    """A holder whose token is old, because it was taken for dead, takes nothing."""
    make_work()
    first = enlist()
    held = hold(first)
    kill(first)
    lanes.reap(DB)
    hold(enlist())

    assert take(held) == []


@pytest.mark.parametrize(
    ("of_target", "of_lane"),
    [({"is_active": False}, {}), ({}, {"disabled_at": DatabaseNow()}), ({}, {"held_until": DatabaseNow() + timedelta(hours=1)})],
    ids=["inactive", "disabled", "held"],
)
def test_a_closed_lane_gives_nothing(of_target: dict[str, Any], of_lane: dict[str, Any]) -> None:
    """Inactive, disabled and held lanes keep their deliveries, and say when to look again."""
    target = make_work()
    worker_id = enlist()
    held = hold(worker_id)
    WebhookTarget.objects.filter(pk=target.pk).update(**({"description": ""} | of_target))
    Lane.objects.filter(pk=target.pk).update(**({"failure_count": 0} | of_lane))

    assert take(held) == []

    assert not held[target.pk].is_open
    look_again_at = held[target.pk].look_again_at
    assert look_again_at is not None
    assert look_again_at > now() + timedelta(seconds=RECHECK / 2)
    assert Delivery.objects.pending().count() == 1


def test_a_lane_that_was_held_gives_again_when_its_time_has_come() -> None:
    """held_until in the past holds nothing."""
    make_work()
    Lane.objects.update(held_until=now() - SECOND)

    assert len(take(hold(enlist()))) == 1


def test_what_was_held_for_too_long_expires(settings: LazySettings) -> None:
    """A closed lane ends what is older than the retention or past its own time, each with its reason, and keeps the rest."""
    settings.DJWEBHOOKS_RETENTION = timedelta(days=2)
    target = make_work(4)
    for sequence, fields in {
        1: {"created_at": now() - timedelta(days=3)},
        2: {"expires_at": now() - SECOND},
        3: {"created_at": now() - timedelta(days=1), "expires_at": now() + SECOND * 60},
    }.items():
        Delivery.objects.filter(sequence=sequence).update(**fields)
    WebhookTarget.objects.filter(pk=target.pk).update(is_active=False)

    held = hold(enlist())
    take(held)

    statuses = Delivery.objects.order_by("sequence").values_list("status", "reason")
    assert list(statuses) == [("expired", "held_too_long"), ("expired", "expired")] + [("pending", "")] * 2
    ended = Delivery.objects.filter(status="expired").values_list("pk", flat=True)
    assert sorted(held[target.pk].expired) == sorted(ended)


@pytest.mark.parametrize("is_pruned", [False, True], ids=["known", "pruned"])
def test_what_people_want_sent_again_is_not_too_old_for_that(settings: LazySettings, is_pruned: bool) -> None:
    """A closed lane holds it for as long as anything, counted from the last retry or replay of it; then it ends, too."""
    settings.DJWEBHOOKS_RETENTION = timedelta(days=2)
    target = make_work()
    Delivery.objects.update(created_at=now() - timedelta(days=3), status="failed", due_at=None)
    Delivery.objects.get().retry()
    WebhookTarget.objects.filter(pk=target.pk).update(is_active=False)
    held = hold(enlist())
    take(held)
    assert Delivery.objects.get().status == "pending"

    Replay.objects.update(created_at=now() - timedelta(days=3))
    if is_pruned:
        Replay.objects.all().delete()
    take(held)
    assert Delivery.objects.get().reason == "held_too_long"


def test_what_expires_in_a_closed_ordered_lane_gives_way_to_its_successor() -> None:
    """When the head of a key expires, the next of the key gets its due_at."""
    target = make_work(2, keys=["a", "b"], is_ordered=True)
    Delivery.objects.filter(sequence=1).update(expires_at=now() - SECOND)
    WebhookTarget.objects.filter(pk=target.pk).update(is_active=False)
    assert due_sequences(target) == [1, 2]

    take(hold(enlist()))

    assert due_sequences(target) == [2, 3]


def test_the_lane_of_a_deleted_target_is_closed() -> None:
    """Deliveries whose target was deleted by plain SQL are cancelled, and their lane goes."""
    target = make_work(2)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM djw_subscription")
        cursor.execute("DELETE FROM djw_target")

    assert take(hold(enlist())) == []

    assert set(Delivery.objects.values_list("status", "reason")) == {("cancelled", "target_deleted")}
    assert not Lane.objects.filter(pk=target.pk).exists()


# -- order -------------------------------------------------------------------------------------------------------------


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


# -- recording ---------------------------------------------------------------------------------------------------------


def test_a_success_is_recorded() -> None:
    """Attempt and verdict are written together."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    timing = {"lookup_ms": 1, "connect_ms": None, "tls_ms": 3_000_000, "first_byte_ms": 0}
    sent = exchange(202, response_headers={"a": "b"}, response_body="é", duration=1.5, **timing)

    result = record(worker_id, Outcome(work, Status.SUCCEEDED, sent=sent))

    delivery = delivery_of(work)
    assert (delivery.status, delivery.reason, delivery.due_at, delivery.attempt_count) == ("succeeded", "", None, 1)
    assert delivery.finished_at is not None
    attempt = delivery.attempts.get()
    assert (attempt.number, attempt.trigger) == (1, "event")
    for name in Sent._fields:
        assert getattr(attempt, name) == getattr(sent, name)
    assert len(result.outcomes) == 1
    assert result.postponed == []


def test_a_failure_is_recorded_with_its_next_time() -> None:
    """A retry stays pending with the time and the reason that were decided, and the next attempt is called a retry."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    outcome = failure(work)

    record(worker_id, outcome)

    delivery = delivery_of(work)
    assert (delivery.status, delivery.reason, delivery.due_at) == ("pending", "http_500", outcome.due_at)
    assert (delivery.attempt_count, delivery.trigger, delivery.finished_at) == (1, "retry", None)


def test_an_outcome_without_an_exchange_is_no_attempt() -> None:
    """What was put off before it was sent counts nothing and keeps its trigger."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)

    record(worker_id, Outcome(work, Status.PENDING, "undecryptable_secret", due_at=now()))

    delivery = delivery_of(work)
    assert (delivery.attempt_count, delivery.trigger, delivery.reason) == (0, "event", "undecryptable_secret")
    assert not delivery.attempts.exists()
    assert lane_of(work).failure_count == 0


@pytest.mark.parametrize("change", [{"token": 99}, {"holder": 10**6}, {"holder": None}], ids=str)
def test_a_result_under_a_lost_lease_is_dropped(change: dict[str, int | None]) -> None:
    """With another token or another holder, nothing is written: neither attempt nor verdict nor health."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    Lane.objects.update(**change)

    result = record(worker_id, success(work))

    assert (result.outcomes, result.postponed) == ([], [])
    assert delivery_of(work).status == Status.PENDING
    assert not Attempt.objects.exists()


def test_a_result_for_a_lane_that_is_gone_is_dropped() -> None:
    """A deleted target's late answer is dropped, and disturbs no other's."""
    gone, kept = make_work(name="a"), make_work(name="b")
    worker_id = enlist()
    works = {work.target_id: work for work in take(hold(worker_id))}
    gone_pk = gone.pk
    Lane.objects.filter(pk=gone_pk).delete()

    result = record(worker_id, *(success(work) for work in works.values()))

    assert [outcome.work.target_id for outcome in result.outcomes] == [kept.pk]
    assert result.postponed == []
    assert delivery_of(works[gone_pk]).status == Status.PENDING
    assert delivery_of(works[kept.pk]).status == Status.SUCCEEDED


@server_only
@pytest.mark.django_db(transaction=True)
def test_results_for_a_busy_lane_are_recorded_later() -> None:
    """A lane that an application keeps locked postpones its own results, and nobody else's."""
    busy, free = make_work(name="a"), make_work(name="b")
    worker_id = enlist()
    works = take(hold(worker_id))
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=busy.pk))
        result = record(worker_id, *map(success, works))
        assert [outcome.work.target_id for outcome in result.outcomes] == [free.pk]
        assert [outcome.work.target_id for outcome in result.postponed] == [busy.pk]

    record(worker_id, *result.postponed)
    assert not Delivery.objects.pending().exists()


def test_what_arrived_has_arrived_even_if_it_was_cancelled() -> None:
    """A delivery that was cancelled while it was on its way, and was accepted, is recorded as succeeded."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    delivery_of(work).cancel()

    record(worker_id, success(work))

    assert (delivery_of(work).status, delivery_of(work).reason) == ("succeeded", "")


@pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED])
def test_what_was_cancelled_and_failed_stays_cancelled(status: Status) -> None:
    """Its attempt is kept and counted, so that the attempt of a later retry has the next number."""
    make_work()
    worker_id = enlist()
    held = hold(worker_id)
    work = take(held)[0]
    delivery_of(work).cancel()

    record(worker_id, failure(work, status))

    delivery = delivery_of(work)
    assert (delivery.status, delivery.reason, delivery.attempt_count) == ("cancelled", "cancelled", 1)
    assert delivery.due_at is None
    delivery.retry()
    again = take(held)[0]
    record(worker_id, success(again))
    assert list(delivery.attempts.values_list("number", "trigger", "status_code")) == [(1, "event", 500), (2, "manual", 200)]
    assert delivery_of(work).status == Status.SUCCEEDED


@pytest.mark.parametrize("make", [success, failure, lambda work: failure(work, Status.FAILED), own_fault])
def test_recording_twice_is_recording_once(make: Any) -> None:
    """When it is not known whether a record was committed, it can be made again."""
    make_work()
    worker_id = enlist()
    outcome = make(take_one(worker_id))
    moment = now()
    record(worker_id, outcome, at=moment)
    once = Delivery.objects.values().get()

    record(worker_id, outcome, at=moment)

    assert Delivery.objects.values().get() == once
    assert Attempt.objects.count() == 1


def test_a_batch_is_recorded_in_a_number_of_queries_that_does_not_grow(django_assert_max_num_queries: Any) -> None:
    """Fifty results of five lanes cost hardly more than one."""
    for name in "abcde":
        make_work(10, name=name)
    worker_id = enlist()
    works = take(hold(worker_id))
    assert len(works) == 50

    outcomes, moment = [success(work) for work in works], now()

    with django_assert_max_num_queries(20):
        record(worker_id, *outcomes, at=moment)

    assert Attempt.objects.count() == 50
    assert not Delivery.objects.pending().exists()


def succeed_oddly(work: Work) -> Outcome:
    return success(work)._replace(sent=exchange(address=None))


def fail_oddly(work: Work) -> Outcome:
    return failure(work)._replace(sent=exchange(None, error="x" * 65), reason="x" * 65)


@pytest.mark.parametrize(
    ("make", "verdict"),
    [(succeed_oddly, ("succeeded", "", 1)), pytest.param(fail_oddly, ("pending", "internal_error", 1), marks=server_only)],
)
def test_a_result_that_the_database_refuses_keeps_no_other_from_being_recorded(
    make: Callable[[Work], Outcome], verdict: tuple[str, str, int]
) -> None:
    """Its verdict is recorded as well: to send it again and again would not help. What was said of its attempt is lost."""
    make_work(5)
    worker_id = enlist()
    *works, odd, last = take(hold(worker_id))

    result = record(worker_id, *map(success, works), make(odd), success(last))

    assert [outcome.work for outcome in result.outcomes] == [*works, odd, last]
    assert {delivery_of(work).status for work in (*works, last)} == {"succeeded"}
    delivery = delivery_of(odd)
    assert (delivery.status, delivery.reason, delivery.attempt_count) == verdict
    assert delivery.attempts.get().error == "internal_error"
    assert "the database refuses what the transport said" in delivery.attempts.get().detail


def test_what_the_database_refuses_in_any_case_is_no_secret() -> None:
    """A fault that has nothing to do with what a transport said is raised, as any other of the database."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)

    for sent in (None, exchange()._replace(url=None)):
        with pytest.raises(IntegrityError):
            record(worker_id, failure(work)._replace(sent=sent, status=None))


def test_our_own_fault_uses_up_nothing_of_the_schedule() -> None:
    """An attempt that failed for want of a network is kept, but the schedule is as long as before."""
    make_work()
    worker_id = enlist()
    held = hold(worker_id)
    work = take(held)[0]

    record(worker_id, own_fault(work))

    again = take(held, at=now() + timedelta(minutes=1))[0]
    assert again.attempt_count == 1
    assert again.attempt_count - again.schedule_offset == work.attempt_count - work.schedule_offset


# -- health ------------------------------------------------------------------------------------------------------------


def test_failures_are_counted_until_a_success() -> None:
    """failing_since is the first failure's time; a success forgets both it and the count."""
    make_work(4)
    worker_id = enlist()
    works = take(hold(worker_id))
    first = now()
    record(worker_id, failure(works[0]), at=first)
    record(worker_id, failure(works[1]), failure(works[2], Status.FAILED), at=first + timedelta(hours=1))

    lane = lane_of(works[0])
    assert (lane.failing_since, lane.failure_count) == (first, 3)
    record(worker_id, success(works[3]), at=first + timedelta(hours=2))
    lane.refresh_from_db()
    assert (lane.failing_since, lane.failure_count) == (None, 0)


@pytest.mark.parametrize("is_last_a_failure", [True, False])
def test_a_target_is_disabled_after_days_of_nothing_but_failures(settings: LazySettings, is_last_a_failure: bool) -> None:
    """DJWEBHOOKS_DISABLE_AFTER counts from the first of an unbroken row of failures."""
    settings.DJWEBHOOKS_DISABLE_AFTER = timedelta(days=5)
    target = make_work(2)
    worker_id = enlist()
    works = take(hold(worker_id))
    first = now()
    record(worker_id, failure(works[0]), at=first)

    early = record(worker_id, failure(works[0]), at=first + timedelta(days=4, hours=23))
    late = record(worker_id, failure(works[1]) if is_last_a_failure else success(works[1]), at=first + timedelta(days=5))

    assert early.disabled == {}
    assert late.disabled == ({target.pk: "failing"} if is_last_a_failure else {})
    assert (lane_of(target).disabled_at is not None) is is_last_a_failure
    assert (target.pk in late.changed) is is_last_a_failure


def test_our_own_fault_says_nothing_about_a_target() -> None:
    """A fault of our own neither counts as a failure nor disables a target that has been failing for long."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    since = now() - timedelta(days=30)
    Lane.objects.update(failing_since=since, failure_count=3)

    result = record(worker_id, own_fault(work), own_fault(work)._replace(sent=None, hold_until=now() + SECOND))

    lane = lane_of(work)
    assert result.disabled == {}
    assert (lane.failing_since, lane.failure_count, lane.disabled_at) == (since, 3, None)


@pytest.mark.parametrize("status", [Status.FAILED, Status.SUCCEEDED])
def test_the_receivers_word_disables(status: Status) -> None:
    """An outcome that disables does so once, and says so once."""
    target = make_work(2)
    worker_id = enlist()
    works = take(hold(worker_id))

    first, second = (record(worker_id, Outcome(work, status, "gone", sent=exchange(410), disables="gone")) for work in works)

    assert (first.disabled, second.disabled) == ({target.pk: "gone"}, {})
    assert lane_of(target).disabled_reason == "gone"
    assert (first.changed, second.changed) == ({target.pk}, set())


def test_the_longest_hold_counts() -> None:
    """A receiver's wish for silence holds the lane, and a shorter one does not shorten it."""
    target = make_work(2)
    worker_id = enlist()
    works = take(hold(worker_id))
    moment = now()

    first = record(worker_id, failure(works[0], hold_until=moment + timedelta(hours=2)), at=moment)
    record(worker_id, failure(works[1], hold_until=moment + timedelta(hours=1)), at=moment)

    assert lane_of(target).held_until == moment + timedelta(hours=2)
    assert first.changed == {target.pk}
    assert first.disabled == {}


# -- releasing ---------------------------------------------------------------------------------------------------------


def test_a_released_lane_is_due_when_its_first_delivery_is() -> None:
    """A lane is given back with the time of what comes next, or without one when nothing does."""
    later, empty = make_work(2, name="a"), make_work(name="b")
    at = now() + timedelta(hours=1)
    Delivery.objects.filter(target=later).update(due_at=at)
    Delivery.objects.filter(target=later, sequence=2).update(due_at=at + SECOND)
    Delivery.objects.filter(target=empty).end(Status.CANCELLED, "")
    worker_id = enlist()
    held = hold(worker_id)
    take(held)

    assert lanes.release(DB, worker_id, list(held.values()), now()) == set()

    assert (lane_of(later).due_at, lane_of(later).holder) == (at, None)
    assert (lane_of(empty).due_at, lane_of(empty).holder) == (None, None)


def test_a_lane_with_something_due_is_kept() -> None:
    """Release looks again: what fell due since the lane was looked at is not slept on."""
    target = make_work()
    worker_id = enlist()
    held = hold(worker_id)
    take(held)

    assert lanes.release(DB, worker_id, list(held.values()), now()) == {target.pk}

    assert lane_of(target).holder == worker_id


@pytest.mark.parametrize("act", ["retry", "append", "cancel", "save", "resume", "replay"])
def test_a_lane_that_was_written_to_is_not_given_back(act: str) -> None:
    """Whatever can make work due has changed the lane's version, so that a release that had looked before changes nothing."""
    target = make_work(2)
    worker_id = enlist()
    held = hold(worker_id)
    works = take(held)
    record(worker_id, failure(works[0], Status.FAILED), failure(works[1]))
    take(held)
    before = lane_of(target).version
    acts: dict[str, Any] = {
        "retry": lambda: delivery_of(works[0]).retry(),
        "append": lambda: (fire("for.a", 1, owner=make_owner()), dispatch(DB)),
        "cancel": lambda: delivery_of(works[1]).cancel(),
        "save": lambda: target.save(),
        "resume": lambda: target.resume(),
        "replay": lambda: (target.replay(), replays.carry_on(DB)),
    }
    acts[act]()
    # As if the look for what is due had come before all that.
    Delivery.objects.pending().update(due_at=now() + timedelta(hours=1))

    assert lanes.release(DB, worker_id, list(held.values()), now()) == {target.pk}

    assert lane_of(target).version > before
    due_at = lane_of(target).due_at
    assert due_at is not None
    assert due_at <= now()


def test_a_lane_that_somebody_else_holds_is_not_given_back() -> None:
    """A release under a lost lease changes nothing."""
    target = make_work()
    Delivery.objects.update(due_at=now() + timedelta(hours=1))
    first = enlist()
    held = hold(first)
    take(held)
    kill(first)
    lanes.reap(DB)
    second = enlist()
    hold(second)
    # Holder and token alone must tell: the version may be the same as it was.
    held[target.pk].version = lane_of(target).version

    assert lanes.release(DB, first, list(held.values()), now()) == set()

    assert lane_of(target).holder == second


def test_a_rate_limited_lane_is_due_when_its_limit_allows() -> None:
    """A lane whose next free instant is later than its next delivery is due at that instant."""
    target = make_work(2, rate_limit=1, rate_period="hour")
    free_at = now() + timedelta(hours=1)
    Lane.objects.update(next_free_at=free_at)
    worker_id = enlist()
    held = hold(worker_id)
    take(held)

    assert lanes.release(DB, worker_id, list(held.values()), now()) == set()

    assert lane_of(target).due_at == free_at


@pytest.mark.parametrize("seconds", [60, 3600, None], ids=["held", "held for long", "inactive"])
def test_a_closed_lane_is_due_when_it_should_be_looked_at_again(seconds: int | None) -> None:
    """A held lane is due when its time is over, and any when expired deliveries are to be looked for."""
    target = make_work()
    until = now() + timedelta(seconds=seconds or 0)
    if seconds is not None:
        Lane.objects.update(held_until=until)
    else:
        WebhookTarget.objects.update(is_active=False)
    worker_id = enlist()
    held = hold(worker_id)
    moment = now()
    take(held, at=moment)

    assert lanes.release(DB, worker_id, list(held.values()), now()) == set()

    assert lane_of(target).due_at == (until if seconds == 60 else moment + timedelta(seconds=RECHECK))


def test_a_raised_rate_counts_at_once() -> None:
    """What an earlier, lower one had reserved does not hold the lane back for an hour."""
    make_work(rate_limit=100)
    Lane.objects.update(next_free_at=now() + timedelta(hours=1))
    worker_id = enlist()
    held = hold(worker_id)
    moment = now()
    take(held, at=moment)

    [lane] = held.values()
    assert lane.next_free_at == moment + 1.01 * SECOND


def test_an_orphan_is_freed_only_as_long_as_it_is_one() -> None:
    """Two workers see it at once; what the first has freed and a third one holds by then, the second leaves alone."""
    make_work()
    dead, living = enlist(), enlist()
    hold(dead)
    Worker.objects.filter(pk=dead).delete()
    others: list[Held] = []

    def let_others_act(execute: Any, sql: str, *arguments: Any) -> Any:
        result = execute(sql, *arguments)
        if "EXISTS" in sql and not others:  # The second worker has seen its orphans.
            others.append(Held(0, 0))
            lanes.reap(DB)
            others[:] = hold(living).values()
        return result

    with connection.execute_wrapper(let_others_act):
        lanes.retire(DB, enlist("second"))

    [held] = others
    assert lane_of(held).holder == living


def test_a_lane_that_nobody_holds_is_announced() -> None:
    """next_due_lane is the earliest time of a lane that is free."""
    assert lanes.next_due_lane(DB) is None
    first, second, _ = make_work(name="a"), make_work(name="b"), make_work(name="c")
    at = now() + timedelta(hours=1)
    Lane.objects.filter(pk=first.pk).update(due_at=at)
    Lane.objects.filter(pk=second.pk).update(due_at=at - SECOND, holder=1)
    Lane.objects.exclude(pk__in=[first.pk, second.pk]).update(due_at=None)

    assert lanes.next_due_lane(DB) == at


class Holding:
    """A worker that holds one lane, and things that it may want to do with it."""

    def __init__(self) -> None:
        self.target = make_work(2)
        self.worker_id = enlist()
        self.held = hold(self.worker_id)
        take(self.held)
        Delivery.objects.update(due_at=now() + timedelta(hours=1), expires_at=now() - SECOND)

    def release(self) -> bool:
        return lanes.release(DB, self.worker_id, list(self.held.values()), now()) == set()

    def reserve(self) -> bool:
        return lanes.reserve(DB, self.held[self.target.pk], 1, 1, now()) != []

    def expire(self) -> bool:
        WebhookTarget.objects.update(is_active=False)
        take(self.held)
        return not Delivery.objects.pending().exists()

    def line_up(self) -> bool:
        WebhookTarget.objects.update(is_ordered=True)
        take(self.held)
        return lane_of(self.target).is_ordered

    def close(self) -> bool:
        connection.cursor().execute("DELETE FROM djw_subscription; DELETE FROM djw_target")
        take(self.held)
        return not Lane.objects.exists()


@server_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("act", [Holding.release, Holding.reserve, Holding.expire, Holding.line_up, Holding.close])
def test_a_busy_lane_never_stops_its_holder(act: Callable[[Holding], bool]) -> None:
    """While an application keeps a lane locked, its holder goes on at once, and does later what it could not do."""
    holding = Holding()
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=holding.target.pk))

        assert not Thread(lambda: act(holding)).result(timeout=10)

    assert act(holding)


# -- the rate ----------------------------------------------------------------------------------------------------------


def test_instants_are_reserved_at_the_rate() -> None:
    """Instants are one pause apart, begin now or where the last ones ended, and are remembered in the lane."""
    target = make_work()
    held = hold(enlist())[target.pk]
    take({target.pk: held})
    moment = now()

    first = lanes.reserve(DB, held, 4.0, 3, moment)
    more = lanes.reserve(DB, held, 4.0, 1, moment)
    after_a_rest = lanes.reserve(DB, held, 4.0, 1, moment + timedelta(hours=1))

    assert first == [moment, moment + SECOND / 4, moment + SECOND / 2]
    assert more == [moment + SECOND * 3 / 4]
    assert after_a_rest == [moment + timedelta(hours=1)]
    assert lane_of(target).next_free_at == moment + timedelta(hours=1) + SECOND / 4


def test_nothing_is_reserved_without_the_lease() -> None:
    """A holder that lost its lane gets no instant, and takes none from its successor."""
    target = make_work()
    first = enlist()
    held = hold(first)[target.pk]
    take({target.pk: held})
    kill(first)
    lanes.reap(DB)
    hold(enlist())

    assert lanes.reserve(DB, held, 1.0, 5, now()) == []
    assert lane_of(target).next_free_at is None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("look"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("steal"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 3000)),
    ),
    max_size=25,
)


@given(script=STEPS)
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_interleaving_of_holders_exceeds_the_rate(db: None, script: list[tuple[str, int, int]]) -> None:
    """Whatever two holders do that take each other for dead, instants are never closer than the rate allows."""
    Worker.objects.all().delete()
    Lane.objects.all().delete()
    target = WebhookTarget.objects.first() or make_target(make_owner(), rate_limit=1)
    Lane.objects.update_or_create(pk=target.pk, defaults={"due_at": now() - SECOND})
    workers: list[tuple[int, Held] | None] = [None, None]
    moment = now()
    instants: list[datetime] = []
    for action, number, amount in script:
        mine = workers[number]
        if action == "wait":
            moment += timedelta(milliseconds=amount)
        elif action == "steal":
            for worker in filter(None, workers):
                kill(worker[0])
            lanes.reap(DB)
            Lane.objects.update(due_at=DatabaseNow() - SECOND)
            worker_id = enlist()
            leased = lanes.lease(DB, worker_id, 1)[0]
            workers[number] = (worker_id, leased)
            lanes.take(DB, {target.pk: 1}, {target.pk: leased}, moment)
        elif mine is not None and action == "look":
            lanes.take(DB, {target.pk: 1}, {target.pk: mine[1]}, moment)
        elif mine is not None:
            instants += lanes.reserve(DB, mine[1], 1.0, amount, moment)

    instants.sort()
    assert all(later - earlier >= SECOND for earlier, later in pairwise(instants))
