"""Events become deliveries: to the right targets, in order, in pages, and without waiting for anybody."""

from collections.abc import Iterable
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from djwebhooks import lanes
from djwebhooks.database import read_clock
from djwebhooks.dispatch import Lessee, dispatch, dispatch_and_lease, has_waiting, next_planned
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, Subscription, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.models.lanes import RECHECK
from tests.builders import make_target, make_user
from tests.connections import second_connection, server_only

DB = "default"

pytestmark = pytest.mark.django_db


class Crash(Exception):
    """The process dies here."""


def make_targets(owner: User | None, count: int, *, event: str = "*", **fields: object) -> list[WebhookTarget]:
    return [make_target(owner, event=event, url=f"http://127.0.0.1/{event}/{n}", **fields) for n in range(count)]


def sent_to(target: WebhookTarget) -> list[tuple[int, int]]:
    """The target's deliveries as (sequence, event id)."""
    return list(Delivery.objects.filter(target=target).order_by("sequence").values_list("sequence", "event_id"))


def in_order(events: Iterable[Event]) -> list[tuple[int, int]]:
    return [(number, event.pk) for number, event in enumerate(events, start=1)]


def dispatch_all(*, page: int, batch: int = 500) -> int:
    """Dispatch until nothing waits; return how many turns that took."""
    turns = 0
    while has_waiting(DB):
        assert dispatch(DB, page=page, batch=batch), "a turn moves something on"
        turns += 1
        assert turns < 200
    return turns


def dispatch_and_crash(page: int) -> None:
    with transaction.atomic():
        dispatch(DB, page=page)
        raise Crash


# -- order and sequences -----------------------------------------------------------------------------------------------


def test_deliveries_follow_the_ids_of_the_events() -> None:
    """Events take their places in a lane in the order of their ids, numbered from 1 without gaps."""
    owner = make_user()
    target = make_target(owner)
    events = [fire("a.b", n, owner=owner) for n in range(5)]

    assert dispatch(DB) == 5

    assert sent_to(target) == in_order(events)
    assert Lane.objects.get(pk=target.pk).tail == 5
    assert not has_waiting(DB)


def test_sequences_go_on_where_they_ended() -> None:
    """The next dispatch goes on at the lane's tail."""
    owner = make_user()
    target = make_target(owner)
    events = []
    for n in range(3):
        events += [fire("a.b", n, owner=owner), fire("a.b", n, owner=owner)]
        dispatch(DB)

    assert sent_to(target) == in_order(events)


def test_a_batch_takes_the_first_ids() -> None:
    """Of more events than one transaction takes, the oldest go first."""
    owner = make_user()
    target = make_target(owner)
    events = [fire("a.b", n, owner=owner) for n in range(5)]

    assert dispatch(DB, batch=2) == 2

    assert sent_to(target) == in_order(events[:2])
    dispatch_all(batch=2, page=100)
    assert sent_to(target) == in_order(events)


def test_an_event_is_dispatched_once() -> None:
    """What was dispatched is never dispatched again."""
    owner = make_user()
    target = make_target(owner)
    fire("a.b", 1, owner=owner)

    assert dispatch(DB) == 1
    assert dispatch(DB) == 0

    assert Delivery.objects.filter(target=target).count() == 1


@server_only
@pytest.mark.django_db(transaction=True)
def test_an_early_id_that_commits_late_is_not_skipped() -> None:
    """There is no watermark: an event whose transaction ends after a later event's dispatch is found all the same."""
    owner = make_user()
    target = make_target(owner)
    with second_connection() as other:
        with transaction.atomic(using=other):
            early = Event.objects.using(other).create(name="a.b", payload="1", owner_id=owner.pk)
            late = fire("a.b", 2, owner=owner)
            assert early.pk < late.pk
            assert dispatch(DB) == 1
        assert dispatch(DB) == 1

    assert sent_to(target) == [(1, late.pk), (2, early.pk)]


def test_dispatch_is_all_or_nothing() -> None:
    """A dispatcher that dies before its commit leaves no delivery, no mark and no gap."""
    owner = make_user()
    target = make_target(owner)
    event = fire("a.b", 1, owner=owner)
    with pytest.raises(Crash):
        dispatch_and_crash(page=100)

    assert has_waiting(DB)
    dispatch(DB)

    assert sent_to(target) == [(1, event.pk)]


# -- one at a time -----------------------------------------------------------------------------------------------------


@server_only
@pytest.mark.django_db(transaction=True)
def test_there_is_one_dispatcher_at_a_time() -> None:
    """Whoever comes while another one's transaction is open gets None at once, and can dispatch when it has ended."""
    owner = make_user()
    make_target(owner)
    dispatch(DB)
    fire("a.b", 1, owner=owner)
    with second_connection() as other:
        with transaction.atomic(using=other):
            assert dispatch(other) == 1
            assert dispatch(DB) is None
        assert dispatch(DB) == 0


# -- who gets what -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fired", "getting"),
    [
        ({"owner": "acme", "identifier": "p-42"}, {"acme", "acme p-42", "system"}),
        ({"owner": "acme"}, {"acme", "system"}),
        ({}, {"system"}),
        ({"broadcast": True}, {"acme", "acme p-42", "other", "system"}),
        ({"broadcast": True, "identifier": "p-7"}, {"acme", "acme p-42", "other", "system"}),
    ],
    ids=["owner and identifier", "owner", "nobody", "broadcast", "broadcast with identifier"],
)
def test_owner_and_identifier_decide_who_gets_an_event(fired: dict[str, object], getting: set[str]) -> None:
    """A target gets the events of its own owner and identifier; without one it gets all; a broadcast reaches everybody."""
    users = {name: make_user(name) for name in ("acme", "other")}
    make_target(users["acme"], description="acme")
    make_target(users["acme"], identifier="p-42", description="acme p-42")
    make_target(users["other"], description="other")
    make_target(None, description="system")
    event = fire("a.b", 1, **(fired | {"owner": users.get(str(fired.get("owner")))}))

    matching = set(WebhookTarget.objects.matching(event).values_list("description", flat=True))
    dispatch(DB)

    assert set(event.deliveries.values_list("target__description", flat=True)) == getting
    assert matching == getting


@pytest.mark.parametrize(
    ("pattern", "is_wanted"),
    [("a.b.c", True), ("a.b.*", True), ("a.*", True), ("*", True), ("a.b", False), ("a.b.c.*", False), ("b.*", False)],
)
def test_a_pattern_wants_what_is_below_it(pattern: str, is_wanted: bool) -> None:
    """Exact names and wildcards match, whatever the depth; a wildcard does not match its own name."""
    owner = make_user()
    target = make_target(owner, event=pattern)
    fire("a.b.c", 1, owner=owner)

    dispatch(DB)

    assert bool(sent_to(target)) is is_wanted


def test_a_target_with_several_matching_patterns_gets_one_delivery() -> None:
    """Overlapping subscriptions are one wish."""
    owner = make_user()
    target = WebhookTarget.objects.register("http://127.0.0.1/", ["a.b", "a.*", "*"], owner=owner)
    event = fire("a.b", 1, owner=owner)

    dispatch(DB)

    assert sent_to(target) == [(1, event.pk)]


def test_events_of_one_batch_do_not_mix() -> None:
    """Events of several owners, names and kinds in one transaction each reach their own targets only."""
    ada, bob = make_user("ada"), make_user("bob")
    hers, his = make_target(ada, event="a.*"), make_target(bob, event="b.*")
    system = make_target(None)
    ours = [fire("a.x", 1, owner=ada), fire("b.x", 1, owner=ada), fire("b.x", 1, owner=bob), fire("a.x", 1, broadcast=True)]

    dispatch(DB)

    assert sent_to(hers) == in_order([ours[0], ours[3]])
    assert sent_to(his) == in_order([ours[2]])
    assert sent_to(system) == in_order(ours)


def test_direct_targets_need_no_subscription() -> None:
    """An event that was fired at addresses goes to these, and to no subscriber."""
    owner = make_user()
    subscriber = make_target(owner)
    event = fire("a.b", 1, owner=owner, urls=["http://127.0.0.1/1", "http://127.0.0.1/2"])

    dispatch(DB)

    assert sent_to(subscriber) == []
    assert sorted(event.deliveries.values_list("target_id", flat=True)) == event.direct_targets


def test_a_deleted_direct_target_is_passed_over() -> None:
    """A target that is gone by the time of the dispatch gets nothing and stops nothing."""
    owner = make_user()
    event = fire("a.b", 1, owner=owner, urls=["http://127.0.0.1/1", "http://127.0.0.1/2"])
    gone, kept = event.direct_targets
    WebhookTarget.objects.get(pk=gone).delete()

    assert dispatch(DB) == 1

    assert list(event.deliveries.values_list("target_id", flat=True)) == [kept]
    assert not has_waiting(DB)
    assert not Lane.objects.filter(pk=gone).exists()


def test_what_nobody_wants_is_kept_without_its_call() -> None:
    """An unwanted event stays explainable, but the captured call of its hook is dropped; a wanted one's is not."""
    owner = make_user()
    make_target(owner, event="wanted")
    unwanted = Event.objects.create(name="unwanted", owner=owner, hook="nowhere:nothing", call="[]")
    wanted = Event.objects.create(name="wanted", owner=owner, hook="nowhere:nothing", call="[]")

    assert dispatch(DB) == 2

    unwanted.refresh_from_db()
    wanted.refresh_from_db()
    assert (unwanted.call, wanted.call) == ("", "[]")
    assert unwanted.dispatched_at is not None
    assert not unwanted.deliveries.exists()


# -- later -------------------------------------------------------------------------------------------------------------


def test_a_planned_event_takes_its_place_when_it_falls_due() -> None:
    """An event with deliver_at waits, is announced, and then stands behind what was fired after it."""
    owner = make_user()
    target = make_target(owner)
    at = read_clock(DB) + timedelta(hours=1)
    planned = fire("a.b", 1, owner=owner, deliver_at=at)
    assert not has_waiting(DB)
    assert next_planned(DB) == at
    later = fire("a.b", 2, owner=owner)

    assert dispatch(DB) == 1

    Event.objects.filter(pk=planned.pk).update(deliver_at=read_clock(DB) - timedelta(seconds=1))
    assert has_waiting(DB)
    assert dispatch(DB) == 1
    assert sent_to(target) == in_order([later, planned])
    assert next_planned(DB) is None


def test_next_planned_is_the_earliest() -> None:
    """Whatever the order of their ids, the event that falls due first is announced; events without a time are not."""
    now = read_clock(DB)
    fire("a.b", 1)
    for hours in (3, 1, 2):
        fire("a.b", 1, deliver_at=now + timedelta(hours=hours))

    assert next_planned(DB) == now + timedelta(hours=1)


def test_expiry_is_the_events_own_or_the_settings(settings: LazySettings) -> None:
    """expires_at of the event goes before DJWEBHOOKS_EXPIRE_AFTER, which counts from the dispatch; without both there is none."""
    owner = make_user()
    make_target(owner)
    at = read_clock(DB) + timedelta(days=9)
    never = fire("a.b", 1, owner=owner)
    dispatch(DB)
    settings.DJWEBHOOKS_EXPIRE_AFTER = timedelta(hours=1)
    own, usual = fire("a.b", 1, owner=owner, expires_at=at), fire("a.b", 1, owner=owner)

    dispatch(DB)

    assert never.deliveries.get().expires_at is None
    assert own.deliveries.get().expires_at == at
    delivery = usual.deliveries.get()
    assert delivery.expires_at == delivery.created_at + timedelta(hours=1)


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


# -- pages -------------------------------------------------------------------------------------------------------------


def test_a_large_fan_out_goes_in_pages() -> None:
    """An event for more targets than a page is dispatched in several transactions, and says how far it is."""
    owner = make_user()
    targets = make_targets(owner, 7)
    event = fire("a.b", 1, owner=owner)

    assert dispatch(DB, page=4) == 1

    event.refresh_from_db()
    assert event.dispatch_cursor == targets[3].pk
    assert event.dispatched_at is None
    assert event.deliveries.count() == 4
    dispatch_all(page=4)
    event.refresh_from_db()
    assert event.dispatched_at is not None
    assert [sent_to(target) for target in targets] == [[(1, event.pk)]] * 7


def test_a_crash_between_pages_loses_and_repeats_nothing() -> None:
    """A dispatcher that dies in a page leaves the event where the last whole page had brought it."""
    owner = make_user()
    targets = make_targets(owner, 7)
    event = fire("a.b", 1, owner=owner)
    dispatch(DB, page=4)
    with pytest.raises(Crash):
        dispatch_and_crash(page=4)

    event.refresh_from_db()
    assert event.dispatch_cursor == targets[3].pk
    dispatch_all(page=4)

    assert [sent_to(target) for target in targets] == [[(1, event.pk)]] * 7


def test_a_page_that_ends_with_the_last_target_is_the_last() -> None:
    """When the targets fill their pages exactly, one more look finds nothing left and marks the event; its call is kept."""
    owner = make_user()
    targets = make_targets(owner, 6)
    event = Event.objects.create(name="a.b", owner=owner, hook="nowhere:nothing", call="[]")

    dispatch_all(page=4)

    event.refresh_from_db()
    assert event.call == "[]"
    assert event.dispatched_at is not None
    assert [sent_to(target) for target in targets] == [[(1, event.pk)]] * 6


def test_small_events_pass_a_large_one() -> None:
    """While a large event is half dispatched, a small one of somebody else is dispatched at once."""
    ada, bob = make_user("ada"), make_user("bob")
    make_targets(ada, 7)
    his = make_target(bob)
    large, small = fire("a.b", 1, owner=ada, ordering_key="a"), fire("a.b", 1, owner=bob, ordering_key="b")
    assert dispatch(DB, page=4) == 1

    assert dispatch(DB, page=4) == 2

    large.refresh_from_db()
    assert large.dispatched_at is None
    assert sent_to(his) == in_order([small])


def test_a_key_waits_while_ordered_targets_are_still_to_come() -> None:
    """An ordered target never gets a later event of a key before a large one of that key whose page comes later."""
    owner = make_user()
    targets = make_targets(owner, 7, event="big", is_ordered=True)
    targets[-1].events = ["big", "small"]
    targets[-1].save()
    large, small = fire("big", 1, owner=owner, ordering_key="k"), fire("small", 1, owner=owner, ordering_key="k")
    other = fire("small", 1, owner=owner, ordering_key="another")
    dispatch(DB, page=4)

    dispatch(DB, page=4)

    assert sent_to(targets[-1]) == in_order([other])
    dispatch_all(page=4)
    assert sent_to(targets[-1]) == in_order([other, large, small])


def test_no_key_waits_when_no_ordered_target_is_to_come() -> None:
    """Without ordered targets among the rest, a small event passes a large one of the same key."""
    owner = make_user()
    targets = make_targets(owner, 7, event="big")
    targets[-1].events = ["big", "small"]
    targets[-1].save()
    large, small = fire("big", 1, owner=owner), fire("small", 1, owner=owner)
    dispatch(DB, page=4)

    dispatch(DB, page=4)

    assert sent_to(targets[-1]) == in_order([small])
    dispatch_all(page=4)
    assert sent_to(targets[-1]) == in_order([small, large])


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("keys", [("", ""), ("a", "b")], ids=str)
def test_large_events_go_one_after_the_other(keys: tuple[str, str], is_ordered: bool) -> None:
    """Two large events in a row: the second begins when the first has its last page, and each target gets them in order."""
    owner = make_user()
    targets = make_targets(owner, 7, is_ordered=is_ordered)
    first, second = (fire("a.b", 1, owner=owner, ordering_key=key) for key in keys)
    while has_waiting(DB):
        dispatch(DB, page=4)
        first.refresh_from_db()
        second.refresh_from_db()
        assert second.dispatch_cursor == 0 or first.dispatched_at is not None

    assert [sent_to(target) for target in targets] == [in_order([first, second])] * 7


def test_a_small_event_behind_a_waiting_large_one_keeps_its_line() -> None:
    """A second large event waits for the first, and what comes behind it with its key waits as well; other keys pass."""
    owner = make_user()
    targets = make_targets(owner, 7, event="big", is_ordered=True)
    targets[0].events = ["big", "small"]
    targets[0].save()
    first, second = fire("big", 1, owner=owner, ordering_key="1"), fire("big", 2, owner=owner, ordering_key="2")
    behind, free = (fire("small", 3, owner=owner, ordering_key=key) for key in ("2", "3"))
    dispatch(DB, page=4)
    dispatch(DB, page=4)

    assert sent_to(targets[0]) == in_order([first, free])
    dispatch_all(page=4)

    assert sent_to(targets[0]) == in_order([first, free, second, behind])


def test_two_half_dispatched_events_leave_no_gap() -> None:
    """Even when a second event was begun before the first was done, nothing is given out twice and no number is lost."""
    owner = make_user()
    targets = make_targets(owner, 7)
    early = fire("a.b", 1, owner=owner, deliver_at=read_clock(DB) + timedelta(hours=1))
    late = fire("a.b", 2, owner=owner)
    dispatch(DB, page=4)
    # Enough earlier ids fell due meanwhile to fill a batch, so that the half done one is not seen.
    Event.objects.filter(pk=early.pk).update(deliver_at=read_clock(DB) - timedelta(seconds=1))
    dispatch(DB, page=4, batch=1)
    Subscription.objects.filter(target__in=targets[2:]).delete()

    dispatch_all(page=6)

    for target in targets[:2]:
        assert sent_to(target) == in_order([late, early])
    for lane in Lane.objects.all():
        assert lane.tail == Delivery.objects.filter(target=lane.pk).count()


def test_many_candidates_are_taken_in_smaller_batches() -> None:
    """When a batch has more subscriptions than a page, fewer events are taken at once, still in order and each once."""
    owners = [make_user(f"user{n}") for n in range(6)]
    targets = [make_targets(owner, 2) for owner in owners]
    events = [fire("a.b", n, owner=owner) for n in range(2) for owner in owners]
    dispatched = 0
    while has_waiting(DB):
        dispatch(DB, page=5)
        count = Delivery.objects.count()
        assert 0 < count - dispatched <= 5
        dispatched = count

    for number, mine in enumerate(targets):
        assert [sent_to(target) for target in mine] == [in_order([events[number], events[number + 6]])] * 2


def test_a_page_is_not_exceeded_by_many_small_events() -> None:
    """Many events for few subscribers are cut into pages of deliveries."""
    owner = make_user()
    targets = make_targets(owner, 3)
    events = [fire("a.b", n, owner=owner) for n in range(10)]

    assert dispatch(DB, page=7) == 2

    dispatch_all(page=7)
    assert [sent_to(target) for target in targets] == [in_order(events)] * 3


# -- costs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ordered", [True, False])
def test_queries_do_not_grow_with_the_events(is_ordered: bool) -> None:
    """Dispatching 500 events takes as many queries as dispatching 10."""
    owner = make_user()
    make_targets(owner, 5, is_ordered=is_ordered)
    counts = []
    for number in (1, 10, 500):
        for n in range(number):
            fire("a.b", n, owner=owner)
        with CaptureQueriesContext(connection) as captured:
            assert dispatch(DB) == number
        counts.append(len(captured))

    assert counts[1] == counts[2]
    assert counts[2] < 30


def test_a_queue_of_large_events_is_not_searched_to_its_end() -> None:
    """A turn costs about the same however many large events wait for their time."""
    owner = make_user()
    make_targets(owner, 12)
    counts = []
    for number in (5, 200):
        for n in range(number):
            fire("a.b", n, owner=owner, ordering_key=str(n))
        dispatch(DB, page=4)
        assert Event.objects.filter(dispatched_at__isnull=True, dispatch_cursor__gt=0).exists()
        with CaptureQueriesContext(connection) as captured:
            dispatch(DB, page=4)
        counts.append(len(captured))

    assert counts[1] < counts[0] + 10


def test_an_event_for_one_target_asks_little() -> None:
    """Once its lane is there, the dispatcher's lock is one statement, and the lane is locked and written by one each."""
    owner = make_user()
    make_target(owner)
    for number in range(2):
        fire("a.b", number, owner=owner)
        with CaptureQueriesContext(connection) as captured:
            assert dispatch(DB) == 1

    statements = [query["sql"] for query in captured]
    assert sum("djw_dispatcher" in sql for sql in statements) == 1
    assert sum("djw_lane" in sql for sql in statements) == 2
