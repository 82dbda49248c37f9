"""A worker is killed at every point of its work, and at every statement: the next one makes it good."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from django.contrib.auth.models import User
from redis import Redis

from djwebhooks.engines import jobs
from djwebhooks.engines.rq import RQEngine, full_flag, wake_flag
from djwebhooks.models import Event
from tests.engines.processes import wait_until
from tests.faults.books import check_books, unrecorded
from tests.faults.ledger import Answer, Arrival, Ledger
from tests.faults.processes import Child, Launcher
from tests.faults.recovery import Work, kill_and_recover, run_fresh_worker, wait_for_connections
from tests.faults.traps import COMMIT, NO_TRAP, Trap, choose
from tests.faults.world import ON_RQ, PATHS, fire_some
from tests.library.models import Author

pytestmark = pytest.mark.django_db(transaction=True)

#: Where a worker is killed, in the order of a delivery's way: a function that is renamed fails its test.
POINTS = {
    "enlisted": Trap("djwebhooks.lanes.enlist", COMMIT),
    "claimed the dispatcher's lock": Trap("djwebhooks.models.lanes.Dispatcher.lock_for", "SELECT"),
    "dispatching, lanes made": Trap("djwebhooks.dispatch._lock_lanes", "INSERT"),
    "dispatching, deliveries written": Trap("djwebhooks.dispatch._append", "INSERT"),
    "dispatching, tails written": Trap("djwebhooks.dispatch._advance", "UPDATE djw_lane"),
    "dispatching, events marked": Trap("djwebhooks.dispatch._mark", "UPDATE djw_event"),
    "dispatched, lanes leased": Trap("djwebhooks.dispatch.dispatch_and_lease", COMMIT),
    "taken": Trap("djwebhooks.lanes.take", "SELECT", number=3),
    "build begun": Trap("djwebhooks.models.events.EventQuerySet.start_build", "UPDATE djw_event"),
    "build done, not kept": Trap("djwebhooks.models.events.EventQuerySet.finish_build", "UPDATE djw_event", before=True),
    "build kept": Trap("djwebhooks.models.events.EventQuerySet.finish_build", "UPDATE djw_event"),
    "body written": Trap("djwebhooks.contents.write_bodies", "INSERT"),
    "answered, not recorded": Trap("djwebhooks.lanes.record", before=True),
    "recording, attempts written": Trap("djwebhooks.lanes._write_attempts", "INSERT"),
    "recording, statuses written": Trap("djwebhooks.lanes._write_statuses", "UPDATE djw_delivery"),
    "recording again, statuses written": Trap("djwebhooks.lanes._write_statuses", "UPDATE djw_delivery", number=2),
    "recording once more, statuses written": Trap("djwebhooks.lanes._write_statuses", "UPDATE djw_delivery", number=3),
    "recording, successors lined up": Trap("djwebhooks.lanes._line_up_next", "UPDATE djw_delivery"),
    "recorded, not committed": Trap("djwebhooks.lanes.record", COMMIT, before=True),
    "recorded": Trap("djwebhooks.lanes.record", COMMIT),
    "recorded twice": Trap("djwebhooks.lanes.record", COMMIT, number=2),
    "releasing": Trap("djwebhooks.lanes._release", "UPDATE djw_lane"),
    "released": Trap("djwebhooks.lanes.release", COMMIT),
    "retiring": Trap("djwebhooks.lanes.retire", "DELETE FROM djw_worker"),
    "retired": Trap("djwebhooks.lanes.retire", COMMIT),
}
#: Where a worker is killed that finds deliveries which others have dispatched.
LEASING = {
    "leasing": Trap("djwebhooks.lanes.lease", "UPDATE djw_lane"),
    "leased": Trap("djwebhooks.lanes.lease", COMMIT),
}
#: Where a worker is killed that frees the lanes of one that was killed before.
REAPING = {
    "worker struck off": Trap("djwebhooks.lanes.reap", "DELETE FROM djw_worker"),
    "lanes freed": Trap("djwebhooks.lanes.reap", "UPDATE djw_lane"),
    "not committed": Trap("djwebhooks.lanes.reap", COMMIT, before=True),
    "committed": Trap("djwebhooks.lanes.reap", COMMIT),
}
#: Where an application is killed, and whether its transaction has committed then.
APPLICATION = {
    "changed": (Trap("tests.faults.world.add_author", "INSERT INTO library_author"), 0),
    "fired": (Trap("tests.faults.world.add_author", "INSERT INTO djw_event"), 0),
    "not committed": (Trap("tests.faults.world.add_author", COMMIT, before=True), 0),
    "committed": (Trap("tests.faults.world.add_author", COMMIT), 1),
}
#: Where a worker is killed that was told to stop, and has lanes.
RETIRING = {
    "worker struck off": Trap("djwebhooks.lanes.retire", "DELETE FROM djw_worker"),
    "lanes given back": Trap("djwebhooks.lanes.retire", "UPDATE djw_lane"),
    "not committed": Trap("djwebhooks.lanes.retire", COMMIT, before=True),
    "committed": Trap("djwebhooks.lanes.retire", COMMIT),
}
#: Those of the points that are tried with RQ as well, where a run takes seconds.
ON_RQ_TOO = [
    "enlisted",
    "claimed the dispatcher's lock",
    "dispatching, deliveries written",
    "dispatched, lanes leased",
    "build done, not kept",
    "answered, not recorded",
    "recording, attempts written",
    "recorded",
    "releasing",
    "retiring",
    "retired",
]


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger(fail_some) as running:
        yield running


def fail_some(arrival: Arrival) -> Answer:
    """Let the first attempt fail where an event's id is odd, so that there are retries."""
    return Answer(500 if arrival.attempt == 1 and int(arrival.id[-1], 16) % 2 else 200)


def never_answer(arrival: Arrival) -> Answer:
    return Answer(None)


@pytest.fixture
def rq_work(launcher: Launcher, redis: str) -> Iterator[Work]:
    """The same with an rqworker that is woken first."""
    with Redis.from_url(redis) as client:

        def run_rqworker(trap: Trap = NO_TRAP) -> Child:
            client.delete(full_flag("default"), wake_flag("default"))  # As if their five seconds were over.
            RQEngine().wake("default")
            return launcher.command("rqworker", "default", "--burst", trap=trap, **ON_RQ)

        yield run_rqworker
    jobs._make_queue.cache_clear()


# -- the application ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trap", "committed"), APPLICATION.values(), ids=APPLICATION)
def test_an_application_that_is_killed_has_fired_if_it_has_committed(
    launcher: Launcher, ledger: Ledger, owner: User, trap: Trap, committed: int, work: Work
) -> None:
    """Killed in the middle of its transaction, it leaves the change and its event, or neither."""
    application = launcher.call("tests.faults.world.add_authors", 1, trap=trap)

    assert application.wait() == -signal.SIGKILL

    wait_for_connections()
    assert (Author.objects.count(), Event.objects.count()) == (committed, committed)
    run_fresh_worker(work)
    assert check_books(ledger).events == committed


def test_an_application_that_is_killed_before_it_wakes_anybody_loses_nothing(
    launcher: Launcher, ledger: Ledger, owner: User, redis: str, rq_work: Work
) -> None:
    """After the commit and before the wake-up, there is no job; whatever wakes the next one, it sends the event."""
    application = launcher.call("tests.faults.world.add_authors", 1, trap=Trap(statement=COMMIT), **ON_RQ)
    application.wait()
    with Redis.from_url(redis) as client:
        assert application.was_trapped
        assert client.keys("rq:job:*") == []

    run_fresh_worker(rq_work)

    assert check_books(ledger).events == 1


# -- the worker --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", POINTS.values(), ids=POINTS)
def test_a_worker_killed_at_a_point_loses_nothing(ledger: Ledger, owner: User, work: Work, trap: Trap) -> None:
    """What was in flight is sent again with its id; all else is sent once, in order."""
    killed, books = kill_and_recover(ledger, owner, work, trap)

    assert killed.was_trapped, killed.statements
    assert books.deliveries == books.events * len(PATHS)


@pytest.mark.parametrize("trap", LEASING.values(), ids=LEASING)
def test_a_worker_killed_while_it_leases_loses_nothing(ledger: Ledger, owner: User, work: Work, trap: Trap) -> None:
    """The same where somebody else has dispatched."""
    killed, _ = kill_and_recover(ledger, owner, work, trap, is_dispatched=True)

    assert killed.was_trapped, killed.statements


@pytest.mark.parametrize("trap", [POINTS[name] for name in ON_RQ_TOO], ids=ON_RQ_TOO)
def test_a_job_killed_at_a_point_loses_nothing(ledger: Ledger, owner: User, rq_work: Work, trap: Trap) -> None:
    """The same where the worker is a job of RQ, and its process is killed."""
    killed, _ = kill_and_recover(ledger, owner, rq_work, trap)

    assert killed.was_trapped, killed.statements


def test_an_rqworker_killed_with_its_job_loses_nothing(ledger: Ledger, owner: User, rq_work: Work) -> None:
    """Nobody is left then to run the job again; whatever wakes the next one, it does the rest."""
    killed, _ = kill_and_recover(ledger, owner, rq_work, replace(POINTS["answered, not recorded"], with_parent=True))

    assert killed.was_trapped, killed.statements
    assert killed.code == -signal.SIGKILL


@pytest.mark.parametrize("engine", ["work", "rq_work"])
def test_a_worker_killed_while_posting_loses_nothing(
    ledger: Ledger, owner: User, engine: str, request: pytest.FixtureRequest
) -> None:
    """What a receiver has read and not answered is sent again, with the same id and attempt."""
    work = request.getfixturevalue(engine)
    ledger.decide = never_answer
    fire_some(owner)
    killed = work()
    wait_until(lambda: len(ledger.entries) == len(PATHS), "one request is on its way to each target")
    for pid in killed.family():
        os.kill(pid, signal.SIGKILL)
    killed.wait()
    ledger.decide = fail_some

    run_fresh_worker(work)

    assert len(check_books(ledger).repeated) == len(PATHS)


@pytest.mark.parametrize("trap", RETIRING.values(), ids=RETIRING)
def test_a_worker_killed_while_it_retires_loses_nothing(
    launcher: Launcher, ledger: Ledger, owner: User, work: Work, trap: Trap
) -> None:
    """One that was told to stop has its lanes still; killed when it gives them back, it leaves them to the next."""
    ledger.decide = never_answer
    fire_some(owner)
    killed = launcher.command("webhooks", "work", trap=trap)
    wait_until(lambda: len(ledger.entries) == len(PATHS), "one request is on its way to each target")
    killed.stop()
    ledger.decide = fail_some
    ledger.answer_waiting()
    killed.wait()

    run_fresh_worker(work)

    assert killed.was_trapped, killed.statements
    assert not check_books(ledger).repeated


@pytest.mark.parametrize("trap", REAPING.values(), ids=REAPING)
def test_a_worker_killed_while_it_reaps_loses_nothing(ledger: Ledger, owner: User, work: Work, trap: Trap) -> None:
    """The lanes of one that was killed are freed by the third, if the second was killed at it."""
    fire_some(owner)
    work(POINTS["dispatched, lanes leased"]).wait()
    in_flight = unrecorded(ledger)
    run_fresh_worker(lambda: work(trap), code=-signal.SIGKILL)

    run_fresh_worker(work)

    assert check_books(ledger).repeated == Counter(in_flight)


def test_a_worker_killed_at_any_statement_loses_nothing(ledger: Ledger, owner: User, work: Work) -> None:
    """A sample of all statements of a run, in the order of the lots: wherever it is killed, the next one makes it good."""
    whole, _ = kill_and_recover(ledger, owner, work, NO_TRAP)
    chosen = choose(len(whole.statements))
    kills = 0
    for number in chosen:
        killed, _ = kill_and_recover(ledger, owner, work, Trap(number=number))
        kills += killed.was_trapped  # Another run may be shorter.

    print(f"killed at {kills} of {len(whole.statements)} statements")  # noqa: T201
    assert kills > len(chosen) / 2
