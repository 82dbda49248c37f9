"""The hot state: each target's lane, the workers that hold lanes, and the dispatcher's lock."""

from collections.abc import Collection
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.db.models.functions import Coalesce, Least

from djwebhooks.database import DatabaseNow, execute, lock_rows, sql_lock_free
from djwebhooks.health import Health
from djwebhooks.managers import WriterManager
from djwebhooks.models.keyring import LIVE_KEYS
from djwebhooks.models.sealed import SealedField

#: Seconds after which a lane that holds its deliveries back looks for expired ones.
RECHECK = 300
#: Keys whose checks are kept: all that can be live, and the one that stands for an unknown key.
MOST_KEY_CHECKS = LIVE_KEYS + 1
#: The columns that are a lane's ``health``.
HEALTH = tuple(field.name for field in fields(Health))


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
    failing_since = models.DateTimeField(null=True)
    failure_count = models.PositiveIntegerField(default=0, help_text="Failed attempts since the last success.")
    failure = models.CharField(max_length=64, blank=True, help_text="What went wrong last, in a word.")
    held_until = models.DateTimeField(null=True, help_text="Nothing is sent before: it cools down, or the receiver asked for it.")
    suspended_at = models.DateTimeField(null=True, help_text="Since when only probes are sent.")
    cooldown_count = models.PositiveIntegerField(default=0, help_text="Cool-downs since it was last fully trusted.")
    recovering_since = models.DateTimeField(null=True, help_text="Since when it is sent to at a rising rate.")
    disabled_at = models.DateTimeField(null=True)
    disabled_reason = models.CharField(max_length=64, blank=True)
    next_free_at = models.DateTimeField(null=True, help_text="The rate limit's next free instant.")
    access_token = SealedField(default=dict, blank=True, help_text="What a token server gave for its target, until when.")
    permission = models.JSONField(default=dict, blank=True, help_text="What its receiver allowed to whom, and where that was.")
    key_checks = models.JSONField(default=dict, help_text="When which URL last accepted, and last refused, a key alone.")

    objects = WriterManager.from_queryset(LaneQuerySet)()

    class Meta:
        db_table = "djw_lane"
        indexes = [models.Index(fields=["holder", "due_at"], name="djw_lane_free_due")]

    def __str__(self) -> str:
        return f"lane {self.pk}"

    def note_key_check(self, key_id: str, answer: str, url: str, at: datetime) -> None:
        """Keep when a key was *answer* alone at *url*: ``accepted`` or ``refused``. Of too many keys the oldest are forgotten."""
        known = self._find_key_checks(url)
        checks = known | {key_id: known.get(key_id, {}) | {answer: at.isoformat()}}
        latest = sorted(checks, key=lambda name: max(checks[name].values()), reverse=True)
        self.key_checks = {"url": url, "keys": {name: checks[name] for name in latest[:MOST_KEY_CHECKS]}}

    def read_key_check(self, key_id: str, url: str) -> tuple[datetime | None, datetime | None]:
        """When a key was last accepted alone at *url*, and when it was last refused."""
        check = self._find_key_checks(url).get(key_id, {})
        accepted_at, refused_at = (check.get(answer) for answer in ("accepted", "refused"))
        return accepted_at and datetime.fromisoformat(accepted_at), refused_at and datetime.fromisoformat(refused_at)

    def _find_key_checks(self, url: str) -> dict[str, Any]:
        # What one receiver said, another one need not.
        found: dict[str, Any] = self.key_checks.get("keys", {}) if self.key_checks.get("url") == url else {}
        return found

    @property
    def health(self) -> Health:
        """How its receiver fares. Assign another one and save ``HEALTH`` to change it."""
        return Health(*(getattr(self, name) for name in HEALTH))

    @health.setter
    def health(self, health: Health) -> None:
        for name in HEALTH:
            setattr(self, name, getattr(health, name))


def next_look(health: Health, now: datetime, *, is_paused: bool) -> datetime:
    """When to look again at a lane that holds its deliveries back: as its pause ends, but soon enough for what expires."""
    recheck = now + timedelta(seconds=RECHECK)
    if is_paused or health.disabled_at is not None or health.held_until is None:
        return recheck
    return min(health.held_until, recheck)


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


#: Locks the dispatcher's row and a worker's, if that is there.
LOCK = "SELECT (SELECT id FROM djw_worker WHERE id = %s {lock_free}) FROM djw_dispatcher WHERE id = 1 {lock_free}"


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
        return cls.lock_for(using, 0) is not None

    @classmethod
    def lock_for(cls, using: str, worker_id: int) -> int | None:
        """The same, with the row of the worker that wants it, so that nobody strikes it off meanwhile.

        Return its id, 0 if it was struck off already, or ``None`` if somebody else has the lock.
        """
        sql = LOCK.format(lock_free=sql_lock_free(using))
        rows = execute(using, sql, [worker_id]) or (execute(using, sql, [worker_id]) if cls._make(using) else [])
        return next((found or 0 for (found,) in rows), None)

    @classmethod
    def wait_for_lock(cls, using: str) -> None:
        """Take the lock until the transaction ends, however long somebody else has it."""
        if not list(cls._row(using).select_for_update()):
            cls._make(using)
            list(cls._row(using).select_for_update())

    @classmethod
    def _row(cls, using: str) -> models.QuerySet["Dispatcher"]:
        return Dispatcher.objects.using(using).filter(pk=1)

    @classmethod
    def _make(cls, using: str) -> bool:
        """Make the row, and return whether it was missing."""
        is_missing = not cls._row(using).exists()
        if is_missing:
            Dispatcher.objects.using(using).bulk_create([Dispatcher(pk=1)], ignore_conflicts=True)
        return is_missing
