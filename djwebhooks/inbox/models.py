"""What was received: each message as it came, and what has become of it."""

import traceback
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import models, router
from django.db.models import Case, F, Q, Value, When
from django.dispatch import Signal

from djwebhooks.database import DatabaseNow, ExactCharField, PartialIndex, clean_text, insert_many
from djwebhooks.exceptions import DeletedMessage, ErasedMessage, RejectedMessage
from djwebhooks.inbox.schemes import read_json
from djwebhooks.inbox.sources import SOURCE_LENGTH
from djwebhooks.managers import WriterManager

#: How long an id, and an event's name, may be.
NAME_LENGTH = 255
#: Characters of a traceback that are kept: its end says what happened.
ERROR_LIMIT = 16 * 1024

#: Messages were written that are due once the transaction commits: ``using``. The bell listens.
messages_due = Signal()


class Status(models.TextChoices):
    NEW = "new"
    PROCESSED = "processed"
    FAILED = "failed"
    IGNORED = "ignored"
    REJECTED = "rejected"


class MessageQuerySet(models.QuerySet["Message"]):
    def due(self) -> "MessageQuerySet":
        """Messages that handlers are to run for now, those that have waited for longest first."""
        return self.filter(due_at__lte=DatabaseNow()).order_by("due_at", "id")

    def attempt(self, pk: int, number: int) -> "MessageQuerySet":
        """The message *pk*, if the attempt *number* is its latest one and has had no result yet."""
        return self.filter(pk=pk, status=Status.NEW, attempt_count=number)

    def replay(self) -> int:
        """Have the handlers run for these messages, once more or at last, with all attempts before them; return for how many.

        Rejected ones are left out, as nobody knows who sent them, and erased ones, which say nothing any more.
        """
        again = {"status": Status.NEW, "attempt_count": 0, "due_at": DatabaseNow(), "finished_at": None, "error": ""}
        count = self.filter(erased_at__isnull=True).exclude(status=Status.REJECTED).update(**again)
        messages_due.send(Message, using=self.db)
        return count

    def erase(self) -> int:
        """Erase what these messages say; return how many there were. That each came, when, and what became of it stays.

        No handler runs any more for one that is new. When the sender sends it again, it is still known by its id.
        """
        is_new = Q(status=Status.NEW)
        return self.filter(erased_at__isnull=True).update(
            body=b"",
            headers={},
            error="",
            remote_address=None,
            erased_at=DatabaseNow(),
            finished_at=Case(When(is_new, then=DatabaseNow()), default=F("finished_at")),
            due_at=None,
            # The last one: MariaDB looks at what the ones before it have set.
            status=Case(When(is_new, then=Value(Status.IGNORED)), default=F("status"), output_field=ExactCharField()),
        )


class Message(models.Model):
    """A webhook that somebody has sent to us."""

    id = models.BigAutoField(primary_key=True)
    source = ExactCharField(max_length=SOURCE_LENGTH)
    message_id = ExactCharField(
        "message id", max_length=NAME_LENGTH, help_text="The sender's; the same each time that it is sent."
    )
    event = ExactCharField(max_length=NAME_LENGTH, blank=True)
    status = ExactCharField(max_length=9, choices=Status, default=Status.NEW)
    headers = models.JSONField(default=dict)
    body = models.BinaryField(help_text="The exact bytes.")
    remote_address = models.GenericIPAddressField(null=True, blank=True)
    sequence = models.BigIntegerField(null=True, blank=True, help_text="The sender's number for it, if it counts.")
    received_at = models.DateTimeField(db_default=DatabaseNow())
    due_at = models.DateTimeField(null=True, blank=True, db_default=DatabaseNow(), help_text="When the handlers run next.")
    finished_at = models.DateTimeField(null=True, blank=True)
    attempt_count = models.PositiveIntegerField("attempts", default=0, db_default=0)
    error = models.TextField("last error", blank=True, default="")
    erased_at = models.DateTimeField(null=True, blank=True, help_text="Since when it says nothing any more.")

    objects = WriterManager.from_queryset(MessageQuerySet)()

    class Meta:
        db_table = "djw_inbox_message"
        ordering = ["-id"]
        permissions = [
            ("replay_message", "Can have the handlers of messages run again"),
            ("fetch_message", "Can have senders' feeds asked for what is missing"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["source", "message_id"], name="djw_inbox_once"),
            models.CheckConstraint(
                condition=Q(status=Status.NEW, due_at__isnull=False) | (~Q(status=Status.NEW) & Q(due_at__isnull=True)),
                name="djw_inbox_due_while_new",
            ),
        ]
        indexes = [
            PartialIndex(fields=["due_at", "id"], name="djw_inbox_due", where=Q(due_at__isnull=False), otherwise=["due_at"]),
            PartialIndex(
                fields=["source", "sequence"],
                name="djw_inbox_sequence",
                where=Q(sequence__isnull=False),
                otherwise=["source", "sequence"],
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event or 'message'} {self.message_id} from {self.source}"

    def json(self) -> Any:
        """Return the JSON value that the body is. Raises ValueError if it is none."""
        return read_json(bytes(self.body))

    def replay(self) -> None:
        """Have the handlers run for it once more, with all attempts before it.

        Raises RejectedMessage, ErasedMessage and DeletedMessage.
        """
        row = Message.objects.filter(pk=self.pk)
        if not row.replay():
            left = row.values("erased_at").first()
            raise DeletedMessage if left is None else ErasedMessage if left["erased_at"] else RejectedMessage


class FeedPosition(models.Model):
    """How far a sender's feed was read: the sender does not have what is missing up to there."""

    source = ExactCharField(max_length=SOURCE_LENGTH, primary_key=True)
    feed_url = models.TextField(help_text="Whose numbers these are.")
    read_to = models.BigIntegerField()

    objects = WriterManager()

    class Meta:
        db_table = "djw_inbox_feed"

    def __str__(self) -> str:
        return f"{self.source} to {self.read_to}"


def inbox_database() -> str:
    """The alias of the database that messages are read from and written to."""
    return router.db_for_write(Message)


#: What is known of a message when it comes.
COLUMNS = ("source", "message_id", "event", "status", "headers", "body", "remote_address", "sequence", "error")


def insert_message(using: str, values: Mapping[str, Any], *, is_due: bool = True) -> None:
    """Store a message, unless its source has sent one with this id before."""
    row = {"event": "", "status": Status.NEW, "error": "", **values}
    names = COLUMNS if is_due else (*COLUMNS, "due_at")
    insert_many(using, Message, names, [[row.get(name) for name in names]])
    if is_due:
        messages_due.send(Message, using=using)


def describe_error(error: BaseException) -> str:
    """Return the traceback of *error*, without the values of variables, as far as it is kept."""
    return clean_text("".join(traceback.format_exception(error)))[-ERROR_LIMIT:]


def count_attempt(using: str, message: Message, lease: timedelta) -> None:
    """Count an attempt before it runs, so that one that kills its worker counts too; nobody else takes it during *lease*."""
    mine = Message.objects.using(using).attempt(message.pk, message.attempt_count)
    mine.update(attempt_count=F("attempt_count") + 1, due_at=DatabaseNow() + lease)
    message.attempt_count += 1
