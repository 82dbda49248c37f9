"""Which numbers are missing, of sources that count their messages in the header ``webhook-sequence``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from django.db.models import BigIntegerField, Case, Expression, ExpressionWrapper, F, Max, QuerySet, Value, When, Window
from django.db.models.functions import Coalesce, Greatest, Lag

from djwebhooks.conf import conf
from djwebhooks.database import insert_many, read_clock
from djwebhooks.inbox.models import FeedPosition, Message, MessageQuerySet, inbox_database
from djwebhooks.inbox.sources import Source, list_sources

#: How many gaps between the messages that are looked at are held against all others, and against how many of these each.
CANDIDATES, BETWEEN = 1000, 10_000
#: A number that no message has.
BEYOND = 2**62


@dataclass(frozen=True, slots=True)
class Gap:
    """The numbers from *first* to *last* of *source* have not come; *noticed_at* is when the one after them came."""

    source: str
    first: int
    last: int
    noticed_at: datetime

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first} to {self.last}"


def find_gaps(source: str | None = None, *, using: str | None = None, limit: int = 1000, newest: int | None = None) -> list[Gap]:
    """Return what is missing between the messages of the last ``DJWEBHOOKS_RETENTION``, of *source* or of all.

    At most *limit* are returned; with *newest*, only those between so many messages, the ones that came last. A gap closes by
    itself when the sender tries again; one that stays was given up by the sender, or is lost. What the sender's feed does not
    have either, as far as it was read, is left out.
    """
    alias = using or inbox_database()
    since = read_clock(alias) - timedelta(seconds=conf.seconds("RETENTION"))
    everything = Message.objects.using(alias).filter(sequence__isnull=False)
    messages = everything.filter(received_at__gte=since)
    if source is not None:
        messages = messages.filter(source=source)
    if newest is not None:
        last_id = Message.objects.using(alias).aggregate(last=Max("pk"))["last"] or 0
        messages = messages.filter(pk__gt=last_id - newest)
    found = _find_gaps(messages, read_positions(alias))[: max(limit, CANDIDATES)]
    return list(islice((gap for row in found for gap in _look_closer(Gap(*row), everything)), limit))


def read_positions(using: str) -> dict[str, int]:
    """Return how far the feed of each source was read, where it is still the same feed."""
    urls = {name: source.feed_url for name, source in list_sources().good.items()}
    rows = FeedPosition.objects.using(using).values_list("source", "feed_url", "read_to")
    return {source: read_to for source, url, read_to in rows if url == urls.get(source)}


def note_position(source: Source, number: int, using: str) -> None:
    """Note that the feed was read to this number: what is missing up to there, it does not have."""
    positions = FeedPosition.objects.using(using).filter(source=source.name)
    known = positions.filter(feed_url=source.feed_url, read_to__gte=number)
    if not known.exists() and not positions.update(feed_url=source.feed_url, read_to=number):
        insert_many(using, FeedPosition, ("source", "feed_url", "read_to"), [[source.name, source.feed_url, number]])


def _find_gaps(messages: MessageQuerySet, read: Mapping[str, int]) -> QuerySet[Message, tuple[Any, ...]]:
    follows: Expression = Window(Lag(F("sequence") + 1), partition_by="source", order_by="sequence")
    # Nothing is missing before the first one, unless it is known that the feed was read up to another.
    follows = Coalesce(follows, _after(read, BEYOND), output_field=BigIntegerField())
    first = Greatest(follows, _after(read, 0))
    last = ExpressionWrapper(F("sequence") - 1, BigIntegerField())
    found = messages.annotate(first=first, last=last).filter(first__lte=F("last")).order_by("source", "sequence")
    return found.values_list("source", "first", "last", "received_at")


def _after(read: Mapping[str, int], otherwise: int) -> Case:
    """The number after the one that the feed of a message's source was read to."""
    numbers = (When(source=source, then=Value(number + 1)) for source, number in read.items())
    return Case(*numbers, default=Value(otherwise), output_field=BigIntegerField())


def _look_closer(gap: Gap, everything: MessageQuerySet) -> Iterator[Gap]:
    """Return what of *gap* is missing among all messages: some may have come before those that were looked at."""
    between = everything.filter(source=gap.source, sequence__range=(gap.first, gap.last)).order_by("sequence")
    came: list[tuple[Any, datetime]] = list(between.values_list("sequence", "received_at")[:BETWEEN])
    first = gap.first
    for number, received_at in came:
        if number > first:
            yield replace(gap, first=first, last=number - 1, noticed_at=received_at)
        first = number + 1
    if first <= gap.last and len(came) < BETWEEN:
        yield replace(gap, first=first)
