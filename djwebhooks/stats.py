"""Count what waits, what fails and who works, at a bounded cost."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Q
from redis import RedisError
from rq import Worker as RQWorker

from djwebhooks import database, lanes
from djwebhooks.conf import conf
from djwebhooks.engines import get_engine
from djwebhooks.engines.jobs import fast_queue, has_scheduler
from djwebhooks.engines.rq import RQEngine
from djwebhooks.models import Event, Lane, WebhookTarget, Worker
from djwebhooks.models.events import events_database
from djwebhooks.models.operation import STATES

#: Rows that one number counts at most, and targets that are listed.
LIMIT, TOP = 100_000, 10
#: Seconds that count as lately.
LATELY = 86400.0
#: Seconds after which due work that nobody sends is worth a word.
LATE = 60.0


@dataclass(frozen=True, slots=True)
class TargetStats:
    """One target's numbers. *oldest_due_age* is in seconds, None when nothing is due."""

    uid: str
    target_url: str
    state: str
    pending: int
    due: int
    failed_lately: int
    oldest_due_age: float | None


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """One worker. *age* and *heartbeat_age* are in seconds; it *is_live* until its lease ends."""

    name: str
    place: str
    age: float
    heartbeat_age: float
    is_live: bool
    lanes_leased: int


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The RQ queue, as far as Redis answers: *error* is empty if it does."""

    name: str
    error: str = ""
    has_scheduler: bool = False
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """How djwebhooks fares. No number counts beyond *limit*; one that has reached it stands for so many or more.

    *events_failing*, whose payload could not be built the last time, are counted among that many of the newest. Where
    *deliveries_pending* has reached the limit, *deliveries_due*, *deliveries_held* and the numbers of *targets* are counted among
    that many of them, whichever these are: there may be more. *oldest_waiting_age*, and *oldest_due_age* over targets that may
    be sent to, are in seconds, None when there is nothing; they are exact, however much there is. *notices* say in words what is
    wrong and what to do.
    """

    limit: int
    events_waiting: int
    events_planned: int
    events_failing: int
    oldest_waiting_age: float | None
    deliveries_pending: int
    deliveries_due: int
    deliveries_held: int
    failed_lately: int
    oldest_due_age: float | None
    lanes_leased: int
    lanes_due: int
    targets_healthy: int
    targets_degraded: int
    targets_suspended: int
    targets_disabled: int
    targets_paused: int
    engine: str
    queue: QueueStats | None
    workers: list[WorkerStats]
    targets: list[TargetStats]
    notices: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as what JSON can hold."""
        return asdict(self)


def collect(*, using: str | None = None, limit: int = LIMIT) -> Stats:
    """Return the numbers of now. Nothing in here waits long: Redis has a fraction of a second to answer."""
    alias = using or events_database()
    now = database.read_clock(alias)
    numbers = {
        **count(alias, now, limit),
        "failed_lately": sum(count_failed(alias, now, limit).values()),
        "targets": list_targets(alias, now, limit),
        "queue": ask_queue(),
    }
    return Stats(limit=limit, engine=conf.ENGINE, notices=list(advise(numbers)), **numbers)


def count(using: str, now: datetime, limit: int) -> dict[str, Any]:
    """Return those numbers that are about what is there, by their names in ``Stats``."""
    return {
        **count_events(using, now, limit),
        **count_deliveries(using, now, limit),
        **count_lanes(using, now),
        "workers": list_workers(using, now),
    }


# -- events ------------------------------------------------------------------------------------------------------------


def count_events(using: str, now: datetime, limit: int) -> dict[str, Any]:
    waiting = Event.objects.using(using).waiting()
    at_once, planned = waiting.filter(deliver_at__isnull=True), waiting.filter(deliver_at__gt=now)
    overdue = waiting.filter(deliver_at__lte=now)
    since = [
        at_once.order_by("id").values_list("created_at", flat=True).first(),
        overdue.order_by("deliver_at").values_list("deliver_at", flat=True).first(),
    ]
    ages = [(now - at).total_seconds() for at in since if at is not None]
    return {
        "events_waiting": min(at_once[:limit].count() + overdue[:limit].count(), limit),
        "events_planned": planned[:limit].count(),
        "events_failing": Event.objects.using(using).failing(limit).count(),
        "oldest_waiting_age": max(ages, default=None),
    }


# -- deliveries --------------------------------------------------------------------------------------------------------

#: Whether a target may be sent to.
IS_OPEN = """
    djw_target.is_active AND djw_lane.disabled_at IS NULL AND djw_lane.suspended_at IS NULL
    AND (djw_lane.held_until IS NULL OR djw_lane.held_until <= %s)
"""
#: Some pending deliveries, each with whether its target may be sent to; the limit keeps the cost bounded.
PENDING = f"""
    SELECT sample.target_id, sample.due_at, CASE WHEN {IS_OPEN} THEN 1 ELSE 0 END AS is_open
    FROM (SELECT target_id, due_at FROM djw_delivery WHERE status = 'pending' LIMIT %s) AS sample
    LEFT JOIN djw_target ON djw_target.id = sample.target_id
    LEFT JOIN djw_lane ON djw_lane.target_id = sample.target_id
"""
#: Since when the oldest delivery is due: the oldest of each lane that has anything to do, now or later.
OLDEST = f"""
    SELECT MIN((
        SELECT MIN(due_at) FROM djw_delivery
        WHERE djw_delivery.target_id = djw_lane.target_id AND status = 'pending' AND due_at <= %s
    )) FROM djw_lane INNER JOIN djw_target ON djw_target.id = djw_lane.target_id
    WHERE (djw_lane.holder IS NOT NULL OR djw_lane.due_at IS NOT NULL) AND {IS_OPEN}
"""


def count_deliveries(using: str, now: datetime, limit: int) -> dict[str, Any]:
    sql = f"""
        SELECT COUNT(*), SUM(CASE WHEN is_open = 1 AND due_at <= %s THEN 1 ELSE 0 END), SUM(1 - is_open)
        FROM ({PENDING}) AS pending
    """
    at = database.to_database(using, now)
    [(pending, due, held)] = database.execute(using, sql, [at, at, limit])
    [(oldest,)] = database.execute(using, OLDEST, [at, at])
    return {
        "deliveries_pending": pending,
        "deliveries_due": int(due or 0),
        "deliveries_held": int(held or 0),
        "oldest_due_age": age_of(oldest, now),
    }


def age_of(value: Any, now: datetime) -> float | None:
    """The age in seconds of a time that plain SQL selected, None for none."""
    return (now - database.as_time(value)).total_seconds() if value is not None else None


def count_failed(using: str, now: datetime, limit: int) -> dict[int, int]:
    """Deliveries that failed lately, by target id: among the last that were made, as far as *limit* goes."""
    sql = """
        SELECT target_id, COUNT(*) FROM (
            SELECT target_id, finished_at FROM djw_delivery WHERE status = 'failed' ORDER BY id DESC LIMIT %s
        ) AS failed WHERE finished_at >= %s GROUP BY target_id
    """
    since = database.to_database(using, now - timedelta(seconds=LATELY))
    return dict(database.execute(using, sql, [limit, since]))


def list_targets(using: str, now: datetime, limit: int) -> list[TargetStats]:
    """The targets with most pending or lately failed deliveries."""
    sql = f"""
        SELECT target_id, COUNT(*), SUM(CASE WHEN due_at <= %s THEN 1 ELSE 0 END), MIN(CASE WHEN due_at <= %s THEN due_at END)
        FROM ({PENDING}) AS pending GROUP BY target_id ORDER BY 2 DESC, target_id LIMIT %s
    """
    at = database.to_database(using, now)
    pending = {row[0]: row[1:] for row in database.execute(using, sql, [at, at, at, limit, TOP])}
    failed = count_failed(using, now, limit)
    most_failed = sorted(failed, key=lambda pk: (-failed[pk], pk))[:TOP]
    targets = WebhookTarget.objects.using(using).in_bulk({*pending, *most_failed})
    listed = []
    for pk, target in targets.items():
        count, due, oldest = pending.get(pk, (0, 0, None))
        numbers = (count, int(due or 0), failed.get(pk, 0), age_of(oldest, now))
        listed.append(TargetStats(str(target.uid), target.target_url, target.state, *numbers))
    return sorted(listed, key=lambda target: (-target.pending, -target.failed_lately, target.uid))[:TOP]


# -- lanes and workers -------------------------------------------------------------------------------------------------


def count_lanes(using: str, now: datetime) -> dict[str, int]:
    counts: dict[str, int] = Lane.objects.using(using).aggregate(
        lanes_leased=Count("pk", filter=Q(holder__isnull=False)),
        lanes_due=Count("pk", filter=Q(holder__isnull=True, due_at__lte=now)),
    )
    targets = WebhookTarget.objects.using(using)
    return counts | {f"targets_{state}": targets.in_state(state).count() for state in STATES}


def list_workers(using: str, now: datetime) -> list[WorkerStats]:
    """Every worker that is registered, the dead ones that nobody has struck off yet too."""
    held = dict(
        Lane.objects.using(using).filter(holder__isnull=False).values_list("holder").annotate(Count("pk")).order_by("holder")
    )
    return [
        WorkerStats(
            name=worker.name,
            place=worker.place,
            age=(now - worker.started_at).total_seconds(),
            heartbeat_age=lanes.lease_seconds() - (worker.expires_at - now).total_seconds(),
            is_live=worker.expires_at > now,
            lanes_leased=held.get(worker.pk, 0),
        )
        for worker in Worker.objects.using(using).order_by("pk")
    ]


# -- the engine --------------------------------------------------------------------------------------------------------


def ask_queue() -> QueueStats | None:
    """Ask Redis about the queue of the engine on RQ; None with another engine."""
    if not isinstance(get_engine(), RQEngine):
        return None
    try:
        queue = fast_queue(conf.QUEUE)
        return QueueStats(conf.QUEUE, has_scheduler=has_scheduler(queue), workers=RQWorker.count(queue=queue))
    except RedisError as error:
        return QueueStats(conf.QUEUE, error=str(error))


def advise(numbers: dict[str, Any]) -> Iterator[str]:
    """Say what is wrong, and what to do about it."""
    queue: QueueStats | None = numbers["queue"]
    if queue is not None:
        yield from advise_queue(queue)
    is_late = any((numbers[name] or 0) > LATE for name in ("oldest_waiting_age", "oldest_due_age"))
    if is_late and not any(worker.is_live for worker in numbers["workers"]):
        yield "There is work and no worker: run manage.py webhooks work, which needs no broker."
    if numbers["events_failing"]:
        yield (
            f"Events whose payload cannot be built: {numbers['events_failing']}. Mend their hooks: manage.py webhooks explain "
            "and an event's name says what they raise."
        )
    if numbers["targets_disabled"]:
        yield f"Targets disabled: {numbers['targets_disabled']}. Have their receivers fixed, then resume them."


def advise_queue(queue: QueueStats) -> Iterator[str]:
    if queue.error:
        yield (
            f"Redis does not answer ({queue.error}). Nothing is lost: events wait in the database. Start Redis, or run "
            "manage.py webhooks work --burst."
        )
        return
    if not queue.workers:
        yield f"No rqworker listens on the queue {queue.name!r}: run manage.py rqworker {queue.name} --with-scheduler."
    elif not queue.has_scheduler:
        yield (
            f"No RQ scheduler runs for the queue {queue.name!r}, so retries wait for new events: "
            "start rqworker with --with-scheduler."
        )
