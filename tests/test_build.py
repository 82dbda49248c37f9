"""A hook's function runs once for an event, in the worker, whatever it does there."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connections
from rq.timeouts import JobTimeoutException

from djwebhooks.build import PAUSES, Builder, InlineBuilder, Turns, _hung, build
from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.testing import deliver
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import Worker
from tests.builders import make_target, make_user
from tests.connections import Thread, run_together, server_only
from tests.engines.processes import wait_until

DB = "default"

pytestmark = pytest.mark.django_db
threaded = pytest.mark.django_db(transaction=True)

#: What the functions were called with, what they do next, and what they wait for.
calls: list[str] = []
faults: list[BaseException] = []
gates: dict[str, threading.Event] = {}


@hook("thing.built", live=True)
def thing_built(name: str) -> dict[str, str]:
    calls.append(name)
    if name in gates:
        assert gates[name].wait(30)
    if faults:
        raise faults.pop(0)
    return {"name": name}


@hook("thing.fatal")
def thing_fatal() -> None:
    os._exit(7)


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    yield
    for gate in gates.values():
        gate.set()
    for known in (calls, faults, gates, _hung):
        known.clear()


def make_due(event: Event) -> None:
    Event.objects.filter(pk=event.pk, build_due_at__isnull=False).update(build_due_at=DatabaseNow() - timedelta(seconds=1))


def build_until_given_up(event: Event) -> None:
    faults.extend(ValueError(f"fault {number}") for number in range(BUILD_TRIES))
    for _ in range(BUILD_TRIES):
        make_due(event)
        build(DB, event.pk)


def collect(builder: Builder, count: int) -> list[int]:
    """The first *count* events that the builder is done with, in no order."""
    found: list[int] = []
    until = time.monotonic() + 30
    while len(found) < count:
        assert time.monotonic() < until, f"only {found} were built"
        found += builder.finished()
        time.sleep(0.002)
    return sorted(found)


@pytest.fixture
def make_builder() -> Iterator[Callable[..., Builder]]:
    """Make builders that are closed at the end, with all their threads."""
    made: list[Builder] = []

    def make(**options: Any) -> Builder:
        made.append(Builder(DB, lambda: None, **options))
        return made[-1]

    yield make
    for gate in gates.values():
        gate.set()
    for builder in made:
        builder.close()
    for thread in threading.enumerate():
        if thread.name == "djwebhooks-builder":
            thread.join(30)


# -- one build ---------------------------------------------------------------------------------------------------------


def test_a_build_keeps_the_payload_and_drops_the_call() -> None:
    """What the function returns is the payload's text; its arguments are no longer needed."""
    event = thing_built(name="x")

    build(DB, event.pk)

    event.refresh_from_db()
    assert (event.payload, event.call, event.build_error, event.build_attempts) == ('{"name":"x"}', "", "", 1)


def test_a_function_runs_once() -> None:
    """What is built is not built again."""
    event = thing_built(name="x")

    build(DB, event.pk)
    build(DB, event.pk)

    assert calls == ["x"]


def test_nobody_builds_what_is_being_built() -> None:
    """While the lease of a build lasts, no other begins; after it, another may."""
    event = thing_built(name="x")
    assert Event.objects.all().start_build(event.pk, timedelta(seconds=60))

    build(DB, event.pk)
    assert calls == []

    make_due(event)
    build(DB, event.pk)
    assert calls == ["x"]


@server_only
@threaded
def test_of_two_builders_at_once_one_runs_the_function() -> None:
    """Builders that come at the same moment run the function once between them."""
    event = thing_built(name="x")

    run_together(*[partial(build, DB, event.pk)] * 4)

    assert calls == ["x"]
    event.refresh_from_db()
    assert event.build_attempts == 1


def test_the_build_that_ends_first_wins() -> None:
    """A slow build that ends after another one changes nothing any more."""
    event = thing_built(name="x")
    Event.objects.all().finish_build(event.pk, '"first"')

    Event.objects.all().finish_build(event.pk, '"second"')
    Event.objects.all().fail_build(event.pk, "too late", timedelta(seconds=5))

    event.refresh_from_db()
    assert (event.payload, event.build_error) == ('"first"', "")


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [ValueError("no luck"), SystemExit(3)], ids=repr)
def test_a_fault_is_kept_for_staff_and_tried_again(fault: BaseException) -> None:
    """The traceback stays on the event, and the function runs again after a pause; then it is forgotten."""
    event = thing_built(name="x")
    faults.append(fault)

    build(DB, event.pk)

    event.refresh_from_db()
    assert f"{type(fault).__name__}: {fault}" in event.build_error
    assert "thing_built" in event.build_error
    assert event.payload == ""
    assert event.build_due_at is not None
    assert timedelta() < event.build_due_at - read_clock(DB) <= timedelta(seconds=PAUSES[0])
    build(DB, event.pk)
    assert calls == ["x"]
    make_due(event)
    build(DB, event.pk)
    event.refresh_from_db()
    assert (event.payload, event.build_error) == ('{"name":"x"}', "")


def test_what_cannot_be_json_is_a_fault() -> None:
    """A payload that cannot be written is the function's fault, and says what is wrong."""
    event = Event.objects.create(name="a.b", hook="tests.test_build:unwritable", call=thing_built(name="x").call)

    build(DB, event.pk)

    event.refresh_from_db()
    assert "InvalidPayload" in event.build_error


@hook("thing.unwritable")
def unwritable(name: str) -> bytes:
    return name.encode()


def test_a_hook_that_this_process_does_not_know_is_retried() -> None:
    """An old worker during a deploy leaves the event to a newer one."""
    event = Event.objects.create(name="a.b", hook="tests.test_build:not_there_yet", call=thing_built(name="x").call)

    build(DB, event.pk)

    event.refresh_from_db()
    assert "RebuildError" in event.build_error
    assert not event.has_failed_to_build
    Event.objects.filter(pk=event.pk).update(hook="tests.test_build:thing_built")
    make_due(event)
    build(DB, event.pk)
    event.refresh_from_db()
    assert event.payload == '{"name":"x"}'


def test_a_database_error_of_the_function_poisons_no_transaction() -> None:
    """Inside a test's transaction, a failed statement of the function leaves the transaction usable."""
    event = Event.objects.create(name="a.b", hook="tests.test_build:ill_read", call=thing_built(name="x").call)

    build(DB, event.pk)

    event.refresh_from_db()
    assert "Error" in event.build_error


@hook("thing.ill_read", live=True)
def ill_read(name: str) -> int:
    return Event.objects.extra(where=["nonsense = 1"]).count()


def test_pauses_grow_and_then_it_is_given_up() -> None:
    """Each fault is followed by a longer pause; after the last try there is none, and nobody builds any more."""
    event = thing_built(name="x")
    pauses = []
    faults.extend(ValueError("no luck") for _ in range(BUILD_TRIES))
    for _ in range(BUILD_TRIES):
        make_due(event)
        build(DB, event.pk)
        event.refresh_from_db()
        if event.build_due_at is not None:
            pauses.append(event.build_due_at - read_clock(DB))

    assert len(pauses) == BUILD_TRIES - 1
    assert pauses == sorted(pauses)
    assert pauses[-1] > 2 * pauses[0]
    assert event.has_failed_to_build
    build(DB, event.pk)
    assert len(calls) == BUILD_TRIES


def test_rqs_timeout_passes_through() -> None:
    """RQ's word that the job's time is over is never taken for a fault of the function."""
    event = thing_built(name="x")
    faults.append(JobTimeoutException("time is over"))

    with pytest.raises(JobTimeoutException):
        build(DB, event.pk)

    event.refresh_from_db()
    assert event.build_error == ""
    assert event.build_attempts == 1


@threaded
def test_a_function_that_kills_its_process_is_counted(process_environment: Callable[..., dict[str, str]]) -> None:
    """The try is committed before the function runs, so that one that takes its worker down is given up in the end."""
    event = thing_fatal()
    code = f"import django; django.setup(); from djwebhooks.build import build; build('default', {event.pk})"

    process = subprocess.run([sys.executable, "-c", code], env=process_environment(), timeout=60, check=False)

    assert process.returncode == 7
    event.refresh_from_db()
    assert event.build_attempts == 1
    assert event.build_due_at is not None
    assert event.build_due_at > read_clock(DB)


# -- with deliveries ---------------------------------------------------------------------------------------------------


def test_deliveries_wait_for_the_payload() -> None:
    """A fault delays its deliveries, uses up no attempt, and they are sent when the function works."""
    make_target()
    event = thing_built(name="x")
    faults.append(ValueError("no luck"))

    assert deliver() == []

    delivery = event.deliveries.get()
    assert (delivery.status, delivery.reason, delivery.attempt_count) == ("pending", "build_error", 0)
    assert delivery.due_at is not None
    assert delivery.due_at > read_clock(DB)
    make_due(event)
    Delivery.objects.update(due_at=read_clock(DB))
    event.deliveries.get().target.save()
    assert len(deliver()) == 1
    assert event.deliveries.get().status == "succeeded"


def test_a_payload_that_cannot_be_built_ends_its_deliveries() -> None:
    """After the last try the event's deliveries fail as build_error, and count against nobody's health."""
    target = make_target()
    event = thing_built(name="x")
    build_until_given_up(event)

    assert deliver() == []

    delivery = event.deliveries.get()
    assert (delivery.status, delivery.reason) == ("failed", "build_error")
    assert target.state == "healthy"


@pytest.mark.parametrize(
    "again", [lambda delivery: delivery.retry(), lambda delivery: delivery.target.replay()], ids=["retry", "replay"]
)
def test_a_person_can_have_it_built_again(again: Callable[[Delivery], object]) -> None:
    """A retry or a replay after the function was mended runs it again, with all its tries."""
    make_target()
    event = thing_built(name="x")
    build_until_given_up(event)
    deliver()

    again(event.deliveries.get())

    assert len(deliver()) == 1
    assert event.deliveries.get().status == "succeeded"
    event.refresh_from_db()
    assert event.build_attempts == 1


def test_two_targets_need_one_build() -> None:
    """However many deliveries an event has, its function runs once."""
    make_target(url="http://127.0.0.1/1")
    make_target(url="http://127.0.0.1/2")
    thing_built(name="x")

    assert len(deliver()) == 2

    assert calls == ["x"]


def test_an_event_fired_while_building_is_an_event() -> None:
    """A function may fire, as anybody may."""
    make_target(make_user(), event="other")
    event = Event.objects.create(name="a.b", hook="tests.test_build:firing", call=thing_built(name="x").call)

    build(DB, event.pk)

    assert Event.objects.filter(name="thing.fired").count() == 1


@hook("thing.firing")
def firing(name: str) -> str:
    fire("thing.fired", name)
    return name


# -- threads -----------------------------------------------------------------------------------------------------------


def test_the_inline_builder_builds_at_once() -> None:
    """In tests a payload is there as soon as it was asked for, and is reported once."""
    event = thing_built(name="x")
    builder = InlineBuilder(DB)

    builder.submit(event.pk, 1)

    assert (builder.finished(), builder.finished()) == ([event.pk], [])
    builder.close()
    event.refresh_from_db()
    assert event.payload == '{"name":"x"}'


@threaded
def test_a_function_that_hangs_holds_up_no_other(make_builder: Callable[..., Builder]) -> None:
    """Events that are asked for at the same moment are built while the first one's function hangs."""
    gates["hangs"] = threading.Event()
    hanging, *others = (thing_built(name=name).pk for name in ["hangs", "a", "b", "c"])
    builder = make_builder()

    for event_id in [hanging, *others]:
        builder.submit(event_id, 1)

    assert collect(builder, 3) == sorted(others)
    gates["hangs"].set()
    assert collect(builder, 1) == [hanging]


@threaded
def test_what_hangs_too_long_is_given_up_and_replaced(make_builder: Callable[..., Builder]) -> None:
    """Even when every thread hangs, others are built after the lease, and what hangs is reported, once."""
    gates["hangs"] = threading.Event()
    hanging = [thing_built(name="hangs").pk for _ in range(Builder.SIZE)]
    other = thing_built(name="x").pk
    builder = make_builder(lease=timedelta(seconds=0.2))
    for event_id in [*hanging, other]:
        builder.submit(event_id, 1)

    assert collect(builder, Builder.SIZE + 1) == sorted([*hanging, other])

    assert Event.objects.get(pk=other).payload == '{"name":"x"}'
    gates["hangs"].set()
    again = thing_built(name="y").pk
    builder.submit(again, 1)
    assert collect(builder, 1) == [again]


@threaded
def test_the_log_tells_of_what_hangs(make_builder: Callable[..., Builder], caplog: pytest.LogCaptureFixture) -> None:
    """Of which hook it is, and how many there are: nobody else would notice."""
    gates["hangs"] = threading.Event()
    hanging = [thing_built(name="hangs").pk for _ in range(2)]
    builder = make_builder(lease=timedelta(seconds=0.2))
    for event_id in hanging:
        builder.submit(event_id, 1)
    wait_until(lambda: len(calls) == 2, "both hang")

    collect(builder, 2)

    told = "\n".join(record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    found = re.findall(r"event=(\d+) hook=tests.test_build:thing_built: .* (\d) hang in this worker", told)
    assert sorted(int(event_id) for event_id, _ in found) == hanging
    assert [count for _, count in found] == ["1", "2"]


@hook("thing.connected")
def thing_connected(name: str) -> str:
    calls.append("connected" if connections[DB].connection is not None else "not connected")
    assert gates[name].wait(30)
    return name


@server_only
@threaded
def test_a_function_that_hangs_again_keeps_no_connection(make_builder: Callable[..., Builder]) -> None:
    """Else a function that always hangs would use up all that the server has."""
    gates["hangs"] = threading.Event()
    builder = make_builder(lease=timedelta(seconds=0.2))
    events = [thing_connected(name="hangs").pk for _ in range(2)]

    for number, event_id in enumerate(events, start=1):
        builder.submit(event_id, 1)
        wait_until(lambda number=number: len(calls) == number, "it hangs")
        collect(builder, 1)

    assert calls == ["connected", "not connected"]
    gates["hangs"].set()
    wait_until(lambda: not Event.objects.filter(payload="").exists(), "both are built all the same")


@threaded
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_replaced(make_builder: Callable[..., Builder]) -> None:
    """Whatever ends a thread, its event is reported, and the next one is built."""
    faults.append(JobTimeoutException("time is over"))
    first, second = thing_built(name="x").pk, thing_built(name="y").pk
    builder = make_builder()
    builder.submit(first, 1)
    assert collect(builder, 1) == [first]

    builder.submit(second, 1)

    assert collect(builder, 1) == [second]
    assert Event.objects.get(pk=second).payload == '{"name":"y"}'


@threaded
def test_no_more_threads_than_builds(make_builder: Callable[..., Builder]) -> None:
    """Threads are used again, and at most SIZE of them work at once."""
    builder = make_builder()
    for _ in range(3):
        builder.submit(thing_built(name="x").pk, 1)
        collect(builder, 1)
    assert len(builder._threads) == 1
    gates["hangs"] = threading.Event()

    for _ in range(10):
        builder.submit(thing_built(name="hangs").pk, 1)

    assert len(builder._threads) == Builder.SIZE
    gates["hangs"].set()
    assert len(collect(builder, 10)) == 10


@threaded
def test_a_builder_that_is_closed_begins_nothing_more(make_builder: Callable[..., Builder]) -> None:
    """Whatever it was asked for: its threads end after what they are at, in a process that lives on as well."""
    gates["hangs"] = threading.Event()
    builder = make_builder()
    for _ in range(3 * Builder.SIZE):
        builder.submit(thing_built(name="hangs").pk, 1)
    wait_until(lambda: len(calls) == Builder.SIZE, "all threads build")

    closing = Thread(builder.close)
    wait_until(lambda: builder._todo._is_closed, "it is being closed")
    gates["hangs"].set()
    closing.result()

    for thread in builder._threads:
        thread.join(30)
    assert len(calls) == Builder.SIZE


def take_all(turns: Turns) -> list[int | None]:
    """What is given out until there is nothing more."""
    return [turns.next() for _ in range(len(turns._waiting))]


def test_targets_take_turns() -> None:
    """However many payloads one target waits for, another one's is the next."""
    turns = Turns()
    for event_id in range(1, 6):
        turns.add(event_id)
        turns.wait(event_id, target_id=1)
    turns.add(6)
    turns.wait(6, target_id=2)

    assert take_all(turns) == [1, 6, 2, 3, 4, 5]


def test_what_several_targets_wait_for_is_built_once_and_in_the_first_one_s_turn() -> None:
    """The others have the next event when it is their turn."""
    turns = Turns()
    for event_id in (1, 2, 3, 4):
        turns.add(event_id)
        turns.wait(event_id, target_id=1)
    for event_id in (4, 3):
        turns.wait(event_id, target_id=2)

    assert take_all(turns) == [1, 4, 2, 3]
    turns.wait(3, target_id=3)
    turns.close()
    assert turns.next() is None


@threaded
def test_what_needs_no_build_is_sent_while_every_thread_hangs() -> None:
    """To the same target, too."""
    make_target()
    gates["hangs"] = threading.Event()
    for _ in range(Builder.SIZE):
        thing_built(name="hangs")
    worker = Worker(transport=MemoryTransport())
    thread = Thread(worker.run)
    wait_until(lambda: len(calls) == Builder.SIZE, "every thread hangs")

    event = fire("thing.built", {"name": "x"}, owner=None)
    wait_until(lambda: event.deliveries.filter(status="succeeded").exists(), "the other one is sent")

    gates["hangs"].set()
    worker.stop()
    thread.result()


@threaded
def test_a_worker_can_be_stopped_while_a_function_hangs() -> None:
    """A worker that is told to stop ends, and leaves what waits for the payload pending and due."""
    make_target()
    gates["hangs"] = threading.Event()
    event = thing_built(name="hangs")
    worker = Worker(transport=MemoryTransport())
    thread = Thread(worker.run)
    until = time.monotonic() + 30
    while not calls and time.monotonic() < until:
        time.sleep(0.005)

    worker.stop()

    assert thread.result() == 0
    assert event.deliveries.get().status == "pending"
    gates["hangs"].set()
    for builder_thread in threading.enumerate():
        if builder_thread.name == "djwebhooks-builder":
            builder_thread.join(30)


@threaded
def test_a_worker_builds_in_threads() -> None:
    """With threads as without, what is fired arrives."""
    make_target()
    thing_built(name="x")
    transport = MemoryTransport()

    Worker(transport=transport, burst=True).run()

    assert [json.loads(request.body)["data"] for request in transport.requests] == [{"name": "x"}]


@hook("thing.named")
def thing_named() -> None:
    raise ValueError("bad \0 text " + "x" * 100_000)


@pytest.mark.django_db
def test_an_error_that_no_database_holds_is_kept_all_the_same() -> None:
    """A NUL in a traceback is replaced, and only its end is kept."""
    make_target()
    event = thing_named()
    deliver()
    event.refresh_from_db()

    assert event.build_attempts == 1
    assert event.build_error.rstrip().endswith("x")
    assert len(event.build_error) <= 16 * 1024
