"""Delete what is finished and old, in small batches."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.models import Exists, Min, OuterRef, Q, QuerySet

from djwebhooks import database
from djwebhooks.conf import as_seconds, conf
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subject, TargetOwner, WebhookTarget
from djwebhooks.models.deliveries import DeliveryQuerySet, Status
from djwebhooks.models.events import events_database

#: Rows that are looked at, and deleted at most, in one transaction; and targets, each of which takes some statements.
BATCH, TARGETS = 1000, 100
#: Beyond every id.
NO_END = 2**63 - 1
#: Finds out whether a target has any.
ANY_DELIVERY = "SELECT target_id FROM djw_delivery WHERE target_id = %s LIMIT 1"


@dataclass(slots=True)
class Pruned:
    """How many rows were deleted, or would be; *cancelled* waited for a target that is no more."""

    events: int = 0
    bodies: int = 0
    deliveries: int = 0
    attempts: int = 0
    replays: int = 0
    targets: int = 0
    cancelled: int = 0


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of event ids, from *after* (not included) to *last* (included), and the old events in it."""

    after: int
    last: int
    event_ids: Sequence[int]

    def within(self, column: str) -> Q:
        return Q(**{f"{column}__gt": self.after, f"{column}__lte": self.last})


def prune(
    *, older_than: float | timedelta | None = None, dry_run: bool = False, using: str | None = None, batch: int = BATCH
) -> Pruned:
    """Delete deliveries that finished longer ago than *older_than*, then dispatched events that have none left.

    *older_than* is in seconds or a ``timedelta``; None is ``DJWEBHOOKS_RETENTION``. Pending deliveries and their events stay,
    whatever their age, except those of a target that no longer exists: they are cancelled, and deleted when that is old.
    What ``fire(urls=…)`` made goes as well, when nothing is left of what was sent there.
    With *dry_run* nothing is written. *batch* rows are looked at in a transaction. Returns the numbers of rows.
    """
    alias = using or events_database()
    age = conf.seconds("RETENTION") if older_than is None else as_seconds(older_than)
    run = Run(alias, database.read_clock(alias) - timedelta(seconds=age), batch, dry_run=dry_run)
    for part in run.find_ranges():
        run.prune_deliveries(part)
        run.prune_events(part)
    run.prune_stray_attempts()
    run.prune_replays()
    run.prune_targets()
    run.prune_owners()
    return run.pruned


class Run:
    """One run of ``prune``: everything up to *before* goes. It walks along the ids of events, which is the way of the indexes."""

    def __init__(self, using: str, before: datetime, batch: int, *, dry_run: bool) -> None:
        self.using = using
        self.before = before
        self.batch = batch
        self.dry_run = dry_run
        self.pruned = Pruned()

    def find_ranges(self) -> Iterator[Range]:
        """Cut the ids of events into ranges of a batch each, up to the first one with nothing old in it.

        Ids and ``created_at`` are given out together, so what comes after that is younger still. The last range has no end:
        rows of events that somebody else deleted lie in it as well.
        """
        after = 0
        while True:
            events = Event.objects.using(self.using).filter(pk__gt=after).order_by("pk")
            rows = list(events.values_list("pk", "created_at", "dispatched_at")[: self.batch])
            old = [pk for pk, _, dispatched_at in rows if dispatched_at is not None and dispatched_at < self.before]
            is_end = len(rows) < self.batch
            last = NO_END if is_end else rows[-1][0]
            yield Range(after, last, old)
            if is_end or not any(created_at < self.before for _, created_at, _ in rows):
                return
            after = last

    # -- deliveries -----------------------------------------------------------------------------------------------------

    def prune_deliveries(self, part: Range) -> None:
        """Delete the range's finished deliveries with their attempts, and end what waits for nobody."""
        for ids in self._find_deliveries(part):
            self._prune_page(self._finished().filter(pk__in=ids))
            self._cancel_page(self._waiting_for_nobody().filter(pk__in=ids))

    def _find_deliveries(self, part: Range) -> Iterator[list[int]]:
        """The ids of the range's deliveries, a batch at a time, each read once, along the index on (event, target)."""
        sql = (
            "SELECT id, event_id, target_id FROM djw_delivery WHERE event_id >= %s AND event_id <= %s "
            "AND (event_id, target_id) > (%s, %s) ORDER BY event_id, target_id LIMIT %s"
        )
        place = (part.after, NO_END)
        while rows := database.execute(self.using, sql, [place[0], part.last, *place, self.batch]):
            yield [row[0] for row in rows]
            if len(rows) < self.batch:
                return
            place = (rows[-1][1], rows[-1][2])

    def _finished(self) -> DeliveryQuerySet:
        return self._deliveries().exclude(status=Status.PENDING).filter(finished_at__lt=self.before)

    def _waiting_for_nobody(self) -> DeliveryQuerySet:
        """What a target that was deleted in SQL left behind: it has no lane, so that no worker comes past."""
        target = WebhookTarget.objects.using(self.using).filter(pk=OuterRef("target_id"))
        lane = Lane.objects.using(self.using).filter(pk=OuterRef("target_id"))
        return self._deliveries().pending().filter(~Exists(target), ~Exists(lane), created_at__lt=self.before)

    def _deliveries(self) -> DeliveryQuerySet:
        return Delivery.objects.using(self.using)

    def _prune_page(self, finished: DeliveryQuerySet) -> None:
        if self.dry_run:
            self.pruned.deliveries += finished.count()
            self.pruned.attempts += self._attempts_of(finished.values_list("pk", flat=True)).count()
            return
        deliveries, attempts = database.run_transaction(self.using, partial(self._delete_page, finished))
        self.pruned.deliveries += deliveries
        self.pruned.attempts += attempts

    def _delete_page(self, finished: DeliveryQuerySet) -> tuple[int, int]:
        # What is just being replayed is locked; it stays.
        ids = [delivery.pk for delivery in database.lock_free_rows(finished.only("pk").order_by("pk"), self.using)]
        attempts = self._attempts_of(ids).delete()[0]
        return self._deliveries().filter(pk__in=ids).delete()[0], attempts

    def _attempts_of(self, ids: Iterable[int]) -> QuerySet[Attempt]:
        return Attempt.objects.using(self.using).filter(delivery_id__in=list(ids))

    def _cancel_page(self, waiting: DeliveryQuerySet) -> None:
        if self.dry_run:
            self.pruned.cancelled += waiting.count()
        elif ids := list(waiting.values_list("pk", flat=True)):
            page = self._deliveries().filter(pk__in=ids)
            cancel = partial(page.end, Status.CANCELLED, "target_deleted")
            self.pruned.cancelled += database.run_transaction(self.using, cancel)

    # -- events ---------------------------------------------------------------------------------------------------------

    def prune_events(self, part: Range) -> None:
        """Delete the range's old events that have no deliveries, and what belongs to events that are no more."""
        if self.dry_run:
            self._count_events(part)
        else:
            events, bodies = database.run_transaction(self.using, partial(self._delete_events, part))
            self.pruned.events += events
            self.pruned.bodies += bodies

    def _count_events(self, part: Range) -> None:
        staying = self._deliveries().filter(event_id=OuterRef("pk")).filter(self._is_kept())
        ids = list(self._events(part).filter(~Exists(staying)).values_list("pk", flat=True))
        self.pruned.events += len(ids)
        self.pruned.bodies += self._stray(Body, part).count()
        self.pruned.bodies += Body.objects.using(self.using).filter(event_id__in=ids).count()

    def _is_kept(self) -> Q:
        return Q(status=Status.PENDING) | Q(finished_at__gte=self.before)

    def _delete_events(self, part: Range) -> tuple[int, int]:
        deliveries = self._deliveries().filter(event_id=OuterRef("pk"))
        events = self._events(part).filter(~Exists(deliveries)).delete()[0]
        self._stray(Subject, part).delete()
        return events, self._stray(Body, part).delete()[0]

    def _events(self, part: Range) -> QuerySet[Event]:
        return Event.objects.using(self.using).filter(pk__in=part.event_ids)

    def _stray(self, model: type[Body] | type[Subject], part: Range) -> QuerySet[Any]:
        # The range is the event's as well, so that no plan reads the whole table.
        event = Event.objects.using(self.using).filter(part.within("pk"), pk=OuterRef("event_id"))
        return model.objects.using(self.using).filter(part.within("event_id"), ~Exists(event))

    # -- replays --------------------------------------------------------------------------------------------------------

    def prune_replays(self) -> None:
        """Delete what is known of old replays, unless they are still running."""
        old = Replay.objects.using(self.using).filter(finished_at__lt=self.before)
        if self.dry_run:
            self.pruned.replays += old.count()
            return
        while ids := list(old.values_list("pk", flat=True)[: self.batch]):
            self.pruned.replays += Replay.objects.using(self.using).filter(pk__in=ids).delete()[0]

    # -- targets --------------------------------------------------------------------------------------------------------

    def prune_targets(self) -> None:
        """Delete the targets that ``fire(urls=…)`` made and that have nothing any more, nor get anything."""
        last = 0
        while ids := list(self._unused_targets().filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:TARGETS]):
            if self.dry_run:
                self.pruned.targets += len(set(ids) - self._find_awaited(ids))
            else:
                self.pruned.targets += database.run_transaction(self.using, partial(self._delete_targets, ids))
            last = ids[-1]

    def _unused_targets(self) -> QuerySet[WebhookTarget]:
        """What people have paused stays: it would be made anew, and be sent to."""
        targets = WebhookTarget.objects.using(self.using).filter(is_hidden=True, is_active=True, modified_at__lt=self.before)
        deliveries = self._deliveries().filter(target_id=OuterRef("pk"))
        # A dry run has not deleted the others.
        kept = deliveries.filter(self._is_kept()) if self.dry_run else deliveries
        return targets.filter(~Exists(kept), subscriptions__isnull=True)

    def _delete_targets(self, ids: Collection[int]) -> int:
        targets = WebhookTarget.objects.using(self.using)
        # What is just being fired at is locked; it stays. Who fires from here on waits, and makes another one.
        locked = {
            target.pk for target in database.lock_free_rows(targets.filter(pk__in=ids).only("pk").order_by("pk"), self.using)
        }
        # An event before its deliveries, as it has one or the other at every moment.
        unused = self._unused_targets().filter(pk__in=locked - self._find_awaited(locked))
        return unused.delete()[1].get(WebhookTarget._meta.label, 0)

    def _find_awaited(self, target_ids: Collection[int]) -> set[int]:
        """Those of the targets that an event is to be sent to as soon as it is dispatched."""
        awaited: set[int] = set()
        for is_planned in (False, True):  # Each has an index of its own.
            waiting = Event.objects.using(self.using).waiting().filter(deliver_at__isnull=not is_planned).exclude(target_ids="")
            for event in waiting.only("target_ids").iterator(self.batch):
                awaited.update(event.direct_targets)
        return awaited.intersection(target_ids)

    # -- what others left -----------------------------------------------------------------------------------------------

    def prune_stray_attempts(self) -> None:
        """Delete attempts from before the first delivery that there is: theirs was deleted by somebody else."""
        first = self._deliveries().aggregate(first=Min("pk"))["first"]
        delivery = self._deliveries().filter(pk=OuterRef("delivery_id"))
        attempts = Attempt.objects.using(self.using)
        stray = attempts.filter(~Exists(delivery), delivery_id__lt=first or 0)
        if self.dry_run:
            self.pruned.attempts += stray.count()
            return
        while ids := list(stray.order_by("delivery_id").values_list("pk", flat=True)[: self.batch]):
            self.pruned.attempts += attempts.filter(pk__in=ids).delete()[0]

    def prune_owners(self) -> None:
        """Forget whose the targets were that are gone, when nothing that they answered is left."""
        if self.dry_run:
            return
        target = WebhookTarget.objects.using(self.using).filter(pk=OuterRef("pk"))
        owners = TargetOwner.objects.using(self.using)
        gone = owners.filter(~Exists(target)).order_by("pk")
        last = 0
        while ids := list(gone.filter(pk__gt=last).values_list("pk", flat=True)[: self.batch]):
            kept = database.union_all(self.using, ANY_DELIVERY, [(pk,) for pk in ids])
            owners.filter(pk__in=set(ids).difference(pk for (pk,) in kept)).delete()
            last = ids[-1]
