"""Rows that are read without query sets, as models have them, and locked on the way."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from djwebhooks import database
from djwebhooks.database import locks, read_clock
from djwebhooks.database.locks import impatient
from djwebhooks.models import Event, Lane, WebhookTarget
from tests.builders import make_target, make_user
from tests.connections import mariadb_only, other_way, second_connection, server_only
from tests.database.rows import DB, make_lanes

pytestmark = pytest.mark.django_db


def test_rows_are_read_in_bulk_as_models_have_them(django_assert_num_queries: Any) -> None:
    """Ids, times, truths, nulls and bytes are what the ORM makes of them, in the order of the keys."""
    owner = make_user()
    event = Event.objects.create(name="a.b", owner=owner, is_broadcast=True)
    other = Event.objects.create(name="a.c", expires_at=datetime(2026, 7, 2, 3, 4, 5, 678901, UTC))
    columns = ("id", "uid", "name", "owner", "is_broadcast", "created_at", "expires_at", "erased_at")

    with django_assert_num_queries(1):
        rows = database.read_many(DB, Event, columns, {other.pk, event.pk, 0})

    assert rows == list(Event.objects.order_by("pk").values_list(*columns))


@server_only
@pytest.mark.django_db(transaction=True)
def test_rows_that_are_read_can_be_locked() -> None:
    """Those that somebody else has locked are left out, and nobody else gets the others."""
    make_lanes(3)
    with second_connection() as other, transaction.atomic(using=other):
        database.read_many(other, Lane, ["target"], [2], match="target", lock=True)
        with transaction.atomic():
            assert database.read_many(DB, Lane, ["target"], [3, 2, 1], match="target", lock=True) == [(1,), (3,)]


@server_only
@pytest.mark.django_db(transaction=True)
def test_rows_that_are_locked_for_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """``lock_many`` waits a moment for what somebody else has locked, then locks the others; the transaction goes on."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT", 10)
    make_lanes(3)
    with second_connection() as other, transaction.atomic(using=other):
        database.read_many(other, Lane, ["target"], [2], match="target", lock=True)
        with transaction.atomic():
            assert database.lock_many(DB, Lane, ["target", "tail"], [3, 2, 1], match="target") == [(1, 0), (3, 0)]
            with transaction.atomic(using=DB):
                assert database.lock_many(DB, Lane, ["target"], [3, 1], match="target") == [(1,), (3,)]


def test_a_union_limits_each_part_alone(django_assert_num_queries: Any) -> None:
    """Every set of parameters gets its own limit, and hundreds of them take a few round trips."""
    make_lanes(250)
    select = "SELECT target_id FROM djw_lane WHERE target_id >= %s ORDER BY target_id LIMIT %s"

    with django_assert_num_queries(3):
        rows = database.union_all(DB, select, [(pk, 2) for pk in range(1, 251)])

    assert [pk for (pk,) in rows] == [pk for first in range(1, 250) for pk in (first, first + 1)] + [250]


@pytest.mark.parametrize("limit", [1, 4, 99])
def test_the_first_of_two_sets_of_rows(limit: int) -> None:
    """They come in the order of their ids, whichever set they are of, no more than asked for, with the columns asked for."""
    events = Event.objects.bulk_create([Event(name=name) for name in ("a", "b", "b", "a", "b", "a")])

    found = database.load_first(DB, Event, ("id", "name"), ("name = 'a'", "name = 'b'"), limit)

    assert [(event.pk, event.name) for event in found] == [(event.pk, event.name) for event in events[:limit]]
    assert "payload" in found[0].get_deferred_fields()


def test_rows_are_loaded_as_the_orm_does() -> None:
    """``load_many`` is ``in_bulk``: all columns, as models have them, and nothing of rows that are not there."""
    targets = [make_target(make_user(name), url=f"http://127.0.0.1/{name}", headers={"x": name}) for name in ("ada", "bob")]
    keys = [target.pk for target in targets] + [0]

    loaded = database.load_many(DB, WebhookTarget, keys)

    assert loaded == WebhookTarget.objects.in_bulk(keys)
    assert {pk: vars(row) | {"_state": None} for pk, row in loaded.items()} == {
        pk: vars(row) | {"_state": None} for pk, row in WebhookTarget.objects.in_bulk(keys).items()
    }


def test_rows_are_locked_with_the_time_of_then() -> None:
    """The ids are of those that are there; without any, the time is still told."""
    event = Event.objects.create(name="a.b")
    before = read_clock(DB)

    now, ids = database.lock_at(DB, Event, [event.pk, 0], empty="dispatched_at")
    without_rows, nothing = database.lock_at(DB, Event, [0], empty="dispatched_at")

    assert (ids, nothing) == ({event.pk}, set())
    assert before <= now <= without_rows


def lock_waiting(using: str, events: list[Event]) -> set[int]:
    return database.lock_at(using, Event, [event.pk for event in events], empty="dispatched_at")[1]


@server_only
@pytest.mark.django_db(transaction=True)
def test_rows_that_others_have_locked_are_left_out_of_a_lock() -> None:
    """Nobody waits for them."""
    events = Event.objects.bulk_create([Event(name="a.b") for _ in range(2)])
    with second_connection() as other, transaction.atomic(using=other):
        list(Event.objects.using(other).select_for_update().filter(pk=events[0].pk))

        with database.engine_transaction(DB):
            assert lock_waiting(DB, events) == {events[1].pk}


def test_rows_that_are_done_are_left_out_of_a_lock() -> None:
    """Whoever locks them sees whether there is still something to do."""
    waiting = Event.objects.create(name="a.b")
    done = Event.objects.create(name="a.b", dispatched_at=timezone.now())

    assert lock_waiting(DB, [waiting, done]) == {waiting.pk}


@mariadb_only
@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_a_lock_sees_the_present_whatever_was_read_before() -> None:
    """Also in a transaction that reads as of its beginning, and nobody who inserts has to wait for it."""
    events = Event.objects.bulk_create([Event(name="a.b") for _ in range(2)])
    options = connection.settings_dict["OPTIONS"] | {"isolation_level": "repeatable read"}
    with other_way(OPTIONS=options) as other, transaction.atomic(using=other):
        assert Event.objects.using(other).waiting().count() == 2
        Event.objects.filter(pk=events[0].pk).update(dispatched_at=timezone.now())

        assert lock_waiting(other, events) == {events[1].pk}
        with impatient(DB):
            Event.objects.create(name="a.b")
