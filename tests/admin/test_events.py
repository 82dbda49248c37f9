"""The admin page of events: what happened, what became of it, and erasing it."""

import re
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.pages import ACTION_LIMIT, ASK_LIMIT
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply
from tests.admin.builders import URL, count_queries, list_of, make_owner, make_staff, make_target, page_of, send, text_of

pytestmark = pytest.mark.django_db


def test_an_event_shows_its_payload_and_what_became_of_it(admin_client: Client) -> None:
    """The payload has a line for each part, and every status links to its deliveries."""
    delivery = send(make_target(), payload={"title": "Café <b>"})
    response = admin_client.get(page_of(delivery.event))

    assert "{\n  &quot;title&quot;: &quot;Café &lt;b&gt;&quot;\n}" in response.content.decode()
    assert "succeeded 1 · all 1" in text_of(response)
    assert f"?event={delivery.event_id}&amp;status__exact=succeeded" in response.content.decode()


def test_the_captured_call_of_an_event_is_neither_shown_nor_read(admin_client: Client) -> None:
    """It may hold whatever an argument has, a user's password hash included."""
    event = Event.objects.create(name="user.update", hook="app.hooks.user_updated", call="pbkdf2_sha256$hash")
    pages = [list_of("event"), page_of(event)]
    queries = [sql for page in pages for sql in count_queries(admin_client, page)]

    assert "pbkdf2" not in "".join(admin_client.get(page).content.decode() for page in pages)
    assert not [sql for sql in queries if re.search(r"djw_event\W+call\b", sql)]


def test_an_event_shows_why_its_payload_cannot_be_built(admin_client: Client) -> None:
    """The traceback stands as it is, for staff to read."""
    error = 'Traceback (most recent call last):\n  File "hooks.py", line 1\nValueError: <no>'
    event = Event.objects.create(name="a.b", hook="app.hooks.a", build_attempts=BUILD_TRIES, build_error=error)
    response = admin_client.get(page_of(event))

    assert "ValueError: &lt;no&gt;</pre>" in response.content.decode()
    assert "build failed" in text_of(response)
    assert "app.hooks.a" in text_of(response)


def test_an_event_of_a_deleted_owner_is_shown(admin_client: Client) -> None:
    """Deleting an owner leaves the events, which say whose they were."""
    owner = make_owner()
    event = fire("user.deleted", {}, owner=owner)
    owner_pk = owner.pk
    owner.delete()

    assert f"deleted owner #{owner_pk}" in text_of(admin_client.get(list_of("event")))
    assert f"deleted owner #{owner_pk}" in text_of(admin_client.get(page_of(event)))


@pytest.mark.parametrize(
    ("progress", "word", "fields"),
    [
        ("waiting", "waiting", {}),
        ("waiting", "planned", {"deliver_at": datetime(2999, 1, 1, tzinfo=UTC)}),
        ("dispatched", "dispatched", {"dispatched_at": datetime(2026, 1, 1, tzinfo=UTC), "payload": "{}"}),
        ("build failing", "build failing", {"build_attempts": 1, "build_error": "ValueError"}),
        ("build failed", "build failed", {"build_attempts": BUILD_TRIES, "build_error": "ValueError"}),
    ],
)
def test_events_are_listed_and_filtered_by_progress(
    progress: str, word: str, fields: dict[str, object], admin_client: Client
) -> None:
    """The list says in a word how far an event has come."""
    Event.objects.create(name="a.b", **fields)

    assert f">{word}</span>" in admin_client.get(list_of("event"), {"progress": progress}).content.decode()


def test_an_event_that_nobody_wants_says_so(admin_client: Client) -> None:
    """Before it is dispatched, nobody knows."""
    event = fire("a.b", {})
    before = text_of(admin_client.get(page_of(event)))
    deliver()

    assert "none yet" in before
    assert "nobody wants it" in text_of(admin_client.get(page_of(event)))


def test_an_event_is_found_by_uid_and_by_the_beginning_of_its_name(admin_client: Client) -> None:
    """The search needs no more than what a receiver knows."""
    event = fire("project.update", {})
    fire("invoice.paid", {})
    for words in (str(event.uid), "project"):
        found = admin_client.get(list_of("event"), {"q": words}).context["cl"].queryset

        assert list(found) == [event]


# -- erasing -----------------------------------------------------------------------------------------------------------


def make_told() -> tuple[Event, Delivery]:
    """An event that was told to a receiver, which has answered."""
    target = make_target(f"{URL}/told")
    event = fire("project.told", {"name": "Crusoe"}, owner=target.owner)
    deliver(lambda request: Reply(request.key, status=500, body=b"Crusoe is unknown."))
    return event, Delivery.objects.get(event=event)


def test_erasing_asks_first() -> None:
    """A button, and the action of the list, show what would be erased, and do it once that is confirmed."""
    event, delivery = make_told()
    client = make_staff("view_event", "view_delivery", "erase_event")
    act = reverse("admin:djwebhooks_event_act", args=[event.pk, "erase"])
    listed = {"action": "erase", "_selected_action": [event.pk]}
    assert act in client.get(page_of(event)).content.decode()

    for asked in (client.post(act), client.post(reverse("admin:djwebhooks_event_changelist"), listed)):
        assert "are you sure?" in text_of(asked)
        assert str(event) in text_of(asked)
        assert Event.objects.get(pk=event.pk).payload
    told = text_of(client.post(reverse("admin:djwebhooks_event_changelist"), listed | {"confirmed": "yes"}, follow=True))

    assert "Erased, with the answers to 1 attempt." in told
    for page in (client.get(page_of(event)), client.get(page_of(delivery))):
        assert "Crusoe" not in text_of(page)
        assert "erased" in text_of(page)
    assert act not in client.get(page_of(event)).content.decode()
    assert str(event) not in text_of(client.get(reverse("admin:djwebhooks_event_changelist"), {"progress": "waiting"}))


def say_yes(client: Client, asked: HttpResponse) -> HttpResponse:
    """Send the form of the question, as a browser does."""
    form = re.search(r'<form method="post" action="(.+?)">(.+?)</form>', asked.content.decode(), re.DOTALL)
    posted: dict[str, list[str]] = defaultdict(list)
    for name, value in re.findall(r'name="(.+?)" value="(.+?)"', form[2]):
        posted[name].append(value)
    return client.post(form[1], posted, follow=True)


def test_what_is_erased_is_what_was_asked_about() -> None:
    """Neither what came into the list between question and answer, nor less, as it has left the list: what is erased is gone."""
    chosen = [fire("project.told", {"number": number}) for number in range(ASK_LIMIT + 2)]
    client = make_staff("view_event", "erase_event")
    listed = {"action": "erase", "_selected_action": [chosen[0].pk], "select_across": "1", "index": "0"}

    asked = client.post(f"{list_of('event')}?progress=waiting", listed)
    Event.objects.filter(pk=chosen[0].pk).update(dispatched_at=datetime(2026, 1, 1, tzinfo=UTC))
    later = fire("project.told", {"number": "later"})
    told = text_of(say_yes(client, asked))

    assert f"done for {len(chosen)} events" in told
    assert list(Event.objects.filter(erased_at__isnull=True)) == [later]


def test_as_many_rows_as_an_action_takes_can_be_said_yes_to(settings: Any) -> None:
    """Their names are fewer than the fields that Django reads of a form."""
    Event.objects.bulk_create([Event(name="project.update", payload="{}") for _ in range(ACTION_LIMIT)])
    client = make_staff("view_event", "erase_event")
    listed = {"action": "erase", "_selected_action": [Event.objects.first().pk], "select_across": "1"}

    asked = client.post(list_of("event"), listed)
    fields = re.findall(r'<input type="(?:hidden|submit)" name=', asked.content.decode())

    assert ACTION_LIMIT < len(fields) < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS


def test_erasing_needs_a_permission_of_its_own() -> None:
    """Whoever may only see events is offered nothing, and refused."""
    event, _ = make_told()
    client = make_staff("view_event", "change_event", "delete_event")

    assert "act/erase/" not in client.get(page_of(event)).content.decode()
    assert client.post(reverse("admin:djwebhooks_event_act", args=[event.pk, "erase"]), {"confirmed": "yes"}).status_code == 403
    assert Event.objects.get().erased_at is None
