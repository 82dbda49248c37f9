"""Events with many targets are dispatched a page at a time, and many events at the cost of few queries."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djwebhooks.database import read_clock
from djwebhooks.dispatch import dispatch, has_waiting
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, Subscription
from tests.builders import make_target, make_user
from tests.dispatching import DB, Crash, dispatch_all, dispatch_and_crash, in_order, make_targets, sent_to

pytestmark = pytest.mark.django_db


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
