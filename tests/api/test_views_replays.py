"""What failed is sent again: for one target, for several, and until somebody cancels it."""

from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from djwebhooks.events import fire
from djwebhooks.models import Delivery, Replay, WebhookTarget
from djwebhooks.testing import deliver
from tests.api.world import URL, Api, make_owner, make_target

pytestmark = pytest.mark.django_db


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


@pytest.mark.parametrize(
    "times",
    [
        {"since": "0001-06-01T00:00:00Z"},
        {"until": "9999-06-01T00:00:00Z"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
    ],
)
@pytest.mark.parametrize("path", ["replays/", "targets/{}/replay/"])
def test_a_time_that_cannot_be_meant_is_refused(path: str, times: dict[str, str]) -> None:
    """It is 400 and says why, and no fault of ours."""
    target = make_target(owner := make_owner(), "a")
    [message] = Api(owner).post(path.format(target.uid), times).mistakes["non_field_errors"]

    assert "too far away" in message or "must be later than since" in message
    assert not Replay.objects.exists()


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
