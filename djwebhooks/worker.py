"""The worker: dispatch, lease, send and record, over and over, in one thread."""

import atexit
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from operator import attrgetter
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connections
from django.utils.autoreload import DJANGO_AUTORELOAD_ENV
from django.utils.module_loading import import_string

from djwebhooks import dispatch, lanes, messages, replays, tokens, verdicts
from djwebhooks.announce import announce, announce_expired
from djwebhooks.authentication.base import TokenAuthentication
from djwebhooks.build import Builder, BuildState, InlineBuilder, see_states
from djwebhooks.conf import conf
from djwebhooks.database import DatabaseClock, check_autocommit
from djwebhooks.dispatch import Lessee
from djwebhooks.fairness import Paces, Usage, choose, part
from djwebhooks.handshake import Permission
from djwebhooks.lanes import LeaseLost
from djwebhooks.listener import Listener
from djwebhooks.messages import Asker, Prepared
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import events_database
from djwebhooks.notices import Mailer
from djwebhooks.transports.base import Reply, Request, Transport
from djwebhooks.versions import BUILT, CURRENT, choose_version
from djwebhooks.wakeups import MOMENT
from djwebhooks.work import RESERVE_AGAIN, Flight, Held, Outcome, Work

logger = logging.getLogger(__name__)

#: Seconds between heartbeats, and between looks for workers that died.
BEAT = 5.0
#: When a worker that is new looks for those, and for its own lanes: at the end of its first turn.
AT_LAST = math.inf
#: Seconds between polls for new work: at least so many, and so many times what a poll costs, but no more than so many.
POLL, POLL_SHARE, LONGEST_POLL = 0.1, 20, 1.0
#: How many times what a poll costs must pass until a worker that is told of new work polls again.
CALL_SHARE = 5
#: Seconds of a turn after which no further page of an event with very many targets is dispatched.
FAN_OUT = 0.3
#: How many times what the transport takes at once must be ready, so that polls for more can wait.
PLENTY = 2
#: Seconds between looks for replays. ``NO_REPLAY`` is as long as it takes until the next part of none.
REPLAY_POLL, NO_REPLAY = 1.0, math.inf
#: Seconds that a worker which is to end waits for the next part of a replay, or for what a rate holds back.
PATIENCE = 2.0
#: Requests that are handed over in a turn: with many more, what they need has left the processor's caches when they are answered.
HAND_OVER = 128
#: Seconds that results may wait to be recorded together, and how many go at once.
FLUSH, FLUSH_SIZE = 0.03, 500
#: Lanes that one worker leases at most.
LANES = 1000
#: Seconds after which a lane makes room for others that wait, if all that a worker may hold are taken; and how many do at once.
TURN, LEAVING_PART = 5.0, 0.1
#: Seconds that the end of a process waits for the worker in it.
EXIT_PATIENCE = 5.0
#: The first and the longest pause, in seconds, after a database error; each is twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0


class Worker:
    """Sends what is due until it is told to stop.

    *using* is the events' database, *transport* what sends, *concurrency* the requests in flight. With *burst* it ends when
    nothing is due any more, with *budget* after about so many seconds, with *linger* after so many seconds without work.
    When the database fails, it goes on as soon as that works again; one that has an end anyway gives up after some seconds,
    or at once if it cannot even begin.
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
        self.mailer = Mailer(self.using, threaded=threaded)
        self.listener = Listener(self.using, self._hear)
        #: The id of its row; 0 while it has none.
        self.id = 0
        self.recorded = 0
        self._is_threaded = threaded
        self._thread: threading.Thread | None = None
        self._is_stopping = False
        self._pause = self._last_work = 0.0
        #: Whether somebody has committed work since the last poll, as far as this was heard, or until when others may unheard.
        self._is_called, self._called_until = False, 0.0
        self._forget()
        self._paces = Paces()

    def _forget(self) -> None:
        """Know of no lane and no work, as at the start."""
        self._held: dict[int, Held] = {}
        self._flights: dict[Hashable, Flight] = {}
        self._building: dict[int, list[Work]] = {}
        self._outcomes: list[Outcome] = []
        self._oldest_outcome = self._record_again_at = 0.0
        self._next_poll = self._next_call = self._next_release = self._next_replay_poll = 0.0
        self._has_more = True
        #: Whether the last look for lanes was left out.
        self._owes_lease = False
        #: Whether slow and untried targets were not looked at in the last turn, though they should have been.
        self._owes_take = False
        #: Whether more could have been handed over in the last turn.
        self._has_rest = False
        #: Whether a replay goes on shortly, and whether a lane's rate lets something out.
        self._is_replaying = self._is_paced = False

    # -- running --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take nothing new, let what is in flight finish, record it and end. Safe in signal handlers and other threads."""
        self._is_stopping = True
        self.transport.wake()

    def start(self) -> None:
        """Work in a thread of this process, until ``stop``, or until the process exits. A second call changes nothing.

        Where ``runserver`` only watches for changed files, nothing is started: that process would send with old code for ever.
        Raises ``RuntimeError`` for a worker that was told to stop, or has ended.
        """
        if self._is_stopping or (self._thread is not None and not self._thread.is_alive()):
            raise RuntimeError("This worker was told to stop, or has ended. Make a new one: Worker().start()")
        if self._thread is None and not _is_reloader():
            self._thread = threading.Thread(target=self._run_in_thread, name="djwebhooks-worker", daemon=True)
            self._thread.start()
            atexit.register(self._stop_with_process)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until what ``start`` has started has ended, for so many seconds at most; return whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def _run_in_thread(self) -> None:
        try:
            self.run()
        finally:
            connections.close_all()
            atexit.unregister(self._stop_with_process)

    def _stop_with_process(self) -> None:
        self.stop()
        self.join(EXIT_PATIENCE)

    def run(self) -> int:
        """Work until stopped, or as *burst*, *budget* or *linger* say; return how many outcomes were recorded.

        Raises what the database raises when it goes on failing and the worker has an end, or was told to stop; and
        ``ConfigurationError`` for a connection with autocommit off, on which it could commit nothing.
        """
        started = time.monotonic()
        try:
            while not self._is_done():
                if self.budget is not None and time.monotonic() - started > self.budget:
                    self._is_stopping = True
                self._turn()
        finally:
            self._end()
        return self.recorded

    def _turn(self) -> None:
        """Take each step once; survive a lost lease, and a database that fails."""
        try:
            if not self.id and not self.enlist():
                self._is_stopping = True
                return
            for step in self.steps:
                step()
            self._pause = 0.0
        except LeaseLost:
            self._start_anew()
        except (DatabaseError, InterfaceError):
            if connections[self.using].in_atomic_block:
                raise  # It is somebody else's transaction, and broken.
            self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
            if self._has_end and (not self.id or self._pause == LONGEST_PAUSE):
                raise
            logger.exception("The database failed; the worker goes on in %s seconds.", self._pause)
            self._recover()

    def _recover(self) -> None:
        """After a database error: what is in flight goes on, and is recorded if the lease still holds then."""
        # A connection that works may be to a server that is not the one to write to any more.
        connections[self.using].close()
        self._drop_chosen()
        self._next_look = 0.0
        until = time.monotonic() + self._pause
        while time.monotonic() < until and not self._is_done():
            time.sleep(FIRST_PAUSE)  # A signal may say stop meanwhile.

    @property
    def _has_end(self) -> bool:
        return self._is_stopping or self.burst or self.budget is not None or self.linger is not None

    def _is_done(self) -> bool:
        if self._flights or self._outcomes:
            return False
        if self._is_stopping:
            return True  # A function that hangs is not waited for.
        if self._building or self._held or self._has_more or self._is_replaying or self._is_paced:
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
            self._keep_grants,
            self._record,
            self._release,
            self._look_at_last,
        )

    def _end(self) -> None:
        self.listener.close()
        self.builder.close()
        self.mailer.close()
        self.transport.close()
        if not self.id:
            return
        try:
            self._note_distances()
            lanes.retire(self.using, self.id)
        except (DatabaseError, InterfaceError):
            logger.exception("The database failed: worker=%s leaves its lanes until its lease is over.", self.id)

    def _note_distances(self) -> None:
        """Give back the lanes whose next request must wait, so that whoever leases them next keeps that distance, too."""
        spaced = [held for held in self._held.values() if held.spaced_at is not None]
        for held in spaced:
            held.drop_ready()
        lanes.release(self.using, self.id, spaced, self._clock(), is_due=True)

    # -- the lease ------------------------------------------------------------------------------------------------------

    def enlist(self) -> bool:
        """Become a worker that may hold lanes; return whether there was room for one more of its name."""
        check_autocommit(self.using)
        self._clock = DatabaseClock(self.using)
        self._chosen_at = self._clock()
        self._anchor = self._last_work = time.monotonic()
        self._next_look = AT_LAST
        enlisted = lanes.enlist(self.using, self.name, f"{socket.gethostname()}:{os.getpid()}", self.most)
        if isinstance(enlisted, datetime):
            self.retry_enlisting_at = enlisted
            return False
        self.id = enlisted
        if self._is_threaded and not self._has_end:
            self.listener.start()
        return True

    def _keep_lease(self) -> None:
        now = time.monotonic()
        if now - self._anchor >= BEAT:
            if self._is_threaded:
                close_old_connections()  # Also those that only receivers of signals use: nobody else would mend them.
            lanes.beat(self.using, self.id)
            self._anchor = now  # Taken before the query: our idea of the lease ends before the database's.
            self._clock.read()
        if now >= self._next_look:
            self._look_around()

    def _look_around(self) -> None:
        """Free the lanes of workers that died, and see which ones are ours."""
        if lanes.reap(self.using):
            self._has_more = True
        self._see_what_is_held()
        self._next_look = time.monotonic() + BEAT

    def _look_at_last(self) -> None:
        """Look around for the first time: a worker that was woken for an event sends that first, as it holds no lane yet."""
        if self._next_look == AT_LAST:
            self._look_around()

    def _see_what_is_held(self) -> None:
        """A connection that broke at a commit leaves it open whether lanes were leased or given back: believe the database."""
        tokens = lanes.list_held(self.using, self.id)
        for pk in [pk for pk, held in self._held.items() if held.token != tokens.get(pk) and not held.known]:
            del self._held[pk]
        for pk in tokens.keys() - self._held.keys():
            self._held[pk] = Held(pk, tokens[pk])

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
                self._flights.pop(reply.key, None)
        self._forget()
        self.id = 0

    # -- finding work ---------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        """Poll soon, since there may be new work, and once more a moment later. Safe in other threads."""
        self._called_until = time.monotonic() + MOMENT
        self._is_called = True
        self.transport.wake()

    @property
    def _poll_at(self) -> float:
        """When to look for new work. Each commit calls every worker, so they must not do nothing but look.

        To who knows of more already, a call is no news.
        """
        return self._next_call if self._is_called and not self._has_more else self._next_poll

    def _poll(self) -> None:
        """Dispatch events and lease lanes: at once if that cannot wait, else at an interval that polls can bear."""
        self._carry_on_replays()
        started = time.monotonic()
        if self._is_stopping or (started < self._poll_at and not self._wants_to_poll()):
            return
        self._is_called = False
        if started < self._called_until:  # In this order, as we may be called in between.
            self._is_called = True
        room = min(LANES, 2 * self.transport.concurrency) - len(self._held)
        moved, dispatched = self._dispatch(room // 2)
        is_full = room <= 0
        if is_full:
            self._end_turns()
            room = self._make_room()
        else:
            for held in self._held.values():
                held.is_leaving = False
        # What was dispatched is sent first, but what has been due for longer is not put off a second time.
        self._owes_lease = bool(dispatched) and not self._owes_lease
        leased = [] if self._owes_lease else lanes.lease(self.using, self.id, room - len(dispatched), only=self.targets)
        leased += dispatched
        for held in leased:
            self._held[held.target_id] = held
        self._notice_changes()
        # Lanes that took the place of others are no reason to poll again at once: they would only take turns.
        self._has_more = bool(moved or (leased and not is_full))
        self._see_paced()
        ended = time.monotonic()
        if moved or leased:
            self._last_work = ended
        # A poll may have waited for somebody's lock, which says nothing of what the next one costs.
        self._next_poll = ended + min(max(POLL, POLL_SHARE * (ended - started)), LONGEST_POLL)
        self._next_call = min(max(self._called_until, ended + CALL_SHARE * (ended - started)), self._next_poll)

    def _dispatch(self, room: int) -> tuple[int, list[Held]]:
        """Dispatch what waits; return how many events moved on, and the lanes that this worker got with that, *room* at most."""
        if not dispatch.has_waiting(self.using):
            return 0, []
        until, moved, leased = time.monotonic() + FAN_OUT, 0, list[Held]()
        while True:
            lessee = Lessee(self.id, max(0, room - len(leased)), self.targets)
            done = dispatch.dispatch_and_lease(self.using, lessee, page=dispatch.PAGE)
            if done.at is not None:
                self._clock.keep_up(done.at)
            moved += done.moved or 0
            leased += done.leased
            if not done.is_partial or time.monotonic() > until:
                return moved, leased

    def _wants_to_poll(self) -> bool:
        """Whether a poll cannot wait: there is more, and what is ready does not keep the transport busy for a while.

        Each poll that dispatches has all lanes looked at again. Only what can be sent at once counts: slow and untried targets,
        and those with limits, may have any number of deliveries that keep nobody else waiting.
        """
        if not self._has_more:
            return False
        free = (held for pk, held in self._held.items() if held.is_open and not self._paces[pk].is_risky)
        ready = sum(len(held.ready) for held in free if held.limit() is None and not held.not_before)
        return ready < PLENTY * self.transport.concurrency

    def _see_paced(self) -> None:
        """A burst goes on for what a rate lets out shortly; but whoever works in the caller's own thread keeps nobody waiting."""
        if self.burst and self._is_threaded:
            until = self._clock() + timedelta(seconds=PATIENCE)
            self._is_paced = lanes.is_one_paced(self.using, until, only=self.targets)

    def _carry_on_replays(self) -> None:
        """Have a page of some replay made pending again, and look when the next one is to be."""
        if self._is_stopping or time.monotonic() < self._next_replay_poll:
            return
        at = replays.next_replay(self.using)
        has_moved = at is not None and at <= self._clock() and replays.carry_on(self.using)
        if has_moved:
            self._has_more = True
            at = replays.next_replay(self.using)
        left = NO_REPLAY if at is None else max(0.0, (at - self._clock()).total_seconds())
        self._next_replay_poll = time.monotonic() + min(left if has_moved else REPLAY_POLL, REPLAY_POLL)
        # Whoever works in the caller's own thread does not keep them waiting.
        self._is_replaying = (has_moved and left == 0) or (self._is_threaded and left <= PATIENCE)

    def _end_turns(self) -> None:
        """Send nothing more of some lanes that were held for longest, if others wait: rates may keep them busy for hours."""
        if lanes.is_one_free(self.using, self.targets):
            until = time.monotonic() - TURN
            longest = sorted((held for held in self._held.values() if held.since <= until), key=attrgetter("since"))
            for held in longest[: part(len(self._held), LEAVING_PART)]:
                held.is_leaving = True

    def _make_room(self) -> int:
        """Let go of slow, untried and leaving lanes with nothing under way, so that they keep nobody out; return how many."""
        may_go = (held for pk, held in self._held.items() if held.is_leaving or self._paces[pk].is_risky)
        idle = [held for held in may_go if len(held.known) == len(held.ready)]
        for held in idle:
            held.drop_ready()
        kept = lanes.release(self.using, self.id, idle, self._clock(), is_due=True)
        for held in idle:
            if held.target_id not in kept:
                del self._held[held.target_id]
        return len(idle) - len(kept)

    def _notice_changes(self) -> None:
        """Look again at lanes that something was written to: work, or a word that holds it back."""
        seen = [pk for pk, held in self._held.items() if held.version >= 0]
        versions = lanes.list_versions(self.using, seen)
        for pk, held in self._held.items():
            held.is_stale |= versions.get(pk) != held.version

    def _take(self) -> None:
        """Fill up the lanes' ready works, many lanes at a time."""
        now = self._clock()
        wanted = self._put_off({pk: held.look_limit for pk, held in self._held.items() if held.wants_more(now)})
        if self._is_stopping or not wanted:
            return
        before = {pk: self._held[pk].rules(now) for pk in wanted}
        found: dict[int, list[Work]] = {pk: [] for pk in wanted}
        for work in lanes.take(self.using, wanted, self._held, now):
            found[work.target_id].append(work)
        self._tell_of_expired(wanted)
        for pk, works in found.items():
            held = self._held[pk]
            if not held.is_open or held.rules(now) != before[pk]:
                held.drop_ready()
            held.is_stale = False
            held.is_drained = len(works) < wanted[pk]
            held.keep_only({work.delivery_id for work in works})
            self._keep_ready(held, [work for work in works if work.delivery_id not in held.known], now)

    def _tell_of_expired(self, target_ids: Collection[int]) -> None:
        """Tell the application what has expired in lanes that hold their deliveries back."""
        held = [self._held[pk] for pk in target_ids if self._held[pk].expired]
        announce_expired(self.using, [pk for one in held for pk in one.expired])
        for one in held:
            one.expired.clear()

    def _put_off(self, wanted: dict[int, int]) -> dict[int, int]:
        """Return those of *wanted* that are looked at now: slow and untried targets wait a turn for the others, and only one."""
        prompt = {pk: count for pk, count in wanted.items() if not self._paces[pk].is_risky}
        self._owes_take = 0 < len(prompt) < len(wanted) and not self._owes_take
        return prompt if self._owes_take else wanted

    def _keep_ready(self, held: Held, works: list[Work], now: datetime) -> None:
        """Keep what may be sent ready; what has expired must not use up its target's rate."""
        fresh = []
        for work in works:
            if work.expires_at is None or work.expires_at > now:
                fresh.append(work)
            else:
                held.known.add(work.delivery_id)
                self._keep_outcome(Outcome(work, Status.EXPIRED, "expired"))
        rate = held.rate(now)
        if fresh and rate:
            fresh = self._pace(held, rate, fresh, now)
        else:
            held.paced_until = None  # What it was for is gone, or is not held back any more.
        held.keep(fresh)

    def _pace(self, held: Held, rate: float, works: list[Work], now: datetime) -> list[Work]:
        """Return as many as the rate lets out within a second, each with the instant that is reserved for it."""
        instants, held.spare = held.spare[: len(works)], held.spare[len(works) :]
        if len(instants) < len(works):
            instants += lanes.reserve(self.using, held, rate, len(works) - len(instants), now)
        held.is_drained = True
        # Not at once in any case: an application may keep the lane locked, so that nothing can be reserved.
        again_at = max((held.next_free_at or now) - RESERVE_AGAIN, now + timedelta(seconds=POLL))
        held.paced_until = again_at if len(instants) < len(works) else None
        held.not_before |= {work.delivery_id: instant for work, instant in zip(works, instants, strict=False)}
        return works[: len(instants)]

    # -- sending --------------------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        """Give the transport as much as it has room for, fairly over the targets."""
        self._chosen_at, self._has_rest = self._clock(), False
        if self._is_stopping or not self._may_start():
            return
        if self._pause and self._outcomes:
            return  # As long as results cannot be recorded, each further request may have to be made again.
        usage = Usage(self._flights.values(), self._paces, self.transport.concurrency)
        free = self.transport.concurrency - len(self._flights)
        room = min(free, HAND_OVER)
        # What is ready of a lane that is still to be looked at may have been cancelled.
        fresh = {pk: held for pk, held in self._held.items() if not held.is_stale and not held.is_leaving}
        chosen = list(choose(fresh, usage, room, self._chosen_at))
        if not chosen:
            return
        self._has_rest = len(chosen) == room < free
        for work in chosen:  # To the end: the next turn begins with those that got nothing in this one.
            self._held[work.target_id] = self._held.pop(work.target_id)
        self._last_work = time.monotonic()
        prepared = messages.prepare(self.using, self._claim(chosen), self._held, self._clock())
        if not self._may_start():  # The database took its time.
            self._drop_chosen()
            return
        reached = self._start(prepared)
        for held in (self._held[work.target_id] for work in chosen if work.target_id not in reached):
            held.spaced_at = None  # It was chosen, but its payload or a token must come first: that uses up nothing of a rate.

    def _claim(self, chosen: list[Work]) -> list[Work]:
        """Leave out what newer events have taken the place of; from now on they take that of no other."""
        asked = {work.delivery_id for work in chosen if work.is_replaceable}
        if not asked:
            return chosen
        claimed, ended = lanes.claim(self.using, asked)
        for work in reversed([work for work in chosen if work.delivery_id in asked - claimed]):
            held = self._held[work.target_id]
            if work.delivery_id in ended:
                held.make_way(work)
            else:  # Somebody has locked it, for a moment or for long.
                held.put_back(work)
                held.is_drained = False
                held.not_before[work.delivery_id] = self._clock() + timedelta(seconds=POLL)
        return [work for work in chosen if work.delivery_id not in asked - claimed]

    def _start(self, prepared: Prepared) -> set[int]:
        """Send what is ready, and begin what must come before for the rest; return the targets whose receivers get something."""
        for outcome in prepared.outcomes:
            self._held[outcome.work.target_id].spare_instant(outcome.work.delivery_id)
            self._keep_outcome(outcome)
        for work in prepared.unbuilt:
            self._wait_for_build(work)
        reached = set[int]()
        for work, target, asked, request in self._choose_askers(prepared.askers):
            self._held[work.target_id].asker = work.delivery_id
            flight = Flight(work, target, request.url, self._clock(), time.monotonic(), asks_for=asked)
            self._launch(request, flight, reached)
        for work, target, request in prepared.ready:
            token = tokens.find_shown(self._held[work.target_id].access_token, request)
            flight = Flight(work, target, request.url, self._clock(), time.monotonic(), access_token=token)
            self._launch(request, flight, reached)
        return reached

    def _launch(self, request: Request, flight: Flight, reached: set[int]) -> None:
        work = flight.work
        if not isinstance(flight.asks_for, TokenAuthentication):  # A token server is no receiver: the rate is not for it.
            self._held[work.target_id].note_start(work.delivery_id, flight.started_at)
            reached.add(work.target_id)
        self._flights[request.key] = flight
        self.transport.submit(request)

    def _drop_chosen(self) -> None:
        """After an error: forget all but what is under way. It stays pending, and is taken again."""
        under_way = [flight.work for flight in self._flights.values()] + [outcome.work for outcome in self._outcomes]
        for held in self._held.values():
            held.drop_ready()
            held.known.clear()
            held.unbuilt.clear()
        for work in under_way:
            self._held[work.target_id].known.add(work.delivery_id)
        for work in chain.from_iterable(self._building.values()):
            self._held[work.target_id].wait_for_build(work)

    # -- access tokens and permissions -----------------------------------------------------------------------------------

    def _choose_askers(self, askers: Sequence[Asker]) -> list[Asker]:
        """Return the first of each target, to ask for what it needs; the others go when there is an answer."""
        first = {asker[0].target_id: asker for asker in reversed(askers)}
        for asker in reversed(askers):
            work = asker[0]
            if first[work.target_id] is not asker:
                self._held[work.target_id].put_back(work)
        return list(first.values())

    def _see_grant(self, flight: Flight, reply: Reply) -> Reply | None:
        """Have the delivery sent with the access token or permission that came; return what is to be recorded if none did."""
        if flight.asks_for is None:
            if tokens.is_refused(flight, reply):
                self._held[flight.work.target_id].drop_token(flight.access_token)
            return reply
        held = self._held[flight.work.target_id]
        found = tokens.read(flight.asks_for, reply, self._clock())
        if isinstance(found, Reply):
            return found
        held.asker = None
        if isinstance(found, Permission):
            held.forget(flight.work.delivery_id)  # It is taken again, at the rate that was allowed.
            held.set_permission(found)
            held.is_stale = True
        else:
            held.set_token(found)
            held.put_back(flight.work)
            held.is_stale = True  # It may have been cancelled meanwhile.
        return None

    def _keep_grants(self) -> None:
        """Write new access tokens and permissions to their lanes, so that no other worker has to ask for one."""
        for held in [held for held in self._held.values() if held.has_new_grant]:
            lanes.keep_grants(self.using, held)

    # -- building -------------------------------------------------------------------------------------------------------

    def _wait_for_build(self, work: Work) -> None:
        self.builder.submit(work.event_id, work.target_id)
        self._building.setdefault(work.event_id, []).append(work)
        self._held[work.target_id].wait_for_build(work)

    def _see_builds(self) -> None:
        """Send what has its payload now; put off what has none yet, until its event may be built again."""
        done = {event_id: self._building.pop(event_id, []) for event_id in self.builder.finished()}
        if not done:
            return
        now = self._clock()
        states = see_states(self.using, list(done), now)
        pending = lanes.list_pending(self.using, [work.delivery_id for works in done.values() for work in works])
        for event_id, works in sorted(done.items(), reverse=True):  # Each goes to the front: the earliest event last.
            built, again_at, has_failed = states.get(event_id, BuildState(BUILT, now))
            for work in works:
                held = self._held[work.target_id]
                held.unbuilt.discard(work.delivery_id)
                version = held.target.version if held.target is not None else CURRENT
                if work.delivery_id not in pending:
                    held.forget(work.delivery_id)
                elif built[choose_version(version, built)] or not held.is_open:
                    held.put_back(work)
                else:
                    reason = "build_error" if has_failed else work.reason
                    self._keep_outcome(Outcome(work, Status.PENDING, reason, due_at=again_at))

    # -- results --------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Judge the replies that have come."""
        replies = self.transport.wait(self._find_wait())
        now = self._clock()
        for reply in replies:
            flight = self._flights.pop(reply.key, None)
            if flight is not None:
                self._paces[flight.work.target_id].note(reply)
                result = self._see_grant(flight, reply)
                if result is not None:
                    outcome, asked = verdicts.judge(flight, result, now), flight.asks_for
                    self._keep_outcome(outcome if asked is None else verdicts.rest(outcome, asked, reply, now))

    def _find_wait(self) -> float:
        """For how many seconds a turn may wait for replies."""
        now = time.monotonic()
        if self._has_rest:
            return 0.0
        if self._outcomes:
            record_at = self._oldest_outcome + FLUSH if self._flights else now
            return max(0.0, max(record_at, self._record_again_at) - now)
        if self._is_stopping:
            return POLL
        if self._wants_to_poll() or self._is_done() or self._can_do_more():
            return 0.0
        until = min((at for at in self._list_instants() if at > self._chosen_at), default=None)
        wait = min(self._poll_at, self._next_replay_poll) - now
        return max(0.001, wait if until is None else min(wait, (until - self._clock()).total_seconds()))

    def _list_instants(self) -> Iterator[datetime]:
        """When something may be sent, or reserved, that a rate holds back; those that have passed wait for something else."""
        for held in self._held.values():
            if held.paced_until is not None:
                yield held.paced_until
            for at in held.not_before.values():
                yield max(at, held.spaced_at or at)

    def _can_do_more(self) -> bool:
        now, may_release = self._clock(), time.monotonic() >= self._next_release
        return any(held.wants_more(now) or (held.is_idle and may_release) for held in self._held.values())

    def _keep_outcome(self, outcome: Outcome) -> None:
        if not self._outcomes:
            self._oldest_outcome = time.monotonic()
        if self._held[outcome.work.target_id].is_ordered or outcome.hold_until is not None or outcome.disables:
            self._oldest_outcome = 0.0  # Its successor waits for the record, or must not be sent.
        self._outcomes.append(outcome)

    def _record(self) -> None:
        """Write results: together, but none later than a moment."""
        if not self._outcomes or time.monotonic() < self._record_again_at:
            return
        is_full = len(self._outcomes) >= FLUSH_SIZE
        is_old = time.monotonic() - self._oldest_outcome >= FLUSH
        if self._flights and not is_full and not is_old:
            return
        result = lanes.record(self.using, self.id, self._outcomes, self._clock())
        postponed = {outcome.work.delivery_id for outcome in result.postponed}
        for work in (outcome.work for outcome in self._outcomes if outcome.work.delivery_id not in postponed):
            held = self._held[work.target_id]
            held.forget(work.delivery_id)
            if held.is_ordered:
                held.is_drained = False  # Its successor may be due now.
        for pk in result.changed:
            self._held[pk].drop_ready()
            self._held[pk].is_stale = True
        self._outcomes = result.postponed
        # An application keeps their lanes locked: to try at once would keep a processor busy.
        self._record_again_at = time.monotonic() + POLL if result.postponed else 0.0
        self._oldest_outcome = self._last_work = time.monotonic()
        self.recorded += len(result.outcomes)
        announce(self.using, result)
        self.mailer.tell(result.disabled)
        if result.disabled:
            self._has_more = True  # Their owners are told of it by an event.

    def _release(self) -> None:
        """Give back lanes that have nothing due and nothing under way."""
        idle = [held for held in self._held.values() if held.is_idle]
        if not idle or self._is_stopping or time.monotonic() < self._next_release:
            return
        kept = lanes.release(self.using, self.id, idle, self._clock())
        for held in idle:
            if held.target_id in kept:
                held.is_drained = False
            else:
                del self._held[held.target_id]
        self._see_paced()
        if kept:  # Something was written to them, or somebody has locked them.
            self._next_release = time.monotonic() + POLL


def _is_reloader() -> bool:
    """Whether ``runserver`` has the application in a child of this process."""
    is_serving = sys.argv[1:2] == ["runserver"] and "--noreload" not in sys.argv
    return is_serving and os.environ.get(DJANGO_AUTORELOAD_ENV) != "true"


def make_transport(concurrency: int | None = None) -> Transport:
    """Return a transport of the class that ``DJWEBHOOKS_TRANSPORT`` names."""
    make: Callable[..., Transport] = import_string(conf.TRANSPORT)
    return make(concurrency=concurrency or conf.CONCURRENCY)


def work(*, burst: bool = False, **options: Any) -> int:
    """Run a worker in this thread; return how many outcomes were recorded. *options* are those of ``Worker``."""
    return Worker(burst=burst, **options).run()
