"""Locks that wait for nobody for long."""

from typing import Any

import pytest
from django.db import transaction

from djwebhooks import database
from djwebhooks.models import Lane
from tests.connections import Thread, second_connection, server_only
from tests.database.rows import DB, make_lanes
from tests.database.sessions import show_limits, wait_until_blocked

pytestmark = pytest.mark.django_db


def test_rows_are_locked_in_their_order() -> None:
    """Whoever locks several rows does so in one order."""
    make_lanes(3)

    assert [lane.pk for lane in database.lock_rows(Lane.objects.order_by("pk"), DB)] == [1, 2, 3]
    assert [lane.pk for lane in database.lock_free_rows(Lane.objects.order_by("pk"), DB)] == [1, 2, 3]


@server_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lock", [database.lock_rows, database.lock_free_rows])
def test_rows_that_others_keep_locked_are_left_out(lock: Any) -> None:
    """A lock that lasts is not waited for; the transaction goes on, and its later waits are not cut short."""
    make_lanes(3)
    before = show_limits()[2]
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=2))
        with transaction.atomic():
            found = [lane.pk for lane in lock(Lane.objects.order_by("pk"), DB)]
            assert show_limits()[2] == before

    assert found == [1, 3]


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_short_lock_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is free again within a moment is not left out; a moment in which a busy machine can do something, too."""
    for name in ("LOCK_TIMEOUT", "MARIADB_LOCK_TIMEOUT"):
        monkeypatch.setattr(f"djwebhooks.database.locks.{name}", 30_000)
    make_lanes(1)
    with second_connection() as other:
        block = transaction.atomic(using=other)
        block.__enter__()
        list(Lane.objects.using(other).select_for_update())

        def lock() -> int:
            with transaction.atomic():
                return len(database.lock_rows(Lane.objects.order_by("pk"), DB))

        thread = Thread(lock)
        wait_until_blocked()
        block.__exit__(None, None, None)

        assert thread.result() == 1
