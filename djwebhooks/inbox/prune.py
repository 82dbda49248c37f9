"""Delete what was received long ago, in small batches."""

from datetime import timedelta

from djwebhooks.conf import as_seconds, conf
from djwebhooks.database import read_clock
from djwebhooks.inbox.models import Message, Status, inbox_database

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
        rows = list(messages.filter(pk__gt=after).order_by("pk").values_list("pk", "received_at", "status")[:batch])
        old = [pk for pk, received_at, status in rows if status != Status.NEW and received_at < before]
        # Somebody may have asked for a replay meanwhile.
        count += len(old) if dry_run else messages.filter(pk__in=old).exclude(status=Status.NEW).delete()[0]
        # Ids and times are given out together, so what comes after is younger still.
        if len(rows) < batch or not any(received_at < before for _, received_at, _ in rows):
            return count
        after = rows[-1][0]
