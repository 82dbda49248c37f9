"""The admin page of messages: what it shows, and who may have handlers run again."""

import uuid

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from djwebhooks.inbox.models import Message, Status
from djwebhooks.testing import Receiver, answer
from tests.inbox.senders import store

pytestmark = pytest.mark.django_db

LIST = "/admin/djwebhooks_inbox/message/"


def make_staff(*permissions: str) -> Client:
    user = User.objects.create_user(f"staff {uuid.uuid4()}", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="djwebhooks_inbox", codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def staff() -> Client:
    """Somebody who may look, and have handlers run again."""
    return make_staff("view_message", "replay_message")


def page_of(message: Message) -> str:
    return reverse("admin:djwebhooks_inbox_message_change", args=[message.pk])


def act(client: Client, message: Message, **data: str) -> int:
    return client.post(f"{LIST}{message.pk}/act/replay/", data).status_code


def ids(client: Client, query: str) -> list[str]:
    return [message.message_id for message in client.get(LIST + query).context["cl"].queryset]


def test_the_list_can_be_filtered_and_searched(staff: Client) -> None:
    """By status and source; by an id or an event."""
    store(message_id="msg_1", event="order.paid")
    store(message_id="msg_2", attempt_count=1)
    store(source="github", event="push", message_id="msg_3", status=Status.FAILED)
    Message.objects.filter(message_id="msg_3").update(event="push")

    assert ids(staff, "") == ["msg_3", "msg_2", "msg_1"]
    assert ids(staff, "?status=failed") == ["msg_3"]
    assert ids(staff, "?status=to+be+retried") == ["msg_2"]
    assert ids(staff, "?source=shop") == ["msg_2", "msg_1"]
    assert ids(staff, "?q=msg_1") == ["msg_1"]
    assert ids(staff, "?q=push") == ["msg_3"]


def test_the_list_reads_no_bodies(staff: Client) -> None:
    """They are large; and a list costs the same, however many rows it has."""
    for _ in range(20):
        store()

    with CaptureQueriesContext(connection) as queries:
        staff.get(LIST)

    assert not any('"body"' in query["sql"].replace("`", '"') for query in queries)
    assert len(queries) <= 12


def test_gaps_are_shown_above_the_list(staff: Client) -> None:
    """As far as there is room."""
    assert "Numbers are missing" not in staff.get(LIST).content.decode()

    for number in range(1, 20, 3):
        store(sequence=number)

    content = staff.get(LIST).content.decode()
    assert "shop: 2 to 3 missing" in content
    assert "… and more" in content


def test_a_body_is_shown_escaped_and_readable(staff: Client) -> None:
    """JSON with a line for each part, and as it came; nothing in it is HTML."""
    content = staff.get(page_of(store(body=b'{"title":"<script>alert(1)</script>"}'))).content.decode()

    assert "&quot;title&quot;: &quot;&lt;script&gt;" in content
    assert "<script>alert" not in content
    assert "As it came" in content
    assert "37 bytes" in content


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "–"),
        (b"\xff\x00 raw", "\\xff\x00 raw"),
        (b"x" * 70_000, "the first 65,536 are shown"),
        (b'{"a":"\\ud800"}', "{\n  &quot;a&quot;: &quot;\\ud800&quot;\n}"),
        (b"[" * 60_000, "60,000 bytes"),
        (b"1" + b"0" * 5000, "5,001 bytes"),
    ],
)
def test_any_body_can_be_shown(staff: Client, body: bytes, shown: str) -> None:
    """None at all, bytes that are no text, more than fits a page, and JSON that no page or parser can hold."""
    assert shown in staff.get(page_of(store(body=body))).content.decode()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Its handlers are to run."),
        ({"attempt_count": 1}, "are to run again"),
        ({"status": Status.PROCESSED}, "All of its handlers have run"),
        ({"status": Status.FAILED, "error": "Traceback: <b>"}, "Traceback: &lt;b&gt;"),
        ({"status": Status.IGNORED}, "No handler wants it"),
        ({"status": Status.REJECTED}, "no valid signature"),
    ],
)
def test_a_page_explains_itself(staff: Client, fields: dict[str, object], words: str) -> None:
    """Each status is said in a sentence."""
    assert words in staff.get(page_of(store(**fields))).content.decode()


def test_a_message_is_replayed_after_a_question(staff: Client) -> None:
    """What was done happens once more, so people are asked; who said yes is on record."""
    message = store(status=Status.PROCESSED, finished_at="2026-01-01T00:00Z")

    asked = staff.post(f"{LIST}{message.pk}/act/replay/")
    assert "happens once more" in asked.content.decode()
    assert 'href="/static/djwebhooks_inbox/admin.css"' in asked.content.decode()
    assert Message.objects.get().status == Status.PROCESSED

    assert act(staff, message, confirmed="yes") == 302
    assert Message.objects.get().status == Status.NEW
    assert LogEntry.objects.get().object_id == str(message.pk)


def test_many_messages_are_replayed_at_once(staff: Client) -> None:
    """Rejected ones are not, and it is said."""
    messages = [store(status=status) for status in (Status.FAILED, Status.IGNORED, Status.REJECTED)]
    chosen = {"action": "replay", "_selected_action": [message.pk for message in messages], "confirmed": "yes"}

    answer = staff.post(LIST, chosen, follow=True).content.decode()

    assert "no valid signature, so no handler may run for it" in answer
    assert [message.status for message in Message.objects.order_by("pk")] == [Status.NEW, Status.NEW, Status.REJECTED]


def test_who_may_only_look_changes_nothing() -> None:
    """To have handlers run again is a permission of its own; to change or delete messages is nobody's."""
    message = store(status=Status.FAILED)
    viewer = make_staff("view_message", "change_message", "delete_message", "add_message")

    content = viewer.get(page_of(message)).content.decode()
    assert "Replay" not in content
    assert act(viewer, message, confirmed="yes") == 403
    assert viewer.post(page_of(message), {"status": "new"}).status_code == 403
    assert viewer.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 403
    assert viewer.get(f"{LIST}add/").status_code == 403
    assert make_staff().get(LIST).status_code == 403
    assert Message.objects.get().status == Status.FAILED


def test_a_rejected_message_has_no_button(staff: Client) -> None:
    """No handler may run for it."""
    assert 'act/replay/"' in staff.get(page_of(store())).content.decode()
    assert 'act/replay/"' not in staff.get(page_of(store(status=Status.REJECTED))).content.decode()


def test_what_is_missing_can_be_asked_for(settings: LazySettings, receiver: Receiver) -> None:
    """By whoever may; the button is there only where a source has a feed."""
    button = "Ask senders for what is missing"
    looker, asker = make_staff("view_message"), make_staff("view_message", "fetch_message")
    assert button not in asker.get(LIST).content.decode()
    shop = {**settings.DJWEBHOOKS_INBOX["shop"], "feed_url": f"{receiver.url}?target=1"}
    settings.DJWEBHOOKS_INBOX = {**settings.DJWEBHOOKS_INBOX, "shop": shop}
    receiver.answers = [answer(200, b'{"after": 5, "has_more": false, "waiting_for": 6, "results": []}')]
    store(sequence=5)

    assert button not in looker.get(LIST).content.decode()
    assert (looker.post(f"{LIST}fetch/").status_code, asker.get(f"{LIST}fetch/").status_code) == (403, 405)
    assert receiver.requests == []
    assert button in asker.get(LIST).content.decode()
    told = asker.post(f"{LIST}fetch/", follow=True).content.decode()

    assert "Source shop: 0 stored. Number 6 has yet to be built by the sender" in told
    assert len(receiver.requests) == 1
