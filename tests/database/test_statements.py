"""Single statements: what goes in comes out as it was."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from djwebhooks import database
from djwebhooks.models import Event, Lane
from tests.database.rows import DB, make_lanes

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "value",
    ["2026-01-02 03:04:05.678000", "2026-01-02T03:04:05.678", datetime(2026, 1, 2, 3, 4, 5, 678000)],
)
def test_times_of_plain_sql_are_utc(value: datetime | str) -> None:
    """A time without a zone is the database's, which is UTC; one with a zone stays as it is."""
    assert database.as_time(value) == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    zoned = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert database.as_time(zoned) is zoned


def test_times_survive_plain_sql() -> None:
    """What to_database writes comes back as the same instant, through SQL and through the ORM; None stays None."""
    moment = datetime(2026, 7, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    event = Event.objects.create(name="a.b")

    database.execute(DB, "UPDATE djw_event SET deliver_at = %s", [database.to_database(DB, moment)])

    event.refresh_from_db()
    assert event.deliver_at == moment
    [(value,)] = database.execute(DB, "SELECT deliver_at FROM djw_event")
    assert database.as_time(value) == moment
    assert database.to_database(DB, None) is None


def test_one_statement_for_many_rows() -> None:
    """Each row's parameters go to its own run of the statement."""
    make_lanes(3)

    database.execute_many(DB, "UPDATE djw_lane SET tail = %s WHERE target_id = %s", [(pk * 10, pk) for pk in (1, 2, 3)])

    assert list(Lane.objects.order_by("pk").values_list("tail", flat=True)) == [10, 20, 30]


def test_a_statement_without_rows_returns_none() -> None:
    """An UPDATE has no rows to return."""
    assert database.execute(DB, "UPDATE djw_lane SET tail = 1") == []
