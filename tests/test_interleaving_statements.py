"""Two operations on the same rows, interleaved statement by statement by a scheduler that draws lots."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections

from djwebhooks import database, dispatch, lanes, messages
from djwebhooks.build import build
from djwebhooks.decorators import hook
from djwebhooks.erasure import erase
from djwebhooks.events import fire
from djwebhooks.exceptions import AlreadyDispatched, AlreadyFinished, DeletedTarget, ErasedEvent
from djwebhooks.lanes import Held, LeaseLost, Outcome, Sent, Work
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Subject, WebhookTarget, Worker
from djwebhooks.models.deliveries import COALESCED

DB = "default"
#: Seconds without a sign of life after which an operation is taken to wait for the other one's lock.
BLOCKED = 0.05
ROUNDS = range(12)
#: What an operation may raise because the other one was faster.
EXPECTED = (LeaseLost, AlreadyDispatched, AlreadyFinished, ErasedEvent)

pytestmark = pytest.mark.django_db(transaction=True)


class Operation(threading.Thread):
    """Runs a function on a connection of its own, one statement at a time, when it is let."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self.function = function
        self.result: Any = None
        self.error: BaseException | None = None
        self._may_go = threading.Semaphore(0)
        self._arrived = threading.Semaphore(0)

    def run(self) -> None:
        try:
            with self._gated():
                self._gate()
                self.result = self.function()
        except BaseException as error:  # noqa: BLE001 (raised again by interleave)
            self.error = error
        finally:
            connections.close_all()
            self._arrived.release()

    @contextmanager
    def _gated(self) -> Iterator[None]:
        mine = connections[DB]
        commit = mine.commit

        def gated_commit() -> None:
            self._gate()
            commit()

        def gate_statement(execute: Callable[..., Any], *arguments: Any) -> Any:
            self._gate()
            return execute(*arguments)

        mine.commit = gated_commit  # type: ignore[method-assign]  # a point to stop at, on this thread's connection alone
        with mine.execute_wrapper(gate_statement):
            yield

    def _gate(self) -> None:
        self._arrived.release()
        self._may_go.acquire()

    def advance(self) -> None:
        """Let it run to its next statement, or until it waits for a lock."""
        self._may_go.release()
        self._arrived.acquire(timeout=BLOCKED)


def interleave(seed: int, *functions: Callable[[], Any]) -> list[Operation]:
    """Run the functions at once, in an order of statements that *seed* chooses."""
    lots = random.Random(seed)
    operations = [Operation(function) for function in functions]
    for operation in operations:
        operation.start()
        operation._arrived.acquire()
    # In some orders one is nearly done before the other begins, in others they take turns.
    eagerness = {operation: lots.random() ** 2 for operation in operations}
    while alive := [operation for operation in operations if operation.is_alive()]:
        lots.choices(alive, [eagerness[operation] + 0.01 for operation in alive])[0].advance()
    for operation in operations:
        operation.join()
        if operation.error is not None and not isinstance(operation.error, EXPECTED):
            raise operation.error
    return operations


# -- a target with two workers -----------------------------------------------------------------------------------------


@pytest.fixture
def target() -> WebhookTarget:
    owner = User.objects.create(username="owner")
    return WebhookTarget.objects.register("http://127.0.0.1/", ["*"], owner=owner, is_ordered=True)


def fire_and_dispatch(target: WebhookTarget, key: str = "k") -> Delivery:
    event = fire("thing.happened", {}, owner=target.owner, ordering_key=key)
    dispatch.dispatch(DB)
    return Delivery.objects.get(event=event)


def enlist() -> int:
    number = lanes.enlist(DB, "test", "here")
    assert isinstance(number, int)
    return number


def hold(worker: int) -> Held:
    (held,) = lanes.lease(DB, worker, 1)
    return held


def take(held: Held) -> list[Work]:
    return lanes.take(DB, {held.target_id: 10}, {held.target_id: held}, database.read_clock(DB))


def outcome(work: Work, status: str = "succeeded", code: int = 200) -> Outcome:
    now = database.read_clock(DB)
    sent = Sent("http://127.0.0.1/", now, 0.1, code, {}, "", "", "", "127.0.0.1")
    return Outcome(work, status, due_at=now if status == "pending" else None, sent=sent)


def record(worker: int, *outcomes: Outcome) -> Callable[[], Any]:
    return lambda: lanes.record(DB, worker, outcomes, database.read_clock(DB))


def record_at_last(worker: int, *outcomes: Outcome) -> Callable[[], None]:
    """Record, again and again where the lane is locked for longer than a moment, as a worker does."""

    def record_until_done() -> None:
        todo = list(outcomes)
        while todo:
            todo = lanes.record(DB, worker, todo, database.read_clock(DB)).postponed

    return record_until_done


def release(worker: int, held: Held) -> Callable[[], set[int]]:
    def look_and_release() -> set[int]:
        take(held)
        return lanes.release(DB, worker, [held], database.read_clock(DB))

    return look_and_release


def assert_awake(target: WebhookTarget) -> None:
    """Whatever is due is seen by somebody: the lane is held, or due no later than now."""
    lane = Lane.objects.get(pk=target.pk)
    due = Delivery.objects.pending().filter(target=target, due_at__lte=database.read_clock(DB))
    if lane.holder is None and due.exists():
        assert lane.due_at is not None
        assert lane.due_at <= database.read_clock(DB)


def assert_one_head(target: WebhookTarget) -> None:
    """Of each key's pending deliveries the first, and no other, has a time."""
    pending = Delivery.objects.pending().filter(target=target).order_by("sequence")
    heads: dict[str, bool] = {}
    for delivery in pending:
        assert (delivery.due_at is not None) == (delivery.ordering_key not in heads)
        heads[delivery.ordering_key] = True


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_retry_is_not_slept_on(target: WebhookTarget, seed: int) -> None:
    """A retry that commits while the lane is being released wakes it."""
    delivery = fire_and_dispatch(target)
    worker = enlist()
    held = hold(worker)
    (work,) = take(held)
    record(worker, outcome(work, "failed", 500))()

    interleave(seed, release(worker, held), delivery.retry)

    assert_awake(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_an_append_is_not_slept_on(target: WebhookTarget, seed: int) -> None:
    """An event that is dispatched while the lane is being released wakes it."""
    fire_and_dispatch(target)
    worker = enlist()
    held = hold(worker)
    (work,) = take(held)
    record(worker, outcome(work))()
    fire("thing.happened", {}, owner=target.owner, ordering_key="k")

    interleave(seed, release(worker, held), lambda: dispatch.dispatch(DB))
    dispatch.dispatch(DB)  # Had the lane been locked for too long, the event has been left for the next turn.

    assert Delivery.objects.count() == 2
    assert_awake(target)
    assert_one_head(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_successor_is_lined_up(target: WebhookTarget, seed: int) -> None:
    """A delivery that is appended while the head of its key is recorded becomes due, now or after it."""
    fire_and_dispatch(target)
    worker = enlist()
    (work,) = take(hold(worker))
    fire("thing.happened", {}, owner=target.owner, ordering_key="k")

    interleave(seed, record_at_last(worker, outcome(work)), lambda: dispatch.dispatch(DB))
    dispatch.dispatch(DB)

    assert_one_head(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_lost_lease_records_nothing_after_the_thief(target: WebhookTarget, seed: int) -> None:
    """Of the old holder and the one who takes its lane, only one records, and the lane ends with one holder."""
    fire_and_dispatch(target)
    old, thief = enlist(), enlist()
    (work,) = take(hold(old))
    Worker.objects.filter(pk=old).update(expires_at=database.DatabaseNow() - timedelta(seconds=1))

    def steal() -> list[Work]:
        lanes.reap(DB)
        return [work for held in lanes.lease(DB, thief, 1) for work in take(held)]

    _, stolen = interleave(seed, record_at_last(old, outcome(work)), steal)

    is_recorded = Attempt.objects.exists()
    assert is_recorded == (Delivery.objects.get().status == "succeeded")
    assert not (is_recorded and stolen.result), "what the thief sends is not ours to record any more"


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_cancellation_and_a_record_agree(target: WebhookTarget, seed: int) -> None:
    """A delivery that is cancelled while its failure is recorded stays cancelled, with its attempt, and its key goes on."""
    delivery = fire_and_dispatch(target)
    fire_and_dispatch(target)
    worker = enlist()
    (work,) = take(hold(worker))

    interleave(seed, record_at_last(worker, outcome(work, "pending", 500)), delivery.cancel)

    delivery.refresh_from_db()
    assert delivery.status == "cancelled"
    assert delivery.attempt_count == 1
    assert_one_head(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_lane_has_one_holder(target: WebhookTarget, seed: int) -> None:
    """Two workers that lease at once never both get a lane."""
    fire_and_dispatch(target)
    first, second = enlist(), enlist()

    one, other = interleave(seed, lambda: lanes.lease(DB, first, 9), lambda: lanes.lease(DB, second, 9))

    assert len(one.result) + len(other.result) == 1


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_worker_that_is_struck_off_takes_no_lane(target: WebhookTarget, seed: int) -> None:
    """A lane that is leased while its new holder is being reaped is free afterwards, or held by a worker that lives."""
    fire_and_dispatch(target)
    frozen = enlist()
    Worker.objects.filter(pk=frozen).update(expires_at=database.DatabaseNow() - timedelta(seconds=1))

    interleave(seed, lambda: lanes.lease(DB, frozen, 1), lambda: lanes.reap(DB))

    lane = Lane.objects.get()
    assert lane.holder is None or Worker.objects.filter(pk=lane.holder).exists()
    assert_awake(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_two_dispatchers_make_one_delivery_each(target: WebhookTarget, seed: int) -> None:
    """Two dispatchers at once leave one delivery per event, with sequences from 1 on."""
    for _ in range(3):
        fire("thing.happened", {}, owner=target.owner, ordering_key="k")

    interleave(seed, lambda: dispatch.dispatch(DB), lambda: dispatch.dispatch(DB))
    dispatch.dispatch(DB)

    assert list(Delivery.objects.order_by("event_id").values_list("sequence", flat=True)) == [1, 2, 3]
    assert_one_head(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_an_event_is_taken_back_or_sent(target: WebhookTarget, seed: int) -> None:
    """Of who cancels an event and who dispatches it, one comes first, and the other one sees it; what is behind it goes on."""
    event = fire("thing.happened", {}, owner=target.owner, ordering_key="k")
    fire("thing.happened", {}, owner=target.owner, ordering_key="k")

    cancelling, _ = interleave(seed, event.cancel, lambda: dispatch.dispatch(DB))
    dispatch.dispatch(DB)

    is_sent = Delivery.objects.filter(event=event).exists()
    assert is_sent == isinstance(cancelling.error, AlreadyDispatched) == Event.objects.filter(pk=event.pk).exists()
    assert Delivery.objects.exclude(event=event).count() == 1
    assert_one_head(target)
    assert_awake(target)


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_target_deleted_during_dispatch_leaves_nothing_pending(target: WebhookTarget, seed: int) -> None:
    """A target that is deleted while an event is dispatched to it: what it got is cancelled, at the latest by a worker."""
    fire("thing.happened", {}, owner=target.owner)

    interleave(seed, lambda: dispatch.dispatch(DB), lambda: WebhookTarget.objects.get(pk=target.pk).delete())

    worker = enlist()
    for held in lanes.lease(DB, worker, 9):
        assert take(held) == []
    assert not Delivery.objects.pending().exists()
    assert not Lane.objects.exists()


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_deletion_and_a_pause_do_not_wait_for_each_other(target: WebhookTarget, seed: int) -> None:
    """Both lock the target before its lane, so neither has to fail."""
    fire_and_dispatch(target)
    same = WebhookTarget.objects.get(pk=target.pk)

    def pause_if_it_is_there() -> None:
        with suppress(DeletedTarget):
            same.pause()

    interleave(seed, target.delete, pause_if_it_is_there)

    assert not WebhookTarget.objects.exists()
    assert not Delivery.objects.pending().exists()


@pytest.mark.parametrize("seed", ROUNDS)
def test_one_idempotency_key_is_one_event(target: WebhookTarget, seed: int) -> None:
    """Two calls with one idempotency key at once return the same event."""

    def fire_once() -> Event:
        return fire("thing.happened", {"n": 1}, owner=target.owner, idempotency_key="once")

    one, other = interleave(seed, fire_once, fire_once)

    assert one.result.pk == other.result.pk
    assert Event.objects.count() == 1


@pytest.mark.parametrize("seed", ROUNDS)
def test_what_is_being_sent_is_not_replaced(target: WebhookTarget, seed: int) -> None:
    """Of a worker that sends a delivery and a dispatcher that has something newer, one comes first, and the other one sees it."""
    for number in range(3):
        fire("thing.changed", {}, owner=target.owner, ordering_key=str(number), coalesce=True)
    dispatch.dispatch(DB)
    works = take(hold(enlist()))
    for number in range(3):
        fire("thing.changed", {}, owner=target.owner, ordering_key=str(number), coalesce=True)

    claiming, _ = interleave(seed, lambda: lanes.claim(DB, {work.delivery_id for work in works}), lambda: dispatch.dispatch(DB))
    dispatch.dispatch(DB)

    claimed, ended = claiming.result
    replaced = set(Delivery.objects.filter(reason=COALESCED).values_list("pk", flat=True))
    assert replaced == {work.delivery_id for work in works} - claimed
    assert ended <= replaced, "what was locked at that moment is left for the next one"
    assert_one_head(target)
    assert_awake(target)


# -- erasing -----------------------------------------------------------------------------------------------------------

#: What must not be found anywhere once it is erased.
NAME = "Wilhelmina Crusoe"


@hook("thing.told")
def thing_told(owner: User) -> dict[str, str]:
    return {"name": NAME}


def erase_owner(target: WebhookTarget) -> Callable[[], Any]:
    return lambda: erase(User(pk=target.owner_id))


def assert_erased() -> None:
    """Nothing is left of what was said and answered, and nothing waits to be sent."""
    rows = [list(model._base_manager.values()) for model in (Event, Body, Delivery, Attempt)]
    assert NAME not in str(rows)
    assert Event.objects.get().erased_at is not None
    assert not Delivery.objects.pending().exists()
    assert not Event.objects.waiting().exists()


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_build_writes_nothing_back(target: WebhookTarget, seed: int) -> None:
    """A payload that is built while its event is erased is not kept."""
    event = thing_told(owner=target.owner)
    dispatch.dispatch(DB)

    interleave(seed, lambda: build(DB, event.pk), erase_owner(target))

    assert_erased()


@pytest.mark.parametrize("seed", ROUNDS)
def test_no_body_is_written_after_the_erasure(target: WebhookTarget, seed: int) -> None:
    """A worker that has read the payload before writes no body after it; what it got to send it may send."""
    fire("thing.told", {"name": NAME}, owner=target.owner)
    dispatch.dispatch(DB)
    held = hold(enlist())
    works = take(held)

    sending, _ = interleave(
        seed,
        lambda: messages.prepare(DB, works, {held.target_id: held}, database.read_clock(DB)),
        erase_owner(target),
    )

    assert_erased()
    ended = [(outcome.status, outcome.reason) for outcome in sending.result.outcomes]
    assert len(sending.result.ready) + len(ended) == 1
    assert set(ended) <= {("cancelled", "erased")}


@pytest.mark.parametrize("status", ["succeeded", "pending"])
@pytest.mark.parametrize("seed", ROUNDS)
def test_no_answer_comes_back_after_the_erasure(target: WebhookTarget, seed: int, status: str) -> None:
    """What is recorded while, or after, its event is erased has neither headers nor body; that it was sent is recorded."""
    fire("thing.told", {"name": NAME}, owner=target.owner)
    dispatch.dispatch(DB)
    worker = enlist()
    (work,) = take(hold(worker))
    result = outcome(work, status)
    assert result.sent is not None
    result = result._replace(sent=result.sent._replace(response_headers={"x": NAME}, response_body=NAME, detail=NAME))

    interleave(seed, record_at_last(worker, result), erase_owner(target))

    assert_erased()
    assert Attempt.objects.get().status_code == 200
    assert Delivery.objects.get().status in ("cancelled", "succeeded")


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_dispatch_finds_what_it_dispatched_erased(target: WebhookTarget, seed: int) -> None:
    """An event that is dispatched while it is erased leaves nothing that waits."""
    fire("thing.told", {"name": NAME}, owner=target.owner, ordering_key=NAME)

    interleave(seed, lambda: dispatch.dispatch(DB), erase_owner(target))
    dispatch.dispatch(DB)

    assert_erased()


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_subject_is_found_while_its_event_is_dispatched(target: WebhookTarget, seed: int) -> None:
    """Whether it is still in the event's row or in the index already, the event is found."""
    other = User.objects.create(username="other")
    fire("thing.told", {"name": NAME}, owner=target.owner, subjects=[other])

    interleave(seed, lambda: dispatch.dispatch(DB), lambda: erase(other))

    assert_erased()
    assert not Subject.objects.exists()


@pytest.mark.parametrize("seed", ROUNDS)
def test_a_retry_does_not_bring_back_what_is_erased(target: WebhookTarget, seed: int) -> None:
    """A delivery that somebody retries while its event is erased ends cancelled, or is refused."""
    fire("thing.told", {"name": NAME}, owner=target.owner)
    dispatch.dispatch(DB)
    worker = enlist()
    (work,) = take(hold(worker))
    record(worker, outcome(work, "failed", 500))()

    interleave(seed, Delivery.objects.get().retry, erase_owner(target))

    assert_erased()
    assert_awake(target)


def test_the_scheduler_can_find_a_race(target: WebhookTarget) -> None:
    """The lots do interleave: an increment that reads first and writes later loses an update in some order."""
    fire_and_dispatch(target)

    def increment() -> None:
        lane = Lane.objects.get(pk=target.pk)
        Lane.objects.filter(pk=target.pk).update(tail=lane.tail + 1)

    lost = 0
    for seed in range(10):
        Lane.objects.filter(pk=target.pk).update(tail=0)
        interleave(seed, increment, increment)
        lost += Lane.objects.get(pk=target.pk).tail == 1

    assert lost, connection.vendor
