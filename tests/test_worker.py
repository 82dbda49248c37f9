"""The loop: fairness, limits, the lease, and what a database error does to it."""

import json
import math
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import timedelta
from itertools import chain
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection, transaction
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext

from djwebhooks import lanes
from djwebhooks.database import DatabaseNow
from djwebhooks.decorators import hook
from djwebhooks.dispatch import BATCH, dispatch
from djwebhooks.events import fire
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.lanes import LeaseLost, lease_seconds
from djwebhooks.models import Attempt, Delivery, Event, Lane, WebhookTarget
from djwebhooks.models import Worker as WorkerRow
from djwebhooks.models.deliveries import Status
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded, target_disabled
from djwebhooks.testing import Conversation, Receiver, deliver, make_due
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.transports.requests import RequestsTransport
from djwebhooks.work import READY
from djwebhooks.worker import Worker, work
from tests.builders import make_deliveries
from tests.connections import manual_commits, plain
from tests.engines.processes import wait_until


@hook("thing.built")
def thing_built(number: int, owner: User) -> dict[str, int]:
    return {"number": number}


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create(username="owner")


def register(url: str, owner: User, **fields: Any) -> WebhookTarget:
    return WebhookTarget.objects.register(url, ["*"], owner=owner, **fields)


def fire_many(count: int, owner: User, keys: int = 1) -> None:
    for number in range(count):
        fire("thing.happened", {"number": number}, owner=owner, ordering_key=str(number % keys))


# -- how soon -----------------------------------------------------------------------------------------------------------


class Patient(MemoryTransport):
    """Notes what it gets between its waits, and how long it may wait."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[list[str], bool]] = []

    def wait(self, timeout: float) -> list[Reply]:
        urls = [request.url[-1] for request in self.requests[sum(len(urls) for urls, _ in self.parts) :]]
        self.parts.append((urls, timeout > 0))
        return super().wait(0.0)


def test_a_turn_hands_over_a_part_and_the_next_one_goes_on(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wait in between, and beginning with the targets that got nothing yet."""
    monkeypatch.setattr("djwebhooks.worker.HAND_OVER", 2)
    for number in range(5):
        register(f"http://127.0.0.1/{number}", owner)
    fire_many(2, owner)
    transport = Patient()

    work(burst=True, transport=transport, threaded=False)

    sent = [urls for urls, _ in transport.parts if urls]
    assert [len(urls) for urls in sent] == [2, 2, 2, 2, 2]
    assert set(chain(*sent[:2], sent[2][:1])) == set("01234")
    assert not any(may_wait for urls, may_wait in transport.parts if urls and urls is not sent[-1])


def test_a_single_event_is_sent_after_few_statements(owner: User) -> None:
    """Each is a round trip that it waits for: its lane is leased with its delivery, and what else is due is looked for later."""
    register("http://127.0.0.1/", owner)
    counts = []

    def answer(request: Request) -> Reply:
        counts.append(len(queries))
        return Reply(request.key, status=200)

    worker = Worker(transport=MemoryTransport(answer), burst=True, threaded=False)
    with CaptureQueriesContext(connection) as queries:
        worker.enlist()
        for _ in range(2):
            worker._next_poll = 0.0
            fire_many(1, owner)
            counts.append(-len(queries))
            while len(counts) % 2:
                worker._turn()

    assert sum(counts[2:]) <= 20


def test_an_event_for_many_targets_is_dispatched_in_few_turns(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page for a moment, and then what is there is sent before the next ones."""
    monkeypatch.setattr("djwebhooks.dispatch.PAGE", 2)
    for number in range(9):
        register(f"http://127.0.0.1/{number}", owner)
    transport = MemoryTransport()
    worker = Worker(transport=transport, threaded=False)

    monkeypatch.setattr("djwebhooks.worker.FAN_OUT", -1.0)
    fire_many(1, owner)
    worker._turn()
    first = Delivery.objects.count()
    monkeypatch.setattr("djwebhooks.worker.FAN_OUT", 60.0)
    worker._turn()

    assert (first, Delivery.objects.count()) == (2, 9)
    assert transport.requests


def test_a_new_worker_sends_first_and_looks_for_the_dead_then(owner: User) -> None:
    """It was woken for an event; but what those had is sent in the same run, also if it ends when nothing is due."""
    other = User.objects.create(username="other")
    theirs, new = register("http://127.0.0.1/theirs", other), register("http://127.0.0.1/new", owner)
    fire_many(1, other)
    dead = Worker(transport=MemoryTransport(), threaded=False)
    dead.enlist()
    dead._poll()
    WorkerRow.objects.update(expires_at=DatabaseNow() - timedelta(minutes=1))
    fire_many(1, owner)
    transport = MemoryTransport()

    work(burst=True, transport=transport, threaded=False)

    assert [request.url for request in transport.requests] == [new.target_url, theirs.target_url]


def test_what_is_due_is_not_put_off_by_what_is_new(owner: User) -> None:
    """A worker that gets new lanes with each dispatch still takes those that have been due for longer."""
    other = User.objects.create(username="other")
    old, new = register("http://127.0.0.1/old", owner), register("http://127.0.0.1/new", other)
    fire_many(1, owner)
    dispatch("default")
    transport = MemoryTransport()
    worker = Worker(transport=transport, threaded=False)
    for _ in range(3):
        fire_many(1, other)
        worker._turn()

    assert {request.url for request in transport.requests} == {old.target_url, new.target_url}


def test_what_is_for_slow_targets_is_looked_at_a_turn_later(owner: User) -> None:
    """Those that answer fast do not wait for what is read of the others, and these wait a turn at most."""
    fast, slow = register("http://127.0.0.1/fast", owner), register("http://127.0.0.1/slow", owner)
    transport = MemoryTransport(lambda request: Reply(request.key, status=200, duration=5.0 if "slow" in request.url else 0.01))
    worker = Worker(transport=transport, threaded=False)
    fire_many(1, owner)
    worker._turn()
    assert len(transport.requests) == 2
    seen = []
    for _ in range(3):
        fire_many(1, owner)
        worker._next_poll = 0.0
        transport.requests.clear()
        worker._turn()
        seen.append({request.url for request in transport.requests})

    assert seen[0] == {fast.target_url}
    assert seen[1] == {fast.target_url, slow.target_url}


# -- fairness ----------------------------------------------------------------------------------------------------------


def gated(gate: threading.Event) -> Callable[[Conversation], None]:
    """Answer nothing before the gate is open."""

    def answer(conversation: Conversation) -> None:
        gate.wait(60)
        conversation.answer(200)

    return answer


@pytest.mark.parametrize("hanging", [1, 5])
def test_hanging_targets_delay_nobody_else(owner: User, settings: Any, hanging: int) -> None:
    """While some targets answer nothing at all, every event reaches all the others."""
    settings.DJWEBHOOKS_TIMEOUT = 60
    gate, healthy_count, events = threading.Event(), 5, 8
    with ExitStack() as stack:
        stuck = [stack.enter_context(Receiver(gated(gate))) for _ in range(hanging)]
        healthy = [stack.enter_context(Receiver()) for _ in range(healthy_count)]
        for receiver in stuck + healthy:
            register(receiver.url, owner)
        fire_many(events, owner)
        reached = []

        def watch() -> None:
            reached.extend(len(receiver.wait_for(events, timeout=30)) for receiver in healthy)
            gate.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        work(burst=True, transport=RequestsTransport(concurrency=12), threaded=False)
        gate.set()
        watcher.join()

        assert reached == [events] * healthy_count
    assert not Delivery.objects.exclude(status="succeeded").exists()


def test_a_target_gets_no_more_requests_at_once_than_its_limit(owner: User) -> None:
    """The concurrency limit is kept where requests are handed over, however many are due."""
    lock, now, most = threading.Lock(), 0, 0

    def count(conversation: Conversation) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.01)
        with lock:
            now -= 1
        conversation.answer(200)

    with Receiver(count) as receiver:
        register(receiver.url, owner, concurrency_limit=2)
        fire_many(20, owner)
        work(burst=True, transport=RequestsTransport(concurrency=16), threaded=False)

        assert len(receiver.requests) == 20
    assert most <= 2


def test_an_ordered_key_is_sent_one_at_a_time(owner: User) -> None:
    """On an ordered target, events of one key arrive in order and never two at once; keys do not wait for each other."""
    lock, under_way, overlaps = threading.Lock(), Counter[str](), 0

    def watch(conversation: Conversation) -> None:
        nonlocal overlaps
        key = conversation.request.headers["webhook-id"]
        with lock:
            under_way[keys[key]] += 1
            overlaps += under_way[keys[key]] > 1
        threading.Event().wait(0.005)
        with lock:
            under_way[keys[key]] -= 1
        conversation.answer(200)

    with Receiver(watch) as receiver:
        register(receiver.url, owner, is_ordered=True)
        events = [fire("thing.happened", {}, owner=owner, ordering_key=str(number % 3)) for number in range(15)]
        keys = {str(event.uid): event.ordering_key for event in events}
        work(burst=True, transport=RequestsTransport(concurrency=8), threaded=False)

        arrived = [received.headers["webhook-id"] for received in receiver.requests]
    assert overlaps == 0
    for key in "012":
        assert [uid for uid in arrived if keys[uid] == key] == [str(e.uid) for e in events if e.ordering_key == key]


def test_a_target_that_is_put_in_order_keeps_no_other_waiting(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker lines up a page of what it has, sends what others have, and goes on, until all is sent in order."""
    monkeypatch.setattr(lanes, "PAGE", 2)
    target = register("http://127.0.0.1:9/a", owner)
    fire_many(9, owner)
    dispatch("default")
    target.is_ordered = True
    target.save()
    register("http://127.0.0.1:9/b", owner)
    fire("thing.happened", {"number": 9}, owner=owner, ordering_key="0")
    transport = MemoryTransport()
    work(burst=True, transport=transport, threaded=False)

    urls = [request.url[-1] for request in transport.requests]
    assert urls.index("b") < urls.index("a")
    numbers = [json.loads(request.body)["data"]["number"] for request in transport.requests if request.url.endswith("a")]
    assert numbers == list(range(10))


def test_what_is_kept_ready_is_bounded(owner: User) -> None:
    """However long a lane is, a worker keeps only a part of it in memory."""
    register("http://127.0.0.1:9/", owner)
    fire_many(READY * 3, owner)
    worker = Worker(transport=MemoryTransport(), threaded=False)
    worker.enlist()
    for step in worker.steps[:3]:
        step()

    assert Delivery.objects.count() > READY * 2
    assert sum(len(held.ready) for held in worker._held.values()) <= READY


def test_what_is_kept_ready_does_not_grow_with_each_look(owner: User) -> None:
    """Each new event has its lane looked at again, also if none of it can be sent yet."""
    target = register("http://127.0.0.1:9/", owner, concurrency_limit=1)
    worker = Worker(transport=Silent(), threaded=False)
    worker.enlist()
    for _ in range(6):
        Event.objects.bulk_create(Event(name="thing.happened", owner=owner, payload="1") for _ in range(READY))
        take_turn(worker)

    assert Delivery.objects.count() == 6 * READY
    assert len(worker._held[target.pk].known) <= 2 * READY


class Silent(MemoryTransport):
    """Answers nothing."""

    def wait(self, timeout: float) -> list[Reply]:
        return []


@pytest.mark.django_db(transaction=True)
def test_what_waits_for_its_payload_is_bounded(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many payloads are to be built, a worker knows of a part of them only, and goes on when these are built."""
    monkeypatch.setattr("djwebhooks.work.READY", 20)
    target = register("http://127.0.0.1:9/", owner)
    with transaction.atomic():
        for _ in range(100):
            thing_gated(owner=owner)
    worker = Worker(transport=MemoryTransport(), burst=True)
    for _ in range(20):
        worker._paces[target.pk].note(Reply(0, status=200))
    worker.enlist()
    try:
        for _ in range(10):
            take_turn(worker)
        assert 10 <= len(worker._held[target.pk].known) <= 30
    finally:
        gate.set()
    worker.run()

    assert Delivery.objects.filter(status="succeeded").count() == 100


gate = threading.Event()


@hook("thing.gated")
def thing_gated(owner: User) -> int:
    return gate.wait(30)


def test_what_is_cancelled_while_it_is_built_is_not_sent(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a lane with more due than the worker looks at."""
    monkeypatch.setattr("djwebhooks.work.READY", 2)
    register("http://127.0.0.1:9/", owner)
    event = thing_built(1, owner=owner)
    fire_many(5, owner)
    worker = Worker(transport=MemoryTransport(), threaded=False)
    worker.enlist()
    for step in worker.steps[: worker.steps.index(worker._see_builds)]:
        step()
    worker._hand_over()

    event.deliveries.get().cancel()
    worker.burst = True
    worker.run()

    assert event.deliveries.get().status == "cancelled"
    assert str(event.uid) not in [request.headers["webhook-id"] for request in worker.transport.requests]
    assert Delivery.objects.filter(status="succeeded").count() == 5


def test_a_backlog_is_dispatched_as_it_is_sent(owner: User) -> None:
    """While targets that answer fast have plenty ready, further events wait; but for an interval at most."""
    worker = prepare_backlog(owner, MemoryTransport(concurrency=4))
    ahead = Event.objects.waiting().count()

    worker._next_poll = math.inf
    for _ in range(3):
        take_turn(worker)
    assert Event.objects.waiting().count() == ahead, "what is ready comes first"
    assert worker._find_wait() > 0, "and nothing is asked for over and over"

    worker._next_poll = 0.0
    take_turn(worker)
    assert Event.objects.waiting().count() < ahead, "but others may stand behind it"

    worker._next_poll = math.inf
    worker.burst = True
    worker.run()
    assert not Event.objects.waiting().exists(), "and it goes on once that is sent, however far the next interval"
    assert set(Delivery.objects.values_list("status", flat=True)) == {"succeeded"}


@pytest.mark.parametrize("how", ["slow", "limited", "closed"])
def test_what_cannot_be_sent_at_once_lets_no_event_wait(owner: User, how: str) -> None:
    """Whatever is ready for slow targets, for those with a limit and for those that are left alone, events are dispatched."""
    worker = prepare_backlog(owner, MemoryTransport(concurrency=4))
    for pk, held in worker._held.items():
        worker._paces[pk].is_slow = how == "slow"
        held.is_open = how != "closed"
        held.target.concurrency_limit = 1 if how == "limited" else None
    ahead = Event.objects.waiting().count()

    worker._next_poll = math.inf
    take_turn(worker)

    assert Event.objects.waiting().count() < ahead


def prepare_backlog(owner: User, transport: MemoryTransport) -> Worker:
    """Return a worker that has had its first answers, and has plenty ready for its two targets and more events before it."""
    for number in range(2):
        register(f"http://127.0.0.1:9/{number}", owner)
    Event.objects.bulk_create(Event(name="thing.happened", owner=owner, payload="1") for _ in range(3 * BATCH))
    worker = Worker(transport=transport, threaded=False)
    worker.enlist()
    take_turn(worker)
    return worker


def take_turn(worker: Worker) -> None:
    for step in worker.steps:
        step()


def test_lanes_that_always_have_something_make_room(owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker holds so many and no more; when others wait, those that were held for longest go back, however well they do."""
    monkeypatch.setattr("djwebhooks.worker.TURN", 0.0)
    for number in range(2):
        register(f"http://127.0.0.1:9/{number}", owner, rate_limit=20)
    fire_many(20, owner)
    transport = MemoryTransport(concurrency=1)
    worker = Worker(transport=transport, burst=True, threaded=False)
    worker.enlist()
    while len(transport.requests) < 4:
        worker._turn()
    new = register("http://127.0.0.1:9/new", User.objects.create(username="other"))
    fire("thing.happened", 1, owner=new.owner)
    while new.target_url not in [request.url for request in transport.requests]:
        worker._next_poll = 0.0
        worker._turn()
    worker.stop()
    worker.run()

    assert len(transport.requests) < 20
    assert Delivery.objects.count() == 41
    assert Delivery.objects.filter(status="succeeded").count() == len(transport.requests)


# -- the lease ---------------------------------------------------------------------------------------------------------


def test_nothing_starts_on_the_rest_of_a_lease(owner: User) -> None:
    """A worker that has not beaten for long starts no request that could outlive its lease."""
    register("http://127.0.0.1:9/", owner)
    fire_many(1, owner)
    transport = MemoryTransport()
    worker = Worker(transport=transport, threaded=False)
    worker.enlist()
    for step in worker.steps[:4]:
        step()
    worker._anchor -= lease_seconds() / 2 + 60

    worker.steps[4]()

    assert transport.requests == []


def test_a_worker_that_was_struck_off_starts_anew(owner: User) -> None:
    """It records nothing of what it had, and the lane's next holder sends it."""
    register("http://127.0.0.1:9/", owner)
    fire_many(1, owner)
    transport = MemoryTransport()
    worker = Worker(transport=transport, threaded=False)
    worker.enlist()
    for step in worker.steps[:5]:
        step()
    WorkerRow.objects.all().delete()
    Lane.objects.update(holder=None)

    fire_many(1, owner)
    worker._has_more = True

    with pytest.raises(LeaseLost):
        worker.steps[1]()
    worker._start_anew()

    assert Delivery.objects.filter(status="succeeded").count() == 0
    assert not worker._held


@pytest.mark.django_db(transaction=True)
def test_a_worker_refuses_to_commit_nothing(owner: User) -> None:
    """With autocommit off it would send all there is, and again the next time, as nothing of it is committed."""
    register("http://127.0.0.1/", owner)
    fire_many(1, owner)
    transport = MemoryTransport()

    with manual_commits(), pytest.raises(ConfigurationError, match="autocommit off"):
        work(burst=True, transport=transport, threaded=False)

    assert not transport.requests
    assert work(burst=True, transport=transport, threaded=False) == 1


# -- database errors ---------------------------------------------------------------------------------------------------


class FailOnce:
    """Fails one statement of a connection, the *number*-th."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        self.number -= 1
        if self.number == 0:
            raise OperationalError("the connection was lost")
        return execute(*arguments)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("number", range(8, 80, 6))
def test_an_error_at_any_statement_loses_nothing(settings: Any, number: int) -> None:
    """Whichever statement the database fails, the worker goes on, and each event ends succeeded with its attempts in order."""
    owner = User.objects.create(username="owner")
    register("http://127.0.0.1:9/a", owner, is_ordered=True)
    register("http://127.0.0.1:9/b", owner)
    fire_many(3, owner)
    thing_built(1, owner)
    transport = MemoryTransport()

    with connection.execute_wrapper(FailOnce(number)):
        work(burst=True, transport=transport, threaded=False)
    WorkerRow.objects.update(expires_at=DatabaseNow() - timedelta(seconds=1))
    make_due()
    work(burst=True, transport=transport, threaded=False)

    assert Delivery.objects.filter(status="succeeded").count() == 8
    assert Attempt.objects.count() == 8
    assert not WorkerRow.objects.exists()


# -- the rest ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_hooks_are_built_in_threads(settings: Any) -> None:
    """Outside of tests, the application's functions run in threads of their own, and what they return is sent."""
    owner = User.objects.create(username="owner")
    register("http://127.0.0.1:9/", owner)
    for number in range(20):
        thing_built(number, owner=owner)
    transport = MemoryTransport()

    assert work(burst=True, transport=transport) == 20

    assert sorted(request.body.split(b'"number":')[1] for request in transport.requests) == sorted(
        f"{number}}}}}".encode() for number in range(20)
    )


@pytest.fixture
def heard() -> Iterator[list[tuple[Signal, dict[str, Any]]]]:
    found: list[tuple[Signal, dict[str, Any]]] = []

    def listen(signal: Signal, **values: Any) -> None:
        values.pop("sender")
        found.append((signal, values))

    signals = (attempt_made, delivery_succeeded, delivery_failed, target_disabled)
    for signal in signals:
        signal.connect(listen)
    yield found
    for signal in signals:
        signal.disconnect(listen)


def test_signals_tell_what_was_recorded(owner: User, heard: list[tuple[Signal, dict[str, Any]]]) -> None:
    """Each attempt, each success, each end without one, and a target that is disabled are told."""
    target = register("http://127.0.0.1:9/", owner)
    fire_many(1, owner)

    deliver(200)
    fire_many(1, owner)
    deliver(410)

    assert [signal for signal, _ in heard] == [attempt_made, delivery_succeeded, attempt_made, delivery_failed, target_disabled]
    assert heard[0][1]["attempt"].status_code == 200
    assert heard[3][1]["delivery"].reason == "gone"
    assert (heard[4][1]["target"], heard[4][1]["reason"]) == (target, "gone")


def test_a_receiver_of_a_signal_that_raises_harms_nothing(owner: User) -> None:
    """An error in the application's receiver leaves the record as it is."""

    def fail(**_: Any) -> None:
        raise ValueError("from the application")

    register("http://127.0.0.1:9/", owner)
    fire_many(1, owner)
    attempt_made.connect(fail)
    try:
        deliver()
    finally:
        attempt_made.disconnect(fail)

    assert Delivery.objects.get().status == "succeeded"


def test_a_pause_stops_what_is_ready(owner: User) -> None:
    """A target that is paused gets nothing more, not even what its worker had taken already."""
    target = register("http://127.0.0.1:9/", owner, concurrency_limit=1)
    fire_many(10, owner)

    def answer(request: Request) -> Reply:
        WebhookTarget.objects.get(pk=target.pk).pause()
        return Reply(request.key, status=200)

    requests = deliver(answer)
    assert 1 <= len(requests) < 10
    assert WebhookTarget.objects.get(pk=target.pk).state == "paused"

    WebhookTarget.objects.get(pk=target.pk).resume()
    deliver()
    assert not Delivery.objects.pending().exists()


def test_stopping_finishes_what_is_in_flight(owner: User) -> None:
    """``stop`` takes nothing new; what is in flight is answered and recorded, and the lanes are free."""
    register("http://127.0.0.1:9/", owner, concurrency_limit=1)
    fire_many(5, owner)
    workers: list[Worker] = []

    def answer(request: Request) -> Reply:
        workers[0].stop()
        return Reply(request.key, status=200)

    workers.append(Worker(transport=MemoryTransport(answer), threaded=False))
    assert workers[0].run() == 1

    assert Delivery.objects.filter(status="succeeded").count() == 1
    assert not Lane.objects.exclude(holder=None).exists()
    assert not WorkerRow.objects.exists()


# -- in a process of the application ------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_worker_can_be_started_and_stopped() -> None:
    """It works in a thread, gives everything back at its end, and does not begin again."""
    owner = User.objects.create(username="owner")
    register("http://127.0.0.1:9/", owner)
    worker = Worker(transport=MemoryTransport())
    worker.start()
    worker.start()
    assert [thread.name for thread in threading.enumerate()].count("djwebhooks-worker") == 1

    fire_many(3, owner)
    wait_until(lambda: Delivery.objects.filter(status="succeeded").count() == 3, "all is sent")
    assert not worker.join(0)
    worker.stop()

    assert worker.join(30)
    assert not WorkerRow.objects.exists()
    with pytest.raises(RuntimeError, match="has ended"):
        worker.start()


@pytest.mark.django_db(transaction=True)
def test_a_worker_that_was_told_to_stop_is_not_started_again() -> None:
    """Neither one that has something to finish yet, nor one that has not begun: nobody would send, and nobody would know."""
    owner = User.objects.create(username="owner")
    register("http://127.0.0.1:9/", owner)
    is_sending, gate = threading.Event(), threading.Event()

    def hang(request: Request) -> Reply:
        is_sending.set()
        gate.wait(60)
        return Reply(request.key, status=200)

    working, new = Worker(transport=MemoryTransport(hang)), Worker(transport=MemoryTransport())
    working.start()
    fire_many(1, owner)
    assert is_sending.wait(30)
    for worker in (working, new):
        worker.stop()
        with pytest.raises(RuntimeError, match="was told to stop"):
            worker.start()
    gate.set()

    assert working.join(30)
    assert Delivery.objects.get().status == "succeeded"


def test_a_worker_that_was_never_started_has_ended() -> None:
    """There is nothing to wait for."""
    assert Worker(transport=MemoryTransport()).join()


IN_PROCESS = """
import sys, threading, time
import django; django.setup()
from django.contrib.auth.models import User
from django.db import transaction
from djwebhooks.events import fire
from djwebhooks.models import Delivery
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import Worker
sys.argv = sys.argv[1:]
worker = Worker(transport=MemoryTransport())
worker.start()
if worker.join(0):
    sys.exit("no worker")
with transaction.atomic():
    for _ in range(3):
        fire("thing.happened", 1, owner=User.objects.get())
while not Delivery.objects.exists():
    time.sleep(0.01)
"""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("command", "reloads", "works"),
    [
        ("check", "", True),
        ("runserver", "true", True),
        ("runserver --noreload", "", True),
        ("runserver", "", False),
    ],
)
def test_a_process_that_exits_ends_its_worker(
    process_environment: Callable[..., dict[str, str]], redis: str, command: str, reloads: str, works: bool
) -> None:
    """Its row is gone, and no lane is held; a process that only watches files for ``runserver`` has no worker."""
    register("http://127.0.0.1:9/", User.objects.create(username="owner"))
    script = [sys.executable, "-c", IN_PROCESS, "manage.py", *command.split()]
    environment = process_environment() | ({"RUN_MAIN": reloads} if reloads else {})

    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr.strip()) == ((0, "") if works else (1, "no worker"))
    assert Delivery.objects.count() == 3 * works
    assert not WorkerRow.objects.exists()
    assert not Lane.objects.exclude(holder=None).exists()


def test_a_worker_lingers_or_spends_its_budget(owner: User) -> None:
    """With *linger* or *budget* a worker ends by itself."""
    assert Worker(transport=MemoryTransport(), threaded=False, linger=0.0).run() == 0
    assert Worker(transport=MemoryTransport(), threaded=False, budget=0.0).run() == 0


def test_only_the_targets_that_were_named(owner: User) -> None:
    """A worker for some targets leaves the others' deliveries alone."""
    one, _ = register("http://127.0.0.1:9/a", owner), register("http://127.0.0.1:9/b", owner)
    fire_many(2, owner)

    assert work(burst=True, transport=MemoryTransport(), threaded=False, targets=[one.pk]) == 2

    assert set(Delivery.objects.pending().values_list("target__target_url", flat=True)) == {"http://127.0.0.1:9/b"}


# -- what people do while it works -------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


class KillAt:
    """Kills at one statement: the *number*-th, of those that begin with *prefix*."""

    def __init__(self, number: int, prefix: str = "") -> None:
        self.number = number
        self.prefix = prefix

    def __call__(self, execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        self.number -= plain(sql).startswith(self.prefix)
        if self.number == 0:
            self.number -= 1
            raise Killed
        return execute(sql, *arguments)


@pytest.mark.parametrize("number", range(14, 50, 2))
def test_a_target_that_is_put_in_order_and_back_strands_nothing(owner: User, number: int) -> None:
    """Wherever a worker is killed while it lines a lane up anew, the next one sends all of it, whichever order is wanted."""
    target = register("http://127.0.0.1:9/", owner)
    fire_many(4, owner)
    dispatch("default")
    target.is_ordered = True
    target.save()

    with suppress(Killed), connection.execute_wrapper(KillAt(number)):
        work(burst=True, transport=MemoryTransport(500), threaded=False)
    target.is_ordered = number % 4 == 0
    target.save()
    Delivery.objects.filter(due_at__isnull=False).update(due_at=DatabaseNow())
    work(burst=True, transport=MemoryTransport(), threaded=False)

    assert not Delivery.objects.pending().exists()


@pytest.mark.django_db(transaction=True)
def test_a_cancellation_that_is_interrupted_strands_nothing() -> None:
    """Who cancels more than a page and is killed in between leaves the rest to be sent, in its order."""
    target = register("http://127.0.0.1:9/", User.objects.create(username="owner"), is_ordered=True)
    make_deliveries(target, 1500, Status.PENDING)
    Lane.objects.update(is_ordered=True)

    with suppress(Killed), connection.execute_wrapper(KillAt(2, 'UPDATE "djw_lane"')):
        target.cancel_pending()

    assert Delivery.objects.filter(status=Status.CANCELLED).count() == 1000
    assert Delivery.objects.pending().filter(due_at__isnull=False).get().sequence == 1001


def test_a_retry_while_the_last_attempt_is_in_flight_counts(owner: User) -> None:
    """The attempt's failure does not end what somebody has just asked for."""
    register("http://127.0.0.1:9/", owner, retry_schedule=[])
    fire_many(1, owner)

    def answer(request: Request) -> Reply:
        if request.headers["webhook-attempt"] == "1":
            Delivery.objects.get().retry()
            return Reply(request.key, status=500)
        return Reply(request.key, status=200)

    assert len(deliver(answer)) == 2
    delivery = Delivery.objects.get()
    assert (delivery.status, delivery.attempt_count) == ("succeeded", 2)
    assert list(delivery.attempts.values_list("trigger", flat=True)) == ["event", "manual"]


@pytest.mark.parametrize("how", ["cancel", "delete", "deregister"])
def test_what_was_ready_is_not_sent_after_it_was_cancelled(owner: User, how: str) -> None:
    """A worker forgets what it has taken at its next poll, when somebody cancels it or deletes the target."""
    target = register("http://127.0.0.1:9/", owner, concurrency_limit=1)
    fire_many(5, owner)
    transport = MemoryTransport()
    worker = Worker(transport=transport, threaded=False)
    worker.enlist()
    for step in worker.steps:
        step()
    assert len(transport.requests) == 1

    if how == "cancel":
        target.cancel_pending()
    elif how == "delete":
        target.delete()
    else:
        WebhookTarget.objects.deregister(target.target_url, owner=owner)
    worker._next_poll = 0.0
    for step in worker.steps:
        step()

    assert len(transport.requests) == 1


def test_a_new_rate_limit_binds_what_is_ready(owner: User) -> None:
    """What was taken without a limit is taken anew under it."""
    target = register("http://127.0.0.1:9/", owner, concurrency_limit=1)
    fire_many(20, owner)
    transport = MemoryTransport()
    worker = Worker(transport=transport, threaded=False)
    worker.enlist()
    for step in worker.steps:
        step()
    target.rate_limit = 0.001
    target.save()

    worker._next_poll = 0.0
    for _ in range(5):
        for step in worker.steps:
            step()

    assert len(transport.requests) == 2


def test_dead_targets_do_not_lock_a_new_one_out(owner: User) -> None:
    """A worker that holds as many lanes as it may lets go of those that do not answer, and leases others."""
    for number in range(6):
        register(f"http://127.0.0.1:9/dead/{number}", owner)
    fire_many(3, owner)
    waiting = WaitingTransport()
    worker = Worker(transport=waiting, threaded=False)
    worker.enlist()
    for _ in range(3):
        for step in worker.steps:
            step()
    assert len(worker._held) == 4
    late = register("http://127.0.0.1:9/late", User.objects.create(username="late"))
    fire("thing.happened", {}, owner=late.owner)

    for _ in range(6):
        worker._next_poll = 0.0
        for step in worker.steps:
            step()
        if late.pk in worker._held:
            break

    assert late.pk in worker._held
    worker._next_poll = 0.0
    for step in worker.steps:
        step()
    assert not worker._has_more, "and they do not take turns without a pause"


class WaitingTransport(MemoryTransport):
    """Takes two requests, and answers none."""

    def __init__(self) -> None:
        super().__init__(concurrency=2)

    def submit(self, request: Request) -> None:
        self.requests.append(request)

    def wait(self, timeout: float) -> list[Reply]:
        return []
