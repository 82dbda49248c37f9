"""What a caller is told of our own faults, and what we are."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.signals import got_request_exception
from django.db import connection
from rest_framework.exceptions import AuthenticationFailed

from djwebhooks.api.errors import answer_error
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.models import WebhookTarget
from tests.api.world import URL, Answer, Api, make_owner, make_target
from tests.connections import plain
from tests.test_docs import DOCS, read_blocks

pytestmark = pytest.mark.django_db


@pytest.fixture
def faulty(settings: LazySettings) -> Api:
    """An API whose function for the owner cannot work, used by a client that raises nothing."""
    api = Api(make_owner())
    api.client.raise_request_exception = False
    settings.DJWEBHOOKS_REQUEST_OWNER = "tests.api.world.own_name"
    return api


def test_a_fault_tells_nothing_of_itself(faulty: Api) -> None:
    """500, as an object with a code: no stack, and no word of the error."""
    answer = faulty.get("targets/")

    assert (answer.status, answer.data) == (500, {"code": "error", "detail": "Something went wrong here."})


def test_a_fault_is_reported(faulty: Api, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its stack and its request where Django logs, and the signal is sent that error trackers listen to."""
    seen: list[Any] = []

    def note(request: Any, **_: Any) -> None:
        seen.append(request.path)

    got_request_exception.connect(note)
    try:
        faulty.get("targets/")
    finally:
        got_request_exception.disconnect(note)

    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (record.name, record.exc_info and record.exc_info[0]) == ("django.request", ConfigurationError)
    assert record.request.path == "/api/targets/"  # type: ignore[attr-defined]
    assert seen == ["/api/targets/"]


def test_whoever_debugs_sees_more(faulty: Api, settings: LazySettings) -> None:
    """With DEBUG it is Django's own page."""
    settings.DEBUG = True

    response = faulty.client.get("/api/targets/")

    assert response.status_code == 500
    assert b"ConfigurationError" in response.content


@pytest.mark.parametrize(
    ("detail", "code", "told"),
    [
        ("It has expired.", "authentication_failed", "It has expired."),
        ({"detail": "It has expired.", "code": "expired"}, "authentication_failed", "It has expired."),
        ({"message": "It has expired."}, "authentication_failed", "It has expired."),
        (["It has expired.", {"hint": "Log in."}], "authentication_failed", "It has expired. Log in."),
        ([], "error", "Unauthorized"),
    ],
)
def test_an_error_of_the_project_is_told_in_our_form(detail: Any, code: str, told: str) -> None:
    """Whatever its authentication gives as the detail, as simplejwt does: the answer has one code and one text."""
    answer = answer_error(AuthenticationFailed(detail), {})

    assert answer is not None
    assert (answer.status_code, answer.data) == (401, {"code": code, "detail": told})


def test_the_pages_show_what_is_answered() -> None:
    """The example of an error is one, up to where it leaves off."""
    [example] = [json.loads(block.text) for block in read_blocks(DOCS / "reference" / "api.rst") if '"errors"' in block.text]
    answer = Api(make_owner()).post("targets/", {"target_url": URL, "events": ["no name!"]})
    [shown], [message] = (told["errors"].pop("events.0") for told in (example, answer.data))

    assert message.startswith(shown.removesuffix("…"))
    assert answer.data == example


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (lambda api, _: api.post("targets/", {"target_url": URL, "events": ["a"]}), 404),
        (lambda api, _: api.post("hooks/", {"target_url": URL, "event": "a"}), 404),
        (lambda api, target: api.delete(f"targets/{target.uid}/"), 204),
        (lambda api, target: api.post(f"targets/{target.uid}/test/"), 202),
        (lambda api, target: api.post(f"targets/{target.uid}/check-keys/"), 202),
        (lambda api, target: api.post(f"targets/{target.uid}/replay/"), 202),
    ],
    ids=["make", "hook", "delete", "test", "check-keys", "replay"],
)
def test_a_target_that_is_deleted_meanwhile_is_not_found(call: Callable[[Api, WebhookTarget], Answer], status: int) -> None:
    """Or that makes no difference: it is no fault of ours."""
    target = make_target(owner := make_owner(), url=URL)
    others: list[str] = []

    def delete_it(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        is_read = '"djw_target"."digest" IN' in plain(sql) or '"djw_target"."uid" =' in plain(sql)
        if is_read and not others:
            others.append(sql)
            WebhookTarget.objects.all().delete()
        return found

    with connection.execute_wrapper(delete_it):
        answer = call(Api(owner), target)

    assert (answer.status, len(others)) == (status, 1)
    if status == 404:
        assert answer.data == {"code": "not_found", "detail": "The target is not there any more: it was deleted."}
