"""What a lane gives of its deliveries, and what becomes of those that it must hold."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection

from djwebhooks import lanes
from djwebhooks.database import DatabaseNow
from djwebhooks.lanes import Work
from djwebhooks.models import Delivery, Lane, Replay, WebhookTarget
from djwebhooks.models.lanes import RECHECK
from tests.lanes import DB, SECOND, due_sequences, enlist, hold, kill, make_work, now, take

pytestmark = pytest.mark.django_db


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
