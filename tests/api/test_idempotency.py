"""A request that is made again with its idempotency key does nothing again."""

import re
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from djwebhooks.api.urls import urlpatterns
from djwebhooks.exceptions import IdempotencyConflict
from djwebhooks.models import Event, WebhookTarget
from tests.api.test_isolation import list_ids, read_everything
from tests.api.world import URL, Answer, Api, make_owner, make_publisher, make_target, make_webhooks, run_at_once

pytestmark = pytest.mark.django_db

#: What takes a POST but obeys no key.
POSTS = [
    str(url.pattern)
    for url in urlpatterns
    if "post" in getattr(url.callback, "actions", {}) and str(url.pattern) not in ("targets/", "events/")
]
NEW = {"target_url": URL, "events": ["a"], "headers": {"x-key": "hunter2-is-a-password"}}


def post(api: Api, body: object, key: str = "k") -> Answer:
    return api.post("targets/", body, **{"Idempotency-Key": key})


@pytest.mark.parametrize(("header", "key"), [('"k"', "k"), (r'"a\"\\b"', r'a"\b'), ('"', '"'), ('k"', 'k"'), ("k", "k")])
def test_an_idempotency_key_may_be_quoted(header: str, key: str) -> None:
    """The header is a string of structured fields, or bare as most clients send it."""
    Api(make_publisher()).post("events/", {"name": "a", "payload": 1}, **{"Idempotency-Key": header})

    assert Event.objects.get().idempotency_key == key


@pytest.mark.parametrize("path", ["targets/", "events/"])
def test_a_key_has_a_limit(path: str) -> None:
    """One that no column can hold is 400."""
    body = {"target_url": URL, "events": ["a"]} if path == "targets/" else {"name": "a", "payload": 1}

    answer = Api(make_publisher()).post(path, body, **{"Idempotency-Key": "k" * 256})

    assert "at most 255" in answer.mistakes["non_field_errors"][0]


@pytest.mark.parametrize("header", ["", '""'])
@pytest.mark.parametrize("path", ["targets/", "events/"])
def test_an_empty_key_is_refused(path: str, header: str) -> None:
    """400, and nothing is done: its sender has lost the key, and believes that a repetition is harmless."""
    body = {"target_url": URL, "events": ["a"]} if path == "targets/" else {"name": "a", "payload": 1}

    answer = Api(make_publisher()).post(path, body, **{"Idempotency-Key": header})

    assert "is empty" in answer.mistakes["non_field_errors"][0]
    assert not WebhookTarget.objects.exists()
    assert not Event.objects.exists()


@pytest.mark.parametrize("route", POSTS)
def test_a_key_is_refused_where_it_is_not_obeyed(route: str) -> None:
    """400, and nothing is done, by every other POST: whoever sends a key believes that a repetition is harmless."""
    webhooks = make_webhooks(owner := make_publisher())
    [path, *_] = [re.sub("<.*>", row, route) for row in list_ids(webhooks).get(route.split("/")[0], [""])]
    before = read_everything()

    answer = Api(owner).post(path, {}, **{"Idempotency-Key": "k"})

    assert (answer.status, answer.data["code"]) == (400, "idempotency_unsupported")
    assert read_everything() == before


def test_a_target_is_made_once() -> None:
    """Whoever lost the answer asks again and gets it: 201, with the secret."""
    api = Api(make_owner())

    first, again = post(api, NEW), post(api, dict(reversed(NEW.items())), '"k"')

    assert (first.status, again.status) == (201, 201)
    assert first.data == again.data
    assert first.data["secret"] == WebhookTarget.objects.get().secret


@pytest.mark.parametrize("other", [{"target_url": URL + "/2"}, {"events": ["b"]}, {"headers": {}}])
def test_a_key_stands_for_the_whole_request(other: dict[str, object]) -> None:
    """The same key with another body is 422, and nothing changes."""
    api = Api(make_owner())
    post(api, NEW)

    answer = post(api, NEW | other)

    assert (answer.status, answer.data["code"]) == (422, "idempotency_conflict")
    target = WebhookTarget.objects.get()
    assert (target.target_url, target.events, target.headers) == (URL, ["a"], NEW["headers"])


def test_a_key_does_not_open_what_it_did_not_make() -> None:
    """A target that was there already stays 200 without its secret, and so does every other request for it."""
    make_target(owner := make_owner(), "a", headers=NEW["headers"])
    api = Api(owner)
    made_by_key = NEW | {"target_url": URL + "/2"}
    post(api, made_by_key)

    answers = [post(api, NEW, "other"), post(api, made_by_key, "another"), api.post("targets/", made_by_key)]

    assert [answer.status for answer in answers] == [200] * 3
    assert not any("secret" in answer.data for answer in answers)


def test_a_secret_is_shown_for_a_day() -> None:
    """Later the same request is answered as any other for a target that is there."""
    api = Api(make_owner())
    post(api, NEW)
    WebhookTarget.objects.update(created_at=timezone.now() - timedelta(days=1, seconds=1))

    answer = post(api, NEW)

    assert (answer.status, "secret" in answer.data) == (200, False)


@pytest.mark.parametrize("body", [NEW, NEW | {"target_url": URL + "/2"}], ids=["the same request", "another"])
def test_a_key_can_be_used_again_after_a_day(body: dict[str, object]) -> None:
    """It is forgotten, so the request is done as if the key was new."""
    api = Api(make_owner())
    first = post(api, NEW)
    api.put(f"targets/{first.data['id']}/", NEW | {"events": ["b"]})
    WebhookTarget.objects.update(created_at=timezone.now() - timedelta(days=1, seconds=1))

    answer = post(api, body)

    assert (answer.status, answer.data["events"]) == ((200, ["a", "b"]) if body is NEW else (201, ["a"]))


def test_a_secret_that_was_rotated_is_not_shown_again() -> None:
    """Whoever made the target may be somebody else than who has its secret now."""
    api = Api(make_owner())
    post(api, NEW)
    WebhookTarget.objects.get().rotate_secret()

    answer = post(api, NEW)

    assert (answer.status, "secret" in answer.data) == (200, False)


def test_what_was_deregistered_is_subscribed_again() -> None:
    """The answer of before would say what is so no longer."""
    owner = make_owner()
    post(Api(owner), NEW)
    WebhookTarget.objects.deregister(URL, owner=owner)

    answer = post(Api(owner), NEW)

    assert (answer.status, answer.data["events"]) == (200, ["a"])


def test_a_key_is_its_owners_alone() -> None:
    """Two owners may use the same one."""
    answers = [post(Api(make_owner(name)), NEW) for name in ("ann", "ben")]

    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].data["id"] != answers[1].data["id"]


def test_no_password_can_be_guessed_from_what_is_kept(settings: LazySettings) -> None:
    """What is kept of key and body cannot be computed without the application's own key."""
    owner = make_owner()
    kept = []
    for key in ("one secret key of the application", "another secret key of it"):
        settings.SECRET_KEY = key
        post(Api(owner), NEW)
        kept.append(WebhookTarget.objects.values_list("creation_key", "creation_request").get())
        WebhookTarget.objects.all().delete()

    assert not set(kept[0]) & set(kept[1])


@pytest.mark.django_db(transaction=True)
def test_equal_requests_at_once_make_one_target() -> None:
    """All of them get the answer, with the same secret."""
    answers = run_at_once(make_owner(), [("targets/", NEW)] * 4, **{"Idempotency-Key": "k"})

    assert [answer.status for answer in answers] == [201] * 4
    assert {answer.data["secret"] for answer in answers} == {WebhookTarget.objects.get().secret}


@pytest.mark.django_db(transaction=True)
def test_of_different_requests_at_once_one_wins() -> None:
    """The others are 422, and no target has the events of two."""
    bodies = [("targets/", {"target_url": f"{URL}/{number}", "events": [f"e{number}"]}) for number in range(4)]

    answers = run_at_once(make_owner(), bodies, **{"Idempotency-Key": "k"})

    assert sorted(answer.status for answer in answers) == [201, 422, 422, 422]
    assert len(WebhookTarget.objects.get().events) == 1


def test_a_key_that_was_used_meanwhile_is_a_conflict() -> None:
    """Whoever is told so only by the database has made nothing."""
    owner = make_owner()
    make_target(owner, "a", creation_key="x")

    with pytest.raises(IdempotencyConflict):
        make_target(owner, "b", url=URL + "/2", creation_key="x")

    assert WebhookTarget.objects.get().events == ["a"]
