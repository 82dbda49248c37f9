"""The admin page of deliveries: what was sent, why one waits, and how one is found."""

import re
import uuid

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from djwebhooks.models import Attempt, Body, Delivery, Event, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.pages import COUNT_LIMIT, show_time
from djwebhooks.transports.base import Reply, Request, Timing
from tests.admin.builders import URL, act, act_on_list, list_of, make_owner, make_staff, make_target, page_of, send, text_of

pytestmark = pytest.mark.django_db


def answer_with_html(request: Request) -> Reply:
    body = b"<script>alert(1)</script>"
    timing = Timing(lookup_ms=31, connect_ms=None, tls_ms=0, first_byte_ms=57)
    return Reply(request.key, 500, {"server": "<nginx>"}, body, duration=0.1234, address="93.184.216.34", timing=timing)


def test_a_delivery_shows_what_was_sent_and_answered(admin_client: Client) -> None:
    """The exact bytes, the headers that identify it, and each attempt with its answer, escaped."""
    delivery = send(make_target(), answer_with_html, payload={"title": "x"})
    body = bytes(Body.objects.get().content).decode()
    response = admin_client.get(page_of(delivery))
    page = text_of(response)

    assert body in page
    assert '"data": { "title": "x" }' in page
    assert f"webhook-id: {delivery.event.uid} webhook-sequence: 1 webhook-attempt: 1" in page
    assert f"{URL} 93.184.216.34 500" in page
    assert "0.123 s lookup 31 ms TLS 0 ms first byte 57 ms" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in response.content.decode()
    assert "server: &lt;nginx&gt;" in response.content.decode()
    assert "<script>alert(1)" not in response.content.decode()


def test_an_attempt_without_an_answer_shows_its_error(admin_client: Client) -> None:
    """The word and the sentence stand where a status would."""
    delivery = send(make_target(), lambda request: Reply(request.key, error="dns_error", detail="No such name."))

    assert "dns_error No such name." in text_of(admin_client.get(page_of(delivery)))


def test_a_delivery_says_why_it_waits(admin_client: Client) -> None:
    """A pending delivery explains itself; a finished one shows its reason."""
    target = make_target(retry_schedule=[3600])
    delivery = send(target, 500)
    waiting = text_of(admin_client.get(page_of(delivery)))
    delivery.cancel()

    assert "Tried again after HTTP 500" in waiting
    assert "Why: cancelled" in text_of(admin_client.get(page_of(delivery)))


def test_a_delivery_that_was_not_tried_has_no_body_yet(admin_client: Client) -> None:
    """The bytes are made before the first attempt."""
    target = make_target(is_active=False)
    page = text_of(admin_client.get(page_of(send(target))))

    assert "not written yet" in page
    assert "webhook-attempt: none yet" in page
    assert "paused" in page


def test_a_targets_sender_is_chosen_among_those_of_the_setting(admin_client: Client, settings: LazySettings) -> None:
    """One that is gone stays what it is until somebody chooses, and its bodies are shown all the same."""
    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender"}
    target = make_target(owner=make_owner(), sender="form")
    delivery = send(target)
    page = text_of(admin_client.get(page_of(delivery)))
    settings.DJWEBHOOKS_SENDERS = {"other": "djwebhooks.senders.Sender"}

    form = admin_client.get(page_of(target)).content.decode()
    later = text_of(admin_client.get(page_of(delivery)))

    assert "as application/x-www-form-urlencoded in the format sender:form+owner" in page
    assert '<option value="form" selected>form</option>' in form
    assert '<option value="other">other</option>' in form
    assert "as an unknown type in the format sender:form+owner" in later


@pytest.mark.parametrize("envelope", ["standard", "flat"])
def test_a_delivery_shows_the_body_of_its_targets_format(envelope: str, admin_client: Client) -> None:
    """Of an event's bodies, only the one that this target gets is shown; all of them when the target is gone."""
    owner = make_owner()
    target = make_target(owner=owner, envelope=envelope)
    make_target(f"{URL}/2", owner=owner, envelope="cloudevents")
    delivery = send(target)
    mine = text_of(admin_client.get(page_of(delivery)))
    target.delete()
    every = text_of(admin_client.get(page_of(delivery)))

    assert f"in the format {envelope}" in mine
    assert "cloudevents" not in mine
    assert f"in the format {envelope}" in every
    assert "cloudevents" in every


def test_a_delivery_outlives_its_event_and_its_target(admin_client: Client) -> None:
    """Lists, pages and actions say what is gone instead of breaking."""
    delivery = Delivery.objects.create(event_id=4711, target_id=4712, sequence=1)
    Attempt.objects.create(delivery=delivery, number=1, trigger="event", url=URL, started_at=timezone.now(), duration=0)
    shown = [text_of(admin_client.get(url)) for url in (list_of("delivery"), page_of(delivery))]
    filtered = text_of(admin_client.get(list_of("delivery"), {"target": 4712, "event": 4711}))
    retried = text_of(act(admin_client, delivery, "retry"))

    assert all("deleted event #4711" in page and "deleted target #4712" in page for page in [*shown, filtered])
    assert "its target was deleted" in retried


def test_deliveries_are_filtered_by_event_target_and_status(admin_client: Client) -> None:
    """The links of other pages lead to the very deliveries."""
    owner = make_owner()
    first, second = make_target(owner=owner), make_target(f"{URL}/2", owner=owner)
    event = send(first).event
    other = send(first, 500).event
    queries = [
        ({"event": event.pk}, {(event, first), (event, second)}),
        ({"target": second.pk}, {(event, second), (other, second)}),
        ({"target": second.pk, "status__exact": "pending"}, {(other, second)}),
    ]
    for query, expected in queries:
        response = admin_client.get(list_of("delivery"), query)

        assert {(delivery.event, delivery.target) for delivery in response.context["cl"].queryset} == expected
    assert "By target" in text_of(response)
    assert "By event" not in text_of(response)


@pytest.mark.parametrize("value", ["x", "-1", "1e3", "9" * 30, "²"])
def test_a_filter_with_a_wrong_number_is_refused(value: str, admin_client: Client) -> None:
    """The admin's own answer to a wrong link, not a crash."""
    assert admin_client.get(list_of("delivery"), {"event": value})["location"].endswith("?e=1")


def find_deliveries(client: Client, words: str) -> list[Delivery]:
    return list(client.get(list_of("delivery"), {"q": words}).context["cl"].queryset)


def test_a_delivery_is_found_by_its_own_uid_and_its_events(admin_client: Client) -> None:
    """The search takes a delivery's uid or a webhook-id, with hyphens or without; the beginning of one will do."""
    target = make_target()
    first, second = send(target), send(target)
    Delivery.objects.filter(pk=second.pk).update(uid="01990000-0000-7000-8000-000000000001")
    Event.objects.filter(pk=second.event_id).update(uid="01980000-0000-7fff-bfff-000000000001")

    for words in (str(first.uid), first.event.uid.hex, f" {str(first.uid)[:-1]} "):
        assert find_deliveries(admin_client, words) == [first]
    for words in ("01990000", "01990000-0000-7", "0198000000007FFFBFFF", "01980000-0000-7fff-bfff-000000000001"):
        assert find_deliveries(admin_client, words) == [second]
    for words in ("0199000", "01990000-0000-4", "01990000-0000-7000-8000-000000000001f", str(uuid.uuid4())):
        assert find_deliveries(admin_client, words) == []


def test_a_delivery_is_found_by_its_targets_address_and_the_name_of_its_event(admin_client: Client) -> None:
    """A part of the address will do, and the beginning of the name."""
    owner = make_owner()
    first, second = send(make_target(owner=owner)), send(make_target("https://other.example.org/", owner=owner))
    first_again = Delivery.objects.exclude(pk__in=[first.pk, second.pk]).get()

    assert find_deliveries(admin_client, "OTHER.example") == [second]
    assert find_deliveries(admin_client, "project.up") == find_deliveries(admin_client, "") == [second, first_again, first]
    assert find_deliveries(admin_client, "update") == []


def test_names_are_looked_for_among_the_newest_events(admin_client: Client) -> None:
    """No index has them, and all of millions would take too long."""
    delivery = send(make_target())
    assert find_deliveries(admin_client, "project.") == [delivery]

    Event.objects.create(pk=delivery.event_id + COUNT_LIMIT, name="a.b")

    assert find_deliveries(admin_client, "project.") == []
    assert find_deliveries(admin_client, str(delivery.event.uid)) == [delivery]


def test_times_are_shown_in_one_way(admin_client: Client) -> None:
    """To the second, on the page as in the list."""
    delivery = send(make_target())
    page = text_of(admin_client.get(page_of(delivery)))

    assert f"Created: {show_time(delivery.created_at)}" in page
    assert f"Finished: {show_time(delivery.finished_at)}" in page
    assert re.search("[ap]\\.m\\.|midnight|noon", page) is None


def test_a_targets_deliveries_are_listed_by_its_own_sequence(admin_client: Client) -> None:
    """The latest of its lane stands first, found by the index of sequences."""
    target = make_target()
    first, second = send(target), send(target)
    found = admin_client.get(list_of("delivery"), {"target": target.pk}).context["cl"].queryset

    assert list(found) == [second, first]
    assert found.query.order_by[0] == "-sequence"


def test_a_delivery_is_cancelled_and_retried(admin_client: Client) -> None:
    """Both buttons do what they say; cancelling is offered only while it waits."""
    delivery = send(make_target(), 500)
    cancelled = text_of(act(admin_client, delivery, "cancel"))
    delivery.refresh_from_db()
    status = delivery.status
    act(admin_client, delivery, "retry")
    delivery.refresh_from_db()

    assert status == Status.CANCELLED
    assert "Cancelled." in cancelled
    assert "Cancel " not in cancelled.replace("Cancelled", "")
    assert delivery.status == Status.PENDING
    assert [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")] == [
        "Cancelled.",
        "It is tried again as soon as a worker can.",
    ]


def test_deliveries_are_cancelled_and_retried_from_the_list(admin_client: Client) -> None:
    """What cannot be done to one is told, and done to the others."""
    target = make_target()
    waiting, succeeded = send(target, 500), send(target, 200)
    page = text_of(act_on_list(admin_client, [waiting, succeeded], "cancel"))
    statuses = set(Delivery.objects.values_list("status", flat=True))
    act_on_list(admin_client, [waiting, succeeded], "retry")

    assert f"delivery {succeeded.uid}: It cannot be cancelled: it has ended already." in page
    assert "Cancelled." in page
    assert statuses == {Status.CANCELLED, Status.SUCCEEDED}
    assert not Delivery.objects.exclude(status=Status.PENDING).exists()


@pytest.mark.parametrize("name", ["retry", "cancel"])
def test_who_may_only_look_cannot_act_on_deliveries(name: str) -> None:
    """Neither button nor action, whatever is posted."""
    delivery = send(make_target(), 500)
    client = make_staff("view_delivery")
    act_on_list(client, [delivery], name)

    assert act(client, delivery, name).status_code == 403
    assert 'action="' + page_of(delivery).replace("change", "act") not in client.get(page_of(delivery)).content.decode()
    assert "Action:" not in text_of(client.get(list_of("delivery")))
    assert Delivery.objects.get().reason == "http_500"


@pytest.mark.parametrize(("name", "status"), [("retry", Status.PENDING), ("cancel", Status.CANCELLED)])
def test_deliveries_to_the_system_need_its_permission(name: str, status: str) -> None:
    """Who may change deliveries, but not touch the system's targets, only looks at those to them."""
    system = WebhookTarget.objects.register(URL, ["project.*"], owner=None, retry_schedule=[] if name == "retry" else None)
    delivery = send(system, 500)
    before = delivery.status
    staff = make_staff("view_delivery", "change_delivery")
    page = staff.get(page_of(delivery)).content.decode()

    assert 'action="' + page_of(delivery).replace("change", "act") not in page
    assert act(staff, delivery, name).status_code == 403
    assert "do not have the permission" in text_of(act_on_list(staff, [delivery], name))
    assert Delivery.objects.get().status == before != status
    act(make_staff("view_delivery", "change_delivery", "add_system_target"), delivery, name)
    assert Delivery.objects.get().status == status


def test_deliveries_to_an_owner_need_no_more_than_the_usual_permission() -> None:
    """Whoever may change deliveries cancels them."""
    delivery = send(make_target(), 500)
    act(make_staff("view_delivery", "change_delivery"), delivery, "cancel")

    assert Delivery.objects.get().status == Status.CANCELLED
