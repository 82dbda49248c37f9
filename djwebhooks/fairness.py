"""Share the transport's slots among targets, so that nobody waits for somebody else's slow server."""

import time
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

from djwebhooks.transports.base import Reply
from djwebhooks.work import Flight, Held, Work

#: Requests in flight that a target may have after its first answer, and how many more each answer allows.
FIRST_SHARE, SHARE_STEP = 4, 3
#: Seconds in flight after which a target counts as slow.
SLOW = 1.0
#: The part of the slots that one target may have, that slow ones may have between them, and that these may have together
#: with untried ones. The rest is for those that have answered fast.
ONE_PART, SLOW_PART, RISKY_PART = 1 / 2, 1 / 2, 3 / 4
#: Targets whose pace is remembered.
PACES = 10_000


@dataclass(slots=True)
class Pace:
    """How a target has been answering, as far as this worker knows."""

    share: int = 1
    is_tried: bool = False
    is_slow: bool = False

    @property
    def is_risky(self) -> bool:
        return self.is_slow or not self.is_tried

    def note(self, reply: Reply) -> None:
        """Learn from a reply: each answer allows more requests at once, the lack of one only one."""
        self.is_tried = True
        self.is_slow = reply.status is None or reply.duration > SLOW
        self.share = 1 if reply.status is None else max(FIRST_SHARE, self.share + SHARE_STEP)


class Paces:
    """The paces of the targets that were seen last."""

    def __init__(self) -> None:
        self._paces: OrderedDict[int, Pace] = OrderedDict()

    def __getitem__(self, target_id: int) -> Pace:
        pace = self._paces.get(target_id)
        if pace is not None:
            self._paces.move_to_end(target_id)
            return pace
        pace = self._paces[target_id] = Pace()
        if len(self._paces) > PACES:
            self._paces.popitem(last=False)
        return pace


class Usage:
    """What is in flight now, and who may have one more. *flights* are in the order in which they started."""

    def __init__(self, flights: Collection[Flight], paces: Paces, concurrency: int) -> None:
        self._paces = paces
        self._one_room = part(concurrency, ONE_PART)
        self._slow_room = part(concurrency, SLOW_PART)
        self._risky_room = part(concurrency, RISKY_PART)
        self._counts: dict[int, int] = defaultdict(int)
        slow_before = time.monotonic() - SLOW
        for flight in takewhile(lambda flight: flight.started < slow_before, flights):
            paces[flight.work.target_id].is_slow = True
        self._keys = {(flight.work.target_id, flight.work.ordering_key) for flight in flights}
        for target_id, count in Counter(flight.work.target_id for flight in flights).items():
            self._count(target_id, count)

    def has_room(self, target_id: int, limit: int | None) -> bool:
        """Whether the target, whose people set *limit*, may have one more request in flight."""
        pace = self._paces[target_id]
        if self._counts[target_id] >= min(pace.share, limit or self._one_room):
            return False
        if pace.is_slow and self._slow_room <= 0:
            return False
        return not pace.is_risky or self._risky_room > 0

    def is_free(self, work: Work) -> bool:
        """Whether nothing of the work's ordering key is on its way."""
        return (work.target_id, work.ordering_key) not in self._keys

    def add(self, work: Work) -> None:
        """Count a request that is about to be in flight."""
        self._count(work.target_id, 1)
        self._keys.add((work.target_id, work.ordering_key))

    def _count(self, target_id: int, count: int) -> None:
        pace = self._paces[target_id]
        self._counts[target_id] += count
        self._slow_room -= pace.is_slow * count
        self._risky_room -= pace.is_risky * count


def part(concurrency: int, share: float) -> int:
    return max(1, int(concurrency * share))


def choose(lanes: Mapping[int, Held], usage: Usage, room: int, now: datetime) -> Iterator[Work]:
    """Take up to *room* works off the lanes' ready ones: a round over the lanes at a time, within each target's share.

    The share is kept strictly here, where requests are handed over: a cap on what is taken from the database would still
    let one slow target fill the transport.
    """
    places = {pk: 0 for pk, held in lanes.items() if held.ready}
    while room > 0 and places:
        for pk in list(places):
            place = find_next(lanes[pk], places[pk], usage, now) if room > 0 else None
            if place is None:
                del places[pk]
                continue
            work = lanes[pk].ready[place]
            del lanes[pk].ready[place]
            places[pk] = place
            usage.add(work)
            lanes[pk].space(now)
            room -= 1
            yield work


def find_next(held: Held, start: int, usage: Usage, now: datetime) -> int | None:
    """Where in the lane's ready works the next one stands that may be sent, from *start* on."""
    is_waiting = held.asker is not None or held.is_spaced(now)
    if not held.is_open or is_waiting or not usage.has_room(held.target_id, held.limit()):
        return None
    for place in range(start, len(held.ready)):
        work = held.ready[place]
        if held.not_before.get(work.delivery_id, now) > now:
            return None
        if not held.is_ordered or usage.is_free(work):
            return place
    return None
