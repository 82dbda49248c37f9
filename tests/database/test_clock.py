"""The database's time: aware, in UTC, carried on without asking."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from djwebhooks.database import DatabaseClock, DatabaseNow, read_clock
from djwebhooks.models import Event, Lane
from tests.builders import make_target
from tests.connections import server_only
from tests.database.rows import DB

pytestmark = pytest.mark.django_db


def test_the_clock_is_aware_and_in_utc() -> None:
    """Whatever the project's zone, times are in UTC."""
    before = datetime.now(UTC)

    now = read_clock(DB)

    assert now.utcoffset() == timedelta()
    assert abs(now - before) < timedelta(seconds=10)


def test_stored_times_are_the_clocks() -> None:
    """What the database writes as now is what its clock says, to the second."""
    before = read_clock(DB)
    event = Event.objects.create(name="a.b")
    Event.objects.update(deliver_at=DatabaseNow())
    event.refresh_from_db()

    assert event.deliver_at is not None
    for moment in (event.created_at, event.deliver_at):
        assert before - timedelta(seconds=1) <= moment <= read_clock(DB) + timedelta(milliseconds=1)


@server_only
def test_the_clock_goes_on_inside_a_transaction() -> None:
    """The clock is that of the statement, not of the transaction's beginning."""
    assert read_clock(DB) < read_clock(DB)


def test_a_clock_keeps_up_with_what_the_database_has_told() -> None:
    """What was written a moment ago is due by it, though the database counts in whole milliseconds; it never goes back."""
    clock = DatabaseClock(DB)
    later = clock() + timedelta(minutes=1)

    clock.keep_up(later)
    clock.keep_up(later - timedelta(minutes=2))

    assert later <= clock() < later + timedelta(minutes=1)


def test_a_clock_is_carried_on_without_asking(django_assert_num_queries: Any) -> None:
    """Between two readings the monotonic clock goes on from the database's time, never backwards."""
    clock = DatabaseClock(DB)
    before = read_clock(DB)
    with django_assert_num_queries(0):
        moments = [clock() for _ in range(100)]

    assert moments == sorted(moments)
    assert abs(moments[0] - before) < timedelta(seconds=10)
    with django_assert_num_queries(1):
        clock.read()


@pytest.mark.django_db
def test_the_clock_and_its_expression_agree_to_the_digit() -> None:
    """A time that was just read from the database is not in the future of its own ``DatabaseNow``."""
    target = make_target()
    for _ in range(300):
        Lane.objects.update_or_create(pk=target.pk, defaults={"due_at": read_clock(DB)})
        assert Lane.objects.filter(due_at__lte=DatabaseNow()).exists()
