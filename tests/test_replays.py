"""Workers carry a replay out: in order, at its rate, a page at a time, and not at all once it is cancelled."""

from datetime import timedelta

import pytest
from django.db import connection, transaction

from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, Replay, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.replays import make_criteria
from djwebhooks.replays import carry_on, next_replay
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import Worker
from tests.builders import URL, make_deliveries, make_target, make_user
from tests.connections import second_connection, server_only

DB = "default"

pytestmark = pytest.mark.django_db


def start(target: WebhookTarget, *, status: str = "failed", rate: float = 50) -> Replay:
    return Delivery.objects.replay(make_criteria(targets=[target], status=status), rate=rate)


def hurry(replay: Replay) -> None:
    """Let the next page of *replay* be due now."""
    Replay.objects.filter(pk=replay.pk).update(next_at=DatabaseNow())


def rest(replay: Replay) -> None:
    """Let no further page of *replay* be due, however slow the machine is."""
    Replay.objects.filter(pk=replay.pk).update(next_at=DatabaseNow() + timedelta(hours=1))


def finish(replay: Replay) -> int:
    """Carry *replay* on to its end, without its pauses; return how many pages that took."""
    pages = 0
    while next_replay(DB) is not None:
        hurry(replay)
        pages += carry_on(DB)
    replay.refresh_from_db()
    return pages


def list_statuses(target: WebhookTarget) -> list[str]:
    return list(Delivery.objects.filter(target=target).order_by("sequence").values_list("status", flat=True))


# -- the pace ----------------------------------------------------------------------------------------------------------


def test_a_page_is_what_a_second_is_worth() -> None:
    """No more than the rate is made pending at once, and the next page comes a second later."""
    target = make_target()
    make_deliveries(target, 7, Status.FAILED)
    replay = start(target, rate=3)

    assert carry_on(DB)
    replay.refresh_from_db()

    assert list_statuses(target) == ["pending"] * 3 + ["failed"] * 4
    assert (replay.reopened_count, replay.state) == (3, "running")
    assert replay.next_at - replay.created_at >= timedelta(seconds=1)
    assert finish(replay) == 2
    assert (replay.reopened_count, replay.state, list_statuses(target)) == (7, "finished", ["pending"] * 7)
    assert not carry_on(DB)


def test_a_slow_rate_is_one_at_a_time() -> None:
    """Less than one a second is one, and then a longer pause."""
    target = make_target()
    make_deliveries(target, 2, Status.FAILED)
    replay = start(target, rate=0.001)
    assert carry_on(DB)
    assert not carry_on(DB), "its time has not come"
    replay.refresh_from_db()

    assert list_statuses(target) == ["pending", "failed"]
    assert replay.next_at - replay.created_at >= timedelta(seconds=1000)


def test_what_was_missed_is_not_made_up_for() -> None:
    """A replay that no worker has come by for a day does not become a flood."""
    target = make_target()
    make_deliveries(target, 10, Status.FAILED)
    start(target, rate=0.01)
    Replay.objects.update(next_at=DatabaseNow() - timedelta(days=1))

    assert carry_on(DB)
    assert not carry_on(DB)

    assert list_statuses(target).count("pending") == 1


def test_what_does_not_match_takes_no_time() -> None:
    """Where nothing is to be reopened the replay looks on at once, a bounded stretch at a time."""
    target, other = make_target(), make_target(url=f"{URL}/other")
    make_deliveries(target, 1, Status.FAILED)
    make_deliveries(other, 25, Status.FAILED)
    fire("a.b", 1)
    deliver(410)
    assert target.replay(dry_run=True) == 2
    replay = start(target)
    Replay.objects.update(next_at=DatabaseNow() - timedelta(days=1))

    looks = 0
    while carry_on(DB, window=10):
        looks += 1

    assert looks == 3
    assert list_statuses(target) == ["pending", "pending"]
    replay.refresh_from_db()
    assert replay.state == "finished"


def test_a_worker_waits_for_the_pages(transactional_db: None) -> None:
    """A worker that ends when nothing is due stays until the replay is through, and one in the caller's thread does not."""
    target = make_target()
    make_deliveries(target, 2, Status.FAILED)
    replay = start(target, rate=0.01)

    with_caller = len(deliver())
    Replay.objects.update(next_at=DatabaseNow() + timedelta(seconds=1))
    transport = MemoryTransport(200)
    Worker(transport=transport, burst=True).run()
    replay.refresh_from_db()

    assert with_caller == len(transport.requests) == 1
    assert replay.state == "finished"


# -- order and number --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ordered", [False, True])
def test_a_replay_keeps_the_order_the_ids_and_the_bytes(is_ordered: bool) -> None:
    """What was fired first goes first, page after page, with the same id and the same body as before."""
    target = make_target(is_ordered=is_ordered, retry_schedule=[])
    for number in range(6):
        fire("a.b", number, ordering_key="k")
    first = deliver(500)
    replay = start(target, rate=2)

    again = []
    while next_replay(DB) is not None:
        hurry(replay)
        again += deliver()

    assert [request.headers["webhook-id"] for request in again] == [request.headers["webhook-id"] for request in first]
    assert [request.body for request in again] == [request.body for request in first]
    assert list_statuses(target) == ["succeeded"] * 6


def test_what_is_new_waits_behind_what_is_replayed() -> None:
    """On an ordered target, a later event of the same key goes after the earlier one that is sent again."""
    target = make_target(is_ordered=True, retry_schedule=[])
    old = fire("a.b", 1, ordering_key="k")
    deliver(500)
    start(target)
    carry_on(DB)
    new = fire("a.b", 2, ordering_key="k")

    assert [request.headers["webhook-id"] for request in deliver()] == [str(old.uid), str(new.uid)]


def test_a_waiting_retry_is_not_doubled() -> None:
    """A delivery that somebody retried meanwhile is pending once, and sent once."""
    target = make_target(retry_schedule=[])
    fire("a.b", 1)
    deliver(500)
    replay = start(target)
    Delivery.objects.get().retry()
    finish(replay)

    assert replay.reopened_count == 0
    assert len(deliver()) == 1


def test_many_targets_are_replayed_together() -> None:
    """One replay for all targets of an owner leaves out those of another."""
    ada, bob = make_user("ada"), make_user("bob")
    for user in (ada, bob):
        for number in range(2):
            make_target(user, url=f"{URL}/{user.pk}/{number}", retry_schedule=[])
        fire("a.b", 1, owner=user)
    deliver(500)
    replay = Delivery.objects.replay(make_criteria(owner=ada))
    finish(replay)

    assert (replay.count, replay.reopened_count, replay.owner) == (2, 2, ada)
    assert set(Delivery.objects.pending().values_list("target__owner", flat=True)) == {ada.pk}


# -- what is in the way ------------------------------------------------------------------------------------------------


def test_a_target_that_is_deleted_meanwhile_is_left_out() -> None:
    """What it would have got is not made pending, and the replay ends."""
    target, other = make_target(), make_target(url=f"{URL}/other")
    make_deliveries(target, 3, Status.FAILED)
    make_deliveries(other, 3, Status.FAILED)
    replay = Delivery.objects.replay(make_criteria(everybody=True), rate=2)
    carry_on(DB)
    WebhookTarget.objects.filter(pk=target.pk).delete()
    finish(replay)

    assert (replay.reopened_count, replay.state) == (5, "finished")
    assert list_statuses(target) == ["cancelled"] * 2 + ["failed"]
    assert list_statuses(other) == ["pending"] * 3


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_busy_lane_is_waited_for() -> None:
    """While an application keeps a lane locked, the replay waits before its deliveries, and then leaves none out."""
    target, other = make_target(), make_target(url=f"{URL}/other")
    make_deliveries(target, 2, Status.FAILED)
    make_deliveries(other, 2, Status.FAILED)
    replay = Delivery.objects.replay(make_criteria(everybody=True))
    with second_connection() as application:
        with transaction.atomic(using=application):
            list(Lane.objects.using(application).select_for_update().filter(pk=other.pk))
            assert carry_on(DB)
            assert (list_statuses(target), list_statuses(other)) == (["pending"] * 2, ["failed"] * 2)
            hurry(replay)
            replay.refresh_from_db()
            due_at = replay.next_at
            assert carry_on(DB)
            replay.refresh_from_db()
            assert replay.next_at - due_at >= timedelta(seconds=1), "it looks again a little later"
        finish(replay)

    assert list_statuses(other) == ["pending"] * 2
    assert replay.reopened_count == 4


@server_only
@pytest.mark.django_db(transaction=True)
def test_what_a_busy_lane_has_is_put_back_later() -> None:
    """A cancelled replay comes back for the deliveries of a lane that an application keeps locked."""
    target, other = make_target(), make_target(url=f"{URL}/other")
    make_deliveries(target, 2, Status.FAILED)
    make_deliveries(other, 2, Status.FAILED)
    replay = Delivery.objects.replay(make_criteria(everybody=True))
    finish(replay)
    replay.cancel()
    with second_connection() as application:
        with transaction.atomic(using=application):
            list(Lane.objects.using(application).select_for_update().filter(pk=target.pk))
            assert carry_on(DB)
            assert (list_statuses(target), list_statuses(other)) == (["pending"] * 2, ["failed"] * 2)
        finish(replay)

    assert list_statuses(target) == ["failed"] * 2


@server_only
@pytest.mark.django_db(transaction=True)
def test_two_workers_do_not_do_the_same_page() -> None:
    """A replay that another worker is at is left to it."""
    target = make_target()
    make_deliveries(target, 2, Status.FAILED)
    start(target)
    with second_connection() as worker, transaction.atomic(using=worker):
        assert carry_on(worker)
        assert not carry_on(DB)

    assert list_statuses(target) == ["pending"] * 2


def test_two_replays_take_turns() -> None:
    """Each goes at its own rate; what both want is sent once."""
    target = make_target()
    make_deliveries(target, 4, Status.FAILED)
    first, second = start(target, rate=2), start(target, rate=2)

    assert carry_on(DB)
    rest(first)
    assert carry_on(DB)

    assert list_statuses(target) == ["pending"] * 4
    assert set(Delivery.objects.values_list("replay", flat=True)) == {first.pk, second.pk}


# -- cancelling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_ordered", [False, True])
def test_a_cancelled_replay_leaves_what_is_not_sent_as_it_was(is_ordered: bool) -> None:
    """What was sent stays sent; what was not has the status that it had, whether the replay had come to it or not."""
    target = make_target(is_ordered=is_ordered)
    deliveries = make_deliveries(target, 6, Status.FAILED)
    Delivery.objects.filter(pk=deliveries[3].pk).update(status=Status.EXPIRED)
    criteria = make_criteria(targets=[target], status=["failed", "expired"])
    replay = Delivery.objects.replay(criteria, rate=2)
    carry_on(DB)
    rest(replay)
    deliver()
    hurry(replay)
    carry_on(DB)
    assert list_statuses(target) == ["succeeded"] * 2 + ["pending"] * 2 + ["failed"] * 2

    replay.cancel(by="ada")
    assert deliver() == []
    replay.refresh_from_db()

    assert list_statuses(target) == ["succeeded"] * 2 + ["failed", "expired"] + ["failed"] * 2
    assert Delivery.objects.get(sequence=3).reason == "replay_cancelled"
    assert (replay.state, replay.cancelled_by) == ("cancelled", "ada")
    assert replay.progress() == {"succeeded": 2, "failed": 1, "expired": 1}


def test_a_cancelled_head_lets_its_successor_go() -> None:
    """On an ordered target, what stood behind a delivery that is put back becomes due."""
    target = make_target(is_ordered=True, retry_schedule=[])
    fire("a.b", 1, ordering_key="k")
    deliver(500)
    replay = start(target)
    carry_on(DB)
    new = fire("a.b", 2, ordering_key="k")
    replay.cancel()

    assert [request.headers["webhook-id"] for request in deliver()] == [str(new.uid)]


def test_what_is_on_its_retries_stays_on_them() -> None:
    """A cancelled replay takes nothing back that was sent once and failed: its schedule goes on."""
    target = make_target()
    make_deliveries(target, 2, Status.FAILED)
    replay = start(target, rate=1)
    carry_on(DB)
    rest(replay)
    deliver(500)
    replay.cancel()
    deliver()

    assert list_statuses(target) == ["pending", "failed"]


def test_a_large_cancelled_replay_is_put_back_in_pages() -> None:
    """A page in a transaction, so that a kill in between leaves the rest to the next worker."""
    target = make_target()
    make_deliveries(target, 7, Status.FAILED)
    replay = start(target)
    finish(replay)
    replay.cancel()

    assert carry_on(DB, page=3)
    assert list_statuses(target) == ["failed"] * 3 + ["pending"] * 4
    finish(replay)
    assert list_statuses(target) == ["failed"] * 7


def test_what_arrives_after_the_cancellation_has_arrived() -> None:
    """A request that was in flight is recorded as succeeded."""
    target = make_target()
    make_deliveries(target, 1, Status.FAILED)
    replay = start(target)

    def cancel_meanwhile(request: Request) -> Reply:
        replay.cancel()
        carry_on(DB)
        assert list_statuses(target) == ["failed"]
        return Reply(request.key, status=200)

    deliver(cancel_meanwhile)

    assert list_statuses(target) == ["succeeded"]


def test_the_clock_of_a_replay_is_the_databases() -> None:
    """When it goes on is compared with the database's time."""
    target = make_target()
    make_deliveries(target, 1, Status.FAILED)
    replay = start(target)
    Replay.objects.update(next_at=read_clock(DB) + timedelta(hours=1))

    assert not carry_on(DB), connection.vendor
    hurry(replay)
    assert carry_on(DB)
    assert Lane.objects.get().due_at is not None
    assert Event.objects.count() == 1
