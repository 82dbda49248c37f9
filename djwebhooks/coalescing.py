"""Let the newest of several events about one thing stand for all of them, where that was asked for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
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


@dataclass(slots=True)
class Place:
    """Where the newest of a kind goes."""

    #: What waits there already, by its ids, and when the first of it would have been sent.
    ids: list[int] = field(default_factory=list)
    until: datetime | None = None
    #: How many earlier events the newest stands for.
    count: int = 0
    #: The newest, by its uid.
    newest: UUID | None = None


class Places:
    """The places of these *kinds* in their lanes, which are locked. What some worker is sending has none any more."""

    #: What ``complete`` adds to a row.
    COLUMNS = ("status", "reason", "finished_at", "coalesce_until", "coalesced_count", "replaced_by")

    def __init__(self, using: str, kinds: Iterable[Kind]) -> None:
        self._using = using
        self._places = {kind: Place() for kind in kinds}
        self._kinds: dict[UUID, Kind] = {}
        found = database.union_all(using, WAITING, sorted({(kind.target_id, kind.ordering_key) for kind in self._places}))
        names = dict(database.read_many(using, Event, ("id", "name"), {event_id for _, event_id, _, _ in found}))
        kind_of = {pk: Kind(target_id, key, names.get(event_id, "")) for pk, event_id, target_id, key in found}
        ids = [pk for pk, kind in kind_of.items() if kind in self._places]
        columns = ("id", "status", "due_at", "coalesce_until", "coalesced_count")
        # Those that are locked are being claimed by a worker: too late.
        for pk, status, due_at, until, count in database.read_many(using, Delivery, columns, ids, lock=True):
            if status == Status.PENDING and until is not None:
                place = self._places[kind_of[pk]]
                place.ids.append(pk)
                place.until = min(filter(None, (place.until, due_at or until)))
                place.count += 1 + count

    def take(self, kind: Kind, uid: UUID, latest: datetime) -> datetime:
        """Give the place to a newer delivery, which waits until *latest* at most; return when it is due.

        That is no later than what it replaces would have been.
        """
        place = self._places[kind]
        place.count += place.newest is not None
        place.newest = uid
        place.until = min(filter(None, (place.until, latest)))
        self._kinds[uid] = kind
        return place.until

    def has_others(self, kind: Kind) -> bool:
        """Whether something that waited there ends now, so that what stood behind it may be due."""
        return bool(self._places[kind].ids)

    def complete(self, row: Row, now: datetime) -> tuple[Any, ...]:
        """Add the values of ``COLUMNS`` to a new delivery's, once all places are taken."""
        *others, _, expires_at = row
        kind = self._kinds.get(row[0])
        if kind is None:
            return *row, Status.PENDING.value, "", None, None, 0, None
        place = self._places[kind]
        if place.newest == row[0]:
            return *row, Status.PENDING.value, "", None, place.until, place.count, None
        return *others, None, expires_at, Status.CANCELLED.value, COALESCED, now, None, 0, place.newest

    def clear(self, now: datetime) -> None:
        """End what waited in these places."""
        places = self._places.values()
        pairs = [(place.newest, pk) for place in places if place.newest is not None for pk in place.ids]
        Delivery.objects.using(self._using).replace(pairs, now)


#: What newer deliveries may take the place of. No JOIN: to plan a hundred of them takes longer than to read the names apart.
WAITING = """
    SELECT id, event_id, target_id, ordering_key FROM djw_delivery
    WHERE target_id = %s AND ordering_key = %s AND status = 'pending' AND coalesce_until IS NOT NULL
"""
