"""What messages said of somebody goes; that they came stays."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from djwebhooks.exceptions import ErasedMessage
from djwebhooks.inbox.erasure import erase_messages
from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.testing import signed
from djwebhooks.inbox.worker import InboxWorker
from tests.inbox.senders import store
from tests.inbox.shop.models import Effect

pytestmark = pytest.mark.django_db

ADA = "ada@example.com"


def test_what_says_it_is_erased_and_nothing_else() -> None:
    """The row stays with its id, its times and its end."""
    mine = store(
        body=b'{"email": "Ada@Example.com"}',
        headers={"x-customer": "7"},
        status=Status.PROCESSED,
        remote_address="203.0.113.9",
        error="old",
        finished_at=timezone.now(),
    )
    other = store(body=b'{"email": "bob@example.com"}')

    assert erase_messages(ADA, dry_run=True) == 1
    assert Message.objects.filter(erased_at__isnull=False).count() == 0
    assert erase_messages(ADA) == 1
    assert erase_messages(ADA) == 0

    row = Message.objects.get(pk=mine.pk)
    assert (bytes(row.body), row.headers, row.error, row.remote_address) == (b"", {}, "", None)
    assert (row.message_id, row.status, row.finished_at) == (mine.message_id, "processed", mine.finished_at)
    assert row.erased_at is not None
    assert bytes(Message.objects.get(pk=other.pk).body) == bytes(other.body)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("Zoë", {"body": '{"name": "ZOË"}'.encode()}),
        ("Zoë", {"body": b'{"name": "Zo\\u00eb"}'}),
        (ADA, {"body": b"name=Ada&email=ada%40example.com"}),
        ("Ada Lovelace", {"body": b"name=Ada%20Lovelace"}),
        ("ada+shop@example.com", {"body": b"https://shop.example.com/?email=ada+shop%40example.com"}),
        ("https://shop.example.com/u/7", {"body": rb'{"url": "https:\/\/shop.example.com\/u\/7"}'}),
        ('Zoë "Z"', {"body": r'{"name": "Zoë \"Z\""}'.encode()}),
        ("Zoë 😀", {"body": rb'{"name": "zo\u00EB \ud83d\uDE00"}'}),
        ("Zoë", {"body": rb'{"Message": "{\"name\": \"Zo\\u00eb\"}"}'}),
        ("Zoë", {"body": b"payload=%7B%22name%22%3A%22Zo%5Cu00eb%22%7D"}),
        (r"C:\Ada", {"body": rb"C:\Ada"}),
        (ADA, {"body": b"\xff ada@example.com"}),
        (ADA, {"headers": {"x-customer": ADA}}),
    ],
)
def test_it_is_found_however_it_is_written(text: str, fields: dict[str, Any]) -> None:
    """As text, as JSON with whichever escapes, in a form, in JSON inside of these, beside bytes that are no text, in a header."""
    store(**fields)

    assert erase_messages(text) == 1


def test_one_source_may_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all of the pages are read."""
    monkeypatch.setattr("djwebhooks.inbox.erasure.PAGE", 2)
    for source in ("shop", "github", "shop", "shop"):
        store(source=source, body=ADA.encode())

    assert erase_messages(ADA, source="shop") == 3
    with pytest.raises(ValueError, match="Every message says an empty text"):
        erase_messages(" ")


def test_no_handler_runs_for_what_was_erased() -> None:
    """Neither the one that it waited for, nor one of a replay."""
    message = store("order.paid")
    assert Message.objects.filter(pk=message.pk).erase() == 1

    InboxWorker(burst=True).run()

    assert not Effect.objects.exists()
    message.refresh_from_db()
    assert (message.status, message.due_at) == (Status.IGNORED, None)
    assert message.finished_at is not None
    assert Message.objects.all().replay() == 0
    with pytest.raises(ErasedMessage):
        message.replay()


def test_what_was_erased_is_still_known() -> None:
    """The sender sends it again, and it does not come back."""
    message = store(message_id="msg_1")
    Message.objects.filter(pk=message.pk).erase()
    body = b'{"type": "order.paid"}'

    assert Client().post(**signed("shop", body, message_id="msg_1")).status_code == 200
    assert bytes(Message.objects.get().body) == b""


def test_the_admin_says_so(admin_client: Client) -> None:
    """And offers no replay."""
    message = store()
    Message.objects.filter(pk=message.pk).erase()

    page = admin_client.get(f"/admin/djwebhooks_inbox/message/{message.pk}/change/").content.decode()

    assert "What it said was erased at" in page
    assert "act/replay/" not in page
