"""One event for one target, and each HTTP request that was made of it."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.db import models
from django.db.models import Case, Count, Exists, F, Max, Min, OuterRef, Q, Value, When
from django.db.models.functions import Left

from djwebhooks import database
from djwebhooks.conf import conf
from djwebhooks.database import DatabaseNow, ExactCharField, PartialIndex
from djwebhooks.exceptions import AlreadyFinished, ErasedEvent, InvalidTarget
from djwebhooks.managers import WriterManager
from djwebhooks.models.events import Event
from djwebhooks.models.lanes import Lane
from djwebhooks.models.replays import Criteria, Plan, Replay, Through, check_rate, name_requester
from djwebhooks.signals import work_written
from djwebhooks.uid import uuid7


class Status(models.TextChoices):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Trigger(models.TextChoices):
    """Why an attempt is made."""

    EVENT = "event"
    RETRY = "retry"
    MANUAL = "manual"


#: Why a delivery ended whose place a newer one has taken.
COALESCED = "coalesced"
#: Why a delivery ended whose payload its target's filters do not let through.
FILTERED = "filtered"


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    """Questions about deliveries, and the only statements that write a status outside of recording."""

    def pending(self) -> "DeliveryQuerySet":
        return self.filter(status=Status.PENDING)

    def of_owner(self, owner: Any) -> "DeliveryQuerySet":
        """Deliveries to *owner*'s targets."""
        return self.filter(target__owner=owner)

    def sendable(self) -> "DeliveryQuerySet":
        """Deliveries of events that still have what is to be sent."""
        erased = Event.objects.using(self.db).erased().filter(pk=OuterRef("event_id"))
        return self.filter(~Exists(erased))

    def expirable(self, now: datetime) -> "DeliveryQuerySet":
        """What expires while it is held back: past its time, or for ``DJWEBHOOKS_RETENTION`` neither new nor wanted again."""
        too_old = now - timedelta(seconds=conf.seconds("RETENTION"))
        wanted = Replay.objects.using(self.db).filter(pk=OuterRef("replay_id"), created_at__gte=too_old)
        return self.filter(Q(expires_at__lte=now) | Q(~Exists(wanted), created_at__lt=too_old))

    def end(self, status: Status, reason: str) -> int:
        """End what is pending, without success; call it under the lanes' locks."""
        ended = self.pending()
        return ended.update(status=status, reason=reason, due_at=None, finished_at=DatabaseNow())

    def cancel(self, lane: Lane, reason: str) -> int:
        """Cancel what is pending of *lane*, which is locked; what stood behind it in its keys becomes due."""
        pairs = self.ordered_pairs([lane])
        cancelled = self.end(Status.CANCELLED, reason)
        self.line_up(pairs, database.read_clock(self.db))
        return cancelled

    def reopen(self, lanes: Collection[Lane], replay: Replay) -> int:
        """Make deliveries of *lanes*, which are locked, due now for *replay*, with the whole retry schedule before them.

        On an ordered lane that is: as soon as they are the first of their keys. A payload that could not be built gets all
        its tries again, too. What was erased stays as it is.
        """
        mine = self.sendable()
        pairs = mine.ordered_pairs(lanes)
        events = Event.objects.using(self.db).filter(pk__in=list(mine.values_list("event_id", flat=True)))
        unbuilt = events.filter(Q(payload="") | ~Q(call=""))
        unbuilt.update(build_attempts=0, build_due_at=None)
        ordered = Q(target__in=[lane.pk for lane in lanes if lane.is_ordered])
        again = {
            # Before the status: MariaDB assigns from left to right.
            "previous_status": F("status"),
            "status": Status.PENDING,
            "reason": "",
            "trigger": Trigger.MANUAL,
            # Who wants it sent although it has expired means it.
            "expires_at": Case(When(expires_at__gt=DatabaseNow(), then=F("expires_at")), default=None),
            "finished_at": None,
            # Nor may a newer event take its place, or has taken it.
            "is_replaceable": False,
            "coalesce_until": None,
            "replaced_by": None,
            "schedule_offset": F("attempt_count"),
            "replay": replay,
        }
        reopened = mine.filter(ordered).update(**again, due_at=None) + mine.exclude(ordered).update(**again, due_at=DatabaseNow())
        self.line_up(pairs, database.read_clock(self.db))
        return reopened

    def replace(self, pairs: Iterable[tuple[UUID, int]], now: datetime) -> None:
        """End what newer events have made out of date; call it under the lanes' locks.

        Each of *pairs* has the uid of the delivery that takes the other one's place, and the id of that one.
        """
        columns = ("replaced_by", "status", "reason", "due_at", "finished_at")
        rows = [(uid, Status.CANCELLED.value, COALESCED, None, now, pk) for uid, pk in pairs]
        database.update_many(self.db, Delivery, columns, rows)

    def unsent(self) -> "DeliveryQuerySet":
        """What a replay reopened, and nobody has sent or ended since."""
        return self.pending().filter(trigger=Trigger.MANUAL).exclude(previous_status__in=["", Status.PENDING])

    def put_back(self, lanes: Collection[Lane]) -> int:
        """Let what is unsent of *lanes*, which are locked, be as it was before it was reopened."""
        pairs = self.ordered_pairs(lanes)
        before = {"status": F("previous_status"), "reason": "replay_cancelled", "due_at": None, "finished_at": DatabaseNow()}
        count = self.unsent().update(**before)
        self.line_up(pairs, database.read_clock(self.db))
        return count

    def ordered_pairs(self, lanes: Collection[Lane]) -> list[tuple[int, str]]:
        """The (target id, ordering key) pairs of these deliveries in those of *lanes* that are ordered."""
        ordered = self.filter(target__in=[lane.pk for lane in lanes if lane.is_ordered])
        return sorted(set(ordered.values_list("target_id", "ordering_key")))

    def line_up(self, pairs: Iterable[tuple[int, str]], now: datetime) -> None:
        """Make the first pending delivery of each (target id, ordering key) due, if it is not; call it under the lanes' locks.

        One that waits for newer events is due when it has waited for them.
        """
        heads = database.union_all(self.db, HEAD, pairs)
        rows = [
            (now if until is None else max(now, database.as_time(until)), pk) for pk, due_at, until in heads if due_at is None
        ]
        database.update_many(self.db, Delivery, ["due_at"], rows)

    # -- replays --------------------------------------------------------------------------------------------------------

    def chosen_by(self, criteria: Criteria) -> "DeliveryQuerySet":
        """What *criteria* name, whether it can be sent again or not."""
        chosen = self.filter(status__in=criteria.status)
        if criteria.targets:
            chosen = chosen.filter(target__uid__in=criteria.targets)
        if owner := cast("Any", criteria.owner):  # Whatever the type of its key is, a text will do.
            chosen = chosen.filter(target__owner=owner)
        if criteria.is_owned:
            chosen = chosen.filter(target__owner__isnull=False)
        if criteria.since is not None:
            chosen = chosen.filter(created_at__gte=criteria.since)
        if criteria.until is not None:
            chosen = chosen.filter(created_at__lt=criteria.until)
        return chosen.of_event(criteria.event)

    def of_event(self, event: str) -> "DeliveryQuerySet":
        """Deliveries of the events with this name, of those that match this pattern, or of the one with this uid."""
        if event in ("", "*"):
            return self
        if "-" in event:
            return self.filter(event__uid=UUID(event))
        if not event.endswith(".*"):
            return self.filter(event__name=event)
        # Not startswith: on SQLite that leaves upper and lower case out of account.
        prefix = event.removesuffix("*")
        return self.alias(prefix=Left("event__name", len(prefix))).filter(prefix=prefix)

    def replayable(self, criteria: Criteria) -> "DeliveryQuerySet":
        """What *criteria* name and can be sent again."""
        return self.chosen_by(criteria).annotate(obstacle=self._obstacle(criteria)).filter(obstacle="")

    def _obstacle(self, criteria: Criteria) -> Case:
        """In a word, the name of a ``Plan``'s part, why a delivery cannot be sent again."""
        event = Event.objects.using(self.db).filter(pk=OuterRef("event_id"))
        lane = Lane.objects.using(self.db).filter(pk=OuterRef("target_id"))
        cases = [
            When(~Exists(event) | ~Exists(lane), then=Value("gone")),
            When(Exists(event.erased()), then=Value("erased")),
        ]
        if Status.EXPIRED not in criteria.status:
            cases.append(When(Exists(event.filter(expires_at__lte=DatabaseNow())), then=Value("expired")))
        return Case(*cases, default=Value(""))

    def plan(self, criteria: Criteria) -> Plan:
        """Count what a replay would reopen, and what it would leave out."""
        rows = self.chosen_by(criteria).annotate(obstacle=self._obstacle(criteria)).order_by().values("obstacle")
        counted = rows.annotate(count=Count("pk"), first=Min("pk"), last=Max("pk"))
        found = {row["obstacle"]: (row["count"], row["first"], row["last"]) for row in counted}
        count, first, last = found.pop("", (0, 0, 0))
        return Plan(count=count, first=first, last=last, **{obstacle: numbers[0] for obstacle, numbers in found.items()})


class DeliveryManager(WriterManager["Delivery"]):
    """``Delivery.objects``."""

    def replay(
        self,
        criteria: Criteria,
        *,
        rate: float | None = None,
        by: Any = None,
        through: str = Through.PYTHON,
        plan: Plan | None = None,
    ) -> Replay:
        """Have workers send again what *criteria* name, *rate* deliveries a second (``DJWEBHOOKS_REPLAY_RATE``).

        *by* is who wants it, a user or a text; *plan* is what was just planned for the same. Raises ``InvalidReplay``.
        """
        rate = check_rate(conf.REPLAY_RATE if rate is None else rate)
        plan = plan or Delivery.objects.using(self.db).plan(criteria)
        replay = Replay.objects.using(self.db).create(
            owner_id=criteria.owner or None,
            criteria_text=criteria.as_text(),
            rate=rate,
            count=plan.count,
            cursor=max(0, plan.first - 1),
            last=plan.last,
            finished_at=None if plan.count else DatabaseNow(),
            requested_through=through,
            **name_requester(by),
        )
        work_written.send(Delivery, using=self.db)
        return replay


#: The first pending delivery of a key, its time if it has one already, and until when it waits for newer events.
HEAD = """
    SELECT id, due_at, coalesce_until FROM djw_delivery WHERE target_id = %s AND ordering_key = %s AND status = 'pending'
    ORDER BY sequence LIMIT 1
"""


class Delivery(models.Model):
    """One event for one target. It stays pending until it succeeded, failed, expired or was cancelled."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid7, unique=True, editable=False)
    event = models.ForeignKey(Event, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="deliveries")
    target = models.ForeignKey(
        "djwebhooks.WebhookTarget", models.DO_NOTHING, db_constraint=False, db_index=False, related_name="deliveries"
    )
    sequence = models.BigIntegerField(help_text="Its place in the target's lane, contiguous from 1.")
    ordering_key = ExactCharField(max_length=255, blank=True)
    status = models.CharField(max_length=9, choices=Status.choices, default=Status.PENDING)
    reason = models.CharField(max_length=64, blank=True, help_text="Why it has this status, in a word.")
    trigger = models.CharField(max_length=6, choices=Trigger.choices, default=Trigger.EVENT, help_text="Of the next attempt.")
    created_at = models.DateTimeField(db_default=DatabaseNow())
    due_at = models.DateTimeField(null=True, blank=True, help_text="When it is tried next; empty while another goes first.")
    expires_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    attempt_count = models.PositiveIntegerField(default=0)
    schedule_offset = models.PositiveIntegerField(default=0, help_text="Attempts made before the schedule began again.")
    replay = models.ForeignKey(
        Replay,
        models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        db_index=False,
        related_name="deliveries",
        help_text="What made it pending again last.",
    )
    previous_status = models.CharField(
        max_length=9, blank=True, db_default="", help_text="The status that it had before it was made pending again."
    )

    is_replaceable = models.BooleanField(default=False, db_default=False, help_text="Whether newer events make it out of date.")
    coalesce_until = models.DateTimeField(
        null=True, blank=True, help_text="As long as it is set, a newer event may take its place; it is not sent before."
    )
    coalesced_count = models.PositiveIntegerField(default=0, db_default=0, help_text="Earlier events whose place it has taken.")
    replaced_by = models.UUIDField(null=True, blank=True, help_text="The delivery that has taken its place.")

    objects = DeliveryManager.from_queryset(DeliveryQuerySet)()

    class Meta:
        db_table = "djw_delivery"
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(fields=["event", "target"], name="djw_delivery_once_per_target"),
            models.UniqueConstraint(fields=["target", "sequence"], name="djw_delivery_sequence"),
        ]
        indexes = [
            PartialIndex(
                fields=["target", "due_at"],
                name="djw_delivery_due",
                where=Q(due_at__isnull=False),
                otherwise=["target", "status", "due_at", "sequence"],
            ),
            PartialIndex(
                fields=["target", "ordering_key", "sequence"],
                name="djw_delivery_key",
                where=Q(status=Status.PENDING),
                otherwise=["target", "status", "ordering_key", "sequence"],
            ),
            PartialIndex(
                fields=["target", "ordering_key"],
                name="djw_delivery_replaceable",
                where=Q(status=Status.PENDING, coalesce_until__isnull=False),
            ),
            PartialIndex(
                fields=["status", "id"],
                name="djw_delivery_unsuccessful",
                where=Q(status__in=[Status.FAILED, Status.EXPIRED, Status.CANCELLED]),
                otherwise=["status", "id"],
            ),
            PartialIndex(
                fields=["replay", "id"], name="djw_delivery_replay", where=Q(replay__isnull=False), otherwise=["replay", "id"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.status} delivery {self.uid}"

    @property
    def is_finished(self) -> bool:
        return self.status != Status.PENDING

    def retry(self, *, by: Any = None, through: str = Through.PYTHON) -> None:
        """Try it again as soon as a worker can, with the whole retry schedule before it; a pending retry is replaced.

        *by* is who wants it, a user or a text. Raises ``InvalidTarget`` when its target was deleted, and ``ErasedEvent`` when its
        event's data was erased.
        """
        using = self._using()
        database.run_transaction(using, lambda: self._retry(using, by, through))
        self._wake_engine(using)

    def _retry(self, using: str, by: Any, through: str) -> None:
        lane = Lane.objects.using(using).select_for_update().filter(pk=self.target_id).first()
        if lane is None:
            raise InvalidTarget(f"Delivery {self.uid} cannot be retried: its target was deleted.")
        mine = Delivery.objects.using(using).filter(pk=self.pk)
        [owner_pk] = mine.values_list("target__owner", flat=True) or [None]
        replay = Replay.objects.using(using).record_retry(self.uid, owner_pk, by, through)
        if not mine.reopen([lane], replay) and mine.exists():
            raise ErasedEvent(f"Delivery {self.uid} cannot be retried: the data of its event was erased.")
        Lane.objects.using(using).make_due([self.target_id])

    def cancel(self) -> None:
        """End it before it succeeds. What is in flight may still arrive, and is then recorded as succeeded.

        Raises ``AlreadyFinished`` when it has ended before.
        """
        using = self._using()
        database.run_transaction(using, lambda: self._cancel(using))
        self._wake_engine(using)

    def _cancel(self, using: str) -> None:
        lane = Lane.objects.using(using).select_for_update().filter(pk=self.target_id).first()
        mine = Delivery.objects.using(using).filter(pk=self.pk)
        if not mine.cancel(lane or Lane(pk=self.target_id), "cancelled"):
            raise AlreadyFinished(f"Delivery {self.uid} cannot be cancelled: it has ended already.")
        Lane.objects.using(using).make_due([self.target_id])

    def _using(self) -> str:
        return self._state.db or Delivery.objects.db

    def _wake_engine(self, using: str) -> None:
        self.refresh_from_db(using=using)
        work_written.send(type(self), using=using)


class Attempt(models.Model):
    """One HTTP request of a delivery, and what was answered."""

    id = models.BigAutoField(primary_key=True)
    delivery = models.ForeignKey(Delivery, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="attempts")
    number = models.PositiveIntegerField()
    trigger = models.CharField(max_length=6, choices=Trigger.choices)
    url = models.TextField(help_text="Where it was sent.")
    started_at = models.DateTimeField()
    duration = models.FloatField(help_text="Seconds from the first step to the last byte.")
    status_code = models.PositiveSmallIntegerField(null=True)
    response_headers = models.JSONField(default=dict)
    response_body = models.TextField(blank=True, help_text="The beginning of it.")
    error = models.CharField(max_length=32, blank=True, help_text="What went wrong, in a word; empty when there was an answer.")
    detail = models.TextField(blank=True, help_text="What went wrong, in a sentence.")
    address = models.CharField(max_length=45, blank=True, help_text="The IP address that was connected to.")
    lookup_ms = models.PositiveIntegerField(null=True, help_text="Milliseconds to look the name up, if it was.")
    connect_ms = models.PositiveIntegerField(null=True, help_text="Milliseconds to connect, unless a connection was kept.")
    tls_ms = models.PositiveIntegerField(null=True, help_text="Milliseconds of the TLS handshake, if there was one.")
    first_byte_ms = models.PositiveIntegerField(null=True, help_text="Milliseconds from the request to an answer's first byte.")

    objects = WriterManager()

    class Meta:
        db_table = "djw_attempt"
        ordering = ["number"]
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="djw_attempt_number")]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.error or self.status_code}"

    @property
    def is_success(self) -> bool:
        return not self.error and self.status_code is not None and 200 <= self.status_code < 300
