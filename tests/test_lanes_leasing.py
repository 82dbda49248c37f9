"""Which lanes a worker gets, and which it gives back, due when."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from djwebhooks import lanes, replays
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.lanes import RECHECK
from tests.connections import Thread, second_connection, server_only
from tests.lanes import DB, SECOND, delivery_of, enlist, failure, hold, kill, lane_of, make_owner, make_work, now, record, take

pytestmark = pytest.mark.django_db


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
