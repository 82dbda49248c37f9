"""Lease, take, record, release: what workers do with lanes, and the only place that records what came of a delivery."""

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial, reduce
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import DataError, IntegrityError
from django.db.models import Case, Exists, F, Min, OuterRef, QuerySet, When, prefetch_related_objects

from djwebhooks import database
from djwebhooks.authentication.base import AccessToken
from djwebhooks.coalescing import Tried, end_outdated
from djwebhooks.conf import conf
from djwebhooks.database import DatabaseNow
from djwebhooks.exceptions import UndecryptableSecret
from djwebhooks.handshake import Permission, find_origin
from djwebhooks.health import Health
from djwebhooks.models import Attempt, Delivery, Dispatcher, Event, Lane, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status, Trigger
from djwebhooks.models.lanes import HEALTH, next_look
from djwebhooks.retry import DISABLED_BY_RECEIVER, GONE, NOT_PERMITTED
from djwebhooks.work import LOOKAHEAD, Held, Outcome, Recorded, Sent, Work

logger = logging.getLogger(__name__)

#: Seconds that a lease lasts beyond one exchange, and those of them that must be left for an attempt to start.
LEASE_MARGIN, START_MARGIN = 60, 10
#: Seconds without a heartbeat after which a worker does not keep others from beginning any more; its lanes rest for longer.
SILENCE = 15
#: How soon to look again for lanes that could not be given back.
ORPHAN_PAUSE = timedelta(seconds=5)
#: Deliveries that are ended or lined up anew in one transaction. A look at a lane does one page: all others wait for it.
PAGE = 1000
#: What went wrong with an attempt, in a word, if the database refuses what its transport said.
REFUSED = "internal_error"


class LeaseLost(Exception):
    """This worker is taken for dead: others may have its lanes."""


def lease_seconds() -> float:
    """How long a lease lasts without a heartbeat."""
    return conf.seconds("TIMEOUT") + LEASE_MARGIN


def start_seconds() -> float:
    """How much of its lease must be left for an attempt to start."""
    return conf.seconds("TIMEOUT") + START_MARGIN


# -- workers -----------------------------------------------------------------------------------------------------------


def enlist(using: str, name: str, place: str, most: int | None = None) -> int | datetime:
    """Register a worker called *name* that runs at *place*; return its id.

    If *most* of that name are at work already, return instead when the first of them will have been silent for too long.
    """

    def insert_worker() -> int | datetime:
        workers = Worker.objects.using(using)
        now = database.read_clock(using)
        if most is not None:
            Dispatcher.wait_for_lock(using)
            others = list(workers.filter(name=name, expires_at__gte=now + _rest_of_lease()).order_by("expires_at"))
            if len(others) >= most:
                return others[0].expires_at - _rest_of_lease()
        expires_at = now + timedelta(seconds=lease_seconds())
        return workers.create(name=name, place=place, expires_at=expires_at).pk

    return database.run_transaction(using, insert_worker)


def count_workers(using: str, name: str) -> int:
    """How many workers called *name* are at work: they were not silent for long."""
    return Worker.objects.using(using).filter(name=name, expires_at__gte=DatabaseNow() + _rest_of_lease()).count()


def _rest_of_lease() -> timedelta:
    """What is left of its lease when a worker has been silent for too long to be at work."""
    return timedelta(seconds=lease_seconds() - SILENCE)


def beat(using: str, worker_id: int) -> None:
    """Renew the leases of all the worker's lanes. Raises ``LeaseLost`` when others were free to take them."""
    expires_at = DatabaseNow() + timedelta(seconds=lease_seconds())
    if not Worker.objects.using(using).filter(pk=worker_id).update(expires_at=expires_at):
        raise LeaseLost


def retire(using: str, worker_id: int) -> None:
    """Give back all the worker's lanes and strike it off."""
    database.run_transaction(using, lambda: _bury(using, [worker_id]))


def reap(using: str) -> int:
    """Free the lanes of workers that stopped beating; return how many workers that were."""

    def bury_dead() -> int:
        dead = Worker.objects.using(using).filter(expires_at__lt=DatabaseNow()).order_by("pk")
        ids = [worker.pk for worker in database.lock_free_rows(dead, using)]
        _bury(using, ids)
        return len(ids)

    expired = Worker.objects.using(using).filter(expires_at__lt=DatabaseNow())
    return database.run_transaction(using, bury_dead) if expired.exists() or _orphaned(using).exists() else 0


def _orphaned(using: str) -> QuerySet[Lane]:
    """Lanes whose holder was struck off while an application kept them locked."""
    holder = Worker.objects.using(using).filter(pk=OuterRef("holder"))
    return Lane.objects.using(using).filter(~Exists(holder), holder__isnull=False)


def _bury(using: str, worker_ids: list[int]) -> None:
    Worker.objects.using(using).filter(pk__in=worker_ids).delete()
    lanes = Lane.objects.using(using).lock(list(_orphaned(using).values_list("pk", flat=True)))
    # Asked again under their locks: somebody else may have freed one meanwhile, and a third one holds it.
    freed = _orphaned(using).filter(pk__in=[lane.pk for lane in lanes])
    freed.update(holder=None, version=F("version") + 1)


# -- leasing -----------------------------------------------------------------------------------------------------------


def lease(using: str, worker_id: int, limit: int, *, only: Collection[int] | None = None) -> list[Held]:
    """Take up to *limit* lanes that are due and that nobody holds. Raises ``LeaseLost``."""
    if limit <= 0 or not is_one_free(using, only):
        return []
    free = Lane.objects.using(using).filter(holder__isnull=True, due_at__lte=DatabaseNow())
    if only is not None:
        free = free.filter(pk__in=only)

    def hold_free() -> list[Held]:
        beat(using, worker_id)  # A worker that was struck off must not take a lane: nobody would ever free it.
        lanes = database.lock_free_rows(free.order_by("due_at").only("token")[:limit], using)
        mine = Lane.objects.using(using).filter(pk__in=[lane.pk for lane in lanes])
        mine.update(holder=worker_id, token=F("token") + 1)
        return [Held(lane.pk, lane.token + 1) for lane in lanes]

    return database.run_transaction(using, hold_free)


def is_one_free(using: str, only: Collection[int] | None) -> bool:
    """Whether there may be a lane to lease, of these targets if it says so. Every worker asks, ten times a second."""
    among = "" if only is None else f" AND target_id IN ({', '.join(['%s'] * len(only)) or 'NULL'})"
    sql = f"SELECT 1 FROM djw_lane WHERE holder IS NULL AND due_at <= {database.sql_now(using)}{among} LIMIT 1"
    return bool(database.execute(using, sql, list(only or ())))


def list_held(using: str, worker_id: int) -> dict[int, int]:
    """The lanes that the worker holds, each with its token."""
    return dict(Lane.objects.using(using).filter(holder=worker_id).values_list("pk", "token"))


def list_versions(using: str, target_ids: Collection[int]) -> dict[int, int]:
    """The versions of these lanes."""
    return dict(database.read_many(using, Lane, ("target", "version"), target_ids, match="target"))


# -- taking ------------------------------------------------------------------------------------------------------------


def take(using: str, wanted: dict[int, int], held: dict[int, Held], now: datetime) -> list[Work]:
    """Look at the held lanes in *wanted* (target id to a number) and return up to so many due deliveries of each.

    It says on each ``Held`` what the lane and its target are like now, and sees to what was said of them since: a target
    that was deleted, paused, put in order. What is returned is not marked: the lease alone makes it ours.
    """
    lanes, targets = database.load_many(using, Lane, wanted), database.load_many(using, WebhookTarget, wanted)
    # Which of a target's filters count for an event, its subscriptions say.
    prefetch_related_objects([target for target in targets.values() if target.filters], "subscriptions")
    for pk in wanted:
        _bring_up_to_date(using, held[pk], lanes.get(pk), targets.get(pk), now)
    due_at = database.to_database(using, now)
    parameters = [(pk, due_at, 1 if held[pk].is_probed else limit) for pk, limit in wanted.items() if held[pk].is_open]
    rows = database.union_all(using, _select_due(using), parameters)
    return [_work(row, held[row[2]].token) for row in rows]


def _select_due(using: str) -> str:
    trigger = database.quote(using, "trigger")
    return (
        f"SELECT id, event_id, target_id, sequence, ordering_key, attempt_count, schedule_offset, {trigger}, expires_at, reason, "
        "is_replaceable, coalesced_count, replay_id FROM djw_delivery "
        "WHERE target_id = %s AND due_at <= %s AND status = 'pending' ORDER BY due_at, sequence LIMIT %s"
    )


def _work(row: Sequence[Any], token: int) -> Work:
    delivery_id, event_id, target_id, sequence, key, attempt_count, schedule_offset, trigger, expires_at, *others = row
    at = None if expires_at is None else database.as_time(expires_at)
    return Work(delivery_id, event_id, target_id, token, sequence, key, attempt_count, schedule_offset, trigger, at, *others)


def claim(using: str, delivery_ids: Collection[int]) -> tuple[set[int], set[int]]:
    """See to it that no newer event takes the place of these deliveries any more, before they are sent.

    Return those that may be sent, and those that have ended; somebody has locked the others.
    """

    def keep_places() -> tuple[set[int], set[int]]:
        rows = database.read_many(using, Delivery, ("id", "status"), delivery_ids, lock=True)
        claimed = {pk for pk, status in rows if status == Status.PENDING}
        Delivery.objects.using(using).filter(pk__in=claimed).update(coalesce_until=None)
        return claimed, {pk for pk, _ in rows} - claimed

    return database.run_transaction(using, keep_places)


def list_pending(using: str, delivery_ids: Collection[int]) -> set[int]:
    """Return those of these deliveries that are still to be sent: nobody has cancelled them, or put something newer there."""
    rows = database.read_many(using, Delivery, ("id", "status"), delivery_ids)
    return {pk for pk, status in rows if status == Status.PENDING}


def _bring_up_to_date(using: str, held: Held, lane: Lane | None, target: WebhookTarget | None, now: datetime) -> None:
    held.target = target
    held.is_open = held.is_unfinished = False
    held.look_again_at = None
    if lane is None or lane.token != held.token:
        return
    if held.version < 0:  # Afterwards only its holder, that is us, changes it.
        held.access_token = _read_token(lane)
        held.permission = Permission.restore(lane.permission) if lane.permission else None
    held.version = lane.version
    held.next_free_at = lane.next_free_at
    held.health = lane.health
    if held.permission is not None and not _is_of(held.permission, target):
        held.set_permission(None)
    held.keep_to_rate(now)
    if target is None:
        held.is_unfinished = not close_orphan(using, held.target_id)
    elif not target.is_active or held.health.is_closed(now):
        held.is_unfinished = not _expire_held(using, held, now)
        held.look_again_at = next_look(held.health, now, is_paused=not target.is_active)
    else:
        held.is_open = True
    if target is not None and lane.is_ordered != target.is_ordered:
        held.is_unfinished |= not _line_up_anew(using, held.target_id, is_ordered=target.is_ordered)
    held.is_ordered = target is not None and target.is_ordered
    if held.is_unfinished:
        held.is_open, held.look_again_at = False, now


def _read_token(lane: Lane) -> AccessToken | None:
    try:
        return AccessToken.restore(lane.access_token) if lane.access_token else None
    except UndecryptableSecret:
        return None  # The next one is encrypted with a key that is known.


def _is_of(permission: Permission, target: WebhookTarget | None) -> bool:
    """Whether it was given to who asks for *target* now; a sender may say another URL for each event."""
    return target is not None and permission.origin == find_origin(target.envelope)


def keep_grants(using: str, held: Held) -> None:
    """Write access token and permission to the lane, for whoever holds it next; not if that is locked, as there are others."""
    stored = {
        "access_token": held.access_token.stored if held.access_token is not None else {},
        "permission": held.permission.stored if held.permission is not None else {},
    }
    mine = Lane.objects.using(using).filter(pk=held.target_id, token=held.token)
    database.run_transaction(using, lambda: _lock_now(using, held.target_id) and mine.update(**stored))
    held.has_new_grant = False


def _lock_now(using: str, target_id: int) -> bool:
    """Lock one lane, unless an application has it locked: there is always a next time."""
    return bool(database.lock_free_rows(Lane.objects.using(using).filter(pk=target_id), using))


def close_orphan(using: str, target_id: int, *, is_patient: bool = False) -> bool:
    """End a page of what waits for a target that no longer exists, and its lane after the last, so that nothing more is recorded.

    Return whether that was the last. A lane that somebody has locked is left alone, unless *is_patient*.
    """
    lane = Lane.objects.using(using).filter(pk=target_id)

    def cancel_page() -> bool:
        if not (list(lane.select_for_update()) if is_patient else database.lock_free_rows(lane, using)):
            return is_patient  # Then it is gone.
        deliveries = Delivery.objects.using(using)
        ids = list(deliveries.filter(target_id=target_id).pending().order_by().values_list("pk", flat=True)[:PAGE])
        deliveries.filter(pk__in=ids).end(Status.CANCELLED, "target_deleted")
        is_last = len(ids) < PAGE
        if is_last:
            lane.delete()
        return is_last

    return database.run_transaction(using, cancel_page)


def _expire_held(using: str, held: Held, now: datetime) -> bool:
    """End a page of what a lane has held back past its time, or for too long; return whether it was the last."""
    expired = Delivery.objects.using(using).filter(target_id=held.target_id).pending().expirable(now)
    if not expired.exists():
        return True

    def expire_page() -> dict[int, str] | None:
        if not _lock_now(using, held.target_id):
            return None
        keys = dict(expired.order_by().values_list("pk", "ordering_key")[:PAGE])
        page = Delivery.objects.using(using).filter(pk__in=keys)
        page.filter(expires_at__lte=now).end(Status.EXPIRED, "expired")
        page.end(Status.EXPIRED, "held_too_long")
        if Lane.objects.using(using).filter(pk=held.target_id, is_ordered=True).exists():
            Delivery.objects.using(using).line_up([(held.target_id, key) for key in set(keys.values())], now)
        return keys

    keys = database.run_transaction(using, expire_page)
    held.expired += keys or ()
    return keys is not None and len(keys) < PAGE


def _line_up_anew(using: str, target_id: int, *, is_ordered: bool) -> bool:
    """Do a page of making a lane ordered, so that only the first of each key is due, or unordered, so that all are.

    Return whether it was the last. What waits for newer events goes on doing so.
    """
    due_at = Case(When(coalesce_until__gt=DatabaseNow(), then=F("coalesce_until")), default=DatabaseNow())
    waiting = Delivery.objects.using(using).filter(target_id=target_id).pending().order_by()
    idle = waiting.filter(due_at__isnull=True)
    early = waiting.none()
    if is_ordered:
        earlier = waiting.filter(ordering_key=OuterRef("ordering_key"), sequence__lt=OuterRef("sequence"))
        early, idle = waiting.filter(Exists(earlier), due_at__isnull=False), idle.filter(~Exists(earlier))

    def change_page() -> bool:
        if not _lock_now(using, target_id):
            return False
        is_last = True
        for rows, at in ((early, None), (idle, due_at)):
            ids = list(rows.values_list("pk", flat=True)[:PAGE])
            Delivery.objects.using(using).filter(pk__in=ids).update(due_at=at)
            is_last &= len(ids) < PAGE
        # Until the last page neither order is true, and whoever looks next must line it up, whichever is wanted then.
        state = {"is_ordered": is_ordered, "version": F("version") + 1} if is_last else {"is_ordered": None}
        Lane.objects.using(using).filter(pk=target_id).update(**state)
        return is_last

    return database.run_transaction(using, change_page)


def reserve(using: str, held: Held, rate: float, most: int, now: datetime) -> list[datetime]:
    """Reserve up to *most* instants of *rate* a second, before anything is sent, and return them; none if the lease is lost.

    None is further ahead than ``LOOKAHEAD``. A crash after that sends too little, never too much (GCRA, with no burst).
    """
    wait = max(timedelta(), (held.next_free_at or now) - now)
    if wait >= LOOKAHEAD:
        return []
    count = min(most, int((LOOKAHEAD - wait).total_seconds() * rate) + 1)
    pause = timedelta(seconds=1 / rate)
    first = max(held.next_free_at or now, now)
    end = first + pause * count
    mine = Lane.objects.using(using).filter(pk=held.target_id, token=held.token)
    if not database.run_transaction(using, lambda: _lock_now(using, held.target_id) and mine.update(next_free_at=end)):
        return []
    held.next_free_at = end
    return [first + pause * number for number in range(count)]


# -- recording ---------------------------------------------------------------------------------------------------------


def record(using: str, worker_id: int, outcomes: Sequence[Outcome], now: datetime) -> Recorded:
    """Write attempts and verdicts, fenced by the lease: results for a lane that is no longer ours are dropped.

    One that the database refuses keeps no other from being recorded: of its exchange, only that there was one is kept.
    """
    try:
        return database.run_transaction(using, partial(_record, using, worker_id, outcomes, now))
    except (DataError, IntegrityError) as error:
        result = Recorded()
        for part in _halve(outcomes) if len(outcomes) > 1 else [[_without_reply(outcomes[0], error)]]:
            result.add(record(using, worker_id, part, now))
        return result


def _halve(outcomes: Sequence[Outcome]) -> list[Sequence[Outcome]]:
    middle = len(outcomes) // 2
    return [outcomes[:middle], outcomes[middle:]]


def _without_reply(outcome: Outcome, error: Exception) -> Outcome:
    """The same verdict without what the transport said, which is what may not fit. Raises *error* if there is nothing of that."""
    if outcome.sent is None or outcome.sent.error == REFUSED:
        raise error
    refusal = str(error).partition("\n")[0]  # What follows may quote the row.
    logger.error("delivery=%s: the database refuses what the transport said: %s", outcome.work.delivery_id, refusal)
    verdict = outcome.reason or outcome.status
    detail = f"It came to {verdict}, which counts, but the database refuses what the transport said: {refusal}"
    sent = Sent(outcome.sent.url, outcome.sent.started_at, 0.0, None, {}, "", REFUSED, detail, "")
    return outcome._replace(sent=sent, reason=REFUSED if outcome.reason == outcome.sent.failure else outcome.reason)


class Locked(NamedTuple):
    """What recording has to know of a lane, which is locked."""

    holder: int | None
    token: int
    is_ordered: bool | None
    health: Health


def _lock_lanes(using: str, target_ids: Collection[int]) -> dict[int, Locked]:
    """Lock the lanes, except those that an application has locked."""
    columns = ("target", "holder", "token", "is_ordered", *HEALTH)
    rows = database.read_many(using, Lane, columns, target_ids, match="target", lock=True)
    return {pk: Locked(holder, token, is_ordered, Health(*health)) for pk, holder, token, is_ordered, *health in rows}


def _record(using: str, worker_id: int, outcomes: Sequence[Outcome], now: datetime) -> Recorded:
    target_ids = {outcome.work.target_id for outcome in outcomes}
    lanes = _lock_lanes(using, target_ids)
    busy = {pk for (pk,) in database.read_many(using, Lane, ["target"], target_ids.difference(lanes), match="target")}
    result = Recorded(postponed=[outcome for outcome in outcomes if outcome.work.target_id in busy])
    for outcome in outcomes:
        lane = lanes.get(outcome.work.target_id)
        if lane is not None and (lane.holder, lane.token) == (worker_id, outcome.work.token):
            result.outcomes.append(outcome)
    _let_new_address_speak(using, result, now)
    _write_attempts(using, _forget_erased(using, result.outcomes))
    _write_statuses(using, result.outcomes, now)
    outdated = _end_outdated(using, result.outcomes, now)
    _line_up_next(using, result.outcomes, outdated, lanes, now)
    _write_health(using, result, lanes, now)
    _write_key_checks(using, result.outcomes, now)
    return result


def _let_new_address_speak(using: str, result: Recorded, now: datetime) -> None:
    """Where a target has left the address that asks for silence, or for no more, send to the new one instead."""
    asking = {outcome.work.target_id for outcome in result.outcomes if _find_asking(outcome)}
    urls = dict(database.read_many(using, WebhookTarget, ("id", "target_url"), asking)) if asking else {}
    for number, outcome in enumerate(result.outcomes):
        sent, url = _find_asking(outcome), urls.get(outcome.work.target_id)
        if sent and url is not None and sent.url != url:
            result.outcomes[number] = _overhear(outcome, sent, now)
            result.changed.add(outcome.work.target_id)


def _find_asking(outcome: Outcome) -> Sent | None:
    """The exchange in which the target's own receiver, and no sender's or token server, asked something for the whole lane."""
    sent = outcome.sent
    has_answered = sent is not None and (sent.status_code is not None or sent.error == NOT_PERMITTED)
    is_asking = has_answered and not outcome.work.sender and (outcome.disables or outcome.hold_until)
    return sent if is_asking else None


def _overhear(outcome: Outcome, sent: Sent, now: datetime) -> Outcome:
    """Return *outcome* as if only this attempt had failed, and is followed by another."""
    outcome = outcome._replace(disables="", hold_until=None)
    is_open = outcome.status == Status.PENDING or outcome.reason in (GONE, DISABLED_BY_RECEIVER)
    return outcome._replace(status=Status.PENDING, reason=sent.failure, due_at=now) if is_open else outcome


def _forget_erased(using: str, outcomes: list[Outcome]) -> list[Outcome]:
    """Leave out the data of events that were erased while they were on their way, and what was answered to them."""
    # Read under the lanes' locks: who erases cleans up what was recorded before under the same ones.
    ids = {outcome.work.event_id for outcome in outcomes if outcome.sent is not None}
    erased = {pk for pk, erased_at in database.read_many(using, Event, ("id", "erased_at"), ids) if erased_at is not None}
    if not erased:
        return outcomes
    own = dict(database.read_many(using, WebhookTarget, ("id", "target_url"), {outcome.work.target_id for outcome in outcomes}))
    return [
        outcome._replace(sent=outcome.sent.without_data(own.get(outcome.work.target_id)))
        if outcome.sent and outcome.work.event_id in erased
        else outcome
        for outcome in outcomes
    ]


def _write_attempts(using: str, outcomes: Iterable[Outcome]) -> None:
    rows = [
        (outcome.work.delivery_id, outcome.work.attempt_count + 1, outcome.work.trigger, *outcome.sent)
        for outcome in outcomes
        if outcome.sent is not None
    ]
    database.insert_many(using, Attempt, ("delivery", "number", "trigger", *Sent._fields), rows)


def _write_statuses(using: str, outcomes: Sequence[Outcome], now: datetime) -> None:
    """Write each delivery's status, unless people ended or reopened it meanwhile; but what arrived has arrived."""
    ended, reopened = _find_touched(using, outcomes)
    rows, counts, replaceable = [], [], []
    for outcome in outcomes:
        work = outcome.work
        count = work.attempt_count + (outcome.sent is not None)
        if not outcome.is_success and (work.delivery_id in ended or work.delivery_id in reopened):
            # A retry has the whole schedule before it, whatever was on its way.
            offset = count if work.delivery_id in reopened else work.schedule_offset
            counts.append((count, offset, work.delivery_id))
            continue
        is_pending = outcome.status == Status.PENDING
        due_at, finished_at = (outcome.due_at, None) if is_pending else (None, now)
        next_trigger = Trigger.RETRY.value if outcome.sent is not None else work.trigger
        rows.append((outcome.status, outcome.reason, due_at, finished_at, next_trigger, count, work.delivery_id))
        if is_pending and work.is_replaceable:
            replaceable.append((due_at, work.delivery_id))
    columns = ("status", "reason", "due_at", "finished_at", "trigger", "attempt_count")
    database.update_many(using, Delivery, columns, rows)
    database.update_many(using, Delivery, ("attempt_count", "schedule_offset"), counts)
    database.update_many(using, Delivery, ["coalesce_until"], replaceable)
    arrived = [o.work.delivery_id for o in outcomes if o.is_success and o.work.is_replaceable]
    if arrived:  # It may have been ended for something newer while it was on its way.
        Delivery.objects.using(using).filter(pk__in=arrived, replaced_by__isnull=False).update(replaced_by=None)
    own_faults = [o.work for o in outcomes if o.sent is not None and not o.counts]
    offsets = [(work.schedule_offset + 1, work.delivery_id, work.schedule_offset + 1) for work in own_faults]
    sql = "UPDATE djw_delivery SET schedule_offset = %s WHERE id = %s AND schedule_offset < %s"
    database.execute_many(using, sql, offsets)


def _find_touched(using: str, outcomes: Sequence[Outcome]) -> tuple[set[int], set[int]]:
    """The deliveries that somebody ended, and those that somebody wants tried again, since they were taken."""
    # What arrived has arrived, whatever anybody did to it.
    replays = {outcome.work.delivery_id: outcome.work.replay_id for outcome in outcomes if not outcome.is_success}
    ended, reopened = set(), set()
    for pk, status, replay_id in database.read_many(using, Delivery, ("id", "status", "replay"), replays):
        if status != Status.PENDING:
            ended.add(pk)
        elif replay_id != replays[pk]:
            reopened.add(pk)
    return ended, reopened


def _end_outdated(using: str, outcomes: Iterable[Outcome], now: datetime) -> set[tuple[int, str]]:
    """End what something newer makes out of date; return in which (target id, ordering key) pairs."""
    open_or_well = (o for o in outcomes if o.work.is_replaceable and (o.is_success or o.due_at is not None))
    tried = [Tried(o.work.delivery_id, o.work.event_id, o.work.target_id, o.work.ordering_key, o.due_at) for o in open_or_well]
    return end_outdated(using, tried, now) if tried else set()


def _line_up_next(
    using: str, outcomes: Iterable[Outcome], outdated: set[tuple[int, str]], lanes: dict[int, Locked], now: datetime
) -> None:
    works = (outcome.work for outcome in outcomes if outcome.status != Status.PENDING)
    pairs = outdated.union((work.target_id, work.ordering_key) for work in works)
    Delivery.objects.using(using).line_up(sorted(pair for pair in pairs if lanes[pair[0]].is_ordered), now)


def _write_health(using: str, result: Recorded, lanes: dict[int, Locked], now: datetime) -> None:
    by_lane: dict[int, list[Outcome]] = defaultdict(list)
    for outcome in result.outcomes:
        if outcome.sent is not None or outcome.hold_until is not None:
            by_lane[outcome.work.target_id].append(outcome)
    rows = []
    for pk, outcomes in by_lane.items():
        before = lanes[pk].health
        after = reduce(partial(_judge_health, now=now), outcomes, before)
        if after == before:
            continue
        rows.append((*attrgetter(*HEALTH)(after), pk))
        if after.disabled_at is not None and before.disabled_at is None:
            result.disabled[pk] = after.disabled_reason
        if _is_sent_to_differently(before, after):
            result.changed.add(pk)
    database.update_many(using, Lane, HEALTH, rows, match=["target"])
    for target in WebhookTarget.objects.using(using).filter(pk__in=result.disabled) if result.disabled else ():
        target.report_disabled(result.disabled[target.pk])


def _write_key_checks(using: str, outcomes: Iterable[Outcome], now: datetime) -> None:
    for outcome in outcomes:
        if outcome.key_answer and outcome.sent is not None:
            lane = Lane.objects.using(using).get(pk=outcome.work.target_id)
            lane.note_key_check(outcome.work.only_key, outcome.key_answer, outcome.sent.url, now)
            lane.save(using=using, update_fields=["key_checks"])


def _judge_health(health: Health, outcome: Outcome, now: datetime) -> Health:
    """Return what is known of the receiver after *outcome*. Our own faults say nothing of it."""
    if outcome.hold_until is not None:
        health = health.hold(outcome.hold_until)
    if outcome.counts and outcome.is_success:
        health = health.succeed(now)
    elif outcome.counts and outcome.sent is not None:
        health = health.fail(outcome.sent.failure, outcome.sent.started_at, now)
    return health.disable(outcome.disables, now) if outcome.disables else health


def _is_sent_to_differently(before: Health, after: Health) -> bool:
    return any(
        getattr(before, name) != getattr(after, name)
        for name in ("held_until", "suspended_at", "recovering_since", "disabled_at")
    )


# -- releasing ---------------------------------------------------------------------------------------------------------


def release(using: str, worker_id: int, lanes: Collection[Held], now: datetime, *, is_due: bool = False) -> set[int]:
    """Give back lanes that were looked at and had nothing due; return the ids of those that are still held.

    A lane stays held when work may have become due since it was looked at: its version tells. With *is_due* lanes are given
    back though something is due, for whoever leases next.
    """
    if not lanes:
        return set()
    return database.run_transaction(using, partial(_release, using, worker_id, lanes, now, is_due))


def _release(using: str, worker_id: int, lanes: Collection[Held], now: datetime, is_due: bool) -> set[int]:
    ids = [held.target_id for held in lanes]
    free = {pk for (pk,) in database.read_many(using, Lane, ["target"], ids, match="target", lock=True)}
    next_due = _find_next_due(using, list(free))
    rows = []
    for held in (held for held in lanes if held.target_id in free):
        unused = min(held.spare, default=held.next_free_at)
        held.next_free_at = max(filter(None, (unused, held.spaced_at)), default=None)
        held.spare.clear()
        at = _due_again(held, next_due.get(held.target_id))
        if held.is_open and at is not None and at <= now:
            if not is_due:
                continue
            at = now  # Behind all that are due already.
        rows.append((None, at, held.next_free_at, held.target_id, worker_id, held.token, held.version))
    columns, match = ("holder", "due_at", "next_free_at"), ("target", "holder", "token", "version")
    database.update_many(using, Lane, columns, rows, match=match)
    holders = database.read_many(using, Lane, ("target", "holder"), ids, match="target")
    return {pk for pk, holder in holders if holder == worker_id}


def _find_next_due(using: str, target_ids: Sequence[int]) -> dict[int, datetime]:
    select = (
        "SELECT target_id, due_at FROM djw_delivery "
        "WHERE target_id = %s AND due_at IS NOT NULL AND status = 'pending' ORDER BY due_at LIMIT 1"
    )
    found = database.union_all(using, select, [(pk,) for pk in target_ids])
    return {pk: database.as_time(due_at) for pk, due_at in found}


def _due_again(held: Held, next_due: datetime | None) -> datetime | None:
    """When a released lane is due again: when its first delivery is, but not before its limits allow."""
    if held.is_unfinished:
        return held.look_again_at  # Which of its deliveries are due is not settled yet.
    if next_due is None:
        return None
    earliest = held.next_free_at if held.is_open else held.look_again_at
    return max(next_due, earliest) if earliest is not None else next_due


def is_one_paced(using: str, until: datetime, *, only: Collection[int] | None = None) -> bool:
    """Whether a lane that nobody holds, one of *only*, is held back by its rate alone, and until *until* at most."""
    paced = Lane.objects.using(using).filter(holder__isnull=True, due_at__lte=until, next_free_at=F("due_at"))
    return (paced if only is None else paced.filter(pk__in=only)).exists()


def next_due_lane(using: str) -> datetime | None:
    """When the next lane that nobody holds falls due."""
    free = Lane.objects.using(using).filter(holder__isnull=True, due_at__isnull=False).order_by("due_at")
    return free.values_list("due_at", flat=True).first()


def next_expiry(using: str) -> datetime | None:
    """When the first lease on a lane ends, if its worker is dead: nobody else says that the lane's work goes on then."""
    if _orphaned(using).exists():  # They are given back as soon as an application lets go of them.
        return database.read_clock(using) + ORPHAN_PAUSE
    holders = Lane.objects.using(using).filter(holder__isnull=False).values("holder")
    at: datetime | None = Worker.objects.using(using).filter(pk__in=holders).aggregate(at=Min("expires_at"))["at"]
    return at
