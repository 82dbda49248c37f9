"""A target's keys are shown without their secrets, replaced and checked; a new secret is shown once."""

import json
from datetime import datetime
from typing import Any

import pytest
from django.conf import LazySettings
from django.views.debug import ExceptionReporter
from rest_framework.test import APIRequestFactory, force_authenticate

from djwebhooks.api.views import TargetViewSet
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.models import WebhookTarget
from djwebhooks.signing import verify
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.api.world import URL, Api, make_owner, make_target
from tests.builders import live_secrets

pytestmark = pytest.mark.django_db


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
