"""Count what waits for handlers and what failed lately, at a bounded cost."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max

from djwebhooks.database import read_clock
from djwebhooks.inbox.models import Message, MessageQuerySet, Status, inbox_database
from djwebhooks.inbox.sources import list_sources
from djwebhooks.words import describe_span

#: How many messages are looked at, at most: of those that wait, and of the newest.
LIMIT = 10_000
#: Seconds that count as lately, and after which a message that is due has no worker.
LATELY, LATE = 86400.0, 60.0


@dataclass(frozen=True, slots=True)
class InboxStats:
    """How the inbox fares. No number counts beyond *limit*; one that has reached it stands for so many or more.

    *due* messages wait for handlers now, *later* ones until they are tried again; what *came*, *failed* and was *rejected* is of
    the last day. *oldest_due_age* is in seconds, None if nothing is due. *notices* say what is wrong and what to do.
    """

    limit: int
    due: int
    later: int
    oldest_due_age: float | None
    came: int
    failed: int
    rejected: int
    notices: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The same as what JSON can hold."""
        return asdict(self)


def collect(*, using: str | None = None, limit: int = LIMIT) -> InboxStats:
    """Return the numbers of now."""
    alias = using or inbox_database()
    now = read_clock(alias)
    messages = Message.objects.using(alias)
    waiting = messages.filter(due_at__isnull=False)
    oldest: datetime | None = waiting.order_by("due_at", "id").values_list("due_at", flat=True).first()
    age = (now - oldest).total_seconds() if oldest is not None and oldest <= now else None
    lately = count_lately(messages, now, limit)
    return InboxStats(
        limit=limit,
        due=waiting.filter(due_at__lte=now)[:limit].count(),
        later=waiting.filter(due_at__gt=now)[:limit].count(),
        oldest_due_age=age,
        came=lately.total(),
        failed=lately[Status.FAILED],
        rejected=lately[Status.REJECTED],
        notices=list(advise(age)),
    )


def count_lately(messages: MessageQuerySet, now: datetime, limit: int) -> Counter[str]:
    """Count the messages of the last day by status, as far as they are among the newest."""
    last = messages.aggregate(last=Max("pk"))["last"] or 0
    newest = messages.filter(pk__gt=last - limit, received_at__gte=now - timedelta(seconds=LATELY))
    return Counter(dict(newest.order_by().values_list("status").annotate(Count("pk"))))


def advise(oldest_due_age: float | None) -> Iterator[str]:
    yield from list_sources().faults.values()
    if (oldest_due_age or 0) > LATE:
        yield "Messages wait for handlers, and nobody runs them: run manage.py webhooks inbox."


def report(stats: InboxStats) -> Iterator[str]:
    """Write *stats* line by line."""

    def many(number: int) -> str:
        return f"{number}+" if number >= stats.limit else str(number)

    since = f" (for {describe_span(stats.oldest_due_age)})" if stats.oldest_due_age is not None else ""
    yield (
        f"Inbox       {many(stats.due)} due{since}, {many(stats.later)} to be tried again; within a day {many(stats.came)} came, "
        f"{many(stats.failed)} failed, {many(stats.rejected)} rejected"
    )
    yield from (f"! {notice}" for notice in stats.notices)
