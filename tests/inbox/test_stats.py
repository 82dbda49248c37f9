"""The numbers are those of the table, and what is missing is said."""

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from djwebhooks.inbox.models import Status
from djwebhooks.inbox.stats import collect, report
from tests.inbox.senders import store

pytestmark = pytest.mark.django_db


def test_nothing_is_counted_as_nothing() -> None:
    """An empty inbox has nothing to complain about."""
    stats = collect()

    assert (stats.due, stats.later, stats.came, stats.failed, stats.rejected, stats.oldest_due_age, stats.notices) == (
        0, 0, 0, 0, 0, None, [],
    )  # fmt: skip
    assert list(report(stats)) == [
        "Inbox       0 due, 0 to be tried again; within a day 0 came, 0 failed, 0 rejected",
    ]


def test_messages_are_counted_by_what_becomes_of_them() -> None:
    """What is due, what waits for another try, and what the last day brought; old work without a worker is noticed."""
    now = timezone.now()
    store(due_at=now - timedelta(seconds=500))
    store(due_at=now + timedelta(hours=1), attempt_count=1)
    for status in (Status.FAILED, Status.FAILED, Status.REJECTED, Status.PROCESSED):
        store(status=status)
    store(status=Status.FAILED, received_at=now - timedelta(days=2))

    stats = collect()

    assert (stats.due, stats.later, stats.came, stats.failed, stats.rejected) == (1, 1, 6, 2, 1)
    assert stats.oldest_due_age == pytest.approx(500, abs=60)
    line, notice = report(stats)
    assert line.startswith("Inbox       1 due (for ")
    assert notice == "! Messages wait for handlers, and nobody runs them: run manage.py webhooks inbox."


def test_counting_stops_at_the_limit() -> None:
    """A backlog of millions costs as much as one at the limit."""
    for _ in range(4):
        store()

    stats = collect(limit=3)

    assert (stats.due, stats.came) == (3, 3)
    assert "3+ due" in next(report(stats))


def test_a_source_that_cannot_work_is_told(settings: LazySettings) -> None:
    """Its messages wait, and nobody would know why."""
    settings.DJWEBHOOKS_INBOX = {"shop": {"scheme": "none"}, "github": {"scheme": "github"}}

    assert ["'secrets' is empty" in notice for notice in collect().notices] == [True]
