"""Carry out replays: make deliveries pending again at the rate that was asked for, and put them back if it is cancelled."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile

from django.db.models import Min

from djwebhooks import database
from djwebhooks.database import DatabaseNow
from djwebhooks.models import Delivery, Lane, Replay

#: Seconds whose worth of deliveries is reopened at once.
STEP = 1.0
#: Deliveries that are reopened in one transaction at most, each perhaps in a lane of its own, and those that are looked at.
PAGE, WINDOW = 200, 10_000


def next_replay(using: str) -> datetime | None:
    """When there is something to do for a replay next."""
    at: datetime | None = Replay.objects.using(using).running().aggregate(at=Min("next_at"))["at"]
    return at


def carry_on(using: str, *, page: int = PAGE, window: int = WINDOW) -> bool:
    """Do a page of a replay whose time has come, unless another worker does; return whether there was one.

    The page and the place to go on from are committed together, so that whoever comes after a kill goes on there.
    """
    return database.run_transaction(using, partial(_carry_on, using, page, window))


def _carry_on(using: str, page: int, window: int) -> bool:
    due = Replay.objects.using(using).running().filter(next_at__lte=DatabaseNow()).order_by("next_at")
    for replay in database.lock_free_rows(due[:1], using):
        now = database.read_clock(using)
        if replay.cancelled_at is None:
            _reopen_page(using, replay, page, window, now)
        else:
            _put_back_page(using, replay, page, now)
        replay.save(using=using, update_fields=["cursor", "reopened_count", "next_at", "finished_at"])
        return True
    return False


def _reopen_page(using: str, replay: Replay, most: int, window: int, now: datetime) -> None:
    """Reopen what a moment is worth, in the order of the deliveries' ids, which is the order of each lane."""
    size = min(most, max(1, round(replay.rate * STEP)))
    end = min(replay.cursor + window, replay.last)
    deliveries, criteria = Delivery.objects.using(using), replay.criteria
    chosen = deliveries.replayable(criteria).filter(pk__gt=replay.cursor, pk__lte=end).order_by("pk")
    rows = list(chosen.values_list("pk", "target_id")[:size])
    lanes, busy = _lock_lanes(using, [target_id for _, target_id in rows])
    # What stands behind a busy lane's waits with it, so that the order is kept and none is left out.
    ids = [pk for pk, _ in takewhile(lambda row: row[1] not in busy, rows)]
    page = deliveries.filter(pk__in=ids, status__in=criteria.status, target__in=[lane.pk for lane in lanes])
    count = page.reopen(lanes, replay) if ids else 0
    Lane.objects.using(using).make_due([lane.pk for lane in lanes])
    if len(ids) == len(rows):
        replay.cursor = end if len(rows) < size else ids[-1]
    elif ids:
        replay.cursor = ids[-1]
    replay.reopened_count += count
    replay.finished_at = now if replay.cursor >= replay.last else None
    earliest = now + timedelta(seconds=STEP if busy else -STEP)
    replay.next_at = max(replay.next_at, earliest) + timedelta(seconds=count / replay.rate)


def _put_back_page(using: str, replay: Replay, most: int, now: datetime) -> None:
    """Let some of what a cancelled replay has reopened, and nobody has sent yet, be as it was before."""
    unsent = Delivery.objects.using(using).filter(replay=replay).unsent()
    rows = list(unsent.order_by("pk").values_list("pk", "target_id")[:most])
    lanes, busy = _lock_lanes(using, [target_id for _, target_id in rows])
    unsent.filter(pk__in=[pk for pk, target_id in rows if target_id not in busy]).put_back(lanes)
    Lane.objects.using(using).make_due([lane.pk for lane in lanes])
    replay.next_at = now + timedelta(seconds=STEP) if busy else now
    replay.finished_at = None if rows else now


def _lock_lanes(using: str, target_ids: Iterable[int]) -> tuple[list[Lane], set[int]]:
    """Lock the targets' lanes; return them, and the ids of those that somebody else keeps locked."""
    wanted = set(target_ids)
    lanes = Lane.objects.using(using).lock(wanted)
    rest = wanted.difference(lane.pk for lane in lanes)
    return lanes, set(Lane.objects.using(using).filter(pk__in=rest).values_list("pk", flat=True))
