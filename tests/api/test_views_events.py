"""Who may publish fires events and takes them back; what an event shows, and to whom."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIRequestFactory

from djwebhooks.api.permissions import may_publish
from djwebhooks.erasure import erase
from djwebhooks.events import fire
from djwebhooks.models import Event
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.testing import deliver
from tests.api.world import URL, Api, make_owner, make_published, make_publisher, make_target, make_webhooks, run_at_once
from tests.connections import plain

pytestmark = pytest.mark.django_db


# -- publishing --------------------------------------------------------------------------------------------------------


def test_publishing_fires_for_the_owner() -> None:
    """POST events/: 201; the event is the owner's and no broadcast."""
    owner = make_publisher()

    answer = Api(owner).post("events/", {"name": "project.update", "payload": {"title": "ü"}, "identifier": "p-42"})

    event = Event.objects.get()
    assert answer.status == 201
    assert (answer.data["id"], answer.data["payload"], answer.data["ordering_key"]) == (str(event.uid), {"title": "ü"}, "p-42")
    assert (event.owner_id, event.is_broadcast, event.identifier) == (owner.pk, False, "p-42")
    assert datetime.fromisoformat(answer.data["created_at"]) == event.created_at


def test_publishing_wakes_the_engine(django_capture_on_commit_callbacks: Any, settings: LazySettings) -> None:
    """What was published is sent as soon as the request's transaction commits."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.rq.RQEngine"
    api = Api(make_publisher())

    with django_capture_on_commit_callbacks() as callbacks:
        api.post("events/", {"name": "a", "payload": None})

    assert callbacks


def test_publishing_needs_a_permission() -> None:
    """Without ``djwebhooks.add_event`` POST is 403, while reading is not."""
    api = Api(make_owner())

    assert api.post("events/", {"name": "a", "payload": 1}).status == 403
    assert api.get("events/").status == 200
    assert not Event.objects.exists()


def test_who_has_no_permissions_at_all_may_read() -> None:
    """An API key, or a user of a model without permissions, can be who asks; their owner's events are theirs to see."""
    request = APIRequestFactory().get("/")
    request.user = object()

    assert not may_publish(request)


def test_publishing_takes_all_options() -> None:
    """Times are in the event as they were given."""
    answer = Api(make_publisher()).post(
        "events/",
        {
            "name": "a",
            "payload": [1],
            "ordering_key": "k",
            "deliver_at": "2096-01-01T02:00:00.5+02:00",
            "expires_at": "2097-01-01T00:00:00Z",
            "coalesce": 30,
        },
    )

    assert answer.status == 201
    assert Event.objects.get().coalesce == 30
    shown = {name: answer.data[name] for name in ("ordering_key", "deliver_at", "expires_at", "dispatched_at")}
    assert shown == {
        "ordering_key": "k",
        "deliver_at": "2096-01-01T00:00:00.500000Z",
        "expires_at": "2097-01-01T00:00:00Z",
        "dispatched_at": None,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("owner", 1),
        ("broadcast", True),
        ("is_broadcast", True),
        ("urls", [URL]),
        ("using", "other"),
        ("hook", "os.system"),
        ("uid", "x"),
        ("id", "x"),
        ("name", "no name!"),
        ("name", None),
        ("payload", "\ud800"),
        ("payload", {"a": "\0"}),
        ("payload", "x" * 300_000),
        ("payload", json.loads("[" * 91 + "]" * 91)),
        ("identifier", "x" * 256),
        ("identifier", "\0"),
        ("ordering_key", ["a"]),
        ("idempotency_key", "x" * 256),
        ("deliver_at", "tomorrow"),
        ("expires_at", "2026-01-01"),
        ("coalesce", "30"),
        ("coalesce", True),
        ("coalesce", -1),
        ("coalesce", 90_000),
    ],
)
def test_publishing_refuses_what_it_does_not_take(name: str, value: object) -> None:
    """Unknown fields, the owner and the broadcast among them, and wrong values are 400 under their name."""
    answer = Api(make_publisher()).post("events/", {"name": "a", "payload": 1, name: value})

    assert (answer.status, answer.wrong_fields) == (400, [name])
    assert not Event.objects.exists()


@pytest.mark.parametrize("missing", ["name", "payload"])
def test_publishing_needs_a_name_and_a_payload(missing: str) -> None:
    """Neither has a default."""
    body = {"name": "a", "payload": 1}
    del body[missing]

    answer = Api(make_publisher()).post("events/", body)

    assert (answer.status, answer.wrong_fields) == (400, [missing])


def test_publishing_takes_versions() -> None:
    """Each is a payload of its own, and has a name that can be one; they are part of what an idempotency key stands for."""
    api = Api(make_publisher())
    told = {
        "name": "project.update",
        "payload": {"new": 1},
        "version": "2",
        "versions": {"1": {"old": 1}},
        "idempotency_key": "k",
    }

    published = api.post("events/", told)
    again = [
        api.post("events/", told),
        api.post("events/", told | {"versions": {"1": 2}}),
        api.post("events/", told | {"version": "3"}),
    ]
    refused = [api.post("events/", told | {"versions": {name: 1}}) for name in ("a b", "2")]

    event = Event.objects.get(uid=published.data["id"])
    assert (event.version, event.payloads) == ("2", {"": '{"new":1}', "1": '{"old":1}'})
    assert [answer.status for answer in again] == [200, 422, 422]
    assert [answer.status for answer in refused] == [400, 400]
    assert "cannot name a version" in str(refused[0].data)


def test_publishing_refuses_to_coalesce_what_has_no_key() -> None:
    """What ``fire`` refuses is 400 with its text."""
    answer = Api(make_publisher()).post("events/", {"name": "a", "payload": 1, "coalesce": 30})

    assert answer.status == 400
    assert "coalesce needs an ordering_key" in answer.mistakes["non_field_errors"][0]


def test_publishing_must_leave_time_to_deliver() -> None:
    """An event that would expire before it is due is refused with a clear text."""
    body = {"name": "a", "payload": 1, "deliver_at": "2096-01-02T00:00:00Z", "expires_at": "2096-01-01T00:00:00Z"}

    answer = Api(make_publisher()).post("events/", body)

    assert answer.status == 400
    assert "must be later than deliver_at" in answer.mistakes["non_field_errors"][0]


@pytest.mark.parametrize("place", ["body", "header"])
def test_an_idempotency_key_fires_once(place: str) -> None:
    """The same again is 200 with the first event; the same key for another payload is 422."""
    api = Api(make_publisher())

    def publish(payload: object) -> Any:
        body = {"name": "a", "payload": payload}
        if place == "header":
            return api.post("events/", body, **{"Idempotency-Key": "k"})
        return api.post("events/", body | {"idempotency_key": "k"})

    first, again, other = publish(1), publish(1), publish(2)

    assert (first.status, again.status, other.status) == (201, 200, 422)
    assert first.data == again.data
    assert other.data["code"] == "idempotency_conflict"
    assert "idempotency key 'k'" in other.data["detail"]
    assert Event.objects.get().idempotency_key == "k"


@pytest.mark.parametrize(
    "other",
    [{"identifier": "x"}, {"ordering_key": "x"}, {"deliver_at": "2096-01-01T00:00:00Z"}, {"expires_at": "2097-01-01T00:00:00Z"}],
)
def test_an_idempotency_key_stands_for_the_whole_request(other: dict[str, str]) -> None:
    """Whatever differs from the first request is 422, as the event that was fired is not the one that is asked for."""
    api = Api(make_publisher())
    body = {"name": "a", "payload": 1, "idempotency_key": "k"}

    answers = [api.post("events/", body), api.post("events/", body | other), api.post("events/", body)]

    assert [answer.status for answer in answers] == [201, 422, 200]


def test_two_idempotency_keys_are_refused() -> None:
    """Header and body must not contradict each other."""
    api = Api(make_publisher())
    body = {"name": "a", "payload": 1, "idempotency_key": "k"}

    assert api.post("events/", body, **{"Idempotency-Key": "other"}).status == 400
    assert api.post("events/", body, **{"Idempotency-Key": "k"}).status == 201


@pytest.mark.django_db(transaction=True)
def test_equal_events_at_once_become_one() -> None:
    """An idempotency key fires once, however close the requests are."""
    bodies = [("events/", {"name": "a", "payload": 1, "idempotency_key": "k"})] * 4

    answers = run_at_once(make_publisher(), bodies)

    assert sorted(answer.status for answer in answers) == [200, 200, 200, 201]
    assert {UUID(answer.data["id"]) for answer in answers} == {Event.objects.get().uid}


# -- taking back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deliver_at", [None, "2100-01-01T00:00:00Z"])
def test_what_was_published_can_be_looked_at_and_taken_back(deliver_at: str | None) -> None:
    """By whoever may publish for the owner, until it is dispatched; then it is neither listed nor sent."""
    api = Api(owner := make_publisher())
    make_target(owner)
    published, other = (
        api.post("events/", {"name": "a", "payload": number, "deliver_at": deliver_at}).data for number in range(2)
    )

    assert api.get(f"events/{published['id']}/").data == published
    assert api.ids("events/") == []
    assert api.ids("events/?is_waiting=true") == [other["id"], published["id"]]
    answers = [api.delete(f"events/{published['id']}/") for _ in range(2)]
    assert [answer.status for answer in answers] == [204, 404]
    assert api.ids("events/?is_waiting=true") == [other["id"]]
    Event.objects.update(deliver_at=None)
    assert [json.loads(request.body)["data"] for request in deliver()] == [1]


@pytest.mark.parametrize("is_wanted", [True, False])
def test_what_is_dispatched_cannot_be_taken_back(is_wanted: bool) -> None:
    """409, wanted or not; it is still shown, but waits no more."""
    api = Api(owner := make_publisher())
    make_target(owner, "a" if is_wanted else "b")
    published = api.post("events/", {"name": "a", "payload": 1}).data["id"]
    deliver()

    answer = api.delete(f"events/{published}/")

    assert (answer.status, answer.data["code"]) == (409, "already_dispatched")
    assert "Cancel its deliveries" in answer.data["detail"]
    assert api.get(f"events/{published}/").data["dispatched_at"] is not None
    assert api.ids("events/?is_waiting=true") == []
    assert api.ids("events/?is_waiting=false") == ([published] if is_wanted else [])


def test_of_two_who_take_an_event_back_at_once_one_is_late() -> None:
    """404, as for whoever asks after the other is done."""
    api = Api(make_publisher())
    published = api.post("events/", {"name": "a", "payload": 1}).data["id"]
    others: list[int] = []

    def come_second(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if "djw_event" in sql and not others:
            others.append(1)
            Event.objects.all().delete()
        return found

    with connection.execute_wrapper(come_second):
        answer = api.delete(f"events/{published}/")

    assert (answer.status, others) == (404, [1])


def test_only_who_may_publish_sees_what_waits() -> None:
    """For all others it is as if there was none, and taking back is 403."""
    published = make_published(owner := make_owner())
    api = Api(owner)

    assert api.get(f"events/{published.uid}/").status == 404
    assert api.get("events/?is_waiting=true").status == 403
    assert api.delete(f"events/{published.uid}/").status == 403
    assert api.delete(f"events/{UUID(int=0)}/").status == 403


def test_what_the_application_fired_is_not_for_publishers_to_take_back() -> None:
    """What was not published through the API is seen by its deliveries alone, also by whom it is about."""
    event = fire("a", 1, owner=(owner := make_publisher()))
    api = Api(owner)

    assert api.ids("events/?is_waiting=true") == []
    assert [api.call(method, f"events/{event.uid}/").status for method in ("GET", "DELETE")] == [404, 404]


# -- showing -----------------------------------------------------------------------------------------------------------


def test_an_event_is_seen_by_whose_targets_get_it() -> None:
    """An owner's event that nobody wanted is not listed; somebody else's that came to their target is."""
    ann, bob = make_publisher("ann"), make_owner("bob")
    make_target(bob, "news")
    published = Api(ann).post("events/", {"name": "unwanted", "payload": 1}).data["id"]
    news = fire("news", {"to": "all"}, owner=ann, broadcast=True)
    before = Api(bob).ids("events/")
    deliver()

    assert before == []
    assert Api(bob).ids("events/") == [str(news.uid)]
    assert Api(ann).ids("events/") == []
    assert Api(bob).get(f"events/{published}/").status == 404


def test_an_event_shows_its_payload_when_it_is_built() -> None:
    """Before that the payload is null and ``payload_state`` says why; the traceback is for the staff."""
    event = make_webhooks(owner := make_owner()).event
    api, rows = Api(owner), Event.objects.filter(pk=event.pk)

    assert api.get(f"events/{event.uid}/").data["payload"] == {"title": "x"}
    rows.update(payload="", build_error="Traceback: secret place", build_attempts=1)
    waiting = api.get(f"events/{event.uid}/").data
    rows.update(build_attempts=5)
    failed = api.get(f"events/{event.uid}/").data

    assert (waiting["payload"], waiting["payload_state"]) == (None, "waiting")
    assert (failed["payload"], failed["payload_state"]) == (None, "failed")
    assert "secret place" not in str(failed)


def test_an_erased_event_says_so_and_cannot_be_retried() -> None:
    """Its owner sees since when its payload is gone; a retry of its delivery is a conflict."""
    webhooks = make_webhooks(owner := make_owner())
    api = Api(owner)
    assert api.get(f"events/{webhooks.event.uid}/").data["erased_at"] is None
    erase(owner)

    shown = api.get(f"events/{webhooks.event.uid}/").data
    retried = api.post(f"deliveries/{webhooks.delivery.uid}/retry/")

    assert (shown["payload"], shown["payload_state"]) == (None, "erased")
    assert shown["erased_at"].endswith("Z")
    assert api.get("events/").data["results"][0]["payload_state"] == "erased"
    assert (retried.status, "was erased" in str(retried.data)) == (409, True)


def test_a_list_of_events_has_no_payloads() -> None:
    """They may be large together, so the database keeps them; ``payload_state`` is there all the same."""
    api = Api(owner := make_owner())
    make_target(owner)
    events = [fire(name, {"title": "x"}, owner=owner) for name in ("built", "waiting", "failed")]
    deliver()
    Event.objects.exclude(pk=events[0].pk).update(payload="")
    Event.objects.filter(pk=events[2].pk).update(build_attempts=BUILD_TRIES)

    with CaptureQueriesContext(connection) as queries:
        listed = api.get("events/").data["results"]

    assert {row["name"]: row["payload_state"] for row in listed} == {name: name for name in ("built", "waiting", "failed")}
    assert all("payload" not in row for row in listed)
    statements = [plain(query["sql"]) for query in queries]
    assert not any('"djw_event"."payload",' in statement for statement in statements)
    assert sum('FROM "djw_event"' in statement for statement in statements) == 1
