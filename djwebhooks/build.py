"""Run a hook's function once for an event, and keep its payload."""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import (
    DatabaseError,
    InterfaceError,
    InternalError,
    OperationalError,
    close_old_connections,
    connections,
    transaction,
)
from rq.timeouts import BaseTimeoutException

from djwebhooks import capture, catalogue, payload
from djwebhooks.exceptions import RebuildError
from djwebhooks.models import Event
from djwebhooks.versions import CURRENT, list_built

logger = logging.getLogger(__name__)

#: How long a function may run before somebody else may try as well.
LEASE = timedelta(seconds=60)
#: How soon to look again for a payload that another worker is building.
POLL = timedelta(seconds=0.5)
#: What the log says when a build was broken off.
BUILT_LATER = "The database failed, so event=%s is built later."
#: What the log says when a function does not come back.
HANGS = (
    "event=%s hook=%s: its function has not come back in %d seconds. Its thread is left to it, and another one builds what comes "
    "next; %d hang in this worker. Give what it waits for a timeout; only a new process is rid of those."
)
#: Seconds until a function that raised is run again, by the number of its runs.
PAUSES = (5, 30, 120, 600)
#: The threads that a worker builds in, each with the hook that it is at; and the hooks that one was given up at.
_builders: dict[threading.Thread, str] = {}
_hung: set[str] = set()


def build(using: str, event_id: int, lease: timedelta = LEASE) -> None:
    """Build the event's payload, unless it is there, being built, or given up.

    The attempt is counted and committed before the function runs, so that one that kills its worker is counted too. Whatever
    it raises stays on the event for staff.
    """
    if Event.objects.using(using).start_build(event_id, lease):
        _build_started(using, event_id)


def build_apart(using: str, event_id: int, patience: float) -> None:
    """The same in a thread of its own, for which this waits so many seconds at most: as in a worker.

    The function is told neither the language nor the time zone of who asks, and goes on if that one cannot wait any longer.
    Inside a transaction (a test's), which no other thread can see into, it runs here.
    """
    if not Event.objects.using(using).start_build(event_id, LEASE):
        return
    if connections[using].in_atomic_block:
        _build_started(using, event_id)
        return
    thread = threading.Thread(target=_build_and_hang_up, args=(using, event_id), name="djwebhooks-builder", daemon=True)
    thread.start()
    thread.join(patience)


def _build_and_hang_up(using: str, event_id: int) -> None:
    try:
        _build_started(using, event_id)
    except (DatabaseError, InterfaceError):
        logger.exception(BUILT_LATER, event_id)
    finally:
        connections.close_all()


def _build_started(using: str, event_id: int) -> None:
    events = Event.objects.using(using)
    try:
        _finish(using, events.get(pk=event_id))
    except (OperationalError, InterfaceError, InternalError):
        # The database failed us: it has to be done once more, but that is no fault of the function's.
        if not connections[using].in_atomic_block:
            connections[using].close()
            events.forget_build(event_id, timedelta(seconds=PAUSES[0]))
        raise


def _finish(using: str, event: Event) -> None:
    if (thread := threading.current_thread()) in _builders:
        _builders[thread] = event.hook
    events = Event.objects.using(using)
    pause = timedelta(seconds=PAUSES[min(event.build_attempts, len(PAUSES)) - 1])
    texts: dict[str, str | None] = {}
    errors: list[str] = []
    with _noting(using, event, errors):
        hook: Any = capture.resolve(event.hook)
        for version in _list_unbuilt(event, hook):
            texts[version] = None
            with _noting(using, event, errors):
                texts[version] = _run(using, event, hook, version)
    if not any(texts.values()):
        events.fail_build(event.pk, "\n".join(errors), pause)
    elif texts.keys() == {CURRENT} and not event.versions:
        events.finish_build(event.pk, texts[CURRENT] or "", hook.current)
    else:
        events.keep_build(event.pk, texts, hook.current, "\n".join(errors), pause)


@contextmanager
def _noting(using: str, event: Event, errors: list[str]) -> Iterator[None]:
    """Keep the traceback of what the application's own code raises, so that it ends neither a worker nor other versions."""
    try:
        yield
    except BaseTimeoutException:
        raise
    except (Exception, SystemExit):
        logger.warning("event=%s hook=%s: its function raised", event.uid, event.hook, exc_info=True)
        if not connections[using].in_atomic_block:
            connections[using].close_if_unusable_or_obsolete()  # Losing it may be what the function raised about.
        errors.append(traceback.format_exc())


def _list_unbuilt(event: Event, hook: Any) -> list[str]:
    """The versions that have yet to be built, the current one first."""
    there = event.payloads
    if not any(there.values()):  # What there is besides the current one is settled when some version of it is built.
        there = dict.fromkeys([CURRENT, *hook.versions])
    return [version for version, text in there.items() if text is None]


def _run(using: str, event: Event, hook: Any, version: str) -> str:
    function = _find_function(hook, version)
    arguments, keywords = capture.rebuild(event.call)
    reads = Reads()
    with ExitStack() as stack:
        # Inside somebody's transaction (a test's) a database error of the function must not poison it.
        stack.enter_context(transaction.atomic(using=using) if connections[using].in_atomic_block else nullcontext())
        for connection in connections.all():
            stack.enter_context(connection.execute_wrapper(reads))
        if event.hook in _hung and threading.current_thread() in _builders:
            connections.close_all()  # Should it hang again, it keeps no connection that the server would have to do without.
        text = payload.encode(function(*arguments, **keywords))
    catalogue.check_payload(event.name, text, version or hook.current)
    payload.warn_if_large(event.name, text)
    if reads.count and not hook.is_live:
        _warn_of_reads(event.hook)
    return text


def _find_function(hook: Any, version: str) -> Callable[..., Any]:
    function: Callable[..., Any] | None = hook.versions.get(version) if version else hook.build
    if function is None:
        raise RebuildError(f"The hook {hook.__qualname__} has no version {version!r} in this process. Did the code lose it?")
    return function


class Reads:
    """Counts the queries that read, as an execute wrapper of this thread's connections."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, execute: Callable[..., Any], sql: object, params: Any, many: bool, context: dict[str, Any]) -> Any:
        # Firing another event only writes.
        self.count += str(sql).lstrip("( \n\t").upper().startswith(("SELECT", "WITH"))
        return execute(sql, params, many, context)


#: The hooks that were seen to read the database in this process.
_readers: set[str] = set()


def _warn_of_reads(path: str) -> None:
    if path in _readers:
        return
    _readers.add(path)
    logger.warning(
        "The hook %s reads the database while it builds, so it sees what is there then, not what was there at the call. "
        'Say live=True if that is meant, or pass the values, or use build="now".',
        path,
    )


class BuildState(NamedTuple):
    """How far the payload of an event is: which of its versions are built, and when to look again for those that are not."""

    built: Mapping[str, bool]
    again_at: datetime
    #: Whether its function has failed; else somebody else is at it.
    has_failed: bool = False


def see_states(using: str, event_ids: Sequence[int], now: datetime) -> dict[int, BuildState]:
    """Say of each event how far it is."""
    columns = ("pk", "payload", "versions", "build_error", "build_due_at")
    rows = Event.objects.using(using).filter(pk__in=event_ids).values_list(*columns)
    return {
        pk: BuildState(
            list_built(text, versions), max(until or now, now) if error else _find_next_look(until or now, now), bool(error)
        )
        for pk, text, versions, error, until in rows
    }


def _find_next_look(until: datetime, now: datetime) -> datetime:
    """When to look again for what somebody has until *until* to build: soon, or after a quarter of the time that it has taken."""
    return now + max(POLL, min((now - (until - LEASE)) / 4, until - now))


class Turns:
    """The events that are to be built, for threads that build them: the targets that wait for them take turns."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._by_target: dict[int, deque[int]] = {}
        #: Those that were not given out yet. Several targets may wait for one.
        self._waiting: set[int] = set()
        self._is_closed = False

    def add(self, event_id: int) -> None:
        """Have the event built, as soon as a target that waits for it has its turn."""
        with self._changed:
            self._waiting.add(event_id)

    def wait(self, event_id: int, target_id: int) -> None:
        """Let the target wait for the event, unless that was given out."""
        with self._changed:
            if event_id in self._waiting:
                self._by_target.setdefault(target_id, deque()).append(event_id)
                self._changed.notify()

    def next(self) -> int | None:
        """Return the next event as soon as there is one; None once this is closed."""
        with self._changed:
            while self._changed.wait_for(lambda: self._by_target or self._is_closed) and not self._is_closed:
                target_id, event_ids = next(iter(self._by_target.items()))
                event_id = event_ids.popleft()
                del self._by_target[target_id]
                if event_ids:
                    self._by_target[target_id] = event_ids  # Behind all others.
                if event_id in self._waiting:
                    self._waiting.discard(event_id)
                    return event_id
        return None

    def close(self) -> None:
        """Give out nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Builder:
    """Builds payloads in threads of its own, so that the application's code never holds up sending."""

    #: Threads that may build at once, besides those that hang.
    SIZE = 4

    def __init__(self, using: str, on_done: Callable[[], None], lease: timedelta = LEASE) -> None:
        self._using = using
        self._on_done = on_done
        self._lease = lease
        self._todo = Turns()
        self._done: deque[int] = deque()
        #: What was asked for, and not reported yet.
        self._unfinished: set[int] = set()
        #: What each thread is at, and since when; and the threads that were given up.
        self._busy: dict[threading.Thread, tuple[int, float]] = {}
        self._hanging: set[threading.Thread] = set()
        self._threads: list[threading.Thread] = []

    def submit(self, event_id: int, target_id: int) -> None:
        """Build the event's payload, for which the target waits, in that one's turn. Once for all that wait for it."""
        if event_id not in self._unfinished:
            self._unfinished.add(event_id)
            self._todo.add(event_id)
        self._todo.wait(event_id, target_id)
        self._employ()

    def finished(self) -> list[int]:
        """The events whose build ended since the last call, well or not, or took so long that it is given up."""
        done = [self._done.popleft() for _ in range(len(self._done))]
        for thread, (event_id, since) in list(self._busy.items()):
            # Whoever takes it out reports it.
            if time.monotonic() - since > self._lease.total_seconds() and self._busy.pop(thread, None) is not None:
                self._give_up(thread, event_id)
                done.append(event_id)
        self._unfinished.difference_update(done)
        self._employ()
        return done

    def _give_up(self, thread: threading.Thread, event_id: int) -> None:
        self._hanging.add(thread)
        hook = _builders.get(thread, "")
        _hung.add(hook)
        count = sum(map(threading.Thread.is_alive, self._hanging))
        logger.error(HANGS, event_id, hook, self._lease.total_seconds(), count)

    def close(self) -> None:
        """Let the threads end after what they are at; wait for none that hangs."""
        self._todo.close()
        until = time.monotonic() + 1
        for thread in self._threads:
            thread.join(timeout=max(0.0, until - time.monotonic()))

    def _employ(self) -> None:
        """Have a thread for each build that is not done, up to the number, besides those that hang."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        able = len(self._threads) - len(self._hanging.intersection(self._threads))
        for _ in range(min(len(self._unfinished), self.SIZE) - able):
            thread = threading.Thread(target=self._work, name="djwebhooks-builder", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        while (event_id := self._todo.next()) is not None:
            _builders[thread] = ""
            self._busy[thread] = event_id, time.monotonic()
            try:
                close_old_connections()
                build(self._using, event_id, self._lease)
            except (DatabaseError, InterfaceError):
                logger.exception(BUILT_LATER, event_id)
            finally:
                connections.close_all()
                _builders.pop(thread, None)
                was_given_up = self._busy.pop(thread, None) is None
                if not was_given_up:
                    self._done.append(event_id)
                    self._on_done()
            if was_given_up:
                return  # Its function returned at last, but another thread has its place.


class InlineBuilder:
    """Builds at once in the caller's thread and connection: for tests and for the immediate engine."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._done: list[int] = []

    def submit(self, event_id: int, target_id: int) -> None:
        if event_id not in self._done:
            build(self._using, event_id)
            self._done.append(event_id)

    def finished(self) -> list[int]:
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        pass
