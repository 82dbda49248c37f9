"""The worker: dispatch, lease, send and record, over and over, in one thread."""

import logging
import os
import socket
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError, connections
from django.utils.module_loading import import_string

from djwebhooks import dispatch, lanes, messages
from djwebhooks.build import Builder, InlineBuilder
from djwebhooks.conf import conf
from djwebhooks.database import DatabaseClock
from djwebhooks.lanes import Held, LeaseLost, Outcome, Recorded, Work
from djwebhooks.models import Attempt, Delivery, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import events_database
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded, target_disabled
from djwebhooks.transports.base import Reply, Transport

logger = logging.getLogger(__name__)

#: Seconds between heartbeats, and between looks for workers that died.
BEAT = 5.0
#: Seconds between polls for new work: at least so many, and so many times what a poll costs.
POLL, POLL_SHARE = 0.1, 20
#: Seconds that results may wait to be recorded together, and how many go at once.
FLUSH, FLUSH_SIZE = 0.03, 500
#: Lanes that one worker leases at most, and due deliveries that it keeps ready for one of them.
LANES, READY = 1000, 200
#: Requests in flight that a target may have after its first answer, and how many more each answer allows.
FIRST_SHARE, SHARE_STEP = 4, 2
#: Seconds in flight after which a target counts as slow.
SLOW = 1.0
#: The part of the slots that slow targets may have between them, and that they may have together with untried ones: the
#: rest is for those that have answered fast, so that nobody waits for somebody else's slow server.
SLOW_PART, RISKY_PART = 1 / 2, 3 / 4
#: Targets whose pace is remembered.
PACES = 10_000
#: The longest pause, in seconds, after a database error.
LONGEST_PAUSE = 5.0


@dataclass(slots=True)
class Flight:
    """A request on its way."""

    work: Work
    target: WebhookTarget
    started_at: datetime
    started: float


@dataclass(slots=True)
class Pace:
    """How a target has been answering, as far as this worker knows."""

    share: int = 1
    is_tried: bool = False
    is_slow: bool = False

    def note(self, reply: Reply) -> None:
        """Learn from a reply: each answer allows more requests at once, and its lack only one."""
        self.is_tried = True
        self.is_slow = reply.status is None or reply.duration > SLOW
        self.share = 1 if reply.status is None else max(FIRST_SHARE, self.share + SHARE_STEP)


class Worker:
    """Sends what is due until it is told to stop.

    *using* is the events' database, *transport* what sends, *concurrency* the requests in flight. With *burst* it ends when
    nothing is due any more, with *budget* after about so many seconds, with *linger* after so many seconds without work.
    *targets* limits it to these targets' ids. *threaded* builds payloads in threads of their own; without, at once and in the
    caller's transaction, as tests want it. *name* says what it is part of, and *most* how many of that name may work at once.
    """

    def __init__(
        self,
        *,
        using: str | None = None,
        transport: Transport | None = None,
        concurrency: int | None = None,
        burst: bool = False,
        budget: float | None = None,
        linger: float | None = None,
        targets: Collection[int] | None = None,
        threaded: bool = True,
        name: str = "worker",
        most: int | None = None,
    ) -> None:
        self.using = using or events_database()
        self.transport = transport or make_transport(concurrency)
        self.burst = burst
        self.budget = budget
        self.linger = linger
        self.targets = targets
        self.name = name
        self.most = most
        #: When there may be room for another worker of this name, if there was none.
        self.retry_enlisting_at: datetime | None = None
        self.builder = Builder(self.using, self.transport.wake) if threaded else InlineBuilder(self.using)
        self.recorded = 0
        self._is_stopping = False
        self._forget()
        self._paces: OrderedDict[int, Pace] = OrderedDict()

    def _forget(self) -> None:
        """Know of no lane and no work, as at the start."""
        self._held: dict[int, Held] = {}
        self._ready: dict[int, deque[Work]] = defaultdict(deque)
        self._known: dict[int, set[int]] = defaultdict(set)
        self._not_before: dict[int, datetime] = {}
        self._drained: set[int] = set()
        self._stale: set[int] = set()
        self._flights: dict[int, Flight] = {}
        self._building: dict[int, list[Work]] = {}
        self._outcomes: list[Outcome] = []
        self._oldest_outcome = 0.0
        self._next_poll = 0.0
        self._has_more = True

    # -- running --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take nothing new, let what is in flight finish, record it and end. Safe in signal handlers and other threads."""
        self._is_stopping = True
        self.transport.wake()

    def run(self) -> int:
        """Work until stopped, or as *burst*, *budget* or *linger* say; return how many outcomes were recorded."""
        if not self.enlist():
            self._close()
            return 0
        started = time.monotonic()
        pause = 0.0
        try:
            while not self._is_done():
                if self.budget is not None and time.monotonic() - started > self.budget:
                    self._is_stopping = True
                try:
                    for step in self.steps:
                        step()
                    pause = 0.0
                except LeaseLost:
                    self._start_anew()
                except (DatabaseError, InterfaceError):
                    if connections[self.using].in_atomic_block:
                        raise  # It is somebody else's transaction, and broken.
                    pause = min(max(0.1, pause * 2), LONGEST_PAUSE)
                    logger.exception("The database failed; the worker goes on in %s seconds.", pause)
                    # What is in flight goes on, and is recorded if the lease still holds then.
                    connections[self.using].close_if_unusable_or_obsolete()
                    self._drop_ready(list(self._held))
                    time.sleep(pause)
        finally:
            self._end()
        return self.recorded

    def _is_done(self) -> bool:
        if self._flights or self._outcomes:
            return False
        if self._is_stopping:
            return True  # A function that hangs is not waited for.
        if self._building or self._held or self._has_more:
            return False
        idle = time.monotonic() - self._last_work
        return self.burst or (self.linger is not None and idle >= self.linger)

    @property
    def steps(self) -> tuple[Callable[[], None], ...]:
        """What a turn does, one after the other. Between any two of them, others may do anything."""
        return (
            self._keep_lease,
            self._poll,
            self._take,
            self._see_builds,
            self._hand_over,
            self._collect,
            self._record,
            self._release,
        )

    def _end(self) -> None:
        self._close()
        try:
            lanes.retire(self.using, self.id)
        except (DatabaseError, InterfaceError):
            logger.exception("The database failed: worker=%s leaves its lanes until its lease is over.", self.id)

    def _close(self) -> None:
        self.builder.close()
        self.transport.close()

    # -- the lease ------------------------------------------------------------------------------------------------------

    def enlist(self) -> bool:
        """Become a worker that may hold lanes; return whether there was room for one more of its name."""
        self._clock = DatabaseClock(self.using)
        self._anchor = self._last_work = time.monotonic()
        self._next_reap = 0.0
        enlisted = lanes.enlist(self.using, self.name, f"{socket.gethostname()}:{os.getpid()}", self.most)
        if isinstance(enlisted, datetime):
            self.retry_enlisting_at = enlisted
            return False
        self.id = enlisted
        return True

    def _keep_lease(self) -> None:
        now = time.monotonic()
        if now - self._anchor >= BEAT:
            lanes.beat(self.using, self.id)
            self._anchor = now  # Taken before the query: our idea of the lease ends before the database's.
            self._clock.read()
        if now >= self._next_reap:
            lanes.reap(self.using)
            self._next_reap = now + BEAT

    def _may_start(self) -> bool:
        """Whether enough of the lease is left for an attempt to end within it."""
        rest = lanes.lease_seconds() - (time.monotonic() - self._anchor)
        return rest >= lanes.start_seconds()

    def _start_anew(self) -> None:
        """Others may have our lanes: start nothing, break off what is in flight, record nothing."""
        logger.warning("worker=%s was taken for dead; it starts anew.", self.id)
        self.transport.abort()
        while self._flights:
            for reply in self.transport.wait(1.0):
                self._flights.pop(int(str(reply.key)), None)
        self._forget()
        if not self.enlist():
            self._is_stopping = True

    # -- finding work ---------------------------------------------------------------------------------------------------

    def _poll(self) -> None:
        """Dispatch events and lease lanes, at once after a turn that found some, else at an interval that polls can bear."""
        started = time.monotonic()
        if self._is_stopping or (not self._has_more and started < self._next_poll):
            return
        moved = dispatch.dispatch(self.using) if dispatch.has_waiting(self.using) else 0
        room = min(LANES, 2 * self.transport.concurrency) - len(self._held)
        leased = lanes.lease(self.using, self.id, room, only=self.targets)
        for held in leased:
            self._held[held.target_id] = held
        self._notice_changes()
        self._has_more = bool(moved or leased)
        ended = time.monotonic()
        if self._has_more:
            self._last_work = ended
        self._next_poll = ended + max(POLL, POLL_SHARE * (ended - started))

    def _notice_changes(self) -> None:
        """Look again at lanes that something was written to: work, or a word that holds it back."""
        if self._held:
            versions = Lane.objects.using(self.using).filter(pk__in=self._held).values_list("pk", "version")
            self._stale = {pk for pk, version in versions if version != self._held[pk].version}
            self._drained -= self._stale

    def _take(self) -> None:
        """Fill up the lanes' ready deliveries, several lanes at a time."""
        wanted = {pk: READY + len(self._known[pk]) for pk in self._held if self._wants_more(pk)}
        if self._is_stopping or not wanted:
            return
        self._stale.clear()
        now = self._clock()
        found: dict[int, list[Work]] = defaultdict(list)
        taken = lanes.take(self.using, wanted, self._held, now)
        counts: dict[int, int] = defaultdict(int)
        for work in taken:
            counts[work.target_id] += 1
            if work.delivery_id not in self._known[work.target_id]:
                found[work.target_id].append(work)
        for pk, limit in wanted.items():
            if not self._held[pk].is_open:
                self._drop_ready([pk])
            if counts[pk] < limit:
                self._drained.add(pk)
            self._keep_ready(self._held[pk], found[pk], now)

    def _wants_more(self, pk: int) -> bool:
        return pk in self._stale or (pk not in self._drained and len(self._ready[pk]) < READY // 2)

    def _keep_ready(self, held: Held, works: list[Work], now: datetime) -> None:
        rate = held.target.rate_limit if held.target is not None else None
        if works and rate:
            works = self._pace(held, rate, works, now)
        for work in works:
            self._known[held.target_id].add(work.delivery_id)
            self._ready[held.target_id].append(work)

    def _pace(self, held: Held, rate: float, works: list[Work], now: datetime) -> list[Work]:
        """Keep as many as the rate limit lets out within a second, each with the instant that is reserved for it."""
        wait = max(timedelta(), (held.next_free_at or now) - now).total_seconds()
        count = int((1 - wait) * rate) + 1 if wait < 1 else 0
        instants = lanes.reserve(self.using, held, rate, min(count, len(works)), now) if count else []
        self._drained.add(held.target_id)
        for work, instant in zip(works, instants, strict=False):
            self._not_before[work.delivery_id] = instant
        return works[: len(instants)]

    # -- sending --------------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Give the transport as much as it has room for, fairly over the targets."""
        if self._is_stopping or not self._may_start():
            return
        chosen = list(self._choose(self.transport.concurrency - len(self._flights)))
        if not chosen:
            return
        self._last_work = time.monotonic()
        prepared = messages.prepare(self.using, chosen, self._held, self._clock())
        for outcome in prepared.outcomes:
            self._keep_outcome(outcome)
        for work in prepared.unbuilt:
            self._wait_for_build(work)
        for work, target, request in prepared.ready:
            self._flights[work.delivery_id] = Flight(work, target, self._clock(), time.monotonic())
            self.transport.submit(request)

    def _choose(self, room: int) -> Iterator[Work]:
        """Choose up to *room* works: a round over the lanes at a time, within each target's share.

        The share is kept strictly here, where requests are handed over: a cap on what is taken would still let one slow
        target fill the transport.
        """
        usage = Usage(self._flights.values(), self._pace_of, self.transport.concurrency)
        now = self._clock()
        lines = {pk: 0 for pk, ready in self._ready.items() if ready}
        while room > 0 and lines:
            for pk in list(lines):
                place = self._next_of(pk, lines[pk], usage, now) if room > 0 else None
                if place is None:
                    del lines[pk]
                    continue
                work = self._ready[pk][place]
                del self._ready[pk][place]
                lines[pk] = place
                usage.add(work)
                room -= 1
                yield work

    def _next_of(self, pk: int, start: int, usage: "Usage", now: datetime) -> int | None:
        """Where in the lane's ready deliveries the next one stands that may be sent, from *start* on."""
        held, ready = self._held[pk], self._ready[pk]
        limit = held.target.concurrency_limit if held.target is not None else None
        if not held.is_open or not usage.has_room(pk, limit):
            return None
        for place in range(start, len(ready)):
            work = ready[place]
            if self._not_before.get(work.delivery_id, now) > now:
                return None
            if not held.is_ordered or usage.is_free(work):
                return place
        return None

    def _pace_of(self, pk: int) -> Pace:
        pace = self._paces.setdefault(pk, Pace())
        self._paces.move_to_end(pk)
        if len(self._paces) > PACES:
            self._paces.popitem(last=False)
        return pace

    def _drop_ready(self, target_ids: Collection[int]) -> None:
        """Forget what was taken from these lanes and not sent: it stays pending and due for whoever looks next."""
        kept = defaultdict(set)
        under_way = [flight.work for flight in self._flights.values()] + [outcome.work for outcome in self._outcomes]
        for work in under_way + [work for works in self._building.values() for work in works]:
            kept[work.target_id].add(work.delivery_id)
        for pk in target_ids:
            self._ready.pop(pk, None)
            self._known[pk] = kept[pk]
            self._drained.discard(pk)

    # -- building -------------------------------------------------------------------------------------------------------

    def _wait_for_build(self, work: Work) -> None:
        if work.event_id not in self._building:
            self._building[work.event_id] = []
            self.builder.submit(work.event_id)
        self._building[work.event_id].append(work)

    def _see_builds(self) -> None:
        """Send what has its payload now; put off what has none yet, until its event may be built again."""
        done = {event_id: self._building.pop(event_id, []) for event_id in self.builder.finished()}
        if not done:
            return
        now = self._clock()
        states = messages.build_states(self.using, list(done), now)
        for event_id, works in sorted(done.items(), reverse=True):  # Each goes to the front: the earliest event last.
            is_built, again_at = states.get(event_id, (True, now))
            for work in works:
                if not self._held[work.target_id].is_open:
                    self._known[work.target_id].discard(work.delivery_id)
                elif is_built:
                    self._ready[work.target_id].appendleft(work)
                else:
                    self._keep_outcome(Outcome(work, Status.PENDING, "build_error", due_at=again_at))

    # -- results --------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for reply in self.transport.wait(self._patience()):
            flight = self._flights.pop(int(str(reply.key)), None)
            if flight is not None:
                self._pace_of(flight.work.target_id).note(reply)
                outcome = messages.judge(flight.work, reply, flight.target, flight.started_at, self._clock())
                self._keep_outcome(outcome)

    def _patience(self) -> float:
        """For how many seconds a turn may wait for replies."""
        now = time.monotonic()
        if self._outcomes:
            return max(0.0, self._oldest_outcome + FLUSH - now) if self._flights else 0.0
        if self._has_more or self._is_done():
            return 0.0
        if any(self._wants_more(pk) or not self._known[pk] for pk in self._held):
            return 0.0
        until = self._next_poll - now
        if self._not_before:
            until = min(until, (min(self._not_before.values()) - self._clock()).total_seconds())
        return max(0.001, until)

    def _keep_outcome(self, outcome: Outcome) -> None:
        if not self._outcomes:
            self._oldest_outcome = time.monotonic()
        if self._held[outcome.work.target_id].is_ordered:
            self._oldest_outcome = 0.0  # Its successor waits for the record.
        self._outcomes.append(outcome)

    def _record(self) -> None:
        """Write results: together, but none later than a moment."""
        if not self._outcomes:
            return
        is_full = len(self._outcomes) >= FLUSH_SIZE
        is_old = time.monotonic() - self._oldest_outcome >= FLUSH
        if self._flights and not is_full and not is_old:
            return
        result = lanes.record(self.using, self.id, self._outcomes, self._clock())
        for outcome in self._outcomes:
            self._known[outcome.work.target_id].discard(outcome.work.delivery_id)
            self._not_before.pop(outcome.work.delivery_id, None)
        for outcome in result.postponed:
            self._known[outcome.work.target_id].add(outcome.work.delivery_id)
        self._outcomes = result.postponed
        self._reopen_lines(result)
        self._oldest_outcome = time.monotonic()
        self.recorded += len(result.outcomes)
        self._last_work = time.monotonic()
        announce(self.using, result)

    def _reopen_lines(self, result: Recorded) -> None:
        for outcome in result.outcomes:
            held = self._held.get(outcome.work.target_id)
            if held is not None and held.is_ordered and outcome.status != Status.PENDING:
                self._drained.discard(held.target_id)  # Its successor is due now.
        for pk in result.closed:
            if pk in self._held:
                self._held[pk].is_open = False
                self._drop_ready([pk])

    def _release(self) -> None:
        """Give back lanes that have nothing due and nothing under way."""
        idle = [self._held[pk] for pk in self._drained if not self._known[pk]]
        if not idle or self._is_stopping:
            return
        kept = lanes.release(self.using, self.id, idle, self._clock())
        for held in idle:
            self._drained.discard(held.target_id)
            if held.target_id not in kept:
                for state in (self._held, self._ready, self._known):
                    state.pop(held.target_id, None)


class Usage:
    """How many requests each target has in flight, and which ordering keys are on their way."""

    def __init__(self, flights: Collection[Flight], pace_of: Callable[[int], Pace], concurrency: int) -> None:
        self.half = max(1, concurrency // 2)
        self.slow_room = max(1, int(concurrency * SLOW_PART))
        self.risky_room = max(1, int(concurrency * RISKY_PART))
        self.pace_of = pace_of
        self.by_target: dict[int, int] = defaultdict(int)
        self.keys: set[tuple[int, str]] = set()
        now = time.monotonic()
        for flight in flights:
            if now - flight.started > SLOW:
                pace_of(flight.work.target_id).is_slow = True
        for flight in flights:
            self.add(flight.work)

    def has_room(self, target_id: int, limit: int | None) -> bool:
        """Whether the target may have one more request in flight."""
        pace = self.pace_of(target_id)
        if self.by_target[target_id] >= min(pace.share, limit or self.half):
            return False
        if pace.is_slow and self.slow_room <= 0:
            return False
        return (pace.is_tried and not pace.is_slow) or self.risky_room > 0

    def is_free(self, work: Work) -> bool:
        """Whether nothing of the work's ordering key is on its way."""
        return (work.target_id, work.ordering_key) not in self.keys

    def add(self, work: Work) -> None:
        """Count a request that is in flight, or is about to be."""
        pace = self.pace_of(work.target_id)
        self.by_target[work.target_id] += 1
        self.slow_room -= pace.is_slow
        self.risky_room -= pace.is_slow or not pace.is_tried
        self.keys.add((work.target_id, work.ordering_key))


def make_transport(concurrency: int | None = None) -> Transport:
    """Return a transport of the class that ``DJWEBHOOKS_TRANSPORT`` names."""
    make: Callable[..., Transport] = import_string(conf.TRANSPORT)
    return make(concurrency=concurrency or conf.CONCURRENCY)


def announce(using: str, result: Recorded) -> None:
    """Send the signals for what was recorded. A receiver that raises is logged and harms nothing."""
    if (
        attempt_made.has_listeners(Attempt)
        or delivery_succeeded.has_listeners(Delivery)
        or delivery_failed.has_listeners(Delivery)
    ):
        deliveries = Delivery.objects.using(using).in_bulk([outcome.work.delivery_id for outcome in result.outcomes])
        for outcome in result.outcomes:
            announce_outcome(using, outcome, deliveries[outcome.work.delivery_id])
    for target in WebhookTarget.objects.using(using).filter(pk__in=result.disabled):
        target_disabled.send_robust(WebhookTarget, target=target, reason=result.disabled[target.pk])


def announce_outcome(using: str, outcome: Outcome, delivery: Delivery) -> None:
    if outcome.sent is not None:
        attempt = Attempt.objects.using(using).get(delivery=delivery, number=outcome.work.attempt_count + 1)
        attempt_made.send_robust(Attempt, delivery=delivery, attempt=attempt)
    if outcome.is_success:
        delivery_succeeded.send_robust(Delivery, delivery=delivery)
    elif outcome.status != Status.PENDING:
        delivery_failed.send_robust(Delivery, delivery=delivery)


def work(*, burst: bool = False, **options: object) -> int:
    """Run a worker in this thread; return how many outcomes were recorded. *options* are those of ``Worker``."""
    return Worker(burst=burst, **options).run()  # type: ignore[arg-type]  # passed through
