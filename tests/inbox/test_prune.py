"""What is old goes, but for what handlers are still to run for."""

from datetime import timedelta

import pytest
from django.utils import timezone

from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.prune import prune
from tests.inbox.senders import store

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("batch", [1, 2, 1000])
def test_old_messages_are_deleted(batch: int) -> None:
    """In batches of any size; new ones stay, whatever their age."""
    old = timezone.now() - timedelta(days=31)
    for status in (Status.PROCESSED, Status.FAILED, Status.IGNORED, Status.REJECTED):
        store(status=status, received_at=old)
    kept = {store(received_at=old).pk, store(status=Status.PROCESSED).pk, store().pk}

    assert prune(batch=batch, dry_run=True) == 4
    assert Message.objects.count() == 7
    assert prune(batch=batch) == 4
    assert set(Message.objects.values_list("pk", flat=True)) == kept


def test_the_age_can_be_given() -> None:
    """In seconds, or as a timedelta."""
    store(status=Status.IGNORED, received_at=timezone.now() - timedelta(hours=2))

    assert prune() == 0
    assert prune(older_than=timedelta(hours=3)) == 0
    assert prune(older_than=3600) == 1
