"""Which numbers are missing, of sources that count their messages in the header ``webhook-sequence``."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import BigIntegerField, ExpressionWrapper, F, Window
from django.db.models.functions import Lag

from djwebhooks.conf import conf
from djwebhooks.database import read_clock
from djwebhooks.inbox.models import Message, inbox_database


@dataclass(frozen=True, slots=True)
class Gap:
    """The numbers from *first* to *last* of *source* have not come; *noticed_at* is when the one after them came."""

    source: str
    first: int
    last: int
    noticed_at: datetime

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def find_gaps(source: str | None = None, *, using: str | None = None, limit: int = 1000) -> list[Gap]:
    """Return what is missing between the messages of the last ``DJWEBHOOKS_RETENTION``, of *source* or of all.

    At most *limit* are returned. A gap closes by itself when the sender tries again; one that stays was given up by the sender,
    or is lost.
    """
    return list(_find_gaps(using or inbox_database(), source, limit))


def _find_gaps(using: str, source: str | None, limit: int) -> Iterator[Gap]:
    since = read_clock(using) - timedelta(seconds=conf.seconds("RETENTION"))
    messages = Message.objects.using(using).filter(sequence__isnull=False, received_at__gte=since)
    if source is not None:
        messages = messages.filter(source=source)
    first = Window(Lag(F("sequence") + 1), partition_by="source", order_by="sequence")
    last = ExpressionWrapper(F("sequence") - 1, BigIntegerField())
    found = messages.annotate(first=first, last=last).filter(first__lte=F("last")).order_by("source", "sequence")
    yield from (Gap(*row) for row in found.values_list("source", "first", "last", "received_at")[:limit])
