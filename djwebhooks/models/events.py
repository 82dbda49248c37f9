"""What happened, once: the outbox, and each event's exact bytes."""

import json
from collections.abc import Iterable, Mapping
from datetime import timedelta

from django.db import models, router
from django.db.models import Q

from djwebhooks.database import DatabaseNow, ExactCharField, PartialIndex, clean_text, insert_many, run_transaction
from djwebhooks.exceptions import AlreadyDispatched
from djwebhooks.managers import WriterManager
from djwebhooks.owners import owner_model
from djwebhooks.subjects import DIGEST_LENGTH
from djwebhooks.uid import uuid7
from djwebhooks.versions import CURRENT, VERSION_LENGTH, read_texts, write_texts

#: Characters of a traceback that are kept: its end says what happened.
ERROR_LIMIT = 16 * 1024
#: How long the name of a sender may be.
SENDER_LENGTH = 64
#: How often a hook's function may be run for one event.
BUILD_TRIES = 5


class EventQuerySet(models.QuerySet["Event"]):
    def waiting(self) -> "EventQuerySet":
        """Events that no dispatcher has turned into deliveries yet."""
        return self.filter(dispatched_at__isnull=True)

    def erased(self) -> "EventQuerySet":
        """Events whose data was erased."""
        return self.filter(erased_at__isnull=False)

    def failing(self, newest: int) -> "EventQuerySet":
        """Events whose payload could not be built the last time that it was tried, among so many that came last."""
        last = self.aggregate(last=models.Max("pk"))["last"] or 0
        return self.filter(pk__gt=last - newest, erased_at__isnull=True).exclude(build_error="")

    def unbuilt(self, pk: int) -> "EventQuerySet":
        """The event *pk*, if it has yet to get a payload, or one of its other versions."""
        return self.filter(Q(payload="") | ~Q(call=""), pk=pk, erased_at__isnull=True)

    def start_build(self, pk: int, lease: timedelta) -> bool:
        """Count a build before it runs, so that one that kills its worker is counted too; return whether it may run now."""
        free = Q(build_due_at__isnull=True) | Q(build_due_at__lte=DatabaseNow())
        mine = self.unbuilt(pk).filter(free, build_attempts__lt=BUILD_TRIES)
        started = {"build_attempts": models.F("build_attempts") + 1, "build_due_at": DatabaseNow() + lease, "build_error": ""}
        return bool(mine.update(**started))

    def finish_build(self, pk: int, payload: str, version: str = "") -> None:
        """Keep the payload of the build that came first, and drop the captured call."""
        self.unbuilt(pk).filter(payload="").update(payload=payload, version=version, call="", build_error="", build_due_at=None)

    def keep_build(self, pk: int, texts: Mapping[str, str | None], version: str, error: str, delay: timedelta) -> None:
        """Keep what was built of each version, the current one called *version*, where nobody was first.

        While one of them is missing, because of *error*, the captured call is kept, and they are tried again after *delay*.
        """
        run_transaction(self.db, lambda: self._merge_build(pk, dict(texts), version, error, delay))

    def _merge_build(self, pk: int, texts: dict[str, str | None], version: str, error: str, delay: timedelta) -> None:
        event = self.unbuilt(pk).select_for_update().first()
        if event is None:
            return
        built = texts.pop(CURRENT, None)
        if built is not None and not event.payload:
            event.payload, event.version = built, version
        # Which versions there are is settled by the first build that kept any: a target must not get another one at a retry.
        kept = read_texts(event.versions) or texts
        kept = {name: text if text is not None else texts.get(name) for name, text in kept.items()}
        event.versions = write_texts(kept)
        if event.payload and None not in kept.values():
            event.call, event.build_error, event.build_due_at = "", "", None
        event.save(using=self.db, update_fields=["payload", "version", "versions", "call", "build_error", "build_due_at"])
        self.fail_build(pk, error, delay)

    def fail_build(self, pk: int, error: str, delay: timedelta) -> None:
        """Keep the traceback for staff and try again after *delay*; after the last try, give up at once.

        This does nothing to an event that has all that it needs.
        """
        mine = self.unbuilt(pk)
        mine.update(build_error=clean_text(error)[-ERROR_LIMIT:], build_due_at=DatabaseNow() + delay)
        mine.filter(build_attempts__gte=BUILD_TRIES).update(build_due_at=None)

    def forget_build(self, pk: int, delay: timedelta) -> None:
        """Undo what ``start_build`` counted, and let the function run after *delay*: its result could not be kept."""
        mine = self.unbuilt(pk).filter(build_attempts__gt=0)
        mine.update(build_attempts=models.F("build_attempts") - 1, build_due_at=DatabaseNow() + delay)


class Event(models.Model):
    """Something happened, once. Its row commits with the change that it tells of."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid7, unique=True, editable=False, help_text="The webhook-id.")
    name = ExactCharField(max_length=255)
    # A deleted owner must not take the pending "user.deleted" along.
    owner = models.ForeignKey(
        owner_model(), models.DO_NOTHING, null=True, blank=True, db_constraint=False, db_index=False, related_name="+"
    )
    identifier = ExactCharField(max_length=255, blank=True)
    is_broadcast = models.BooleanField(default=False)
    is_published = models.BooleanField(
        default=False, help_text="It came through the API, so there it is shown to, and taken back by, who may publish."
    )
    ordering_key = ExactCharField(max_length=255, blank=True)
    hook = models.CharField(max_length=255, blank=True, help_text="The function that builds the payload.")
    call = models.TextField(blank=True, help_text="The function's captured arguments, until they are used.")
    payload = models.TextField(blank=True, help_text="The payload's JSON text, once it is built.")
    sender = ExactCharField(max_length=SENDER_LENGTH, blank=True, help_text="Who writes and sends it; empty is the setting's.")
    version = models.CharField(
        max_length=VERSION_LENGTH, blank=True, help_text="What the version that the payload is in is called, if anything."
    )
    versions = models.TextField(blank=True, editable=False, help_text="The payload's text in other versions, by their names.")
    target_ids = models.TextField(blank=True, help_text="The targets of an event that goes straight to URLs.")
    subjects = models.TextField(blank=True, editable=False, help_text="What it is about, until that is indexed at its dispatch.")
    only_key = models.CharField(
        max_length=43, blank=True, editable=False, help_text="The key that alone signs it; empty is all that are live."
    )
    idempotency_key = ExactCharField(max_length=255, blank=True)
    idempotency_digest = ExactCharField(max_length=64, null=True, unique=True, editable=False)  # NULLs never collide
    content_digest = ExactCharField(max_length=64, blank=True, editable=False)
    created_at = models.DateTimeField(db_default=DatabaseNow())
    deliver_at = models.DateTimeField(null=True, blank=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    dispatched_at = models.DateTimeField(null=True, blank=True)
    coalesce = models.FloatField(
        null=True, blank=True, help_text="Seconds that it waits at most for newer ones to take its place; empty if none may."
    )
    dispatch_cursor = models.BigIntegerField(default=0, help_text="The last target that has its delivery, while dispatching.")
    build_attempts = models.PositiveSmallIntegerField(default=0)
    build_due_at = models.DateTimeField(null=True, blank=True)
    build_error = models.TextField(blank=True)
    erased_at = models.DateTimeField(null=True, blank=True, help_text="When its payload and its answers were erased.")

    objects = WriterManager.from_queryset(EventQuerySet)()

    class Meta:
        db_table = "djw_event"
        ordering = ["-id"]
        permissions = [("erase_event", "Can erase the data of events")]
        indexes = [
            PartialIndex(
                fields=["id"],
                name="djw_event_waiting",
                where=Q(dispatched_at__isnull=True, deliver_at__isnull=True),
                otherwise=["dispatched_at", "deliver_at"],  # and the id, which MariaDB adds to every index
            ),
            PartialIndex(
                fields=["deliver_at"], name="djw_event_planned", where=Q(dispatched_at__isnull=True, deliver_at__isnull=False)
            ),
            models.Index(fields=["owner", "id"], name="djw_event_owner"),
            PartialIndex(
                fields=["owner", "id"], name="djw_event_published", where=Q(is_published=True, dispatched_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.uid}"

    @property
    def direct_targets(self) -> list[int]:
        """The ids of the targets that ``urls=`` named; empty for an event that goes to subscribers."""
        return json.loads(self.target_ids) if self.target_ids else []

    @property
    def has_failed_to_build(self) -> bool:
        """Whether nobody will try again to build it, in a version in which it is not built."""
        return self.build_attempts >= BUILD_TRIES and self.erased_at is None and None in self.payloads.values()

    def cancel(self) -> None:
        """Take it back before it is dispatched: its row goes, and with it its idempotency key, which can be used again.

        Raises ``AlreadyDispatched`` when it has deliveries, which can be cancelled one by one, or when nobody wanted it, and
        ``Event.DoesNotExist`` when its row is gone.
        """
        using = self._state.db or Event.objects.db
        run_transaction(using, lambda: self._cancel(using))

    def _cancel(self, using: str) -> None:
        # Whoever is dispatching it has locked it; then this waits, and sees what became of it.
        event = Event.objects.using(using).select_for_update().get(pk=self.pk)
        if event.dispatched_at is not None or event.dispatch_cursor:
            raise AlreadyDispatched(f"Event {self.uid} cannot be taken back: it was dispatched already. Cancel its deliveries.")
        event.delete()

    @property
    def payloads(self) -> dict[str, str | None]:
        """The payload's JSON text by version: the current one's under the empty name, none where it is not built."""
        return {CURRENT: self.payload or None} | read_texts(self.versions)


class Body(models.Model):
    """An event's exact bytes in one format: written once, sent at every attempt."""

    event = models.ForeignKey(Event, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="bodies")
    format = ExactCharField(max_length=SENDER_LENGTH + VERSION_LENGTH + 32)
    content = models.BinaryField()

    objects = WriterManager()

    class Meta:
        db_table = "djw_body"
        verbose_name_plural = "bodies"
        constraints = [models.UniqueConstraint(fields=["event", "format"], name="djw_body_once_per_format")]

    def __str__(self) -> str:
        return f"{self.format} of {self.event_id}"


class Subject(models.Model):
    """An event is about a model instance: the way to find it again when that instance's data is to be erased."""

    event = models.ForeignKey(Event, models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")
    digest = models.CharField(max_length=DIGEST_LENGTH)

    objects = WriterManager()

    class Meta:
        db_table = "djw_subject"
        constraints = [models.UniqueConstraint(fields=["digest", "event"], name="djw_subject_once_per_event")]
        indexes = [models.Index(fields=["event"], name="djw_subject_event")]

    def __str__(self) -> str:
        return f"{self.digest} of {self.event_id}"


def index_subjects(using: str, events: Iterable[Event]) -> None:
    """Write what *events* are about as rows, where they are not written yet."""
    rows = [(event.pk, digest) for event in events for digest in event.subjects.split()]
    insert_many(using, Subject, ("event", "digest"), rows)


def events_database() -> str:
    """The alias of the one database that all of djwebhooks' rows are read from and written to."""
    return router.db_for_write(Event)
