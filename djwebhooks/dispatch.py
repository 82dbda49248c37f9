"""Turn events into deliveries: one for each target that wants them, in the order of the events' ids."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.models import Min, Q

from djwebhooks import database
from djwebhooks.catalogue import is_internal
from djwebhooks.coalescing import Kind, Places, Row
from djwebhooks.conf import conf
from djwebhooks.health import UNKNOWN, Health
from djwebhooks.models import Delivery, Dispatcher, Event, Lane, Subscription, TargetOwner, WebhookTarget
from djwebhooks.models.deliveries import Status, Trigger
from djwebhooks.models.events import index_subjects
from djwebhooks.models.lanes import next_look
from djwebhooks.names import patterns_for
from djwebhooks.uid import uuid7
from djwebhooks.work import Held

#: Events that are read, and deliveries that are written, in one transaction at most.
BATCH, PAGE = 500, 5000
#: How many times as far a dispatcher looks when it can do nothing of what comes first.
FURTHER = 16


@dataclass(frozen=True, slots=True)
class Lessee:
    """A worker that would hold up to *room* lanes: of all targets, or *only* of these."""

    worker_id: int = 0
    room: int = 0
    only: Collection[int] | None = None

    def wants(self, target_id: int) -> bool:
        """Whether it would hold this target's lane."""
        return self.only is None or target_id in self.only


NOBODY = Lessee()


@dataclass(slots=True)
class Dispatched:
    """How many events moved on, ``None`` if somebody else is dispatching, and the lanes that the lessee holds now."""

    moved: int | None
    leased: list[Held] = field(default_factory=list)
    #: Whether an event has more targets than got their deliveries.
    is_partial: bool = False
    #: The database's time of then.
    at: datetime | None = None


@dataclass(slots=True)
class Share:
    """The targets that one event gets deliveries for in this transaction."""

    event: Event
    target_ids: Sequence[int]
    #: Whether these are the last of its targets.
    is_last: bool = True
    #: Those of them that may be paused: it was not asked, or they were a moment ago.
    maybe_paused: Collection[int] = ()


@dataclass(slots=True)
class Candidates:
    """The subscriptions that can match a batch of events, looked up by pattern and owner."""

    by_owner: dict[tuple[str, object], list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    by_pattern: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    paused: set[int] = field(default_factory=set)

    def share(self, event: Event) -> Share:
        """Choose all that *event* is for."""
        target_ids = self.targets_of(event)
        return Share(event, target_ids, maybe_paused=target_ids if event.direct_targets else self.paused.intersection(target_ids))

    def targets_of(self, event: Event) -> list[int]:
        """The ids of the targets that get *event*, sorted."""
        if event.direct_targets:
            return sorted(set(event.direct_targets))
        found: set[int] = set()
        is_for_all = event.is_broadcast and not is_internal(event.name)
        owners = {None} if is_internal(event.name) else {event.owner_id, None}
        for pattern in patterns_for(event.name):
            if is_for_all:
                found.update(self.by_pattern[pattern])
                continue
            for owner in owners:
                for pk, identifier in self.by_owner[pattern, owner]:
                    if event.is_broadcast or identifier in ("", event.identifier):
                        found.add(pk)
        return sorted(found)


#: Events that are ready, of two kinds, each of which has an index of its own.
AT_ONCE = "dispatched_at IS NULL AND deliver_at IS NULL"
PLANNED = "dispatched_at IS NULL AND deliver_at IS NOT NULL AND deliver_at <= {now}"
ONE_READY = f"""
    SELECT * FROM (SELECT 1 FROM djw_event WHERE {AT_ONCE} LIMIT 1) AS at_once
    UNION ALL SELECT * FROM (SELECT 1 FROM djw_event WHERE {PLANNED} LIMIT 1) AS planned
"""


def has_waiting(using: str) -> bool:
    """Whether there are events to dispatch now. Every worker asks, ten times a second."""
    return bool(database.execute(using, ONE_READY.format(now=database.sql_now(using))))


def next_planned(using: str) -> datetime | None:
    """When the next event with a ``deliver_at`` falls due."""
    planned = Event.objects.using(using).filter(dispatched_at__isnull=True, deliver_at__isnull=False)
    at: datetime | None = planned.aggregate(at=Min("deliver_at"))["at"]
    return at


def dispatch(using: str, *, batch: int = BATCH, page: int = PAGE) -> int | None:
    """Dispatch up to *batch* events, or about *page* deliveries; return how many events moved on.

    ``None`` says that somebody else is dispatching. No user code runs in here.
    """
    return dispatch_and_lease(using, NOBODY, batch=batch, page=page).moved


def dispatch_and_lease(using: str, lessee: Lessee, *, batch: int = BATCH, page: int = PAGE) -> Dispatched:
    """The same, and have *lessee* hold lanes that got deliveries: to lease them later would be a transaction of its own.

    A worker that was struck off gets none.
    """
    return database.run_transaction(using, partial(_dispatch, using, lessee, batch, page))


def _dispatch(using: str, lessee: Lessee, batch: int, page: int) -> Dispatched:
    worker_id = Dispatcher.lock_for(using, lessee.worker_id)
    if worker_id is None:
        return Dispatched(None)
    for factor in (1, FURTHER):
        # Never a watermark: an event with an early id may commit late.
        events = _read_ready(using, batch * factor)
        shares = list(_share(using, events, page * factor))
        lanes = _lock_lanes(using, {pk for share in shares for pk in share.target_ids})
        # One that was erased since it was read is not waiting any more.
        now, event_ids = database.lock_at(using, Event, [share.event.pk for share in shares], empty="dispatched_at")
        shares = list(_without_busy(shares, lanes, event_ids))
        if shares or len(events) < batch * factor:
            break
        # All of them wait for busy lanes: others may stand behind them.
    queues = {pk: lane for pk, lane in lanes.items() if lane is not None}
    plan = _line_up(using, shares, queues, now)
    paused = _find_paused(using, shares)
    # What newer ones take the place of is looked up in between.
    with database.batched(using) if plan.places is None else nullcontext():
        _append(using, plan, now)
        leased = _advance(using, plan.looks, queues, paused, lessee if worker_id else NOBODY, now)
        _mark(using, shares, now)
    return Dispatched(len(shares), leased, is_partial=not all(share.is_last for share in shares), at=now)


#: What dispatching has to know of an event.
EVENT = (
    "id",
    "name",
    "owner",
    "identifier",
    "is_broadcast",
    "ordering_key",
    "target_ids",
    "subjects",
    "created_at",
    "deliver_at",
    "expires_at",
    "dispatch_cursor",
    "coalesce",
)


def _read_ready(using: str, limit: int) -> list[Event]:
    """Read events that are sent as soon as can be, and planned ones that fell due, in the order of their ids."""
    return database.load_first(using, Event, EVENT, (AT_ONCE, PLANNED.format(now=database.sql_now(using))), limit)


# -- who gets what -----------------------------------------------------------------------------------------------------


def _share(using: str, events: list[Event], page: int) -> Iterator[Share]:
    """Choose what this transaction does: a page of one large event, and the small events that need not wait for it."""
    large = next((event for event in events if event.dispatch_cursor), None)
    # What was begun besides it goes on when it is done, before what comes behind that.
    waiting_keys = {event.ordering_key for event in events if event.dispatch_cursor and event is not large}
    others = [event for event in events if event is not large]
    if large is not None:
        share = _share_large(using, large, page // 2 if others else page)
        yield share
        has_followers = any(event.ordering_key == large.ordering_key for event in others)
        if not share.is_last and has_followers and (large.coalesce is not None or _has_ordered(using, large)):
            # Or an ordered target could get a later event of this key before it gets this one, and the state of the older last.
            waiting_keys.add(large.ordering_key)
    small = [event for event in others if event.ordering_key not in waiting_keys]
    yield from _share_small(using, small, page if large is None else page // 2, can_begin_large=large is None)


def _share_small(using: str, events: list[Event], page: int, *, can_begin_large: bool) -> Iterator[Share]:
    while events:
        size = len(events)
        while (candidates := _find_candidates(using, events[:size], page)) is None and size > 1:
            size //= 2
        if candidates is not None:
            yield from _fill_page(events[:size], candidates, page)
            return
        if can_begin_large:
            yield _share_large(using, events[0], page)
            return
        events = list(_pass_over(events))


def _pass_over(events: list[Event]) -> Iterator[Event]:
    """One large event at a time: the first of these and its like wait, and so does what comes behind them in their lines."""
    waiting_keys: set[str] = set()
    for event in events:
        if _kind(event) == _kind(events[0]) or event.ordering_key in waiting_keys:
            waiting_keys.add(event.ordering_key)
        else:
            yield event


def _kind(event: Event) -> tuple[str, object]:
    """What decides how many targets an event may have."""
    return event.name, "everybody" if event.is_broadcast else event.owner_id


def _fill_page(events: list[Event], candidates: Candidates, page: int) -> Iterator[Share]:
    count = 0
    for event in events:
        share = candidates.share(event)
        count += len(share.target_ids)
        if count > page and count > len(share.target_ids):
            return
        yield share


def _find_candidates(using: str, events: list[Event], limit: int) -> Candidates | None:
    """Return the subscriptions for these events, or ``None`` when there are more than *limit*."""
    found = Candidates()
    names = {event.name for event in events if not event.direct_targets}
    if not names:
        return found
    wanted = Subscription.objects.using(using).filter(event__in={p for name in names for p in patterns_for(name)})
    if not any(event.is_broadcast for event in events):
        owners = {event.owner_id for event in events} - {None}
        wanted = wanted.filter(Q(target__owner__isnull=True) | Q(target__owner__in=owners))
    columns = ("event", "target_id", "target__owner_id", "target__identifier", "target__is_active")
    rows = list(wanted.values_list(*columns)[: limit + 1])
    if len(rows) > limit:
        return None
    for pattern, target_id, owner_id, identifier, is_active in rows:
        found.by_owner[pattern, owner_id].append((target_id, identifier))
        found.by_pattern[pattern].append(target_id)
        if not is_active:
            found.paused.add(target_id)
    return found


def _share_large(using: str, event: Event, page: int) -> Share:
    rest = WebhookTarget.objects.using(using).matching(event).filter(pk__gt=event.dispatch_cursor)
    states = dict(rest.order_by("pk").values_list("pk", "is_active")[:page])
    paused = [pk for pk, is_active in states.items() if not is_active]
    return Share(event, list(states), is_last=len(states) < page, maybe_paused=paused)


def _has_ordered(using: str, event: Event) -> bool:
    rest = WebhookTarget.objects.using(using).matching(event).filter(pk__gt=event.dispatch_cursor)
    return rest.filter(is_ordered=True).exists()


# -- their lanes -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Queue:
    """What dispatching has to know of a lane, which is locked."""

    tail: int
    version: int
    is_ordered: bool | None
    due_at: datetime | None
    holder: int | None
    token: int
    health: Health


#: The columns of a lane that a queue is made of, behind its target.
QUEUE = ("held_until", "disabled_at", "tail", "version", "is_ordered", "due_at", "holder", "token")


def _lock_lanes(using: str, target_ids: set[int]) -> dict[int, Queue | None]:
    """Lock the targets' lanes, made where missing. ``None`` stands for one that an application keeps locked."""
    if len(target_ids) <= 1:  # One alone is locked in no wrong order, and mostly it is there and nobody has it.
        free = database.read_many(using, Lane, ("target", *QUEUE), target_ids, match="target", lock=True)
        if len(free) == len(target_ids):
            return dict(map(_make_queue, free))
    missing = target_ids.difference(pk for (pk,) in database.read_many(using, Lane, ["target"], target_ids, match="target"))
    if missing:
        targets = database.read_many(using, WebhookTarget, ("id", "is_ordered", "owner"), missing)
        database.insert_unless_locked(using, partial(_make_lanes, using, targets))
    rows = database.lock_many(using, Lane, ("target", *QUEUE), target_ids, match="target")
    locked: dict[int, Queue | None] = dict(map(_make_queue, rows))
    # A target that is there, with a lane that is locked or that somebody is deleting.
    others = database.read_many(using, WebhookTarget, ["id"], target_ids.difference(locked))
    return locked | {pk: None for (pk,) in others}


def _make_queue(row: Sequence[Any]) -> tuple[int, Queue]:
    pk, held_until, disabled_at, tail, version, is_ordered, due_at, holder, token = row
    is_closed = held_until is not None or disabled_at is not None
    health = Health(held_until=held_until, disabled_at=disabled_at) if is_closed else UNKNOWN
    return pk, Queue(tail, version, is_ordered, due_at, holder, token, health)


def _make_lanes(using: str, targets: list[tuple[int, bool, object]]) -> None:
    others = [field for field in Lane._meta.fields if field.name not in ("target", "is_ordered")]
    blank = {field.name: field.get_prep_value(field.get_default()) for field in others}
    rows = [(pk, is_ordered) for pk, is_ordered, _ in targets]
    database.insert_many(using, Lane, ("target", "is_ordered"), rows, constants=blank)
    # Before its first delivery, so that whatever way a target is deleted, it is known whose answers it leaves behind.
    owned = [pk for pk, _, owner_id in targets if owner_id is not None]
    database.copy_many(using, TargetOwner, {"target": "id", "owner": "owner"}, WebhookTarget, owned)


def _without_busy(shares: Iterable[Share], lanes: dict[int, Queue | None], event_ids: set[int]) -> Iterator[Share]:
    """Leave out events that are not ours, those for busy lanes, and those behind them, so that no target's order changes."""
    busy = {pk for pk, lane in lanes.items() if lane is None}
    for share in shares:
        if share.event.pk in event_ids and busy.isdisjoint(share.target_ids):
            yield share
        else:
            busy.update(share.target_ids)


@dataclass(slots=True)
class Plan:
    """The deliveries that are to be written, as values of ``COLUMNS``, and when their lanes are to be looked at."""

    rows: list[Row]
    looks: dict[int, datetime]
    #: The places of those that newer ones may take the place of, if there are any; and the lines whose first is not known yet.
    places: Places | None
    undecided: set[tuple[int, str]]


#: What is different in each new delivery.
COLUMNS = ("uid", "event", "target", "sequence", "ordering_key", "due_at", "expires_at")


def _line_up(using: str, shares: list[Share], lanes: dict[int, Queue], now: datetime) -> Plan:
    """Give each share's targets their deliveries, at the tails of their lanes."""
    kinds = _list_kinds(shares, lanes)
    places = Places(using, kinds) if kinds else None
    ordered = [kind for kind in kinds if lanes[kind.target_id].is_ordered]
    # Which is the first of these is known when all have their places.
    undecided = {(kind.target_id, kind.ordering_key) for kind in ordered}
    waiting = _pending_keys(using, shares, lanes) | undecided
    rows = []
    looks: dict[int, datetime] = {}
    for share in shares:
        event = share.event
        expires_at = _expiry(event, now)
        for pk in share.target_ids:
            lane = lanes.get(pk)
            if lane is None:  # The target was deleted a moment ago.
                continue
            lane.tail += 1
            uid, look_at = uuid7(), now
            if places is not None and event.coalesce is not None:
                look_at = places.take(event, pk, uid, now, expires_at)
            due_at = None if lane.is_ordered and (pk, event.ordering_key) in waiting else look_at
            waiting.add((pk, event.ordering_key))
            rows.append((uid, event.pk, pk, lane.tail, event.ordering_key, due_at, expires_at))
            looks[pk] = min(looks.get(pk, look_at), look_at)
    if places is not None:
        looks |= {kind.target_id: now for kind in ordered if places.has_others(kind)}
    return Plan(rows, looks, places, undecided)


def _list_kinds(shares: list[Share], lanes: dict[int, Queue]) -> set[Kind]:
    asking = [share for share in shares if share.event.coalesce is not None]
    return {Kind.of(share.event, pk) for share in asking for pk in share.target_ids if pk in lanes}


def _append(using: str, plan: Plan, now: datetime) -> None:
    """Write the deliveries."""
    if plan.places is None:
        _insert(using, plan.rows, now)
        return
    _insert(using, [plan.places.complete(row, now) for row in plan.rows], now, plan.places.COLUMNS)
    plan.places.settle(now)
    Delivery.objects.using(using).line_up(sorted(plan.undecided), now)


def _insert(using: str, rows: Sequence[tuple[Any, ...]], now: datetime, more: Sequence[str] = ()) -> None:
    start = {
        "status": Status.PENDING.value,
        "reason": "",
        "trigger": Trigger.EVENT.value,
        "attempt_count": 0,
        "schedule_offset": 0,
        "created_at": now,
    }
    constants = {name: value for name, value in start.items() if name not in more}
    database.insert_many(using, Delivery, (*COLUMNS, *more), rows, constants=constants)


def _pending_keys(using: str, shares: list[Share], lanes: dict[int, Queue]) -> set[tuple[int, str]]:
    """The (target, ordering key) pairs of ordered lanes that have something pending already."""
    pairs = {
        (pk, share.event.ordering_key)
        for share in shares
        for pk in share.target_ids
        if (lane := lanes.get(pk)) is not None and lane.is_ordered
    }
    select = (
        "SELECT target_id, ordering_key FROM djw_delivery "
        "WHERE target_id = %s AND ordering_key = %s AND status = 'pending' LIMIT 1"
    )
    return {(pk, key) for pk, key in database.union_all(using, select, sorted(pairs))}


def _expiry(event: Event, now: datetime) -> datetime | None:
    if event.expires_at is not None or conf.EXPIRE_AFTER is None:
        return event.expires_at
    return now + timedelta(seconds=conf.seconds("EXPIRE_AFTER"))


def _find_paused(using: str, shares: Iterable[Share]) -> set[int]:
    """The targets that are paused: asked under the locks of their lanes, or one that is resumed just now would be slept on."""
    maybe = {pk for share in shares for pk in share.maybe_paused}
    return {pk for pk, is_active in database.read_many(using, WebhookTarget, ("id", "is_active"), maybe) if not is_active}


def _advance(
    using: str, looks: dict[int, datetime], lanes: dict[int, Queue], paused: set[int], lessee: Lessee, now: datetime
) -> list[Held]:
    """Write the lanes' new tails, when they are due, and who holds them; return those that the lessee gets.

    One that holds its deliveries back is due when it looks for expired ones.
    """
    rows: list[tuple[Any, ...]] = []
    leased: list[Held] = []
    for pk, look_at in sorted(looks.items()):
        lane = lanes[pk]
        holds_back = pk in paused or lane.health.is_closed(now)
        at = next_look(lane.health, now, is_paused=pk in paused) if holds_back else look_at
        if at <= now and lane.holder is None and len(leased) < lessee.room and lessee.wants(pk):
            lane.holder, lane.token = lessee.worker_id, lane.token + 1
            leased.append(Held(pk, lane.token))
        due_at = at if lane.due_at is None else min(lane.due_at, at)
        rows.append((lane.tail, lane.version + 1, due_at, lane.holder, lane.token, pk))
    database.update_many(using, Lane, ("tail", "version", "due_at", "holder", "token"), rows, match=["target"])
    return leased


def _mark(using: str, shares: list[Share], now: datetime) -> None:
    """Write how far each event is. What nobody wants keeps its row, but not its captured call."""
    unwanted = [s.event.pk for s in shares if s.is_last and not s.target_ids and not s.event.dispatch_cursor]
    database.set_many(using, Event, {"call": ""}, unwanted)
    done = [s.event for s in shares if s.is_last]
    index_subjects(using, done)
    database.set_many(using, Event, {"dispatched_at": now, "subjects": ""}, [event.pk for event in done])
    for share in shares:
        if not share.is_last:
            database.set_many(using, Event, {"dispatch_cursor": share.target_ids[-1]}, [share.event.pk])
