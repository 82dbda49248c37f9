"""Check the books: what the database says was done is what the receiver saw, once each, and in order."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status, Trigger
from tests.faults.ledger import Arrival, Key, Ledger
from tests.faults.world import ORDERED


@dataclass(frozen=True)
class Books:
    """What was in them."""

    events: int
    deliveries: int
    arrivals: int
    #: The attempts that arrived more than once, and how many times too often.
    repeated: Counter[Key]


def unrecorded(ledger: Ledger) -> set[Key]:
    """The attempts that have arrived and are not recorded: what was in flight, or answered, when a worker was killed."""
    ledger.settle()
    pending = Delivery.objects.pending().values_list("target__target_url", "event__uid", "attempt_count")
    return {(ledger.path_of(url), str(uid), count + 1) for url, uid, count in pending} & set(ledger.arrived)


def check_books(ledger: Ledger) -> Books:
    """Hold what is in the database, when all is done, against what arrived.

    Every target wants every event here. Who knows what was in flight when a worker was killed has to compare that with what
    is ``repeated``.
    """
    ledger.settle()
    check_all_is_done()
    check_deliveries()
    check_attempts(ledger)
    check_statuses(ledger)
    check_bodies(ledger)
    check_order(ledger)
    repeated = Counter({key: times - 1 for key, times in ledger.arrived.items() if times > 1})
    return Books(Event.objects.count(), Delivery.objects.count(), len(ledger.entries), repeated)


def check_all_is_done() -> None:
    """No event waits, no delivery is pending, no lane is held or due, and no worker is left."""
    assert list(Event.objects.waiting()) == []
    pending = list(Delivery.objects.pending().values_list("target__target_url", "sequence", "due_at", "reason"))
    assert not pending, f"{pending} in {list(Lane.objects.values())}"
    assert list(Worker.objects.all()) == []
    assert list(Lane.objects.exclude(holder=None).values_list("pk", "holder")) == []
    assert list(Lane.objects.exclude(due_at=None).values_list("pk", "due_at")) == []


def check_deliveries() -> None:
    """Each event has one delivery for each target, in sequences from 1 on without a gap."""
    targets = WebhookTarget.objects.values_list("pk", flat=True)
    events = Event.objects.values_list("pk", flat=True)
    assert Counter(Delivery.objects.values_list("event_id", "target_id")) == Counter((e, t) for e in events for t in targets)
    for lane in Lane.objects.all():
        sequences = Delivery.objects.filter(target_id=lane.pk).order_by("sequence").values_list("sequence", flat=True)
        assert list(sequences) == list(range(1, lane.tail + 1))


def check_attempts(ledger: Ledger) -> None:
    """A delivery's attempts are numbered from 1 on, and each of them arrived, if it was answered."""
    numbers: dict[int, list[int]] = defaultdict(list)
    for delivery_id, number in Attempt.objects.order_by("number").values_list("delivery_id", "number"):
        numbers[delivery_id].append(number)
    for pk, count in Delivery.objects.values_list("pk", "attempt_count"):
        assert numbers[pk] == list(range(1, count + 1))
    rows = Attempt.objects.values_list("url", "delivery__event__uid", "number")
    recorded = {(ledger.path_of(url), str(uid), number) for url, uid, number in rows}
    assert recorded.symmetric_difference(ledger.arrived) == set()


def check_statuses(ledger: Ledger) -> None:
    """What is called succeeded was answered with 2xx, and nothing else was; the events have their payloads."""
    answered_well = {entry.arrival.pair for entry in ledger.entries if is_success(entry.answer.status)}
    succeeded = Delivery.objects.filter(status=Status.SUCCEEDED).values_list("target__target_url", "event__uid")
    assert {(ledger.path_of(url), str(uid)) for url, uid in succeeded}.symmetric_difference(answered_well) == set()
    assert list(Event.objects.filter(payload="")) == []
    assert list(Event.objects.exclude(call="")) == []


def is_success(status: int | None) -> bool:
    return status is not None and 200 <= status < 300


def check_bodies(ledger: Ledger) -> None:
    """Every request of an event has the bytes that the database has."""
    bodies = {str(uid): bytes(content) for uid, content in Body.objects.values_list("event__uid", "content")}
    assert [entry.arrival for entry in ledger.entries if entry.arrival.body != bodies[entry.arrival.id]] == []


def check_order(ledger: Ledger) -> None:
    """On an ordered target nothing arrives before all that was fired before it, with its key, has arrived well.

    What did not succeed in the end steps aside, and what was tried again by hand goes when it is retried.
    """
    before = find_predecessors(ledger)
    arrived_well: set[tuple[str, str]] = set()
    seen: set[tuple[str, str]] = set()
    for entry in ledger.entries:
        pair = entry.arrival.pair
        if pair not in seen:
            assert before.get(pair) is None or before[pair] in arrived_well, describe(entry.arrival)
        seen.add(pair)
        if is_success(entry.answer.status):
            arrived_well.add(pair)


def find_predecessors(ledger: Ledger) -> dict[tuple[str, str], tuple[str, str]]:
    """The one before each delivery to an ordered target, in its key and in the order of the events."""
    ordered = [ledger.url_for(path) for path in ORDERED]
    rows = Delivery.objects.filter(target__target_url__in=ordered, status=Status.SUCCEEDED)
    rows = rows.exclude(attempts__trigger=Trigger.MANUAL).order_by("event_id")
    last: dict[tuple[str, str], tuple[str, str]] = {}
    before = {}
    for url, key, uid in rows.values_list("target__target_url", "ordering_key", "event__uid"):
        path = ledger.path_of(url)
        if (path, key) in last:
            before[path, str(uid)] = last[path, key]
        last[path, key] = path, str(uid)
    return before


def describe(arrival: Arrival) -> str:
    return f"{arrival.path}: {arrival.id}, attempt {arrival.attempt}, sequence {arrival.headers['webhook-sequence']}"
