"""Rows that are written without models, as models would write them."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import DataError, IntegrityError, transaction
from django.db.models import F

from djwebhooks import database
from djwebhooks.database import read_clock
from djwebhooks.database.tables import JSON_LIMIT
from djwebhooks.models import Attempt, Body, Event, Lane, TargetOwner, WebhookTarget
from tests.builders import make_target, make_user
from tests.connections import server_only
from tests.database.rows import ATTEMPT, DB, attempt_rows, make_lanes

pytestmark = pytest.mark.django_db


def test_inserting_leaves_what_is_there() -> None:
    """Rows that would break a unique constraint are passed over, the others are written, and nothing is changed."""
    event = Event.objects.create(name="a.b")
    database.insert_many(DB, Body, ("event", "format", "content"), [(event.pk, "flat", b"\0first\xff")])

    database.insert_many(
        DB, Body, ("event", "format", "content"), [(event.pk, "flat", b"second"), (event.pk, "standard", b"other")]
    )

    found = {body.format: bytes(body.content) for body in Body.objects.all()}
    assert found == {"flat": b"\0first\xff", "standard": b"other"}


def test_a_row_is_inserted_as_its_save_would() -> None:
    """Empty, false and missing values, texts with all that quotes and percents can spoil, and what the database adds."""
    owner = make_user()
    at = datetime(2026, 7, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    for values in (
        {},
        {"owner_id": owner.pk, "is_broadcast": True, "dispatch_cursor": 7, "coalesce": 0.0, "deliver_at": at},
        {"payload": "\"'%s\\ %% ; -- ☃ 𝄞", "identifier": "NULL", "ordering_key": "DEFAULT", "call": "0", "coalesce": 1.5},
    ):
        saved, inserted = Event(name="a.b", **values), Event(name="a.b", **values)
        saved.save(force_insert=True)

        database.insert_row(DB, inserted)

        assert not inserted._state.adding
        assert inserted == Event.objects.get(uid=inserted.uid)
        assert abs(inserted.created_at - saved.created_at) < timedelta(seconds=10)
        there = Event.objects.values()
        different = ("id", "uid", "created_at")
        first, second = ({k: v for k, v in there.get(pk=row.pk).items() if k not in different} for row in (saved, inserted))
        assert first == second


def test_a_row_that_cannot_be_inserted_spoils_the_transaction() -> None:
    """As with ``save``: what follows in the transaction must not be committed by somebody who has caught the error."""
    event = Event.objects.create(name="a.b")
    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():  # noqa: PT012 - the end raises
        with suppress(IntegrityError):
            database.insert_row(DB, Event(name="a.b", uid=event.uid))
        Event.objects.count()


def test_nothing_to_write_costs_nothing(django_assert_num_queries: Any) -> None:
    """Empty lists need no statement."""
    with django_assert_num_queries(0):
        database.insert_many(DB, Body, ("event", "format", "content"), [])
        database.execute_many(DB, "UPDATE djw_lane SET tail = %s WHERE target_id = %s", [])
        database.update_many(DB, Lane, ["tail"], [], match=["target"])
        assert database.read_many(DB, Lane, ["tail"], [], match="target") == []
        assert database.union_all(DB, "SELECT 1", []) == []


def test_rows_in_bulk_are_what_models_write(django_assert_num_queries: Any) -> None:
    """Whichever way a value goes to the database, the same comes back: texts, times, numbers, JSON and nulls."""
    Attempt.objects.bulk_create(
        Attempt(**dict(zip(ATTEMPT, (None, *row[1:]), strict=True)) | {"delivery_id": row[0]}) for row in attempt_rows(3)
    )
    expected = list(Attempt.objects.order_by("delivery").values(*ATTEMPT))
    Attempt.objects.all().delete()

    with django_assert_num_queries(1):
        database.insert_many(DB, Attempt, ATTEMPT, attempt_rows(3))

    assert list(Attempt.objects.order_by("delivery").values(*ATTEMPT)) == expected


def test_many_rows_are_updated_at_once() -> None:
    """Each row gets its own values, and one that does not match in every column stays as it is."""
    make_lanes(4)
    Lane.objects.update(holder=7, token=F("pk"))
    moment = datetime(2026, 7, 2, 3, 4, 5, 678901, UTC)

    rows = [(None, moment, "ä" * pk, pk, 7, pk if pk < 4 else 99) for pk in (1, 2, 4)]
    database.update_many(DB, Lane, ("holder", "due_at", "failure"), rows, match=("target", "holder", "token"))

    written = [(None, moment, "ä"), (None, moment, "ää"), (7, None, ""), (7, None, "")]
    assert list(Lane.objects.order_by("pk").values_list("holder", "due_at", "failure")) == written


def test_rows_that_are_large_together_are_written_all_the_same() -> None:
    """However much some rows have, they are written; it may take several statements."""
    rows = [(*row[:8], "x" * (JSON_LIMIT // 2), *row[9:]) for row in attempt_rows(3)]

    database.insert_many(DB, Attempt, ATTEMPT, rows)

    assert Attempt.objects.filter(response_body__endswith="xx").count() == 3


@server_only
def test_what_is_too_long_is_refused_in_bulk_too() -> None:
    """Nothing is cut off on its way into the database."""
    make_lanes(1)
    row = [*attempt_rows(1)[0]]
    row[ATTEMPT.index("error")] = "x" * 33

    with pytest.raises(DataError), transaction.atomic():
        database.insert_many(DB, Attempt, ATTEMPT, [row])
    with pytest.raises(DataError), transaction.atomic():
        database.update_many(DB, Lane, ["failure"], [("x" * 65, 1)], match=["target"])


def test_what_all_rows_have_in_common_is_given_once() -> None:
    """Constants stand in every row that is inserted, as what they are: texts, numbers, nulls, truths, times and JSON."""
    now = read_clock(DB)
    constants = {"tail": 7, "version": 0, "failure": "☃", "due_at": now, "is_ordered": True, "holder": None}
    others = {"token": 0, "failure_count": 0, "cooldown_count": 0, "disabled_reason": "", "access_token": "", "permission": {}}

    database.insert_many(DB, Lane, ["target"], [(1,), (2,)], constants=constants | others | {"key_checks": {"url": "x"}})

    found = list(Lane.objects.order_by("pk").values_list("pk", *constants, "key_checks"))
    assert found == [(pk, *constants.values(), {"url": "x"}) for pk in (1, 2)]


def test_rows_are_copied_from_another_table() -> None:
    """Each key's row gives one with the columns that were named; what is there already stays as it is."""
    ada, bob = make_user("ada"), make_user("bob")
    targets = [make_target(owner, url=f"http://127.0.0.1/{number}") for number, owner in enumerate((ada, bob, bob))]
    TargetOwner.objects.all().delete()
    TargetOwner.objects.create(pk=targets[0].pk, owner=bob)

    for keys in ([], [targets[0].pk, targets[1].pk, 0]):
        database.copy_many(DB, TargetOwner, {"target": "id", "owner": "owner"}, WebhookTarget, keys)

    assert dict(TargetOwner.objects.values_list("pk", "owner")) == {targets[0].pk: bob.pk, targets[1].pk: bob.pk}


def test_many_rows_get_the_same_values() -> None:
    """Those with these ids, and no others."""
    now = read_clock(DB)
    events = Event.objects.bulk_create([Event(name="a.b", call="x") for _ in range(3)])

    database.set_many(DB, Event, {"call": "", "dispatched_at": now}, [event.pk for event in events[:2]])
    database.set_many(DB, Event, {"call": "y"}, [])

    found = Event.objects.order_by("pk").values_list("call", "dispatched_at")
    assert list(found) == [("", now), ("", now), ("x", None)]
