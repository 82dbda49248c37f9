"""Numbers that are missing are noticed."""

from datetime import timedelta
from unittest.mock import ANY

import pytest
from django.conf import LazySettings
from django.utils import timezone

from djwebhooks.inbox.gaps import Gap, find_gaps
from djwebhooks.inbox.models import Message
from tests.inbox.senders import store

pytestmark = pytest.mark.django_db


def test_gaps_are_found_for_each_source() -> None:
    """Whatever the order in which messages came, and whatever comes without a number."""
    for number in (3, 7, 4):
        store(sequence=number)
    for number in (1, 2, 4):
        last = store(source="github", sequence=number)
    store()

    gaps = find_gaps()

    assert [(gap.source, gap.first, gap.last) for gap in gaps] == [("github", 3, 3), ("shop", 5, 6)]
    assert find_gaps("github") == [Gap("github", 3, 3, last.received_at)]
    assert [str(gap) for gap in gaps] == ["3", "5 to 6"]
    assert len(find_gaps(limit=1)) == 1


def test_a_gap_closes() -> None:
    """The sender has tried again."""
    for number in (1, 3):
        store(sequence=number)
    assert len(find_gaps()) == 1

    store(sequence=2)

    assert find_gaps() == []


def test_what_was_pruned_is_no_gap(settings: LazySettings) -> None:
    """Beyond the retention nothing is known any more; an old message may be left that still waits."""
    settings.DJWEBHOOKS_RETENTION = timedelta(days=1)
    store(sequence=1, received_at=timezone.now() - timedelta(days=2))
    store(sequence=9)

    assert find_gaps() == []


@pytest.mark.parametrize("missing", [(), (3,), (2, 4), (4,)])
def test_what_came_before_those_that_are_looked_at_is_no_gap(settings: LazySettings, missing: tuple[int, ...]) -> None:
    """One that was late stands among the newest, far from its neighbours; what is missing between them is found all the same."""
    settings.DJWEBHOOKS_RETENTION = timedelta(days=1)
    old = [store(sequence=number) for number in (2, 3, 4) if number not in missing]
    for number in (1, 5, 6):
        store(sequence=number)

    assert [(gap.first, gap.last) for gap in find_gaps(newest=3)] == [(number, number) for number in missing]

    Message.objects.filter(pk__in=[message.pk for message in old]).update(received_at=timezone.now() - timedelta(days=2))
    assert [(gap.first, gap.last) for gap in find_gaps()] == [(number, number) for number in missing]


def test_what_cannot_be_known_is_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so much is read of what came before."""
    monkeypatch.setattr("djwebhooks.inbox.gaps.BETWEEN", 2)
    for number in (2, 3, 5, 1, 7):
        store(sequence=number)

    assert find_gaps(newest=2) == []
    assert find_gaps() == [Gap("shop", 4, 4, ANY), Gap("shop", 6, 6, ANY)]
