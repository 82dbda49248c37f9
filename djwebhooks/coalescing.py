"""Let the newest of several events about one thing stand for all of them, where that was asked for."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self
from uuid import UUID

from djwebhooks import database
from djwebhooks.models import Delivery, Event
from djwebhooks.models.deliveries import COALESCED, Status

#: A new delivery, as dispatch inserts it: uid, event, target, sequence, ordering key, ``due_at``, ``expires_at``.
Row = tuple[UUID, int, int, int, str, datetime | None, datetime | None]


class Kind(NamedTuple):
    """What two deliveries must have in common for the newer to take the older one's place."""

    target_id: int
    ordering_key: str
    name: str
    owner: object
    identifier: str
    is_broadcast: bool

    @classmethod
    def of(cls, event: Event, target_id: int) -> Self:
        """The kind of *event*'s delivery to this target."""
        return cls(target_id, event.ordering_key, event.name, event.owner_id, event.identifier, event.is_broadcast)


class Candidate(NamedTuple):
    """A delivery that may have a place: the one of the newest event gets it."""

    event_id: int
    uid: UUID
    due_at: datetime | None = None


#: Older than any.
NOBODY = Candidate(0, UUID(int=0))


@dataclass(slots=True)
class Place:
    """Where the newest of a kind goes."""

    newest: Candidate = NOBODY
    #: Those that were there before this dispatch, by their ids.
    waiting: dict[int, Candidate] = field(default_factory=dict)
    #: When the first of all would have been sent.
    until: datetime | None = None
    #: How many events the newest stands for beside its own.
    count: int = -1

    def add(self, candidate: Candidate, until: datetime, stands_for: int = 0) -> datetime:
        """Let *candidate* have it if it is the newest; return when whichever is the newest is due."""
        self.newest = max(candidate, self.newest)
        self.count += 1 + stands_for
        self.until = min(until, self.until or until)
        return self.until


class Places:
    """The places of these *kinds* in their lanes, which are locked. What some worker is sending has none any more."""

    #: What ``complete`` adds to a row.
    COLUMNS = ("status", "reason", "finished_at", "is_replaceable", "coalesce_until", "coalesced_count", "replaced_by")

    def __init__(self, using: str, kinds: Iterable[Kind]) -> None:
        self._using = using
        self._places = {kind: Place() for kind in kinds}
        self._taken: dict[UUID, Place] = {}
        found = database.union_all(using, WAITING, sorted({(kind.target_id, kind.ordering_key) for kind in self._places}))
        others = _read_kinds(using, {event_id for _, event_id, _, _ in found})
        kind_of = {pk: Kind(target_id, key, *others[event_id]) for pk, event_id, target_id, key in found if event_id in others}
        ids = [pk for pk, kind in kind_of.items() if kind in self._places]
        columns = ("id", "event", "uid", "status", "due_at", "coalesce_until", "coalesced_count")
        # Those that are locked are being claimed by a worker: too late.
        for pk, event_id, uid, status, due_at, until, count in database.read_many(using, Delivery, columns, ids, lock=True):
            if status == Status.PENDING and until is not None:
                place = self._places[kind_of[pk]]
                place.waiting[pk] = Candidate(event_id, uid, due_at)
                place.add(place.waiting[pk], min(until, due_at or until), count)

    def take(self, event: Event, target_id: int, uid: UUID, now: datetime, expires_at: datetime | None) -> datetime:
        """Have *event*'s new delivery to a target compete for its place; return when whatever gets that is due.

        That is no later than any of its like would have been; and at once, if it would expire before. It waits from when it was
        fired, or planned for, as it may have been dispatched long after.
        """
        place = self._taken[uid] = self._places[Kind.of(event, target_id)]
        begins_at = min(now, event.deliver_at or event.created_at)
        until = place.add(Candidate(event.pk, uid), max(now, begins_at + timedelta(seconds=event.coalesce or 0)))
        if expires_at is not None and expires_at <= until:
            until = place.until = now
        return until

    def has_others(self, kind: Kind) -> bool:
        """Whether something waited there, so that what stood behind it may be due."""
        return bool(self._places[kind].waiting)

    def complete(self, row: Row, now: datetime) -> tuple[Any, ...]:
        """Add the values of ``COLUMNS`` to a new delivery's, once all have competed."""
        uid, *others, due_at, expires_at = row
        place = self._taken.get(uid)
        if place is None:
            return *row, Status.PENDING.value, "", None, False, None, 0, None
        if place.newest.uid != uid:
            return uid, *others, None, expires_at, Status.CANCELLED.value, COALESCED, now, True, None, 0, place.newest.uid
        due_at = due_at and place.until
        return uid, *others, due_at, expires_at, Status.PENDING.value, "", None, True, place.until, place.count, None

    def settle(self, now: datetime) -> None:
        """End what waited and is not the newest; if that waited too, it stands for older events that came late."""
        pairs, kept = [], []
        for place in self._places.values():
            for pk, candidate in place.waiting.items():
                if candidate != place.newest:
                    pairs.append((place.newest.uid, pk))
                else:
                    kept.append((candidate.due_at and place.until, place.until, place.count, pk))
        Delivery.objects.using(self._using).replace(pairs, now)
        columns = ("due_at", "coalesce_until", "coalesced_count")
        database.update_many(self._using, Delivery, columns, kept)


class Tried(NamedTuple):
    """What came of a delivery that something newer may take the place of: it is tried again, or, without a time, succeeded."""

    delivery_id: int
    event_id: int
    target_id: int
    ordering_key: str
    retry_at: datetime | None

    @property
    def line(self) -> tuple[int, str]:
        """Its target and ordering key."""
        return self.target_id, self.ordering_key


def end_outdated(using: str, tried: Collection[Tried], now: datetime) -> set[tuple[int, str]]:
    """End what has failed if something newer of its kind is pending, and what is older than what has succeeded.

    What came of those *tried* is written already, and their lanes are locked. Return the (target id, ordering key) pairs in which
    something has ended.
    """
    found = database.union_all(using, UNWANTED, sorted({one.line for one in tried}))
    others = _read_kinds(using, {event_id for _, event_id, _, _ in found}.union(one.event_id for one in tried))
    alike: dict[Kind, list[tuple[int, int]]] = defaultdict(list)
    for pk, event_id, target_id, key in found:
        if event_id in others:
            alike[Kind(target_id, key, *others[event_id])].append((event_id, pk))
    newer_of: dict[int, int] = {}
    # What succeeded last, as it may be newer than what is pending.
    for one in sorted(tried, key=lambda one: one.retry_at is None):
        pending = alike[Kind(*one.line, *others[one.event_id])] if one.event_id in others else []
        if one.retry_at is None:
            newer_of |= {pk: one.delivery_id for event_id, pk in pending if event_id < one.event_id}
        elif (one.event_id, one.delivery_id) in pending and max(pending)[1] != one.delivery_id:
            newer_of[one.delivery_id] = max(pending)[1]
    return _give_way(using, newer_of, {one.delivery_id: one.retry_at for one in tried}, now) if newer_of else set()


def _give_way(using: str, newer_of: dict[int, int], retries: dict[int, datetime | None], now: datetime) -> set[tuple[int, str]]:
    """End each delivery for a newer one, which is sent no later than it would have been; not if somebody has locked either."""
    columns = ("id", "uid", "target", "ordering_key", "status", "due_at", "coalesce_until", "coalesced_count")
    ids = {*newer_of, *newer_of.values()}
    rows = {pk: row for pk, *row in database.read_many(using, Delivery, columns, ids, lock=True)}
    pairs = [(older, newer) for older, newer in newer_of.items() if older in rows and newer in rows]
    changed = {}
    for older, newer in pairs:
        _, _, _, status, due_at, until, count = rows[newer]
        if status == Status.PENDING:
            if until is not None:  # Else it is being sent.
                until = min(until, retries[older] or until)
                due_at = due_at and until
            rows[newer][4:] = due_at, until, count + 1 + rows[older][6]
            changed[newer] = (*rows[newer][4:], newer)
    Delivery.objects.using(using).replace([(rows[newer][0], older) for older, newer in pairs], now)
    database.update_many(using, Delivery, ("due_at", "coalesce_until", "coalesced_count"), list(changed.values()))
    return {(rows[older][1], rows[older][2]) for older, _ in pairs}


def _read_kinds(using: str, event_ids: Collection[int]) -> dict[int, Sequence[Any]]:
    """What the kinds of these events' deliveries have beside a target and a key."""
    rows = database.read_many(using, Event, ("id", "coalesce", *Kind._fields[2:]), event_ids)
    return {pk: others for pk, coalesce, *others in rows if coalesce is not None}


#: What newer deliveries may take the place of. No JOIN: to plan a hundred of them takes longer than to read the events apart.
WAITING = """
    SELECT id, event_id, target_id, ordering_key FROM djw_delivery
    WHERE target_id = %s AND ordering_key = %s AND status = 'pending' AND coalesce_until IS NOT NULL
"""
#: What is out of date if there is something newer, whether it is being sent or not.
UNWANTED = """
    SELECT id, event_id, target_id, ordering_key FROM djw_delivery
    WHERE target_id = %s AND ordering_key = %s AND status = 'pending' AND is_replaceable
"""
