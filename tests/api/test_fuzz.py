"""Requests that are made up from the API's own description: none is a server's error, and all are answered as described."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings

from djwebhooks.api import openapi
from tests.api.world import Webhooks, make_publisher, make_webhooks

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: pip install 'djwebhooks[fuzz]'")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

pytestmark = pytest.mark.django_db
#: Requests for each operation, right ones and wrong ones.
EXAMPLES = 10
SCHEMA = schemathesis.openapi.from_dict(openapi.describe("http://testserver/api"))
SCHEMA.app = get_wsgi_application()
OPERATIONS = {result.ok().label: result.ok() for result in SCHEMA.get_all_operations()}
#: What cannot be asked here: all requests are Ann's, and much of what a JSON Schema allows is no URL or no cursor.
UNFIT = [checks.ignored_auth, checks.positive_data_acceptance]
patient = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def _one_connection() -> Iterator[None]:
    """Have requests made on the test's own connection, as Django's client does."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def make_ann() -> tuple[User, dict[str, str]]:
    """An owner who may publish, and the header by which she is known."""
    ann = make_publisher("ann")
    ann.set_password("word")
    ann.save()
    return ann, {"Authorization": "Basic " + base64.b64encode(b"ann:word").decode()}


def find_id(path: str, webhooks: Webhooks) -> str:
    """The id of a row that *path* may be about."""
    delivery = webhooks.delivery
    ids = {
        "targets": webhooks.target.uid,
        "events": webhooks.event.uid,
        "deliveries": delivery.uid,
        "attempts": f"{delivery.uid}-{webhooks.attempt.number}",
        "hooks": f"{webhooks.target.uid}-project.*",
    }
    kind = path.split("/")[1]
    return str(delivery.replay.uid if kind == "replays" and delivery.replay else ids.get(kind, delivery.uid))


def fix(operation: Any, webhooks: Webhooks) -> dict[str, dict[str, Any]]:
    """The parameters that are given, so that there is a row, and nobody waits."""
    if "{id}" in operation.path:
        return {"path_parameters": {"id": find_id(operation.path, webhooks)}}
    return {"query": {"target": str(webhooks.target.uid), "wait": 0}} if operation.path == "/feed/" else {}


@pytest.mark.parametrize("label", OPERATIONS)
def test_what_may_be_asked_is_answered_as_described(label: str) -> None:
    """Whatever fits the description has one of its answers."""
    ann, headers = make_ann()
    operation = OPERATIONS[label]

    @patient
    @given(case=operation.as_strategy(**fix(operation, make_webhooks(ann))))
    def ask(case: Any) -> None:
        case.call_and_validate(headers=headers, excluded_checks=UNFIT)

    ask()


@pytest.mark.parametrize("label", OPERATIONS)
def test_what_may_not_be_asked_is_refused_as_described(label: str) -> None:
    """Whatever does not fit the description is refused, with an error as described."""
    ann, headers = make_ann()
    operation = OPERATIONS[label]
    fixed = fix(operation, make_webhooks(ann)) if operation.body else {}

    @patient
    @given(case=operation.as_strategy(schemathesis.GenerationMode.NEGATIVE, **fixed))
    def ask(case: Any) -> None:
        # A host that is none is refused by Django itself, before anything of ours is asked.
        case.headers = {name: value for name, value in (case.headers or {}).items() if name.lower() != "host"}
        case.call_and_validate(headers=headers, excluded_checks=UNFIT)

    ask()
