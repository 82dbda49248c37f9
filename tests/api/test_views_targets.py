"""Owners make, change, pause, test and delete their targets, and see none of the secrets again."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from djwebhooks.events import fire
from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.testing import deliver
from tests.api.world import NEW, URL, Api, make_owner, make_target, make_webhooks, run_at_once

pytestmark = pytest.mark.django_db

#: Everything that an owner may say of a target.
FULL = {
    "target_url": "https://example.com/full",
    "identifier": "p-42",
    "events": ["*"],
    "filters": {"*": {"status": ["paid", {"prefix": "re"}]}},
    "description": "ours",
    "is_active": False,
    "is_ordered": True,
    "headers": {"Authorization": "Bearer x"},
    "envelope": "flat",
    "signatures": "v1 v1a",
    "retry_schedule": [1.0, 60.0],
    "rate_limit": 2.5,
    "concurrency_limit": 3,
}


# -- made --------------------------------------------------------------------------------------------------------------


def test_a_new_target_is_answered_with_its_secret() -> None:
    """POST: 201, and the secret that the target signs with."""
    owner = make_owner()

    answer = Api(owner).post("targets/", NEW)

    target = WebhookTarget.objects.get()
    assert answer.status == 201
    assert answer.data["secret"] == target.secret
    assert (answer.data["id"], target.owner, target.is_hidden) == (str(target.uid), owner, False)
    assert answer.data["state"] == "healthy"
    assert datetime.fromisoformat(answer.data["created_at"]) == target.created_at


def test_an_owner_chooses_among_the_senders_of_the_setting(settings: LazySettings) -> None:
    """By name; empty is what the project says."""
    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender"}
    api = Api(make_owner())

    made = api.post("targets/", NEW | {"sender": "form"})
    emptied = api.patch(f"targets/{made.data['id']}/", {"sender": ""})

    assert (made.status, made.data["sender"]) == (201, "form")
    assert (emptied.status, emptied.data["sender"]) == (200, "")


def test_the_same_target_again_gets_further_events_and_no_secret() -> None:
    """POST is registering: 200, the same target, its events and the new ones."""
    api = Api(make_owner())
    first = api.post("targets/", NEW)

    again = api.post("targets/", {"target_url": "HTTPS://EXAMPLE.com:443/hook", "events": ["project.done"]})

    assert again.status == 200
    assert again.data["id"] == first.data["id"]
    assert again.data["events"] == ["project.done", "project.update"]
    assert "secret" not in again.data


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("filters", {"b": {"n": [1]}}),
        ("is_active", False),
        ("retry_schedule", []),
        ("headers", {"x-a": "b"}),
        ("authentication", {"type": "bearer", "token": "t"}),
    ],
)
def test_the_same_target_again_is_not_another_one(name: str, value: object) -> None:
    """409: a field that it does not have so is neither left out of account nor changed, and no event is added."""
    api = Api(make_owner())
    first = api.post("targets/", {"target_url": URL, "events": ["a"]})

    again = api.post("targets/", {"target_url": URL, "events": ["b"], name: value})

    assert (again.status, again.data["code"]) == (409, "same_target")
    assert f"({first.data['id']}), which differs in: {name}." in again.data["detail"]
    assert api.get(f"targets/{first.data['id']}/").data["events"] == ["a"]


@pytest.mark.parametrize("asked", [FULL, NEW | {"filters": {}, "headers": {}, "authentication": None, "sender": ""}])
def test_the_same_request_again_is_no_conflict(asked: dict[str, object]) -> None:
    """200: whoever asks for it at each start asks for what is there."""
    api = Api(make_owner())

    assert [api.post("targets/", asked).status for _ in range(2)] == [201, 200]


def test_another_identifier_makes_another_target() -> None:
    """An address may stand for several targets, one for each identifier."""
    api = Api(make_owner())

    assert {api.post("targets/", NEW | {"identifier": name}).status for name in ("", "a", "A")} == {201}
    assert WebhookTarget.objects.count() == 3


def test_a_target_shows_what_was_written() -> None:
    """Every field that can be written is shown as it was given."""
    api = Api(make_owner())

    answer = api.post("targets/", FULL)

    assert answer.status == 201
    shown = api.get(f"targets/{answer.data['id']}/").data
    assert {name: shown[name] for name in FULL} == FULL
    assert shown["state"] == "paused"


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "pause/", "resume/", "list"])
def test_no_other_answer_has_the_secret(method: str) -> None:
    """A secret is shown at creation and at rotation alone."""
    target = make_target(owner := make_owner(), "project.update")
    api, path = Api(owner), f"targets/{target.uid}/"

    answer = {
        "GET": lambda: api.get(path),
        "PUT": lambda: api.put(path, NEW),
        "PATCH": lambda: api.patch(path, {"description": "x"}),
        "pause/": lambda: api.post(path + "pause/"),
        "resume/": lambda: api.post(path + "resume/"),
        "list": lambda: api.get("targets/"),
    }[method]()

    assert answer.status == 200
    assert "secret" not in str(answer.data)
    assert target.secret not in str(answer)


def test_an_owner_has_a_limited_number_of_targets(settings: LazySettings) -> None:
    """One too many is 400 and says why; registering one that is there is not one more."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    api = Api(make_owner())
    api.post("targets/", NEW)

    answer = api.post("targets/", NEW | {"target_url": URL + "/2"})

    assert answer.status == 400
    assert "DJWEBHOOKS_TARGETS_PER_OWNER allows 1" in answer.mistakes["non_field_errors"][0]
    assert api.post("targets/", NEW).status == 200


def test_hidden_targets_are_not_shown_but_their_deliveries_are() -> None:
    """What ``fire(urls=…)`` made is no target of the owner's list, yet they see what was sent."""
    webhooks = make_webhooks(owner := make_owner())
    api = Api(owner)

    assert api.ids("targets/") == [str(webhooks.target.uid)]
    assert api.get(f"targets/{webhooks.hidden.uid}/").status == 404
    assert len(api.ids(f"deliveries/?target={webhooks.hidden.uid}")) == 1


def test_a_hidden_target_is_made_as_a_new_one() -> None:
    """201, as all that was asked for: nobody was told of it before, so its secret is shown, which goes on signing."""
    webhooks = make_webhooks(owner := make_owner())
    asked = FULL | {"target_url": webhooks.hidden.target_url, "identifier": ""}

    answer = Api(owner).post("targets/", asked)

    assert (answer.status, answer.data["id"]) == (201, str(webhooks.hidden.uid))
    assert answer.data["secret"] == webhooks.hidden.secret
    assert {name: answer.data[name] for name in asked} == asked
    assert len(Api(owner).ids("targets/")) == 2


@pytest.mark.django_db(transaction=True)
def test_equal_targets_at_once_become_one() -> None:
    """One of the requests makes it and gets the secret; none fails, and no event is lost."""
    bodies = [("targets/", NEW | {"events": [f"e{number}"]}) for number in range(4)]

    answers = run_at_once(make_owner(), bodies)

    assert sorted(answer.status for answer in answers) == [200, 200, 200, 201]
    assert sum("secret" in answer.data for answer in answers) == 1
    assert WebhookTarget.objects.get().events == ["e0", "e1", "e2", "e3"]


# -- changed -----------------------------------------------------------------------------------------------------------


def test_put_replaces_events() -> None:
    """What PUT does not list is no longer subscribed to."""
    target = make_target(owner := make_owner(), "a", "b")

    answer = Api(owner).put(f"targets/{target.uid}/", {"target_url": URL, "events": ["b", "c", "c"]})

    assert (answer.status, answer.data["events"]) == (200, ["b", "c"])
    assert WebhookTarget.objects.get().events == ["b", "c"]


def test_patch_leaves_the_rest() -> None:
    """PATCH changes what it names."""
    target = make_target(owner := make_owner(), "a", description="old")

    answer = Api(owner).patch(f"targets/{target.uid}/", {"description": "new"})

    assert (answer.status, answer.data["description"], answer.data["events"]) == (200, "new", ["a"])


def test_what_get_showed_can_be_put_back() -> None:
    """PUT ignores what can only be read, so that a client may change one field of what it got."""
    target = make_target(owner := make_owner(), "a")
    api, path = Api(owner), f"targets/{target.uid}/"

    answer = api.put(path, api.get(path).data | {"description": "new", "state": "disabled"})

    assert (answer.status, answer.data["description"], answer.data["state"]) == (200, "new", "healthy")


@pytest.mark.parametrize(
    "name",
    ["owner", "owner_id", "is_hidden", "secrets", "secret", "digest", "uid", "pk", "event", "lane", "id", "state", "created_at"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_fields_that_cannot_be_written_are_refused(method: str, name: str) -> None:
    """Whoever tries to set what is not theirs to set is told so, and nothing changes."""
    target = make_target(owner := make_owner(), "a")
    shown = ("id", "state", "created_at")
    path = "targets/" if method == "POST" else f"targets/{target.uid}/"

    answer = Api(owner).call(method, path, NEW | {"target_url": URL + "/new", name: 1})

    target.refresh_from_db()
    if method == "PUT" and name in shown:
        assert answer.status == 200
    else:
        assert answer.status == 400
        assert answer.wrong_fields == [name]
        assert "target_url" in answer.mistakes[name][0]
        assert WebhookTarget.objects.get().target_url == URL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_url", "http://10.0.0.1/"),
        ("target_url", "ftp://example.com/"),
        ("target_url", "https://user:word@example.com/"),
        ("target_url", "https://example.com/\0"),
        ("target_url", None),
        ("description", 5),
        ("headers", {"x-number": 5}),
        ("is_ordered", "true"),
        ("is_ordered", 1),
        ("concurrency_limit", "5"),
        ("concurrency_limit", True),
        ("events", ["no name!"]),
        ("events", ["\ud800"]),
        ("events", "project.update"),
        ("events", None),
        ("events", ["a"] * 1001),
        ("identifier", "x" * 256),
        ("headers", {"webhook-id": "1"}),
        ("headers", {"A": "b\r\nC: d"}),
        ("headers", ["a"]),
        ("headers", {f"x-{number}": "" for number in range(51)}),
        ("filters", ["a"]),
        ("filters", {"a": {"n": 5}}),
        ("envelope", "brown"),
        ("sender", "slak"),
        ("retry_schedule", [-1]),
        ("retry_schedule", [True]),
        ("retry_schedule", [10**400]),
        ("retry_schedule", [1e300]),
        ("retry_schedule", [60] * 101),
        ("retry_schedule", [0] * 6),
        ("rate_limit", 0),
        ("rate_limit", 1e-300),
        ("rate_limit", "inf"),
        ("concurrency_limit", 0),
        ("is_active", "perhaps"),
    ],
)
def test_values_that_cannot_be_are_refused_by_field(name: str, value: object) -> None:
    """A wrong value is 400 under the name of its field, for a new target and for one that is there."""
    target = make_target(owner := make_owner(), "a")
    api = Api(owner)

    posted = api.post("targets/", NEW | {"target_url": URL + "/new", name: value})
    patched = api.patch(f"targets/{target.uid}/", {name: value})

    assert (posted.status, posted.wrong_fields) == (400, [name])
    assert patched == posted
    assert WebhookTarget.objects.count() == 1


def test_a_filter_is_for_an_event_of_the_target() -> None:
    """Any other is 400 and says so, in a new target and in one that is there; null takes the filters away."""
    target = make_target(owner := make_owner(), "a")
    api, wrong = Api(owner), {"filters": {"b": {"n": [1]}}}
    right = {"filters": {"a": {"n": [1]}}}

    answers = [api.post("targets/", NEW | {"target_url": URL + "/new"} | wrong), api.patch(f"targets/{target.uid}/", wrong)]

    for answer in answers:
        assert "filters['b'] is for none of the target's events" in answer.mistakes["non_field_errors"][0]
    assert api.patch(f"targets/{target.uid}/", right).data["filters"] == right["filters"]
    assert api.patch(f"targets/{target.uid}/", {"events": ["c"]}).status == 400
    assert api.patch(f"targets/{target.uid}/", {"filters": None, "events": ["c"]}).data["filters"] is None


def test_two_targets_of_an_owner_cannot_become_the_same() -> None:
    """Changing a target into another that is there is 409, and changes nothing."""
    make_target(owner := make_owner(), "a")
    second = make_target(owner, "b", url=URL + "/second")

    answer = Api(owner).patch(f"targets/{second.uid}/", {"target_url": URL, "events": ["c"]})

    assert (answer.status, list(answer.data)) == (409, ["code", "detail"])
    second = WebhookTarget.objects.get(pk=second.pk)
    assert (second.target_url, second.events) == (URL + "/second", ["b"])


# -- what is done with them --------------------------------------------------------------------------------------------


def test_a_deleted_target_is_gone() -> None:
    """DELETE: 204, and what waited for it is cancelled."""
    webhooks = make_webhooks(owner := make_owner())
    api, path = Api(owner), f"targets/{webhooks.target.uid}/"

    assert api.delete(path).status == 204
    assert api.get(path).status == 404
    assert Delivery.objects.get(pk=webhooks.delivery.pk).reason == "target_deleted"


def test_pausing_holds_and_resuming_sends() -> None:
    """A paused target's events wait for it."""
    target = make_target(owner := make_owner(), "a")
    api, path = Api(owner), f"targets/{target.uid}/"

    assert api.post(path + "pause/").data["state"] == "paused"
    fire("a", {}, owner=owner)
    assert deliver() == []
    assert api.post(path + "resume/").data["state"] == "healthy"
    assert len(deliver()) == 1


def test_a_test_goes_to_this_target_only() -> None:
    """POST test/: 202 with the event, which no other target gets."""
    target = make_target(owner := make_owner(), "a")
    make_target(owner, "*", url=URL + "/other")

    answer = Api(owner).post(f"targets/{target.uid}/test/")

    assert (answer.status, answer.data["name"]) == (202, "webhook.test")
    assert [request.url for request in deliver()] == [URL]
    assert Api(owner).ids("events/") == [answer.data["id"]]


@pytest.mark.parametrize("name", ["test", "pause", "resume"])
def test_actions_without_options_take_none(name: str) -> None:
    """What would be ignored is refused."""
    target = make_target(owner := make_owner(), "a")

    answer = Api(owner).post(f"targets/{target.uid}/{name}/", {"force": True})

    assert (answer.status, answer.wrong_fields) == (400, ["force"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("action", ["pause", "resume", "rotate-secret", "finish-rotation"])
def test_a_target_that_is_deleted_meanwhile_is_not_found(action: str) -> None:
    """404: whoever deletes it before the request may change it, comes first."""
    target = make_target(owner := make_owner())
    api = Api(owner)
    is_deleted, may_commit = threading.Event(), threading.Event()

    def delete() -> None:
        with transaction.atomic():
            WebhookTarget.objects.filter(pk=target.pk).delete()
            is_deleted.set()
            may_commit.wait(20)
        connection.close()

    def commit_first(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        if "BEGIN" in sql or "UPDATE" in sql:  # What waits for the deletion to be committed.
            may_commit.set()
        return execute(sql, params, many, context)

    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(delete)
        is_deleted.wait(20)
        with connection.execute_wrapper(commit_first):
            answer = api.post(f"targets/{target.uid}/{action}/")
        may_commit.set()
        deletion.result(20)

    assert answer.status == 404
