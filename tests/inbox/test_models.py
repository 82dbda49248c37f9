"""The inbox's table: what it forbids, and that it stays fast."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from djwebhooks.database import read_clock
from djwebhooks.inbox.gaps import find_gaps
from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.worker import InboxWorker, next_due
from tests.connections import postgresql_only
from tests.inbox.senders import send, store

pytestmark = pytest.mark.django_db
ROWS = 20_000


def test_an_id_is_stored_once_for_each_source() -> None:
    """Whoever writes it, by whichever way."""
    store(message_id="msg_1")

    with pytest.raises(IntegrityError):
        store(message_id="msg_1")


@pytest.mark.parametrize("fields", [{"status": Status.PROCESSED, "due_at": "2026-01-01T00:00Z"}, {"due_at": None}])
def test_what_is_new_is_due_some_day_and_nothing_else_is(fields: dict[str, Any]) -> None:
    """A message can neither be forgotten, nor worked on after its end."""
    with pytest.raises(IntegrityError), transaction.atomic():
        store(**fields)


def test_a_message_says_what_it_is() -> None:
    """In the admin and in logs."""
    assert str(store(message_id="msg_1", source="github")) == "message msg_1 from github"
    assert str(Message(source="shop", message_id="msg_1", event="order.paid")) == "order.paid msg_1 from shop"


@postgresql_only
@pytest.mark.parametrize("act", [lambda: InboxWorker(burst=True).run(), lambda: send("order.paid"), lambda: next_due("default")])
def test_what_is_done_often_reads_no_table(act: Callable[[], object]) -> None:
    """With many messages that are done, all that is asked for is found by an index."""
    now = read_clock("default")
    Message.objects.bulk_create(
        Message(source="shop", message_id=f"old_{number}", body=b"{}", status=Status.PROCESSED, due_at=None, received_at=now)
        for number in range(ROWS)
    )
    store()
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE djw_inbox_message")

    with CaptureQueriesContext(connection) as queries:
        act()

    reads = [query["sql"] for query in queries if re.match(r"(SELECT|UPDATE).*djw_inbox_message", query["sql"])]
    for sql in reads:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + sql.replace("%", "%%"))
            plan = "\n".join(row[0] for row in cursor.fetchall())
        assert "Seq Scan" not in plan, f"{sql}\n{plan}"


def test_gaps_can_be_looked_for_among_the_newest() -> None:
    """A page that is often looked at does not read all that there is."""
    for number in (1, 3, 4):
        store(sequence=number)

    assert len(find_gaps(newest=3)) == 1
    assert find_gaps(newest=2) == []
