"""The database's clock, short transactions that are tried again, locks that wait for nobody, writes in bulk."""

from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from djwebhooks import database
from djwebhooks.database import DatabaseClock, DatabaseNow, read_clock
from djwebhooks.models import Body, Event, Lane
from tests.builders import make_target
from tests.connections import Thread, postgresql_only, second_connection

DB = "default"

pytestmark = pytest.mark.django_db


def make_lanes(count: int) -> list[Lane]:
    return Lane.objects.bulk_create([Lane(pk=pk) for pk in range(1, count + 1)])


# -- time --------------------------------------------------------------------------------------------------------------


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


@postgresql_only
def test_the_clock_goes_on_inside_a_transaction() -> None:
    """The clock is that of the statement, not of the transaction's beginning."""
    assert read_clock(DB) < read_clock(DB)


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


# -- transactions ------------------------------------------------------------------------------------------------------


class Unlucky:
    """Fails the first so many times with an error."""

    def __init__(self, times: int, error: OperationalError) -> None:
        self.times = times
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        Event.objects.create(name="a.b")
        if self.calls <= self.times:
            raise self.error
        return self.calls


LOCKED = OperationalError("database is locked")


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_lost_a_race_is_run_again_as_a_whole() -> None:
    """What an unlucky try wrote is undone, and the next one's result counts."""
    assert database.run_transaction(DB, Unlucky(3, LOCKED)) == 4

    assert Event.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_tries_end() -> None:
    """After the last try the error is raised."""
    work = Unlucky(99, LOCKED)

    with pytest.raises(OperationalError):
        database.run_transaction(DB, work, tries=3)

    assert work.calls == 3
    assert not Event.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_other_errors_are_raised_at_once() -> None:
    """What another try would not mend is not tried again."""
    work = Unlucky(99, OperationalError("no such thing"))

    with pytest.raises(OperationalError):
        database.run_transaction(DB, work)

    assert work.calls == 1


def test_nothing_is_tried_again_inside_somebody_elses_transaction() -> None:
    """Their transaction is broken, and only they can run it again."""
    work = Unlucky(1, LOCKED)

    with pytest.raises(OperationalError), transaction.atomic():
        database.run_transaction(DB, work)

    assert work.calls == 1


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_deadlocks_are_run_again() -> None:
    """Of two transactions that lock each other out, both do their work in the end."""
    make_lanes(2)
    with second_connection() as other:
        block = transaction.atomic(using=other)
        block.__enter__()
        Lane.objects.using(other).filter(pk=2).update(tail=1)

        def work() -> None:
            Lane.objects.filter(pk=1).update(tail=2)
            Lane.objects.filter(pk=2).update(tail=2)

        thread = Thread(lambda: database.run_transaction(DB, work))
        wait_until_blocked()
        with suppress(OperationalError), ExitStack() as stack:
            stack.push(block.__exit__)
            Lane.objects.using(other).filter(pk=1).update(tail=1)
        thread.result()

    assert set(Lane.objects.values_list("tail", flat=True)) == {2}


def wait_until_blocked() -> None:
    for _ in range(100_000):
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return
    raise AssertionError("nobody waits")


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_an_engines_transaction_is_bounded() -> None:
    """A frozen engine loses its locks: statements and idle transactions have a limit, which ends with the transaction."""
    names = ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")

    def show() -> list[str]:
        return [database.execute(DB, f"SHOW {name}")[0][0] for name in names]

    before = show()
    with database.engine_transaction(DB):
        assert show()[:2] == ["30s", "10s"]

    assert show() == before


@pytest.mark.django_db(transaction=True)
def test_a_nested_engine_transaction_is_part_of_the_outer_one() -> None:
    """Inside somebody else's transaction nothing is set, and their rollback is ours."""
    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        with database.engine_transaction(DB):
            Event.objects.create(name="a.b")
        transaction.set_rollback(True)

    assert not any("SET LOCAL" in query["sql"] for query in captured)
    assert not Event.objects.exists()


# -- locks -------------------------------------------------------------------------------------------------------------


def test_rows_are_locked_in_their_order() -> None:
    """Whoever locks several rows does so in one order."""
    make_lanes(3)

    assert [lane.pk for lane in database.lock_rows(Lane.objects.order_by("pk"), DB)] == [1, 2, 3]
    assert [lane.pk for lane in database.lock_free_rows(Lane.objects.order_by("pk"), DB)] == [1, 2, 3]


@postgresql_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lock", [database.lock_rows, database.lock_free_rows])
def test_rows_that_others_keep_locked_are_left_out(lock: Any) -> None:
    """A lock that lasts is not waited for; the transaction goes on, and its later waits are not cut short."""
    make_lanes(3)
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=2))
        with transaction.atomic():
            found = [lane.pk for lane in lock(Lane.objects.order_by("pk"), DB)]
            assert database.execute(DB, "SHOW lock_timeout") == [("0",)]

    assert found == [1, 3]


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_a_short_lock_is_waited_for() -> None:
    """What is free again within a moment is not left out."""
    make_lanes(1)
    with second_connection() as other:
        block = transaction.atomic(using=other)
        block.__enter__()
        list(Lane.objects.using(other).select_for_update())

        def lock() -> int:
            with transaction.atomic():
                return len(database.lock_rows(Lane.objects.order_by("pk"), DB))

        thread = Thread(lock)
        wait_until_blocked()
        block.__exit__(None, None, None)

        assert thread.result() == 1


# -- bulk --------------------------------------------------------------------------------------------------------------


def test_inserting_leaves_what_is_there() -> None:
    """Rows that would break a unique constraint are passed over, the others are written, and nothing is changed."""
    event = Event.objects.create(name="a.b")
    database.insert_many(DB, Body, ("event", "format", "content"), [(event.pk, "flat", b"\0first\xff")])

    database.insert_many(
        DB, Body, ("event", "format", "content"), [(event.pk, "flat", b"second"), (event.pk, "standard", b"other")]
    )

    found = {body.format: bytes(body.content) for body in Body.objects.all()}
    assert found == {"flat": b"\0first\xff", "standard": b"other"}


def test_nothing_to_write_costs_nothing(django_assert_num_queries: Any) -> None:
    """Empty lists need no statement."""
    with django_assert_num_queries(0):
        database.insert_many(DB, Body, ("event", "format", "content"), [])
        database.execute_many(DB, "UPDATE djw_lane SET tail = %s WHERE target_id = %s", [])
        assert database.union_all(DB, "SELECT 1", []) == []


def test_one_statement_for_many_rows() -> None:
    """Each row's parameters go to its own run of the statement."""
    make_lanes(3)

    database.execute_many(DB, "UPDATE djw_lane SET tail = %s WHERE target_id = %s", [(pk * 10, pk) for pk in (1, 2, 3)])

    assert list(Lane.objects.order_by("pk").values_list("tail", flat=True)) == [10, 20, 30]


def test_a_union_limits_each_part_alone(django_assert_num_queries: Any) -> None:
    """Every set of parameters gets its own limit, and hundreds of them take a few round trips."""
    make_lanes(250)
    select = "SELECT target_id FROM djw_lane WHERE target_id >= %s ORDER BY target_id LIMIT %s"

    with django_assert_num_queries(3):
        rows = database.union_all(DB, select, [(pk, 2) for pk in range(1, 251)])

    assert [pk for (pk,) in rows] == [pk for first in range(1, 250) for pk in (first, first + 1)] + [250]


def test_a_statement_without_rows_returns_none() -> None:
    """An UPDATE has no rows to return."""
    assert database.execute(DB, "UPDATE djw_lane SET tail = 1") == []


@pytest.mark.django_db
def test_the_clock_and_its_expression_agree_to_the_digit() -> None:
    """A time that was just read from the database is not in the future of its own ``DatabaseNow``."""
    target = make_target()
    for _ in range(300):
        Lane.objects.update_or_create(pk=target.pk, defaults={"due_at": read_clock(DB)})
        assert Lane.objects.filter(due_at__lte=DatabaseNow()).exists()
