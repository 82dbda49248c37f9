"""The hot state: each target's lane, the workers that hold lanes, and the dispatcher's lock."""

from collections.abc import Collection
from datetime import datetime

from django.db import models
from django.db.models.functions import Coalesce, Least

from djwebhooks.database import DatabaseNow, lock_free_rows, lock_rows
from djwebhooks.models.managers import WriterManager
from djwebhooks.models.sealed import SealedField

#: Seconds after which a lane that holds its deliveries back looks for expired ones.
RECHECK = 300


class LaneQuerySet(models.QuerySet["Lane"]):
    def lock(self, target_ids: Collection[int]) -> list["Lane"]:
        """Lock the lanes of these targets, in the one order that everybody keeps to; call it inside a transaction.

        A lane that somebody else keeps locked for longer than a moment is left out.
        """
        return lock_rows(self.filter(pk__in=target_ids).order_by("pk"), self.db)

    def make_due(self, target_ids: Collection[int], at: datetime | models.Expression | None = None) -> int:
        """Say that work of these lanes falls due *at* a time (now), so that whoever looked before looks again."""
        when = at if at is not None else DatabaseNow()
        due_at = Least(Coalesce("due_at", when, output_field=models.DateTimeField()), when)
        return self.filter(pk__in=target_ids).update(version=models.F("version") + 1, due_at=due_at)


class Lane(models.Model):
    """One target's queue. It is leased by one worker at a time, and only under its lock does its work change."""

    target = models.OneToOneField(
        "djwebhooks.WebhookTarget", models.DO_NOTHING, primary_key=True, db_constraint=False, related_name="lane"
    )
    tail = models.BigIntegerField(default=0, help_text="The last sequence number given out.")
    version = models.BigIntegerField(default=0, help_text="Grows whenever work may have become due.")
    due_at = models.DateTimeField(null=True, help_text="When there is something to do next; empty when there is nothing.")
    holder = models.BigIntegerField(null=True, help_text="The worker that holds the lease.")
    token = models.BigIntegerField(default=0, help_text="The fencing token: grows with every lease.")
    is_ordered = models.BooleanField(
        null=True,
        default=False,
        help_text="Whether its deliveries are lined up by ordering key; empty while they are being.",
    )
    held_until = models.DateTimeField(null=True, help_text="The receiver asked us to wait until then.")
    failing_since = models.DateTimeField(null=True)
    failure_count = models.PositiveIntegerField(default=0, help_text="Failed attempts since the last success.")
    disabled_at = models.DateTimeField(null=True)
    disabled_reason = models.CharField(max_length=64, blank=True)
    next_free_at = models.DateTimeField(null=True, help_text="The rate limit's next free instant.")
    access_token = SealedField(default=dict, blank=True, help_text="What a token server gave for its target, until when.")

    objects = WriterManager.from_queryset(LaneQuerySet)()

    class Meta:
        db_table = "djw_lane"
        indexes = [models.Index(fields=["holder", "due_at"], name="djw_lane_free_due")]

    def __str__(self) -> str:
        return f"lane {self.pk}"


class Worker(models.Model):
    """A running worker. Its one heartbeat keeps the leases of all its lanes."""

    name = models.CharField(max_length=16, help_text="What it is part of.")
    place = models.CharField(max_length=255, help_text="Its host and process.")
    started_at = models.DateTimeField(db_default=DatabaseNow())
    expires_at = models.DateTimeField()

    objects = WriterManager()

    class Meta:
        db_table = "djw_worker"

    def __str__(self) -> str:
        return f"{self.name} at {self.place}"


class Dispatcher(models.Model):
    """The row whose lock makes one worker at a time the dispatcher."""

    objects = WriterManager()

    class Meta:
        db_table = "djw_dispatcher"

    def __str__(self) -> str:
        return "dispatcher"

    @classmethod
    def lock(cls, using: str) -> bool:
        """Take the lock until the transaction ends; return whether nobody else has it."""
        return bool(lock_free_rows(cls._row(using), using))

    @classmethod
    def wait_for_lock(cls, using: str) -> None:
        """Take the lock until the transaction ends, however long somebody else has it."""
        list(cls._row(using).select_for_update())

    @classmethod
    def _row(cls, using: str) -> models.QuerySet["Dispatcher"]:
        row = Dispatcher.objects.using(using).filter(pk=1)
        if not row.exists():
            Dispatcher.objects.using(using).bulk_create([Dispatcher(pk=1)], ignore_conflicts=True)
        return row
