"""What each of the API's addresses does for the owner of the rows."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.views.debug import ExceptionReporter
from rest_framework.test import APIRequestFactory, force_authenticate

from djwebhooks.api.permissions import may_publish
from djwebhooks.api.views import TargetViewSet
from djwebhooks.erasure import erase
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.models import Attempt, Delivery, Event, Replay, WebhookTarget
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.signing import verify
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.api.world import URL, Api, make_owner, make_published, make_publisher, make_target, make_webhooks
from tests.builders import live_secrets
from tests.connections import plain

pytestmark = pytest.mark.django_db

NEW = {"target_url": URL, "events": ["project.update"]}
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


# -- targets -----------------------------------------------------------------------------------------------------------


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


def test_an_owner_has_a_limited_number_of_targets(settings: LazySettings) -> None:
    """One too many is 400 and says why; registering one that is there is not one more."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    api = Api(make_owner())
    api.post("targets/", NEW)

    answer = api.post("targets/", NEW | {"target_url": URL + "/2"})

    assert answer.status == 400
    assert "DJWEBHOOKS_TARGETS_PER_OWNER allows 1" in answer.mistakes["non_field_errors"][0]
    assert api.post("targets/", NEW).status == 200


def test_a_deleted_target_is_gone() -> None:
    """DELETE: 204, and what waited for it is cancelled."""
    webhooks = make_webhooks(owner := make_owner())
    api, path = Api(owner), f"targets/{webhooks.target.uid}/"

    assert api.delete(path).status == 204
    assert api.get(path).status == 404
    assert Delivery.objects.get(pk=webhooks.delivery.pk).reason == "target_deleted"


def test_rotating_shows_the_new_secret_once() -> None:
    """The answer has the new secret, and the old one goes on signing for the overlap."""
    target = make_target(owner := make_owner(), "a")
    old, path = target.secret, f"targets/{target.uid}/rotate-secret/"

    answer = Api(owner).post(path)

    target.refresh_from_db()
    assert (answer.status, answer.data["secret"]) == (200, target.secret)
    assert target.secret != old
    assert old in live_secrets(target, datetime.fromisoformat(answer.data["modified_at"]))


def test_rotating_without_overlap_ends_the_old_secret() -> None:
    """A leaked secret can be stopped at once."""
    target = make_target(owner := make_owner(), "a")

    answer = Api(owner).post(f"targets/{target.uid}/rotate-secret/", {"overlap": 0})

    target.refresh_from_db()
    assert live_secrets(target, datetime.fromisoformat(answer.data["modified_at"])) == [answer.data["secret"]]


@pytest.mark.parametrize("overlap", [-1, "1", 1e300, True])
def test_an_overlap_that_cannot_be_rotates_nothing(overlap: object) -> None:
    """A wrong overlap is 400 and the secret stays."""
    target = make_target(owner := make_owner(), "a")

    answer = Api(owner).post(f"targets/{target.uid}/rotate-secret/", {"overlap": overlap})

    assert (answer.status, answer.wrong_fields) == (400, ["overlap"])
    assert WebhookTarget.objects.get().secret == target.secret


def test_a_target_shows_its_keys_without_their_secrets() -> None:
    """What a receiver of v1a needs, what is known of each key, and nothing that signs."""
    target = make_target(owner := make_owner(), "a")
    Api(owner).post(f"targets/{target.uid}/rotate-secret/", {"overlap": 3600})
    target.refresh_from_db()

    shown = Api(owner).get(f"targets/{target.uid}/").data

    newest, oldest = target.keyring.keys
    assert [key["id"] for key in shown["keys"]] == [newest.id, oldest.id]
    assert shown["keys"][0]["public_key"] == target.public_key
    assert shown["keys"][0]["until"] is None
    assert datetime.fromisoformat(shown["keys"][1]["until"]) == oldest.until
    assert {"last_accepted_at": None, "last_refused_at": None}.items() <= shown["keys"][0].items()
    assert shown["accepts_unknown_keys"] is None
    assert not [text for key in target.keyring.keys for text in (key.secret, key.pair) if text in json.dumps(shown)]


def test_keys_that_cannot_be_opened_are_null(settings: LazySettings) -> None:
    """A lost key of the settings' hides no target from its owner."""
    target = make_target(owner := make_owner(), "a")
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another"]

    answer = Api(owner).get(f"targets/{target.uid}/")

    assert (answer.status, answer.data["keys"], answer.data["target_url"]) == (200, None, URL)


def test_keys_are_checked_and_a_rotation_is_finished() -> None:
    """202 with the two events; 409 until the receiver has accepted the newest key; then there is one key."""
    target = make_target(owner := make_owner(), "a")
    api, path = Api(owner), f"targets/{target.uid}/"
    new = api.post(path + "rotate-secret/").data["secret"]

    answer = api.post(path + "check-keys/")
    assert (answer.status, [event["name"] for event in answer.data["events"]]) == (202, ["webhook.test"] * 2)
    refused = api.post(path + "finish-rotation/")
    assert (refused.status, "has not answered to the newest key" in refused.data["detail"]) == (409, True)
    deliver(lambda request: Reply(request.key, status=200 if is_signed(request, new) else 401))
    shown = api.post(path + "finish-rotation/")

    assert (shown.status, shown.data["accepts_unknown_keys"]) == (200, False)
    [key] = shown.data["keys"]
    assert key["last_accepted_at"] is not None
    assert live_secrets(WebhookTarget.objects.get()) == [new]


def is_signed(request: Request, secret: str) -> bool:
    try:
        verify(request.body, request.headers, secret)
    except InvalidSignature:
        return False
    return True


def test_a_rotation_is_finished_by_force() -> None:
    """Whoever knows better need not check."""
    target = make_target(owner := make_owner(), "a")
    new = Api(owner).post(f"targets/{target.uid}/rotate-secret/").data["secret"]

    answer = Api(owner).post(f"targets/{target.uid}/finish-rotation/", {"force": True})

    assert (answer.status, len(answer.data["keys"])) == (200, 1)
    assert live_secrets(WebhookTarget.objects.get()) == [new]


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


def test_replaying_tries_again_what_failed(settings: LazySettings) -> None:
    """POST replay/: 202 with the number of deliveries; a dry run only counts."""
    settings.DJWEBHOOKS_GIVE_UP_ON = (400,)
    target = make_target(owner := make_owner(), "a")
    fire("a", {}, owner=owner)
    fire("a", {}, owner=owner)
    deliver(400)
    api, path = Api(owner), f"targets/{target.uid}/replay/"

    for options in ({"status": "cancelled"}, {"until": "2026-01-01T00:00:00+02:00"}, {"event": "b.*"}):
        assert api.post(path, options | {"dry_run": True}).data["count"] == 0
    dry = api.post(path, {"dry_run": True, "since": "2026-01-01T00:00:00Z", "status": ["failed", "expired"], "event": "a"})
    assert (dry.status, dry.data) == (202, {"id": None, "count": 2, "left_out": {"expired": 0, "erased": 0, "gone": 0}})
    assert deliver() == []
    wet = api.post(path)
    assert (wet.status, wet.data["count"], len(deliver())) == (202, 2, 2)
    assert api.ids("replays/") == [wet.data["id"]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "pending"),
        ("status", []),
        ("event", "no name"),
        ("event", "a-b"),
        ("rate", 0),
        ("rate", 51),
        ("rate", "fast"),
        ("status", "\ud800"),
        ("since", "yesterday"),
        ("since", "2026-01-01T00:00:00"),
        ("since", "0001-01-01T00:00:00+23:00"),
        ("until", 5),
        ("until", None),
        ("dry_run", "maybe"),
        ("target", "x"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(name: str, value: object) -> None:
    """A wrong option is 400 under its name."""
    target = make_target(owner := make_owner(), "a")

    answer = Api(owner).post(f"targets/{target.uid}/replay/", {name: value})

    assert (answer.status, answer.wrong_fields) == (400, [name])


def make_failures(owner: User, *events: str) -> WebhookTarget:
    """Return a target of *owner*'s to which these events failed."""
    target = make_target(owner, "*", retry_schedule=[])
    for event in events:
        fire(event, {}, owner=owner)
    deliver(500)
    return target


def test_several_targets_are_replayed_at_once() -> None:
    """POST replays/: those that are named, or all; 202 with the number and the replay's id."""
    target = make_failures(owner := make_owner(), "a", "a.b")
    make_target(owner, "other", url=URL + "/other")
    api = Api(owner)

    named = api.post("replays/", {"targets": [str(target.uid)], "dry_run": True})
    assert (named.status, named.data["count"], named.data["id"]) == (202, 2, None)
    answer = api.post("replays/", {"event": "a.*", "rate": 5})
    assert (answer.status, answer.data["count"]) == (202, 1)
    replay = api.get(f"replays/{answer.data['id']}/")
    assert replay.data | {"created_at": ""} == {
        "id": answer.data["id"],
        "state": "running",
        "requested_by": "ann",
        "requested_through": "api",
        "is_retry": False,
        "criteria": {"status": ["failed"], "event": "a.*"},
        "rate": 5.0,
        "count": 1,
        "progress": {"waiting": 1},
        "created_at": "",
        "cancelled_at": None,
        "finished_at": None,
    }
    assert len(deliver()) == 1
    assert api.get(f"replays/{answer.data['id']}/").data["progress"] == {"succeeded": 1}


@pytest.mark.parametrize("options", [{"targets": []}, {"targets": ["foreign"]}, {"targets": "x"}, {"owner": 1}])
def test_a_replay_to_foreign_targets_is_refused(options: dict[str, Any]) -> None:
    """Somebody else's target is like one that does not exist, and nothing is replayed."""
    foreign = make_failures(make_owner("bob"), "a")
    api = Api(make_owner())
    named = {name: [str(foreign.uid)] if value == ["foreign"] else value for name, value in options.items()}

    answer = api.post("replays/", named)

    assert (answer.status, answer.wrong_fields) == (400, list(options))
    assert not Replay.objects.exists()


def test_a_replay_can_be_cancelled() -> None:
    """POST replays/{id}/cancel/ shows it; 409 if there is nothing left to cancel."""
    make_failures(owner := make_owner(), "a")
    api = Api(owner)
    path = f"replays/{api.post('replays/').data['id']}/cancel/"

    answer = api.post(path)
    assert (answer.status, answer.data["state"]) == (200, "cancelled")
    assert api.post(path).status == 409
    assert deliver() == []
    assert Replay.objects.get().cancelled_by == "ann"


def test_an_owner_sees_all_replays_but_not_the_operators_names() -> None:
    """A retry through the API is one of them; it can be told from the others by a filter."""
    target = make_failures(owner := make_owner(), "a")
    target.replay(by="the operator", through="admin")
    api = Api(owner)
    api.post(f"deliveries/{Delivery.objects.get().uid}/retry/")

    rows = api.get("replays/").data["results"]
    assert [(row["requested_by"], row["requested_through"], row["is_retry"]) for row in rows] == [
        ("ann", "api", True),
        ("", "admin", False),
    ]
    assert "progress" not in rows[0]
    assert api.ids("replays/?is_retry=false") == [rows[1]["id"]]
    assert api.ids("replays/?until=2026-01-01T00:00:00Z") == []


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


class UnanswerableViews(TargetViewSet):
    """Fails when the answer is to be written."""

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        raise LookupError(args)


@pytest.mark.parametrize("action", ["create", "rotate_secret"])
def test_a_report_of_an_error_does_not_show_the_secret(action: str, settings: LazySettings) -> None:
    """What was mailed to the administrators, with every local variable, has no secret in it."""
    settings.DEBUG_PROPAGATE_EXCEPTIONS = True
    target = make_target(owner := make_owner())
    request = APIRequestFactory().post("/")
    force_authenticate(request, owner)
    views: dict[str, Any] = {
        "create": lambda: UnanswerableViews().show(target, secret=target.secret),
        "rotate_secret": lambda: UnanswerableViews.as_view({"post": "rotate_secret"})(request, webhooks_id=str(target.uid)),
    }

    with pytest.raises(LookupError) as error:
        views[action]()
    report = ExceptionReporter(None, error.type, error.value, error.tb).get_traceback_html()

    assert "********************" in report
    newest = WebhookTarget.objects.get().keyring.newest
    assert not [part for part in (newest.secret, newest.pair) if part in report]


# -- events ------------------------------------------------------------------------------------------------------------


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


# -- deliveries and attempts -------------------------------------------------------------------------------------------


def test_a_delivery_names_its_event_and_its_target() -> None:
    """All by their uids."""
    webhooks = make_webhooks(owner := make_owner())

    answer = Api(owner).get(f"deliveries/{webhooks.delivery.uid}/")

    assert answer.status == 200
    assert answer.data["event"] == str(webhooks.event.uid)
    assert answer.data["target"] == str(webhooks.target.uid)
    assert (answer.data["event_name"], answer.data["status"], answer.data["attempt_count"]) == ("project.update", "pending", 1)


def test_an_attempt_shows_what_was_answered() -> None:
    """Response headers and body are included; its id is the delivery's uid and its number."""
    webhooks = make_webhooks(owner := make_owner())

    answer = Api(owner).get(f"attempts/{webhooks.delivery.uid}-1/")

    assert answer.status == 200
    assert (answer.data["id"], answer.data["delivery"]) == (f"{webhooks.delivery.uid}-1", str(webhooks.delivery.uid))
    assert (answer.data["status_code"], answer.data["response_body"]) == (500, "no, thanks")
    assert answer.data["response_headers"]["x-kind"] == "test"
    assert answer.data["address"] == "192.0.2.1"
    assert [answer.data[f"{part}_ms"] for part in ("lookup", "connect", "tls", "first_byte")] == [12, None, None, 0]


@pytest.mark.parametrize("end", ["-2", "-0", "-01", "", "-", "-999999999999999999999", "-x"])
def test_an_attempt_has_one_address(end: str) -> None:
    """Every other id is 404."""
    webhooks = make_webhooks(owner := make_owner())

    assert Api(owner).get(f"attempts/{webhooks.delivery.uid}{end}/").status == 404


def test_retrying_makes_a_delivery_due() -> None:
    """POST retry/: 202, for what is pending and for what succeeded."""
    webhooks = make_webhooks(owner := make_owner())
    api, path = Api(owner), f"deliveries/{webhooks.delivery.uid}/"

    assert api.post(path + "retry/").status == 202
    assert len(deliver()) == 1
    assert api.get(path).data["status"] == "succeeded"
    again = api.post(path + "retry/")
    assert (again.status, again.data["status"]) == (202, "pending")
    assert Attempt.objects.filter(delivery=webhooks.delivery).count() == 2


@pytest.mark.parametrize(("method", "end", "code"), [("POST", "cancel/", 200), ("DELETE", "", 204)])
def test_cancelling_ends_a_delivery_once(method: str, end: str, code: int) -> None:
    """POST cancel/ and DELETE cancel what is pending; what has finished is 409."""
    webhooks = make_webhooks(owner := make_owner())
    api, path = Api(owner), f"deliveries/{webhooks.delivery.uid}/"

    assert api.call(method, path + end).status == code
    assert api.get(path).data["status"] == "cancelled"
    again = api.call(method, path + end)
    assert (again.status, list(again.data)) == (409, ["code", "detail"])


# -- the catalogue -----------------------------------------------------------------------------------------------------

CATALOGUE = {
    "project.update": {
        "description": "A project changed.",
        "schema": {"type": "object"},
        "sample": {"title": "x"},
        "deprecated": "Use x.",
        "version": "2",
        "versions": {"1": {"description": "As it was.", "sample": {"name": "x"}, "deprecated": "Use 2."}},
    },
    "project.done": {},
    "audit.entry": {"description": "Ours.", "internal": True},
}


def test_event_types_are_the_catalogue(settings: LazySettings) -> None:
    """Internal events are not for owners to know of."""
    settings.DJWEBHOOKS_EVENTS = CATALOGUE

    answer = Api(make_owner()).get("event-types/")

    nothing = {"description": "", "schema": None, "sample": None, "deprecated": "", "version": ""}
    old = {"name": "project.update", "version": "1", "schema": None, **CATALOGUE["project.update"]["versions"]["1"]}
    assert answer.status == 200
    assert answer.data == {
        "next": None,
        "previous": None,
        "results": [
            {"name": "project.done", **nothing, "versions": []},
            {"name": "project.update", **CATALOGUE["project.update"], "versions": [old]},
        ],
    }


def test_without_a_catalogue_there_are_no_event_types() -> None:
    """Any name is possible then."""
    assert Api(make_owner()).get("event-types/").data["results"] == []


def test_a_version_is_one_that_an_event_may_have(settings: LazySettings) -> None:
    """A target asks for it by its name; internal events are not looked at, and no message names theirs."""
    settings.DJWEBHOOKS_EVENTS = {
        "project.update": {"version": "2", "versions": {"1": {}}},
        "audit.entry": {"internal": True, "version": "7"},
    }
    api = Api(make_owner())

    made = api.post("targets/", NEW | {"events": ["project.update"], "version": "1"})
    refused = api.patch(f"targets/{made.data['id']}/", {"events": ["*"], "version": "7"})
    changed = api.patch(f"targets/{made.data['id']}/", {"version": ""})

    assert (made.status, made.data["version"]) == (201, "1")
    assert (refused.status, "there are 1, 2." in str(refused.data)) == (400, True)
    assert (changed.status, changed.data["version"]) == (200, "")


@pytest.mark.parametrize("event", ["audit.entry", "audit.*", "project.gone"])
def test_only_public_events_can_be_subscribed_to_and_published(settings: LazySettings, event: str) -> None:
    """An internal event is as unknown as one that does not exist, and no message names it."""
    settings.DJWEBHOOKS_EVENTS = CATALOGUE
    api = Api(make_publisher())

    subscribed = api.post("targets/", NEW | {"events": [event]})
    published = api.post("events/", {"name": event.replace("*", "entry"), "payload": 1})

    assert (subscribed.status, published.status) == (400, 400)
    assert "there are project.done, project.update." in str(subscribed.mistakes["events.0"])
    assert "there are project.done, project.update." in str(published.mistakes["name"])
    assert api.post("targets/", NEW).status == 201


# -- all of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts"])
def test_a_list_shows_what_a_single_row_does(kind: str) -> None:
    """The same fields, whichever way a row is asked for; only an event's payload is not in the list."""
    make_webhooks(owner := make_owner())
    api = Api(owner)

    rows = api.get(f"{kind}/").data["results"]
    singles = [api.get(f"{kind}/{row['id']}/").data for row in rows]

    assert rows
    assert [{name: single[name] for name in single if name != "payload"} for single in singles] == rows


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts"])
@pytest.mark.parametrize(
    "row", ["1", "x", "%00", "%ff", "00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000-1"]
)
def test_an_id_that_names_nothing_is_404(kind: str, row: str) -> None:
    """In JSON, whatever it looks like."""
    answer = Api(make_owner()).get(f"{kind}/{row}/")

    assert (answer.status, list(answer.data)) == (404, ["code", "detail"])


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts", "event-types"])
def test_the_api_may_be_included_twice(kind: str) -> None:
    """Each mount has its own addresses under the same names."""
    make_webhooks(owner := make_owner())
    name = f"djwebhooks-{ {'deliveries': 'delivery'}.get(kind, kind.removesuffix('s')) }-list"

    assert reverse(name) == f"/api/{kind}/"
    assert reverse(name, kwargs={"org": "acme"}) == f"/orgs/acme/api/{kind}/"
    assert Api(owner, "/orgs/acme/api/").get(f"{kind}/") == Api(owner).get(f"{kind}/")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "deliveries/"), ("DELETE", "events/"), ("PUT", "attempts/"), ("OPTIONS", "")]
)
def test_other_methods_are_405(method: str, path: str) -> None:
    """What is sent and answered is nobody's to write."""
    assert Api(make_owner()).call(method, path or "targets/").status == 405


def test_no_cache_keeps_an_answer() -> None:
    """An answer may have a secret, and always is one owner's alone."""
    assert Api(make_owner()).post("targets/", NEW).headers["Cache-Control"] == "no-store"


# -- at the same time --------------------------------------------------------------------------------------------------


def run_at_once(user: User, bodies: list[tuple[str, object]], **headers: str) -> list[Any]:
    """POST all of *bodies* at the same moment and return the answers."""
    answers: list[Any] = []
    barrier = threading.Barrier(len(bodies))

    def post(path: str, body: object) -> None:
        api = Api()
        api.client.cookies.update(cookies)
        barrier.wait(20)
        answers.append(api.post(path, body, **headers))
        connection.close()

    cookies = Api(user).client.cookies
    threads = [threading.Thread(target=post, args=pair) for pair in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


@pytest.mark.django_db(transaction=True)
def test_equal_targets_at_once_become_one() -> None:
    """One of the requests makes it and gets the secret; none fails, and no event is lost."""
    bodies = [("targets/", NEW | {"events": [f"e{number}"]}) for number in range(4)]

    answers = run_at_once(make_owner(), bodies)

    assert sorted(answer.status for answer in answers) == [200, 200, 200, 201]
    assert sum("secret" in answer.data for answer in answers) == 1
    assert WebhookTarget.objects.get().events == ["e0", "e1", "e2", "e3"]


@pytest.mark.django_db(transaction=True)
def test_equal_events_at_once_become_one() -> None:
    """An idempotency key fires once, however close the requests are."""
    bodies = [("events/", {"name": "a", "payload": 1, "idempotency_key": "k"})] * 4

    answers = run_at_once(make_publisher(), bodies)

    assert sorted(answer.status for answer in answers) == [200, 200, 200, 201]
    assert {UUID(answer.data["id"]) for answer in answers} == {Event.objects.get().uid}


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
