"""Delete what was received long ago, in small batches."""

from collections.abc import Sequence
from datetime import timedelta

from djwebhooks.conf import as_seconds, conf
from djwebhooks.database import read_clock
from djwebhooks.inbox.gaps import note_position
from djwebhooks.inbox.models import Message, Status, inbox_database
from djwebhooks.inbox.sources import list_sources

#: Rows that are looked at, and deleted at most, in one transaction.
BATCH = 1000


def prune(
    *, older_than: float | timedelta | None = None, dry_run: bool = False, using: str | None = None, batch: int = BATCH
) -> int:
    """Delete messages that were received longer ago than *older_than* and wait for no handler; return how many.

    *older_than* is in seconds or a ``timedelta``; None is ``DJWEBHOOKS_RETENTION``. With *dry_run* nothing is written.
    What is sent once more after its message was deleted is taken for a new one.
    """
    alias = using or inbox_database()
    before = read_clock(alias) - timedelta(seconds=conf.seconds("RETENTION") if older_than is None else as_seconds(older_than))
    messages = Message.objects.using(alias)
    count = after = 0
    while True:
        rows = list(messages.filter(pk__gt=after).order_by("pk").only("received_at", "status", "source", "sequence")[:batch])
        old = [row for row in rows if row.status != Status.NEW and row.received_at < before]
        if not dry_run:
            close_gaps(alias, old)
        # Somebody may have asked for a replay meanwhile.
        doomed = messages.filter(pk__in=[row.pk for row in old]).exclude(status=Status.NEW)
        count += len(old) if dry_run else doomed.delete()[0]
        # Ids and times are given out together, so what comes after is younger still.
        if len(rows) < batch or not any(row.received_at < before for row in rows):
            return count
        after = rows[-1].pk


def close_gaps(using: str, messages: Sequence[Message]) -> None:
    """Note that the feeds of these messages' sources need not be asked for them, nor for what is before: it was long ago."""
    for source in list_sources().good.values():
        last = max((message.sequence or 0 for message in messages if message.source == source.name), default=0)
        if source.feed_url and last:
            note_position(source, last, using)
