"""What comes after a kill: the database and the leases of the dead are as they will be some time later, and a worker runs."""

from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from django.contrib.auth.models import User
from django.db import connection

from djwebhooks.database import DatabaseNow, execute
from djwebhooks.dispatch import dispatch
from djwebhooks.models import Delivery, Event, Worker
from tests.engines.processes import wait_until
from tests.faults.books import Books, check_books, unrecorded
from tests.faults.ledger import Ledger
from tests.faults.processes import Child
from tests.faults.traps import Trap
from tests.faults.world import fire_some

#: Runs a worker until nothing is due, or it falls into the trap that is given.
Work = Callable[..., Child]


def kill_and_recover(ledger: Ledger, owner: User, work: Work, trap: Trap, *, is_dispatched: bool = False) -> tuple[Child, Books]:
    """Let a worker fall into *trap* and a fresh one do the rest; check the books.

    What was in flight at the kill is sent again, once, and nothing else is. With *is_dispatched* there are deliveries already.
    """
    repeated = check_books(ledger).repeated
    fire_some(owner)
    if is_dispatched:
        dispatch("default")
    killed = work(trap)
    killed.wait()
    in_flight = unrecorded(ledger)
    run_fresh_worker(work)
    books = check_books(ledger)
    assert books.repeated == repeated + Counter(in_flight), killed.statements
    return killed, books


def run_fresh_worker(work: Callable[[], Child], code: int = 0) -> Child:
    """Run a worker to its end when those that were killed are taken for dead."""
    wait_for_connections()
    expire_leases()
    worker = work()
    wait_while_it_works(worker)
    assert worker.code == code, f"{worker.code}: {worker.output}"
    return worker


def wait_while_it_works(worker: Child) -> None:
    """Return when it has ended; however long that takes, there is less and less left to do."""
    left = [Delivery.objects.pending().count()]

    def has_moved() -> bool:
        left.append(Delivery.objects.pending().count())
        return worker.poll() is not None or left[-1] < left[-2]

    while worker.poll() is None:
        wait_until(has_moved, f"less is left to do; the worker says: {worker.output}")


def expire_leases() -> None:
    """Let the leases of all workers, and of all builds, end now, as they do when their time is over."""
    now = DatabaseNow() - timedelta(seconds=1)
    Worker.objects.update(expires_at=now)
    Event.objects.filter(build_due_at__isnull=False).update(build_due_at=now)


#: Counts the other connections to this database; SQLite has no server that could take its time.
COUNT_OTHERS = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT count(*) FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}


def wait_for_connections() -> None:
    """Return when the database has noticed that the processes on it are dead, and given up their transactions."""
    if connection.vendor in COUNT_OTHERS:
        wait_until(lambda: count_others() == 0, "the dead are not connected any more")


def count_others() -> int:
    [(count,)] = execute("default", COUNT_OTHERS[connection.vendor])
    return count
