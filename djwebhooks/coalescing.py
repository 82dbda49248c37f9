"""Let the newest of several events about one thing stand for all of them, where that was asked for."""

from collections.abc import Iterable
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
    COLUMNS = ("status", "reason", "finished_at", "coalesce_until", "coalesced_count", "replaced_by")

    def __init__(self, using: str, kinds: Iterable[Kind]) -> None:
        self._using = using
        self._places = {kind: Place() for kind in kinds}
        self._taken: dict[UUID, Place] = {}
        found = database.union_all(using, WAITING, sorted({(kind.target_id, kind.ordering_key) for kind in self._places}))
        of_event = database.read_many(using, Event, ("id", *Kind._fields[2:]), {event_id for _, event_id, _, _ in found})
        others = {event_id: values for event_id, *values in of_event}
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

        That is no later than any of its like would have been; and at once, if it would expire before.
        """
        place = self._taken[uid] = self._places[Kind.of(event, target_id)]
        until = place.add(Candidate(event.pk, uid), now + timedelta(seconds=event.coalesce or 0))
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
            return *row, Status.PENDING.value, "", None, None, 0, None
        if place.newest.uid != uid:
            return uid, *others, None, expires_at, Status.CANCELLED.value, COALESCED, now, None, 0, place.newest.uid
        due_at = due_at and place.until
        return uid, *others, due_at, expires_at, Status.PENDING.value, "", None, place.until, place.count, None

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


#: What newer deliveries may take the place of. No JOIN: to plan a hundred of them takes longer than to read the events apart.
WAITING = """
    SELECT id, event_id, target_id, ordering_key FROM djw_delivery
    WHERE target_id = %s AND ordering_key = %s AND status = 'pending' AND coalesce_until IS NOT NULL
"""
