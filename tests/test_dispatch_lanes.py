"""Dispatch makes lanes due, leases them to whom it dispatches for, and waits for none that is busy."""

from datetime import timedelta

import pytest
from django.db import transaction

from djwebhooks import lanes
from djwebhooks.database import read_clock
from djwebhooks.dispatch import Lessee, dispatch, dispatch_and_lease
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, Subscription, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.models.lanes import RECHECK
from tests.builders import make_target, make_user
from tests.connections import second_connection, server_only
from tests.dispatching import DB, dispatch_all, in_order, make_targets, sent_to

pytestmark = pytest.mark.django_db


# -- lanes -------------------------------------------------------------------------------------------------------------


def test_missing_lanes_are_made() -> None:
    """A target that was written without its lane (bulk_create) gets one, ordered as it is itself."""
    owner = make_user()
    targets = WebhookTarget.objects.bulk_create(
        [
            WebhookTarget(owner=owner, target_url=f"http://127.0.0.1/{is_ordered}", is_ordered=is_ordered)
            for is_ordered in (True, False)
        ]
    )
    Subscription.objects.bulk_create([Subscription(target=target, event="*") for target in targets])
    Lane.objects.all().delete()
    event = fire("a.b", 1, owner=owner)

    dispatch(DB)

    assert [sent_to(target) for target in targets] == [[(1, event.pk)]] * 2
    assert list(Lane.objects.order_by("pk").values_list("pk", "is_ordered")) == [(targets[0].pk, True), (targets[1].pk, False)]


def test_missing_lanes_are_as_new_ones_are() -> None:
    """A lane that dispatching makes has in all its columns what any new lane has."""
    target = make_target()
    Lane.objects.all().delete()
    fire("a.b", 1, owner=None)

    dispatch(DB)

    [made] = Lane.objects.values()
    new = Lane.objects.create(pk=target.pk + 1, tail=1, version=made["version"], due_at=made["due_at"])
    assert made | {"target_id": new.pk} == Lane.objects.values().get(pk=new.pk)


def test_an_append_wakes_the_lane() -> None:
    """A lane with something new is due now and has another version, so that its holder looks again."""
    owner = make_user()
    target = make_target(owner)
    fire("a.b", 1, owner=owner)
    dispatch(DB)
    Lane.objects.filter(pk=target.pk).update(due_at=None)
    before = Lane.objects.get(pk=target.pk)
    fire("a.b", 2, owner=owner)

    dispatch(DB)

    after = Lane.objects.get(pk=target.pk)
    assert after.version > before.version
    assert after.due_at is not None
    assert after.due_at <= read_clock(DB)


def test_an_append_makes_a_lane_due_earlier_but_never_later() -> None:
    """A lane that was due at some time is due at the earlier of that and now."""
    owner = make_user()
    early, late = make_target(owner, url="http://127.0.0.1/1"), make_target(owner, url="http://127.0.0.1/2")
    past, future = read_clock(DB) - timedelta(hours=1), read_clock(DB) + timedelta(hours=1)
    for target, at in ((early, past), (late, future)):
        Lane.objects.update_or_create(pk=target.pk, defaults={"due_at": at})
    fire("a.b", 1, owner=owner)

    dispatch(DB)

    assert Lane.objects.get(pk=early.pk).due_at == past
    due_at = Lane.objects.get(pk=late.pk).due_at
    assert due_at is not None
    assert due_at <= read_clock(DB)


def test_a_lane_that_holds_back_is_not_due_at_once() -> None:
    """Events for inactive and disabled targets take their places, but their lanes are looked at later only."""
    owner = make_user()
    paused = make_target(owner, url="http://127.0.0.1/1", is_active=False)
    disabled = make_target(owner, url="http://127.0.0.1/2")
    Lane.objects.update_or_create(pk=disabled.pk, defaults={"disabled_at": read_clock(DB)})
    Lane.objects.update(due_at=None)
    fire("a.b", 1, owner=owner)

    dispatch(DB)

    for target in (paused, disabled):
        assert len(sent_to(target)) == 1
        due_at = Lane.objects.get(pk=target.pk).due_at
        assert due_at is not None
        assert timedelta() < due_at - read_clock(DB) <= timedelta(seconds=RECHECK)


def test_only_the_first_of_a_key_is_due_on_an_ordered_target() -> None:
    """On an ordered target the first pending delivery of each key has a due_at; on another one all have."""
    owner = make_user()
    ordered = make_target(owner, url="http://127.0.0.1/1", is_ordered=True)
    loose = make_target(owner, url="http://127.0.0.1/2")
    for key in ["a", "b", "a", "", "b", ""]:
        fire("a.b", 1, owner=owner, ordering_key=key)

    dispatch(DB)

    due = Delivery.objects.filter(due_at__isnull=False)
    assert list(due.filter(target=ordered).order_by("sequence").values_list("sequence", flat=True)) == [1, 2, 4]
    assert due.filter(target=loose).count() == 6


def test_a_key_that_waits_already_goes_on_waiting() -> None:
    """A new event of a key with something pending is not due; one of a key whose deliveries have all ended is."""
    owner = make_user()
    target = make_target(owner, is_ordered=True)
    for key in ["a", "b"]:
        fire("a.b", 1, owner=owner, ordering_key=key)
    dispatch(DB)
    Delivery.objects.filter(ordering_key="b").update(status=Status.FAILED, due_at=None)
    for key in ["a", "b"]:
        fire("a.b", 2, owner=owner, ordering_key=key)

    dispatch(DB)

    due = Delivery.objects.filter(target=target, due_at__isnull=False).order_by("sequence")
    assert list(due.values_list("sequence", flat=True)) == [1, 4]


# -- leases ------------------------------------------------------------------------------------------------------------


def enlist() -> int:
    number = lanes.enlist(DB, "test", "here")
    assert isinstance(number, int)
    return number


def test_whoever_dispatches_gets_the_lanes() -> None:
    """They are held with their deliveries' commit, as by a lease of their own; what others hold stays theirs."""
    targets = make_targets(None, 3)
    Lane.objects.create(target=targets[1], holder=77, token=5)
    fire("a.b", 1)
    worker = enlist()

    done = dispatch_and_lease(DB, Lessee(worker, room=10))

    assert done.moved == 1
    assert [(held.target_id, held.token) for held in done.leased] == [(targets[0].pk, 1), (targets[2].pk, 1)]
    found = Lane.objects.order_by("pk").values_list("holder", "token", "version")
    assert list(found) == [(worker, 1, 1), (77, 5, 1), (worker, 1, 1)]


def test_a_lessee_gets_no_more_lanes_than_it_has_room_for() -> None:
    """The rest is left to others, and so is what it may not send to."""
    targets = make_targets(None, 4)
    fire("a.b", 1)

    done = dispatch_and_lease(DB, Lessee(enlist(), room=2, only={target.pk for target in targets[1:]}))

    assert [held.target_id for held in done.leased] == [targets[1].pk, targets[2].pk]
    assert Lane.objects.filter(holder__isnull=True, due_at__isnull=False).count() == 2


def test_a_lane_that_holds_back_is_not_leased_by_dispatch() -> None:
    """There is nothing to send to a target that is paused, or whose receiver asked for a pause."""
    paused, held = make_targets(None, 2)
    paused.pause()
    Lane.objects.create(target=held, held_until=read_clock(DB) + timedelta(minutes=1))
    fire("a.b", 1)

    assert dispatch_and_lease(DB, Lessee(enlist(), room=9)).leased == []


def test_a_worker_that_was_struck_off_gets_no_lane() -> None:
    """Nobody would ever free it; the event is dispatched for whoever comes."""
    make_target()
    fire("a.b", 1)

    done = dispatch_and_lease(DB, Lessee(12345, room=9))

    assert (done.moved, done.leased) == (1, [])
    assert Lane.objects.get().holder is None


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_worker_that_is_being_struck_off_gets_no_lane() -> None:
    """Whoever buries it has its row, and would look for its lanes before this one is its."""
    make_target()
    fire("a.b", 1)
    worker = enlist()
    with second_connection() as other, transaction.atomic(using=other):
        Worker.objects.using(other).filter(pk=worker).delete()

        done = dispatch_and_lease(DB, Lessee(worker, room=9))

    assert (done.moved, done.leased) == (1, [])


@server_only
@pytest.mark.django_db(transaction=True)
def test_nobody_is_struck_off_while_it_gets_lanes() -> None:
    """Its row is locked until they are its, so that whoever buries it next finds them."""
    make_target()
    fire("a.b", 1)
    worker = enlist()
    Worker.objects.update(expires_at=read_clock(DB) - timedelta(minutes=1))
    with second_connection() as other:
        with transaction.atomic():
            assert dispatch_and_lease(DB, Lessee(worker, room=9)).leased
            assert lanes.reap(other) == 0
        assert lanes.reap(other) == 1

    assert Lane.objects.get().holder is None


# -- busy lanes --------------------------------------------------------------------------------------------------------


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_busy_lane_delays_nobody_else() -> None:
    """While an application keeps a target's lane locked, others get their events; the busy one gets its own later, in order."""
    ada, bob = make_user("ada"), make_user("bob")
    hers, his = make_target(ada), make_target(bob)
    with second_connection() as other:
        with transaction.atomic(using=other):
            Lane.objects.using(other).bulk_create([Lane(pk=pk) for pk in (hers.pk, his.pk)], ignore_conflicts=True)
        first, for_bob, second = fire("a.b", 1, owner=ada), fire("a.b", 1, owner=bob), fire("a.b", 2, owner=ada)
        with transaction.atomic(using=other):
            list(Lane.objects.using(other).select_for_update().filter(pk=hers.pk))
            assert dispatch(DB) == 1
            assert sent_to(his) == in_order([for_bob])
            assert sent_to(hers) == []
        assert dispatch(DB) == 2

    assert sent_to(hers) == in_order([first, second])


@server_only
@pytest.mark.django_db(transaction=True)
def test_nothing_overtakes_an_event_that_waits_for_a_busy_lane() -> None:
    """An event for a busy lane and a free one waits for both, and so does what comes behind it on the free one."""
    ada, bob = make_user("ada"), make_user("bob")
    hers, his = make_target(ada), make_target(bob)
    with second_connection() as other:
        with transaction.atomic(using=other):
            Lane.objects.using(other).bulk_create([Lane(pk=pk) for pk in (hers.pk, his.pk)], ignore_conflicts=True)
        both, behind = fire("a.b", 1, broadcast=True), fire("a.b", 2, owner=bob)
        with transaction.atomic(using=other):
            list(Lane.objects.using(other).select_for_update().filter(pk=hers.pk))
            assert dispatch(DB) == 0
        assert dispatch(DB) == 2

    assert sent_to(his) == in_order([both, behind])
    assert sent_to(hers) == in_order([both])


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_batch_full_of_events_for_a_busy_lane_stops_nobody() -> None:
    """However many events wait for a busy lane, those behind them that do not need it are found."""
    ada, bob = make_user("ada"), make_user("bob")
    hers, his = make_target(ada), make_target(bob)
    with second_connection() as other:
        with transaction.atomic(using=other):
            Lane.objects.using(other).bulk_create([Lane(pk=pk) for pk in (hers.pk, his.pk)], ignore_conflicts=True)
        waiting = [fire("a.b", n, owner=ada) for n in range(5)]
        passing = fire("a.b", 1, owner=bob)
        with transaction.atomic(using=other):
            list(Lane.objects.using(other).select_for_update().filter(pk=hers.pk))
            assert dispatch(DB, batch=2) == 1
            assert sent_to(his) == in_order([passing])
        dispatch_all(batch=2, page=100)

    assert sent_to(hers) == in_order(waiting)


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_locked_event_delays_nobody_else() -> None:
    """An event that an application keeps locked is not waited for; what comes behind it for its targets waits with it."""
    ada, bob = make_user("ada"), make_user("bob")
    hers, his = make_target(ada), make_target(bob)
    first, second, for_bob = fire("a.b", 1, owner=ada), fire("a.b", 2, owner=ada), fire("a.b", 1, owner=bob)
    with second_connection() as other:
        with transaction.atomic(using=other):
            list(Event.objects.using(other).select_for_update().filter(pk=first.pk))
            assert dispatch(DB) == 1
            assert sent_to(his) == in_order([for_bob])
        assert dispatch(DB) == 2

    assert sent_to(hers) == in_order([first, second])
