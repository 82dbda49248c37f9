"""PostgreSQL cuts connections, refuses, waits, is full or gone: workers go on by themselves, and nothing is lost or doubled."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections, transaction

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Dispatcher, Event, Lane
from djwebhooks.models import Worker as WorkerRow
from djwebhooks.testing.receiver import Receiver
from djwebhooks.worker import Worker
from example_project.services import postgres_server
from tests.builders import make_target, make_user
from tests.connections import Thread, other_way, second_connection
from tests.engines.processes import wait_until
from tests.faults.processes import Child, Launcher
from tests.faults.workers import (
    Sent,
    all_is_done,
    fire_at_once,
    fire_some,
    make_owner,
    thing_built,
    wait_for_failures,
    wait_for_more,
    work_through_restarts,
    working,
)

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True, databases=["default", "other"])]


@pytest.fixture
def owner(db: None) -> User:
    return make_owner()


def execute(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def named(name: str = "worker", **changes: Any) -> Iterator[str]:
    """The alias ``other`` for connections that the server knows by *name*."""
    options = {"application_name": name, **changes.pop("OPTIONS", {})}
    with other_way(OPTIONS=options, **changes) as alias:
        yield alias


def terminate(name: str = "worker") -> int:
    """Cut all connections of this name, and return how many there were."""
    rows = execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s", name)
    return len(rows)


def is_waiting(name: str = "worker") -> bool:
    return bool(execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'", name))


# -- connections that break --------------------------------------------------------------------------------------------


def test_connections_are_terminated_all_the_time(owner: User, sent: Sent) -> None:
    """Two workers that lose their connections at twenty moments send thousands of deliveries, each once and in order."""
    with named(), working(sent, 2):
        for number in range(20):
            fire_at_once(owner, 25)
            wait_for_more(sent, 1 + number % 7)
            wait_until(terminate, "somebody is connected")

    assert Delivery.objects.count() == 20 * 25 * 4
    sent.check_each_once()


def test_the_server_is_restarted(sent: Sent) -> None:
    """Shut down in order or at once, while workers work: these go on when it is up again."""
    with postgres_server(durable=True) as server:
        place = {key: server.environment[f"PG{key}"] for key in ("HOST", "PORT", "USER")}
        work_through_restarts(sent, server, NAME="postgres", **place)


def test_a_new_primary_is_found(owner: User, sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """A connection that works but may not write is given up, so that the next one leads to where writing is possible."""
    name = connection.settings_dict["NAME"]
    with named(), working(sent):
        fire_some(owner)
        wait_until(lambda: sent.requests, "it works")
        execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        terminate()
        fire_some(owner)
        wait_for_failures(caplog, 3)
        execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

    assert "read-only transaction" in caplog.text
    sent.check_each_once()


@pytest.mark.parametrize("pool", [False, {"min_size": 2, "max_size": 6}], ids=["kept", "pooled"])
def test_kept_and_pooled_connections_break(owner: User, sent: Sent, pool: Any) -> None:
    """Connections that are kept for long, or come from a pool, are replaced when the server has closed them."""
    options = {"pool": pool} if pool else {}
    with named(OPTIONS=options, CONN_MAX_AGE=0 if pool else None) as alias:
        with working(sent):
            for _ in range(5):
                fire_some(owner, 5)
                wait_for_more(sent)
                terminate()
        if pool:
            connections[alias].close_pool()

    sent.check_each_once()


def test_there_are_too_many_connections(owner: User, sent: Sent, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that gets no connection waits for one from its start on, and so do its threads that build."""
    execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0; GRANT ALL ON ALL TABLES IN SCHEMA public TO crowd")
    execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO crowd")
    try:
        with named(USER="crowd"), working(sent):
            fire_some(owner)
            wait_for_failures(caplog, 2)
            assert sent.requests == []
            execute("ALTER ROLE crowd CONNECTION LIMIT 1")
            wait_until(lambda: "is built later" in caplog.text, "a thread gets no connection")
            execute("ALTER ROLE crowd CONNECTION LIMIT 9")
    finally:
        execute("DROP OWNED BY crowd; DROP ROLE crowd")

    sent.check_each_once()


# -- statements that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", ["djw_delivery", "djw_attempt", "djw_body", "djw_event", "djw_lane", "djw_worker"])
def test_the_disk_is_full(owner: User, sent: Sent, caplog: pytest.LogCaptureFixture, table: str) -> None:
    """Whichever table cannot grow for a while, work goes on when it can, and an event's function is not to blame for it."""
    fire_some(owner)
    with named(), working(sent), full(table):
        wait_until(lambda: "No space left on device" in caplog.text, "something cannot be written")

    sent.check_each_once()
    assert not Event.objects.filter(build_attempts__gt=1).exists()


@contextmanager
def full(table: str) -> Iterator[None]:
    """Let every write of *table* fail as on a full disk."""
    raising = "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'"
    execute(f"CREATE OR REPLACE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raising}; END $$")
    execute(f"CREATE TRIGGER is_full BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION is_full()")
    try:
        yield
    finally:
        execute(f"DROP TRIGGER is_full ON {table}")


@pytest.mark.parametrize("timeout", ["statement_timeout", "lock_timeout"])
def test_a_timeout_of_the_server_hits(owner: User, sent: Sent, caplog: pytest.LogCaptureFixture, timeout: str) -> None:
    """A statement that waits for an application's lock and is broken off is tried again, in the worker and where it builds."""
    with named(OPTIONS={"options": f"-c {timeout}=50"}), working(sent):
        fire_some(owner)
        wait_until(lambda: sent.requests, "it works")
        with second_connection() as other, transaction.atomic(using=other):
            thing_built(7, owner)
            Event.objects.using(other).select_for_update().last()
            list(WorkerRow.objects.using(other).select_for_update())
            wait_until(lambda: "The database failed" in caplog.text, "something is broken off")

    sent.check_each_once()


def test_a_deadlock_with_an_application(owner: User, sent: Sent) -> None:
    """An application that locks a delivery and then its lane, while a worker does the opposite, costs nobody anything."""
    fire_some(owner, 1, with_hooks=False)
    with named():
        worker = Worker(using="other", transport=sent.transport(), burst=True)
        worker.enlist()
        for step in worker.steps[:6]:  # All but to record.
            step()
        with second_connection() as other, suppress(OperationalError), transaction.atomic(using=other):
            Delivery.objects.using(other).select_for_update().order_by("pk").first()
            thread = Thread(worker.run)
            wait_until(is_waiting, "the worker waits for the delivery")
            list(Lane.objects.using(other).select_for_update())
        thread.result()

    sent.check_each_once()


def test_transactions_that_cannot_be_put_in_order(owner: User, sent: Sent) -> None:
    """Even where the server makes transactions serializable, workers who break each other's off send everything once."""
    before = count_rollbacks()
    with named(OPTIONS={"options": "-c default_transaction_isolation=serializable"}):
        with working(sent, 3):
            for _ in range(5):
                fire_some(owner, 10)
        wait_until(lambda: count_rollbacks() > before, "some of them were broken off")

    sent.check_each_once()


def count_rollbacks() -> int:
    [(count,)] = execute("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()")
    return count


def test_a_frozen_worker_does_not_keep_the_dispatchers_lock(launcher: Launcher) -> None:
    """Frozen in the middle of dispatch, it loses its lock after some seconds; thawed, it goes on as if nothing had been."""
    with Receiver() as receiver:
        target = make_target(make_user(), url=receiver.url)
        Lane.objects.create(target=target)
        child = launcher.command("webhooks", "work")
        wait_until(WorkerRow.objects.exists, "it works")
        with second_connection() as application, transaction.atomic(using=application):
            list(Lane.objects.using(application).select_for_update())
            fire("a.b", 1, owner=target.owner)
            wait_until(lambda: freeze_in_dispatch(child), "it is frozen")
        other = Worker()
        thread = Thread(other.run)
        wait_until(all_is_done, "another worker gets the lock, and sends what is there")
        assert not is_dispatching()
        child.send_signal(signal.SIGCONT)
        other.stop()
        thread.result()
        fire("a.b", 2, owner=target.owner)
        wait_until(all_is_done, "the thawed one sends")
        child.send_signal(signal.SIGTERM)
        assert child.wait() == 0, child.output

    assert len(receiver.requests) == Attempt.objects.count() == 2


def freeze_in_dispatch(child: Child) -> bool:
    """Whether it has the dispatcher's lock, frozen while it waits for a lane."""
    if not execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"):
        return False
    child.send_signal(signal.SIGSTOP)
    if is_dispatching():
        return True
    child.send_signal(signal.SIGCONT)
    return False


def is_dispatching() -> bool:
    """Whether somebody has the dispatcher's lock."""
    with transaction.atomic():
        return not Dispatcher.lock("default")
