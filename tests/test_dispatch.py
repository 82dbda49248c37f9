"""Events become deliveries: each once, to the right targets, in order, when their time has come."""

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.db import transaction

from djwebhooks.database import read_clock
from djwebhooks.dispatch import dispatch, has_waiting, next_planned
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget
from tests.builders import make_target, make_user
from tests.connections import second_connection, server_only
from tests.dispatching import DB, Crash, dispatch_all, dispatch_and_crash, in_order, sent_to

pytestmark = pytest.mark.django_db


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
