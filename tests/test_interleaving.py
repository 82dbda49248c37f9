"""Two workers, a dispatcher, an application and a person, interleaved at every step of a worker's turn."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.events import fire
from djwebhooks.exceptions import AlreadyFinished
from djwebhooks.lanes import LeaseLost, lease_seconds
from djwebhooks.models import Attempt, Delivery, Dispatcher, Event, Lane, Subscription, WebhookTarget, Worker
from djwebhooks.models.deliveries import COALESCED, Status
from djwebhooks.transports.base import Reply, Request
from djwebhooks.worker import BEAT
from djwebhooks.worker import Worker as RunningWorker
from tests.builders import make_target

KEYS = ["a", "b", ""]
#: So many turns, and so many seconds, are enough for all that is left: what was resumed goes out at a rate.
LAST_TURNS, LAST_SECONDS = 200, 3 * BEAT
TABLES = [Attempt, Delivery, Event, Lane, Subscription, WebhookTarget, Worker, Dispatcher, User]


@dataclass
class Receiver:
    """Sees every request arrive, at every target."""

    arrived: list[Request] = field(default_factory=list)
    is_strict: bool = False

    def accept(self, request: Request) -> None:
        self.arrived.append(request)
        if self.is_strict and request.url.endswith("/ordered"):
            self.check_order(Delivery.objects.get(pk=request.key))

    def check_order(self, delivery: Delivery) -> None:
        before = Delivery.objects.pending().filter(target=delivery.target_id, ordering_key=delivery.ordering_key)
        assert not before.filter(sequence__lt=delivery.sequence).exists(), "nothing overtakes what is pending"


class Scripted:
    """A transport whose requests arrive at once, and are answered one at a time when the schedule says so."""

    concurrency = 3

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.waiting: list[Request] = []
        self.answered: list[Reply] = []

    def submit(self, request: Request) -> None:
        self.receiver.accept(request)
        self.waiting.append(request)

    def answer(self, status: int) -> None:
        if self.waiting:
            self.answered.append(Reply(self.waiting.pop(0).key, status=status))

    def wait(self, timeout: float) -> list[Reply]:
        replies, self.answered = self.answered, []
        return replies

    def wake(self) -> None: ...

    def abort(self) -> None:
        self.answered += [Reply(request.key, error="aborted") for request in self.waiting]
        self.waiting.clear()

    def close(self) -> None: ...


class World:
    """The application, its database and two workers, moved a step at a time."""

    def __init__(self) -> None:
        for table in TABLES:
            table.objects.all().delete()
        self.owner = User.objects.create(username="owner")
        self.targets = [
            make_target(self.owner, url=f"http://127.0.0.1/{name}", is_ordered=is_ordered, retry_schedule=[0] * 50)
            for name, is_ordered in [("ordered", True), ("loose", False)]
        ]
        self.receiver = Receiver()
        self.workers = [self.start(), self.start()]

    def start(self) -> RunningWorker:
        worker = RunningWorker(transport=Scripted(self.receiver), threaded=False)
        worker.enlist()
        return worker

    def step(self, number: int, step: int) -> None:
        worker = self.workers[number]
        try:
            worker._has_more = True
            worker.steps[step]()
        except LeaseLost:
            worker._start_anew()

    def answer(self, number: int, status: int) -> None:
        self.workers[number].transport.answer(status)

    def kill(self, number: int) -> None:
        """It vanishes with all it knew; the database finds out when its lease is over."""
        Worker.objects.filter(pk=self.workers[number].id).update(expires_at=DatabaseNow() - timedelta(seconds=1))
        self.workers[number] = self.start()

    def freeze(self, number: int) -> None:
        """Its lease is over, but it goes on as if nothing had happened."""
        worker = self.workers[number]
        Worker.objects.filter(pk=worker.id).update(expires_at=DatabaseNow() - timedelta(seconds=1))
        worker._anchor -= lease_seconds()
        self.workers[1 - number]._next_look = 0.0

    def fire(self, key: int) -> None:
        fire("thing.happened", {"n": Event.objects.count()}, owner=self.owner, ordering_key=KEYS[key])

    def change(self, key: int) -> None:
        fire("thing.changed", {"n": Event.objects.count()}, owner=self.owner, ordering_key=KEYS[key], coalesce=True)

    def retry(self, place: int) -> None:
        delivery = Delivery.objects.order_by("pk")[place : place + 1].first()
        if delivery is not None:
            delivery.retry()

    def cancel(self, place: int) -> None:
        delivery = Delivery.objects.order_by("pk")[place : place + 1].first()
        try:
            if delivery is not None:
                delivery.cancel()
        except AlreadyFinished:
            pass

    def toggle(self, number: int) -> None:
        target = WebhookTarget.objects.get(pk=self.targets[number].pk)
        target.resume() if not target.is_active else target.pause()

    def check(self) -> None:
        """What must hold at any moment."""
        for lane in Lane.objects.filter(holder__isnull=True):
            pending = Delivery.objects.filter(target=lane.pk).pending().filter(due_at__isnull=False)
            first = pending.order_by("due_at").first()
            if first is not None:
                assert lane.due_at is not None, "a lane with work is never forgotten"
                if lane.target.is_active and lane.disabled_at is None:
                    assert lane.due_at <= max(first.due_at, read_clock("default")), "nor looked at too late"
        for lane in Lane.objects.all():
            sequences = Delivery.objects.filter(target=lane.pk).order_by("sequence").values_list("sequence", flat=True)
            assert list(sequences) == list(range(1, lane.tail + 1))

    def finish(self) -> None:
        """Let everybody do all that is left to do."""
        for target in WebhookTarget.objects.filter(is_active=False):
            target.resume()
        for worker in self.workers:
            worker.transport.abort()
            Worker.objects.filter(pk=worker.id).update(expires_at=DatabaseNow() - timedelta(seconds=1))
        worker = self.start()
        turns, until = 0, time.monotonic() + LAST_SECONDS
        while turns < LAST_TURNS or time.monotonic() < until:
            turns += 1
            worker._has_more = True
            for step in worker.steps:
                step()
            while worker.transport.waiting:
                worker.transport.answer(200)
            if not Delivery.objects.pending().exists() and not Event.objects.waiting().exists() and not worker._held:
                break
        assert not Delivery.objects.pending().exists(), "nothing is lost, nothing stranded"
        worker._end()


STEPS = st.tuples(st.just("step"), st.integers(0, 1), st.integers(0, 9))
TURN = st.tuples(st.just("turn"), st.integers(0, 1))
ACTIONS = st.one_of(
    STEPS,
    TURN,
    st.tuples(st.just("fire"), st.integers(0, 2)),
    st.tuples(st.just("answer"), st.integers(0, 1), st.sampled_from([200, 200, 500])),
    st.tuples(st.just("kill"), st.integers(0, 1)),
    st.tuples(st.just("freeze"), st.integers(0, 1)),
    st.tuples(st.just("retry"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("toggle"), st.integers(0, 1)),
)
patient = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)


def play(world: World, script: list[tuple[str | int, ...]]) -> None:
    for name, *arguments in script:
        if name == "turn":
            for step in range(10):
                world.step(arguments[0], step)
        else:
            getattr(world, str(name))(*arguments)
        world.check()


@pytest.mark.django_db
@patient
@given(st.lists(ACTIONS, min_size=10, max_size=60))
def test_no_interleaving_loses_or_strands_a_delivery(script: list[tuple[str | int, ...]]) -> None:
    """Whatever two workers, deaths, retries, cancellations and pauses do in between: everything ends, sequences are whole."""
    world = World()

    play(world, script)
    world.finish()

    world.check()


ORDERLY = st.one_of(
    STEPS,
    TURN,
    st.tuples(st.just("fire"), st.integers(0, 2)),
    st.tuples(st.just("answer"), st.integers(0, 1), st.sampled_from([200, 200, 500])),
    st.tuples(st.just("kill"), st.integers(0, 1)),
    st.tuples(st.just("freeze"), st.integers(0, 1)),
)


@pytest.mark.django_db
@patient
@given(st.lists(ORDERLY, min_size=10, max_size=80))
def test_each_key_arrives_in_order_on_an_ordered_target(script: list[tuple[str | int, ...]]) -> None:
    """On an ordered target, nothing arrives before everything earlier of its key has arrived, whoever dies in between."""
    world = World()
    world.receiver.is_strict = True

    play(world, script)
    world.finish()

    key_of = {str(event.uid): (event.ordering_key, event.pk) for event in Event.objects.all()}
    arrived: dict[str, list[int]] = defaultdict(list)
    for request in world.receiver.arrived:
        if request.url.endswith("/ordered"):
            key, number = key_of[request.headers["webhook-id"]]
            if number not in arrived[key]:
                arrived[key].append(number)
    for key, numbers in arrived.items():
        assert numbers == sorted(numbers), key
        assert numbers == [event.pk for event in Event.objects.filter(ordering_key=key).order_by("pk")]


CHANGES = st.one_of(ORDERLY, *[st.tuples(st.just("change"), st.integers(0, 1))] * 3)


@pytest.mark.django_db
@patient
@given(st.lists(CHANGES, min_size=10, max_size=80))
def test_nothing_newer_takes_the_place_of_what_was_sent(script: list[tuple[str | int, ...]]) -> None:
    """Whoever dies in between: only what was never sent, or has failed, is replaced, and the newest is delivered."""
    world = World()
    world.receiver.is_strict = True

    play(world, script)
    world.finish()

    arrived: dict[int, set[str]] = defaultdict(set)
    for request in world.receiver.arrived:
        arrived[int(request.key)].add(request.headers["webhook-attempt"])
    for delivery in Delivery.objects.all():
        if delivery.reason == COALESCED:
            assert len(arrived[delivery.pk]) == delivery.attempt_count, "all of its attempts were recorded before"
            newer = Delivery.objects.get(uid=delivery.replaced_by)
            assert (newer.target_id, newer.ordering_key) == (delivery.target_id, delivery.ordering_key)
            assert newer.sequence > delivery.sequence
        else:
            assert delivery.status == Status.SUCCEEDED
    for target in world.targets:
        mine = Delivery.objects.filter(target=target, event__name="thing.changed")
        assert mine.filter(reason=COALESCED).count() == sum(
            mine.exclude(reason=COALESCED).values_list("coalesced_count", flat=True)
        )
        for key in KEYS:
            newest = mine.filter(ordering_key=key).order_by("-sequence").first()
            assert newest is None or newest.status == Status.SUCCEEDED, "and it is the newest that is delivered"


@pytest.mark.django_db
@patient
@given(st.lists(ORDERLY, min_size=10, max_size=80))
def test_a_duplicate_has_the_same_id_and_bytes(script: list[tuple[str | int, ...]]) -> None:
    """However often an event is sent, its id and its bytes are the same."""
    world = World()

    play(world, script)
    world.finish()

    bodies: dict[str, set[bytes]] = defaultdict(set)
    for request in world.receiver.arrived:
        bodies[request.headers["webhook-id"]].add(request.body)
    assert all(len(found) == 1 for found in bodies.values())
