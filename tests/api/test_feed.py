"""Who may read a feed, and what they get."""

import math
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import resolve
from rest_framework.exceptions import ValidationError

from djwebhooks import signing
from djwebhooks.api.feed import FeedFilters
from djwebhooks.events import fire
from djwebhooks.models import WebhookTarget
from djwebhooks.testing import deliver
from tests.api.test_isolation import MISSING
from tests.api.world import Answer, Api, make_owner, make_target

pytestmark = pytest.mark.django_db


@pytest.fixture
def target() -> WebhookTarget:
    """A target with three events."""
    owner = make_owner("theirs")
    made = make_target(owner)
    for number in range(3):
        fire("project.update", number, owner=owner)
    deliver()
    return made


def sign(secret: str, query: str, at: float | None = None) -> dict[str, str]:
    message_id, timestamp = str(uuid.uuid4()), int(time.time() if at is None else at)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign(secret, message_id, timestamp, query.encode()),
    }


def ask(query: str, secret: str, **changes: Any) -> Answer:
    """Ask as a receiver that has no account."""
    return Api().get(f"feed/?{query}", **sign(secret, query, **changes))


def sequences(answer: Answer) -> list[int]:
    assert answer.status == 200, answer
    return [item["sequence"] for item in answer.data["results"]]


def test_the_owner_reads_it(target: WebhookTarget) -> None:
    """Each item can be verified as a delivery can."""
    answer = Api(target.owner).get(f"feed/?target={target.uid}&after=1")

    assert sequences(answer) == [2, 3]
    assert (answer.data["after"], answer.data["has_more"]) == (3, False)
    assert answer.headers["Cache-Control"] == "no-store"
    for item in answer.data["results"]:
        signing.verify(item["body"].encode(), item["headers"], target.secret)


def test_a_receiver_reads_it_with_the_secret(target: WebhookTarget) -> None:
    """Also during a rotation, with the old secret and with the new; and of a target of the system."""
    old = target.secret
    new = target.rotate_secret()
    system = make_target(None)

    assert sequences(ask(f"target={target.uid}&after=2", old)) == [3]
    assert sequences(ask(f"after=0&target={target.uid}", new)) == [1, 2, 3]
    assert sequences(ask(f"target={system.uid}", system.secret)) == []


def test_what_was_signed_is_what_is_asked(target: WebhookTarget) -> None:
    """Another query, another secret, an old signature, a target that does not exist: all get the same answer."""
    other = make_target(target.owner, url="https://example.com/other")
    query = f"target={target.uid}&after=2"
    refused = [
        Api().get(f"feed/?target={target.uid}&after=1", **sign(target.secret, query)),
        ask(query, other.secret),
        ask(query, target.secret, at=time.time() - 400),
        ask(f"target={MISSING}", target.secret),
        ask("target=x", target.secret),
        ask("", target.secret),
        ask(f"target={target.uid}&target={other.uid}", target.secret),
    ]

    assert {(answer.status, str(answer.data)) for answer in refused} == {(401, str(refused[0].data))}
    assert "none of the target's" in refused[0].data["detail"]


def test_the_secret_opens_nothing_else(target: WebhookTarget) -> None:
    """A receiver is no owner: with its signature the rest of the API is as closed as without."""
    for path in ("targets/", "events/", f"targets/{target.uid}/"):
        assert Api().get(f"{path}?target={target.uid}", **sign(target.secret, f"target={target.uid}")).status in (401, 403)


@pytest.mark.parametrize("kind", ["another's", "the system's", "hidden", "none"])
def test_others_do_not_learn_that_it_exists(target: WebhookTarget, kind: str) -> None:
    """What is not one's own is as if it was not there."""
    me = make_owner("me")
    fire("a", 1, owner=me, urls=["https://example.com/hidden"])
    uids = {
        "another's": target.uid,
        "the system's": make_target(None).uid,
        "hidden": me.webhook_targets.get().uid,
        "none": MISSING,
    }

    answer = Api(me).get(f"feed/?target={uids[kind]}")

    assert (answer.status, answer.data) == (404, {"code": "not_found", "detail": "No WebhookTarget matches the given query."})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "target"),
        ("target=x", "target"),
        ("target={uid}&after=-1", "after"),
        ("target={uid}&after=1e3", "after"),
        ("target={uid}&wait=21", "wait"),
        ("target={uid}&wait=nan", "wait"),
        ("target={uid}&since=2", "since"),
        ("target={uid}&after=1&after=2", "after"),
    ],
)
def test_a_wrong_parameter_is_named(target: WebhookTarget, query: str, field: str) -> None:
    """Nothing is guessed."""
    answer = Api(target.owner).get("feed/?" + query.format(uid=target.uid))

    assert answer.status == 400
    assert answer.wrong_fields == [field]


def test_a_wait_is_a_number_whoever_parses_it() -> None:
    """A wait of nan would never end: it is refused also where REST framework takes it for a number."""
    with pytest.raises(ValidationError):
        FeedFilters().fields["wait"].run_validators(math.nan)


def test_nobody_else_reads_it(target: WebhookTarget) -> None:
    """Without a signature and without a user there is nothing."""
    assert Api().get(f"feed/?target={target.uid}").status in (401, 403)


def test_a_secret_that_cannot_be_read_is_our_own_fault(target: WebhookTarget) -> None:
    """The receiver is told to come again, and not that its secret is wrong."""
    secret = target.secret
    WebhookTarget.objects.filter(pk=target.pk).update(secrets="gAAAAnonsense")

    answers = [ask(f"target={target.uid}", secret), Api(target.owner).get(f"feed/?target={target.uid}")]

    assert {answer.status for answer in answers} == {503}


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_answer_comes_as_soon_as_there_is_an_event(target: WebhookTarget) -> None:
    """The request sees what others commit while it waits."""
    fired = []

    def fire_when_it_waits() -> None:
        try:
            reading.wait()
            fired.append(fire("project.update", "new", owner=target.owner))
            deliver()
        finally:
            connection.close()

    reading = threading.Event()
    other = threading.Thread(target=fire_when_it_waits)
    other.start()
    with connection.execute_wrapper(announcing(reading)):
        answer = Api(target.owner).get(f"feed/?target={target.uid}&after=3&wait=20")
    other.join()

    assert sequences(answer) == [4]
    assert answer.data["results"][0]["headers"]["webhook-id"] == str(fired[0].uid)


def announcing(reading: threading.Event) -> Callable[..., Any]:
    """An execute wrapper that tells when the feed has looked for deliveries."""

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if "djw_delivery" in sql:
            reading.set()
        return found

    return execute


def test_waiting_ends(target: WebhookTarget) -> None:
    """Without news the answer is an empty page, which says where to go on."""
    answer = Api(target.owner).get(f"feed/?target={target.uid}&after=3&wait=0.1")

    assert (answer.status, answer.data) == (200, {"after": 3, "has_more": False, "waiting_for": None, "results": []})


@pytest.mark.django_db(transaction=True)
def test_it_waits_in_no_transaction(target: WebhookTarget) -> None:
    """``ATOMIC_REQUESTS`` would have it wait for what a snapshot never shows."""
    seen = []

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        seen.append(connection.in_atomic_block)
        return run(sql, *rest)

    client = Client()
    client.force_login(target.owner)
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        with connection.execute_wrapper(execute):
            assert client.get(f"/api/feed/?target={target.uid}").status_code == 200
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    assert seen
    assert not any(seen)
    assert resolve("/api/feed/").func._non_atomic_requests == {"default", "other"}  # type: ignore[attr-defined]
