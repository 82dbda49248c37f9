"""What is finished and old goes; what is not stays."""

from dataclasses import asdict
from datetime import timedelta
from functools import partial

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from djwebhooks.database import execute
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subscription, TargetOwner, WebhookTarget
from djwebhooks.prune import TARGETS, Pruned, Run, prune
from djwebhooks.testing import deliver
from tests.connections import Thread, second_connection, server_only
from tests.database.sessions import wait_until_blocked

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(days=40)
URL = "http://127.0.0.1:9/direct"


@pytest.fixture
def owner() -> User:
    return User.objects.create(username="owner")


def make_target(owner: User, path: str = "") -> WebhookTarget:
    return WebhookTarget.objects.register(f"http://127.0.0.1:9/{path}", ["a"], owner=owner)


def age(event: Event, by: timedelta = LONG_AGO) -> None:
    """Make an event, and what finished of it, older than it is."""
    at = timezone.now() - by
    Event.objects.filter(pk=event.pk).update(created_at=at)
    Event.objects.filter(pk=event.pk, dispatched_at__isnull=False).update(dispatched_at=at)
    Delivery.objects.filter(event=event).update(created_at=at)
    Delivery.objects.filter(event=event, finished_at__isnull=False).update(finished_at=at)


def send_old(owner: User, count: int = 1) -> list[Event]:
    events = [fire("a", {}, owner=owner) for _ in range(count)]
    deliver()
    for event in events:
        age(event)
    return events


def count_rows() -> Pruned:
    return Pruned(*(model.objects.count() for model in (Event, Body, Delivery, Attempt)))


def test_what_finished_long_ago_goes_with_all_its_rows(owner: User) -> None:
    """Deliveries go with their attempts, and then their event with its bodies."""
    make_target(owner)
    send_old(owner)

    assert prune() == Pruned(events=1, bodies=1, deliveries=1, attempts=1)
    assert count_rows() == Pruned()


def test_what_finished_lately_stays(owner: User) -> None:
    """A delivery is kept for the retention from its end on, however old its event is; and the event with it."""
    make_target(owner)
    [event] = send_old(owner)
    Delivery.objects.update(finished_at=timezone.now())

    assert prune() == Pruned()
    assert Event.objects.get() == event


def test_what_is_pending_stays(owner: User) -> None:
    """No age makes a pending delivery go; the finished ones of the same event do."""
    make_target(owner, "paused").pause()
    make_target(owner)
    send_old(owner)

    assert prune() == Pruned(deliveries=1, attempts=1)
    assert Delivery.objects.get().status == "pending"
    assert count_rows() == Pruned(events=1, bodies=1, deliveries=1)


def test_pending_ones_do_not_stop_those_behind_them(owner: User) -> None:
    """Batches full of what must stay are passed by."""
    WebhookTarget.objects.register("http://127.0.0.1:9/paused", ["held"], owner=owner).pause()
    make_target(owner)
    held = [fire("held", {}, owner=owner) for _ in range(5)]
    send_old(owner, 5)
    for event in held:
        age(event)

    assert prune(batch=2) == Pruned(events=5, bodies=5, deliveries=5, attempts=5)
    assert count_rows() == Pruned(events=5, deliveries=5)


def test_an_event_that_waits_for_dispatch_stays(owner: User) -> None:
    """What nobody has dispatched yet is not finished."""
    age(fire("a", {}, owner=owner))

    assert prune() == Pruned()
    assert Event.objects.count() == 1


def test_an_event_that_was_planned_long_ago_stays_for_the_retention(owner: User) -> None:
    """What counts of an event without deliveries is when it was dispatched."""
    event = fire("a", {}, owner=owner)
    deliver()
    Event.objects.filter(pk=event.pk).update(created_at=timezone.now() - LONG_AGO)

    assert prune() == Pruned()


def test_an_event_that_nobody_wanted_goes(owner: User) -> None:
    """An old event that has no deliveries needs none to go."""
    send_old(owner)

    assert prune() == Pruned(events=1)


@pytest.mark.parametrize("batch", [1, 2, 3, 1000])
def test_batches_of_any_size_delete_the_same(owner: User, batch: int) -> None:
    """A batch ends anywhere: between events, and between the deliveries of one."""
    for number in range(3):
        make_target(owner, str(number))
    send_old(owner, 4)
    young = fire("a", {}, owner=owner)
    deliver()

    assert prune(batch=batch) == Pruned(events=4, bodies=4, deliveries=12, attempts=12)
    assert set(Delivery.objects.values_list("event", flat=True)) == {young.pk}
    assert count_rows() == Pruned(events=1, bodies=1, deliveries=3, attempts=3)


def test_a_dry_run_counts_and_writes_nothing(owner: User) -> None:
    """It says beforehand what the run after it does."""
    make_target(owner, "paused").pause()
    make_target(owner)
    send_old(owner, 3)
    make_target(owner, "paused").resume()
    WebhookTarget.objects.get(target_url__endswith="paused").cancel_pending()
    Delivery.objects.filter(status="cancelled", event=Event.objects.earliest("id")).update(finished_at=timezone.now() - LONG_AGO)
    before = count_rows()

    expected = prune(dry_run=True)

    assert count_rows() == before
    assert prune() == expected == Pruned(events=1, bodies=1, deliveries=4, attempts=3)


def test_the_retention_is_the_setting(owner: User, settings: LazySettings) -> None:
    """Without an argument DJWEBHOOKS_RETENTION counts."""
    make_target(owner)
    [event] = send_old(owner)
    settings.DJWEBHOOKS_RETENTION = LONG_AGO + timedelta(days=1)

    assert prune() == Pruned()
    assert prune(older_than=LONG_AGO - timedelta(days=1)).events == 1
    assert not Event.objects.filter(pk=event.pk).exists()


def test_what_waits_for_a_target_that_was_deleted_in_sql_ends(owner: User) -> None:
    """No worker comes past a lane that is gone: prune cancels, and a later run deletes."""
    target = make_target(owner)
    target.pause()
    [event] = send_old(owner)
    for table in ("djw_subscription", "djw_lane"):
        execute("default", f"DELETE FROM {table} WHERE target_id = %s", [target.pk])
    execute("default", "DELETE FROM djw_target WHERE id = %s", [target.pk])

    assert prune(dry_run=True) == Pruned(cancelled=1)
    assert prune() == Pruned(cancelled=1)
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.reason) == ("cancelled", "target_deleted")
    age(event)
    assert prune() == Pruned(events=1, deliveries=1)


def test_deliveries_of_a_deleted_target_go_in_their_time(owner: User) -> None:
    """Deleting a target leaves its log, and prune takes it."""
    target = make_target(owner)
    send_old(owner)
    target.delete()

    assert prune() == Pruned(events=1, bodies=1, deliveries=1, attempts=1)


def test_rows_of_events_that_somebody_deleted_go(owner: User) -> None:
    """Nothing dangles for ever: foreign keys have no constraints here."""
    make_target(owner)
    for event in send_old(owner, 3):
        execute("default", "DELETE FROM djw_event WHERE id = %s", [event.pk])

    expected = Pruned(bodies=3, deliveries=3, attempts=3)
    assert prune(dry_run=True) == expected
    assert prune(batch=2) == expected
    assert count_rows() == Pruned()


def test_attempts_of_deliveries_that_somebody_deleted_go(owner: User) -> None:
    """Attempts from before the first delivery belong to nobody."""
    make_target(owner)
    send_old(owner, 3)
    execute("default", "DELETE FROM djw_delivery")
    fire("a", {}, owner=owner)
    deliver()

    assert prune(dry_run=True).attempts == 3
    assert asdict(prune(batch=2)) == asdict(Pruned(events=3, bodies=3, attempts=3))
    assert count_rows() == Pruned(events=1, bodies=1, deliveries=1, attempts=1)


@pytest.mark.parametrize("batch", [1, 1000])
def test_what_is_known_of_old_replays_goes(owner: User, batch: int) -> None:
    """Once they ended so long ago; one that is still running stays, whatever its age."""
    target = make_target(owner)
    for _ in range(4):
        target.replay()
    old = timezone.now() - LONG_AGO
    first, second, running, _ = Replay.objects.order_by("pk")
    Replay.objects.filter(pk__in=[first.pk, second.pk]).update(finished_at=old)
    Replay.objects.filter(pk=running.pk).update(created_at=old, finished_at=None)

    assert prune(dry_run=True, batch=batch) == Pruned(replays=2)
    assert prune(batch=batch) == Pruned(replays=2)
    assert Replay.objects.count() == 2


def test_whose_a_deleted_target_was_is_forgotten_with_its_last_delivery(owner: User) -> None:
    """Until then its answers must be found; of a target that is there it is never forgotten."""
    for path in ("kept", "empty", "full", "emptied"):
        make_target(owner, path)
    fire("a", {}, owner=owner)
    deliver()
    gone = [WebhookTarget.objects.get(target_url__endswith=f"/{path}") for path in ("empty", "full", "emptied")]
    keys = [target.pk for target in gone]
    for target in gone:
        target.delete()
    Delivery.objects.filter(target__in=[keys[0], keys[2]]).delete()

    prune(dry_run=True)
    assert TargetOwner.objects.count() == 4
    prune(batch=1)

    left = [str(row) for row in TargetOwner.objects.order_by("pk")]
    assert left == [f"owner {owner.pk} of target {pk}" for pk in (WebhookTarget.objects.get().pk, keys[1])]


# -- targets -----------------------------------------------------------------------------------------------------------


def make_unused(owner: User | None) -> WebhookTarget:
    """Return a hidden target of which nothing is left but itself."""
    fire("a", {}, owner=owner, urls=URL)
    deliver()
    age(Event.objects.get())
    prune()
    WebhookTarget.objects.update(modified_at=timezone.now() - LONG_AGO)
    return WebhookTarget.objects.get()


@pytest.mark.parametrize("is_owned", [True, False])
def test_what_fire_made_of_urls_goes_with_its_last_delivery(owner: User, is_owned: bool) -> None:
    """And all that belongs to it; a dry run says so. Who names the address again has another one."""
    for number in range(TARGETS + 1):
        fire("a", {}, owner=owner if is_owned else None, urls=f"{URL}/{number}")
    deliver()
    for event in Event.objects.all():
        age(event)
    first = WebhookTarget.objects.earliest("pk")
    WebhookTarget.objects.update(modified_at=timezone.now() - LONG_AGO)
    count = TARGETS + 1
    expected = Pruned(events=count, bodies=count, deliveries=count, attempts=count, targets=count)

    assert prune(dry_run=True) == expected
    assert prune() == expected
    assert not any(model.objects.exists() for model in (WebhookTarget, Lane, TargetOwner))
    fire("a", {}, owner=first.owner, urls=first.target_url)
    assert len(deliver()) == 1


@pytest.mark.parametrize("what", ["visible", "paused", "subscribed", "changed", "pending", "waiting", "planned"])
def test_a_target_that_is_of_use_stays(owner: User, what: str) -> None:
    """Be it to people, who have made, paused or changed it, or to an event that is on its way there."""
    target = make_unused(owner)
    match what:
        case "visible" | "paused":
            changes = {"visible": {"is_hidden": False}, "paused": {"is_active": False}}
            WebhookTarget.objects.update(**changes[what])
        case "subscribed":
            Subscription.objects.create(target=target, event="a")
        case "changed":
            target.rotate_secret()
        case "pending":
            fire("a", {}, owner=owner, urls=URL)
            dispatch("default")
        case "waiting" | "planned":
            at = timezone.now() + timedelta(days=50) if what == "planned" else None
            fire("a", {}, owner=owner, urls=[URL, f"{URL}/other"], deliver_at=at)

    assert prune(dry_run=True) == prune() == Pruned()
    assert WebhookTarget.objects.filter(pk=target.pk).exists()


@server_only
@pytest.mark.django_db(transaction=True)
def test_who_is_firing_at_a_target_keeps_it(owner: User) -> None:
    """Until the transaction ends there is no other trace of the event; others may fire at it all the while."""
    target = make_unused(owner)
    with second_connection() as other, transaction.atomic(using=other):
        fire("a", {}, owner=owner, urls=URL, using=other)
        fire("a", {}, owner=owner, urls=URL, using="default").delete()
        assert prune() == Pruned()

    assert WebhookTarget.objects.get() == target
    assert len(deliver()) == 1


@server_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_fired", [True, False])
def test_who_wants_a_target_that_is_just_pruned_makes_another(owner: User, is_fired: bool) -> None:
    """What was found is there no more when it is used: the event goes to one that is, and that is the one to be registered."""
    fire_there = partial(fire, "a", {}, owner=owner, urls=URL)
    register = partial(WebhookTarget.objects.register, URL, ["a"], owner=owner)
    target = make_unused(owner)
    with second_connection() as other:
        block = transaction.atomic(using=other)
        block.__enter__()
        run = Run(other, timezone.now(), 1, dry_run=False)
        run.prune_targets()
        thread = Thread(fire_there if is_fired else register)
        wait_until_blocked()
        block.__exit__(None, None, None)
        thread.result()

    assert run.pruned.targets == 1
    assert WebhookTarget.objects.get() != target
    assert (WebhookTarget.objects.get().is_hidden, len(deliver())) == (is_fired, int(is_fired))


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_worker_goes_on_beside_it(owner: User) -> None:
    """Nothing that is locked by what is being deleted is needed to dispatch, to send and to record, for the same target."""
    make_target(owner)
    send_old(owner, 3)
    event = fire("a", {}, owner=owner)

    with second_connection() as other, transaction.atomic(using=other):
        pruned = prune(using=other)
        sent = deliver()

    assert pruned == Pruned(events=3, bodies=3, deliveries=3, attempts=3)
    assert [request.headers["webhook-id"] for request in sent] == [str(event.uid)]
    assert Delivery.objects.get().status == "succeeded"
