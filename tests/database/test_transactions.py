"""Short transactions that are tried again, and batches of statements in them."""

from contextlib import ExitStack, suppress

import pytest
from django.db import Error, IntegrityError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from djwebhooks import database
from djwebhooks.models import Event, Lane
from tests.connections import Thread, second_connection, server_only
from tests.database.rows import DB, make_lanes
from tests.database.sessions import limit_idle_transaction, show_limits, wait_until_blocked

pytestmark = pytest.mark.django_db


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


@server_only
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


@server_only
@pytest.mark.django_db(transaction=True)
def test_an_engines_transaction_is_bounded() -> None:
    """Statements and idle transactions of an engine have a limit, which ends with the transaction, whatever was set before."""
    limit_idle_transaction(77)
    before = show_limits()
    with database.engine_transaction(DB):
        assert show_limits()[:2] in (["30s", "10s"], [30.0, 10])
    assert show_limits() == before

    with suppress(ZeroDivisionError), database.engine_transaction(DB):
        raise ZeroDivisionError
    assert show_limits() == before


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_frozen_engine_loses_its_locks() -> None:
    """Who holds locks and does nothing more is broken off, also if it has written nothing; then it can begin anew."""
    make_lanes(1)

    def wait_for_lock() -> int:
        with transaction.atomic():
            return len(Lane.objects.select_for_update())

    def freeze() -> None:
        with database.engine_transaction(DB):
            list(Lane.objects.select_for_update())
            limit_idle_transaction(1)
            assert Thread(wait_for_lock).result() == 1
            Lane.objects.count()

    with pytest.raises(Error):
        freeze()

    with database.engine_transaction(DB):
        assert Lane.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_nested_engine_transaction_is_part_of_the_outer_one() -> None:
    """Inside somebody else's transaction nothing is set, and their rollback is ours."""
    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        with database.engine_transaction(DB):
            Event.objects.create(name="a.b")
        transaction.set_rollback(True)

    assert not any(query["sql"].startswith("SET ") for query in captured)
    assert not Event.objects.exists()


def test_a_batch_of_statements_is_written() -> None:
    """In its order, and it is there afterwards."""
    event = Event.objects.create(name="a.b")

    with database.engine_transaction(DB), database.batched(DB):
        database.set_many(DB, Event, {"name": "c.d", "identifier": "x"}, [event.pk])
        database.set_many(DB, Event, {"name": "e.f"}, [event.pk])

    event.refresh_from_db()
    assert (event.name, event.identifier) == ("e.f", "x")


def test_nothing_is_read_in_a_batch() -> None:
    """Where statements are sent together, what one finds is not there yet: it would look as if there were no rows."""
    with (
        pytest.raises(RuntimeError, match="In a batch nothing can be read"),
        database.engine_transaction(DB),
        database.batched(DB),
    ):
        database.read_many(DB, Event, ["name"], [1])


def test_a_batch_fails_as_its_statements_do() -> None:
    """One that fails raises Django's own error, at the end of the batch at the latest, and the transaction is undone."""
    event = Event.objects.create(name="a.b")

    def write() -> None:
        with database.batched(DB):
            database.set_many(DB, Event, {"name": "c.d"}, [event.pk])
            database.execute(DB, "UPDATE djw_event SET uid = NULL")

    with pytest.raises(IntegrityError):
        database.run_transaction(DB, write)

    event.refresh_from_db()
    assert event.name == "a.b"
