"""A replay: deliveries that somebody wants sent again, which, who it was, and how far it has come."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Count

from djwebhooks import database
from djwebhooks.database import DatabaseNow
from djwebhooks.exceptions import AlreadyFinished, InvalidReplay
from djwebhooks.managers import WriterManager
from djwebhooks.names import check_pattern
from djwebhooks.owners import check_owner, owner_model
from djwebhooks.signals import work_written
from djwebhooks.uid import uuid7

#: How what is replayed may have ended; the last only if it is said.
REPLAYABLE = ("failed", "expired", "cancelled", "succeeded")
#: Targets that one replay names at most; more are an owner's, or everybody's.
MOST_TARGETS = 1000
#: How fast a replay may be, in deliveries per second.
LOWEST_RATE, HIGHEST_RATE = 0.001, 10_000
#: How a replay's row is in each state: ``Replay.state`` as a condition.
STATES = {
    "running": models.Q(finished_at__isnull=True, cancelled_at__isnull=True),
    "finished": models.Q(finished_at__isnull=False, cancelled_at__isnull=True),
    "cancelled": models.Q(cancelled_at__isnull=False),
}


class Through(models.TextChoices):
    """By which way a replay was asked for."""

    ADMIN = "admin"
    API = "api"
    COMMAND = "command"
    PORTAL = "portal"
    PYTHON = "python"


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which deliveries a replay is about. Each part narrows it; what is empty does not."""

    #: How they ended.
    status: tuple[str, ...] = ("failed",)
    #: The uids of their targets.
    targets: tuple[str, ...] = ()
    #: The primary key, as text, of the owner of their targets, if these have one and the same.
    owner: str = ""
    #: Not those to the system's targets.
    is_owned: bool = False
    since: datetime | None = None
    until: datetime | None = None
    #: The name of their events, a pattern, or one event's uid.
    event: str = ""
    #: The uid of the one delivery, if it is a retry of one.
    delivery: str = ""

    def as_text(self) -> str:
        """Return it as JSON, without what is empty."""
        parts = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items()}
        return json.dumps({name: value for name, value in parts.items() if value})

    @classmethod
    def from_text(cls, text: str) -> "Criteria":
        """Return what ``as_text`` wrote; parts that a later version may have written are left out."""
        parts = {field.name: value for field in fields(cls) if (value := json.loads(text).get(field.name))}
        for name in {"since", "until"}.intersection(parts):
            parts[name] = datetime.fromisoformat(parts[name])
        for name in {"status", "targets"}.intersection(parts):
            parts[name] = tuple(parts[name])
        return cls(**parts)

    def describe(self) -> str:
        """Say in words which deliveries these are."""
        if self.delivery:
            return f"delivery {self.delivery}"
        words = [f"{' or '.join(self.status)} deliveries", self._describe_scope()]
        if self.event:
            words.append(f"of {self.event}")
        words += [f"{word} {at:%Y-%m-%d %H:%M:%S %Z}" for word, at in (("since", self.since), ("until", self.until)) if at]
        return " ".join(words)

    def _describe_scope(self) -> str:
        if len(self.targets) == 1:
            return f"to target {self.targets[0]}"
        if self.targets:
            return f"to {len(self.targets)} targets"
        everybody = "to everybody's targets but the system's" if self.is_owned else "to everybody's targets"
        return f"to the targets of owner {self.owner}" if self.owner else everybody


def make_criteria(
    *,
    targets: Sequence[Any] | None = None,
    owner: Any = None,
    everybody: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    status: str | Iterable[str] = "failed",
    event: str | UUID = "",
) -> Criteria:
    """Return checked criteria: for *targets*, for those of *owner*, or, if it is said aloud, for *everybody*'s.

    Raises ``InvalidReplay``.
    """
    if (targets is not None) + (owner is not None) + everybody != 1:
        raise InvalidReplay("Say whose deliveries to replay: give one of targets, owner and everybody=True.")
    check_span(since, until)
    owner_pks = {check_owner(owner)} if owner is not None else {target.owner_id for target in targets or ()}
    return Criteria(
        status=check_statuses([status] if isinstance(status, str) else list(status)),
        targets=check_targets([str(target.uid) for target in targets or ()], is_given=targets is not None),
        owner=str(*owner_pks) if len(owner_pks) == 1 and None not in owner_pks else "",
        since=since,
        until=until,
        event=check_event(str(event)),
    )


def check_statuses(statuses: list[str]) -> tuple[str, ...]:
    """Return *statuses* if what ended so can be replayed. Raises ``InvalidReplay``."""
    for status in statuses or [""]:
        if status not in REPLAYABLE:
            raise InvalidReplay(f"Only what has ended can be replayed: {', '.join(REPLAYABLE)}, not {str(status)!r}.")
    return tuple(dict.fromkeys(str(status) for status in statuses))


def check_targets(uids: list[str], *, is_given: bool) -> tuple[str, ...]:
    """Return *uids* if so many targets can be named. Raises ``InvalidReplay``."""
    if is_given and not uids:
        raise InvalidReplay("There is no target to replay to: name one at least.")
    if len(uids) > MOST_TARGETS:
        raise InvalidReplay(f"A replay may name {MOST_TARGETS} targets, not {len(uids)}: replay for their owner instead.")
    return tuple(uids)


def check_event(event: str) -> str:
    """Return *event* if it can be an event's name, a pattern or a uid. Raises ``InvalidReplay``."""
    try:
        return str(UUID(event)) if "-" in event else check_pattern(event) if event else ""
    except ValueError as error:
        raise InvalidReplay(f"{event!r} is neither the name of an event, nor a pattern such as project.*, nor a uid.") from error


def check_span(since: datetime | None, until: datetime | None) -> None:
    """Raise ``InvalidReplay`` for times that cannot be, or with nothing between them."""
    check_time("since", since)
    check_time("until", until)
    # Two times of one zone are compared as its clocks show them, which is wrong in the night when they are put back.
    if since is not None and until is not None and until.astimezone(UTC) <= since.astimezone(UTC):
        raise InvalidReplay(f"until ({until}) must be later than since ({since}).")


def check_time(name: str, at: datetime | None) -> None:
    """Raise ``InvalidReplay`` for a time that has no zone, or that not every database can hold."""
    if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):
        raise InvalidReplay(f"{name} must be a time with a time zone, not {at!r}.")
    if at is not None and not 1 < at.year < 9999:
        raise InvalidReplay(f"{name} is {at}, which is too far away: leave it out.")


def check_rate(rate: Any) -> float:
    """Return *rate* if so many deliveries a second can be. Raises ``InvalidReplay``."""
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InvalidReplay(f"The rate is a number of deliveries per second from {LOWEST_RATE} to {HIGHEST_RATE}, not {rate!r}.")
    return float(rate)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a replay would do: how many deliveries it reopens, and how many it leaves out, for which reason."""

    count: int = 0
    #: Their events were to be sent until a time that has passed.
    expired: int = 0
    #: Their events' data was erased.
    erased: int = 0
    #: Their target was deleted, or their event.
    gone: int = 0
    first: int = 0
    last: int = 0

    @property
    def left_out(self) -> dict[str, int]:
        """How many are left out for each reason."""
        return {"expired": self.expired, "erased": self.erased, "gone": self.gone}


def name_requester(by: Any) -> dict[str, str]:
    """Return who asked, as it is kept: a user's name and primary key, or a text."""
    get_username = getattr(by, "get_username", None)
    name = get_username() if get_username else "" if by is None else by
    pk = getattr(by, "pk", None)
    return {"requested_by": database.clean_text(str(name))[:255], "requester_pk": "" if pk is None else str(pk)}


class ReplayQuerySet(models.QuerySet["Replay"]):
    def of_owner(self, owner: Any) -> "ReplayQuerySet":
        """Replays that are about *owner*'s deliveries, and nobody else's."""
        return self.filter(owner=owner)

    def running(self) -> "ReplayQuerySet":
        """Those that a worker has still to do something for."""
        return self.filter(finished_at__isnull=True)

    def record_retry(self, delivery_uid: UUID, owner_pk: Any, by: Any, through: str) -> "Replay":
        """Write down that somebody retries one delivery, and return the row: there is nothing left to do for it."""
        return self.create(
            owner_id=owner_pk,
            criteria_text=Criteria(status=(), delivery=str(delivery_uid)).as_text(),
            is_retry=True,
            count=1,
            reopened_count=1,
            finished_at=DatabaseNow(),
            requested_through=through,
            **name_requester(by),
        )


class Replay(models.Model):
    """Who wanted which deliveries sent again. Workers reopen them at its rate, in their order."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid7, unique=True, editable=False)
    owner = models.ForeignKey(
        owner_model(),
        models.DO_NOTHING,
        null=True,
        blank=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="Whose deliveries they are, if one owner's.",
    )
    requested_by = models.CharField(max_length=255, blank=True, help_text="Who wanted it.")
    requester_pk = models.CharField(max_length=255, blank=True, help_text="The primary key of the user who wanted it.")
    requested_through = models.CharField(max_length=7, choices=Through.choices)
    is_retry = models.BooleanField(default=False, help_text="Of one delivery, by its retry.")
    criteria_text = models.TextField("criteria", help_text="Which deliveries, as JSON.")
    rate = models.FloatField(default=0, help_text="Deliveries per second; 0 for a retry, which is made at once.")
    count = models.BigIntegerField(help_text="How many there were when it was asked for.")
    reopened_count = models.BigIntegerField(default=0, help_text="How many of them were made pending again.")
    cursor = models.BigIntegerField(default=0, help_text="The last delivery that was looked at.")
    last = models.BigIntegerField(default=0, help_text="The last delivery to look at.")
    created_at = models.DateTimeField(db_default=DatabaseNow())
    next_at = models.DateTimeField(db_default=DatabaseNow(), help_text="When the next ones are reopened.")
    cancelled_at = models.DateTimeField(null=True, blank=True)
    cancelled_by = models.CharField(max_length=255, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = WriterManager.from_queryset(ReplayQuerySet)()

    class Meta:
        db_table = "djw_replay"
        ordering = ["-id"]
        permissions = [("replay_everybody", "Can replay the deliveries of all owners at once")]
        indexes = [
            models.Index(fields=["finished_at", "next_at"], name="djw_replay_running"),
            models.Index(fields=["owner", "id"], name="djw_replay_owner"),
        ]

    def __str__(self) -> str:
        return f"replay of {self.criteria.describe()}"

    @property
    def criteria(self) -> Criteria:
        """Which deliveries it is about."""
        return Criteria.from_text(self.criteria_text)

    @property
    def state(self) -> str:
        """One word: ``running``, ``finished`` (all are pending again, or have been sent) or ``cancelled``."""
        if self.cancelled_at is not None:
            return "cancelled"
        return "running" if self.finished_at is None else "finished"

    def progress(self) -> dict[str, int]:
        """How many of its deliveries have each status; ``waiting`` are those that it has not come to yet.

        A delivery that somebody replayed or retried again since then counts there.
        """
        counts = dict(self.deliveries.order_by("status").values_list("status").annotate(Count("pk")))
        waiting = max(0, self.count - self.reopened_count) if self.state == "running" else 0
        return {"waiting": waiting, **counts} if waiting else counts

    def cancel(self, *, by: Any = None) -> None:
        """Reopen no more, and let what it reopened and nobody has sent yet be as it was before.

        A worker sees to that. What is in flight may still arrive. Raises ``AlreadyFinished`` when there is nothing to cancel.
        """
        using = self._state.db or type(self).objects.db
        database.run_transaction(using, lambda: self._cancel(using, by))
        self.refresh_from_db(using=using)
        work_written.send(type(self), using=using)

    def _cancel(self, using: str, by: Any) -> None:
        mine = type(self).objects.using(using).select_for_update().get(pk=self.pk)
        if mine.cancelled_at is not None:
            raise AlreadyFinished(f"Replay {self.uid} cannot be cancelled: it was cancelled already.")
        if mine.finished_at is not None and not mine.deliveries.unsent().exists():
            raise AlreadyFinished(f"Replay {self.uid} cannot be cancelled: all of it was sent already.")
        type(self).objects.using(using).filter(pk=self.pk).update(
            cancelled_at=DatabaseNow(),
            cancelled_by=name_requester(by)["requested_by"],
            next_at=DatabaseNow(),
            finished_at=None,
        )
