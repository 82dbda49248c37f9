"""Whatever is sent to whichever address, nothing of another owner changes or shows, and nobody gets more than is theirs."""

import json
import re
from contextlib import suppress
from itertools import product
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.test import Client
from django.urls import include, path
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subscription, WebhookTarget
from tests.api.test_feed import sign
from tests.api.test_isolation import MISSING, ROUTES, list_ids
from tests.api.test_openapi import DESCRIBED
from tests.api.world import URL, Api, make_owner, make_publisher, make_target, make_webhooks

pytestmark = pytest.mark.django_db

urlpatterns = [
    path("api/", include(DESCRIBED)),
    path("orgs/<slug:org>/api/", include(DESCRIBED)),
    path("keys/", include("djwebhooks.jwks")),
]
#: What anybody may read, and the address by which a target's receiver reads its feed.
PUBLIC, FEED = ("/schema/", "/docs/", "/jwks.json"), "/feed/"
#: What is known to be in every row of the other owner's that holds a text of its own.
CANARY = "canary"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "LINK")
#: What no request may set: fields of the tables, and words that sound as if they gave more than there is.
TAKEN = (
    "owner", "owner_id", "uid", "id", "pk", "is_hidden", "digest", "secret", "secrets", "state", "health", "keys", "lane",
    "created_at", "is_broadcast", "broadcast", "urls", "target_ids", "hook", "call", "status", "sequence", "tail", "token",
    "requested_by", "user_id", "using", "is_staff",
)  # fmt: skip
#: Where one of these names is something else: it chooses what is replayed, or is shown by GET, so that PUT passes it over.
OFFERED = {
    "replays/": {"status"},
    "targets/<str:webhooks_id>/replay/": {"status"},
    "targets/<str:webhooks_id>/": {"id", "state", "health", "keys", "created_at"},
}
#: Fields that may be written, with values that are right, nearly right and wrong.
WRITABLE = {
    "target_url": [URL, URL + "/else", "http://10.0.0.1/", 7, None],
    "events": [["*"], ["project.update"], [], "*", [None], ["a" * 300]],
    "event": ["project.update", str(MISSING)],
    "identifier": ["", "p-42", "\0", 5],
    "name": ["project.update", "webhook.target.disabled", "*"],
    "payload": [{"x": 1}, None, []],
    "is_active": [True, False, "maybe"],
    "status": ["failed", "succeeded", "pending", ["failed", "cancelled"]],
    "dry_run": [True, False],
    "overlap": [0, -1, 60, "x"],
    "rate": [1, 0, "x"],
    "rate_period": ["minute", "year"],
    "ordering_key": ["k", None],
    "idempotency_key": ["one", "two"],
    "targets": [[], [str(MISSING)], "all"],
    "force": [True],
}
values = st.one_of(st.none(), st.booleans(), st.integers(-1, 3), st.text(max_size=4), st.just([]), st.just({}))
bodies = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(TAKEN), values, max_size=3).flatmap(
        lambda taken: st.fixed_dictionaries({}, optional={name: st.sampled_from(WRITABLE[name]) for name in WRITABLE}).map(
            lambda right: {**right, **taken}
        )
    ),
    values,
)
MODELS = (WebhookTarget, Subscription, Event, Body, Delivery, Attempt, Lane, Replay)


class Rollback(Exception):
    """Undoes what an example did."""


def read_all() -> dict[Any, dict[Any, dict[str, Any]]]:
    return {model: {row[model._meta.pk.attname]: row for row in model.objects.values()} for model in MODELS}


def make_others() -> list[str]:
    """Give another owner and the system one of everything, with the canary in it; return the ids."""
    ids = []
    for owner in (make_owner(f"{CANARY}-owner"), None):
        webhooks = make_webhooks(owner)
        WebhookTarget.objects.filter(pk=webhooks.target.pk).update(
            description=CANARY, identifier=CANARY, target_url=f"https://{CANARY}.example/"
        )
        Event.objects.filter(pk__in=[webhooks.event.pk, webhooks.published.pk]).update(
            payload=json.dumps({"x": CANARY}), ordering_key=CANARY, identifier=CANARY
        )
        Delivery.objects.filter(pk=webhooks.delivery.pk).update(ordering_key=CANARY)
        Attempt.objects.update(response_body=CANARY, detail=CANARY, url=CANARY)
        ids += [uid for uids in list_ids(webhooks).values() for uid in uids]
    return ids


@pytest.mark.urls(__name__)
def test_nothing_of_others_changes_or_shows_whatever_is_sent() -> None:
    """Every address, with every method, bodies of all kinds, and the ids of one's own rows, of others', and of none.

    Who asks is logged in, or knows the secret of one target: that opens its feed, and nothing else that is not everybody's.
    """
    theirs = make_others()
    before = read_all()
    me = make_publisher("mine")
    webhooks = make_webhooks(me)
    mine = [uid for uids in list_ids(webhooks).values() for uid in uids]
    feed, secret = str(webhooks.target.uid), webhooks.target.secret
    own = {model: set(rows) - set(before[model]) for model, rows in read_all().items()}
    user, receiver = Api(me).client, Client()
    counts = {"requests": 0, "successes": 0}
    others = User.objects.get(username__startswith=CANARY).pk
    prefixes = ("/api/", f"/orgs/{others}/api/")
    addresses = [prefix + route for prefix in prefixes for route in [*ROUTES, "schema/", "docs/"]]
    addresses.append("/keys/<uuid:uid>/jwks.json")
    feeds = [prefix + "feed/" for prefix in prefixes]
    ids = st.sampled_from([*mine, *theirs, str(MISSING), "1", "x", "%00", "..", f"{MISSING}-1"])
    methods, anywhere = st.sampled_from(METHODS), st.sampled_from(addresses)
    request = st.one_of(
        st.tuples(st.just(user), methods, anywhere, ids, st.none() | ids, bodies),
        st.tuples(st.just(receiver), methods, st.sampled_from(feeds) | anywhere, ids, st.just(feed) | ids, bodies),
    )

    def call(client: Client, method: str, address: str, uid: str, named: str | None, body: object) -> tuple[int, str]:
        query = "" if named is None else f"target={named}"
        headers = sign(secret, query) if client is receiver else {}
        url = re.sub("<.*?>", uid, address) + "?" * bool(query) + query
        data = b"" if body is None else json.dumps(body).encode()
        answer = client.generic(method, url, data, content_type="application/json", headers=headers)
        return answer.status_code, answer.content.decode()

    assert {call(receiver, "GET", address, "", feed, None)[0] for address in feeds} == {200}

    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(request, min_size=1, max_size=6))
    @example(
        [
            (user, "GET", "/api/targets/", "", None, None),
            (user, "POST", "/api/events/", "", None, {"name": "project.update", "payload": 1}),
        ]
    )
    def attack(requests: list[tuple[Client, str, str, str, str | None, object]]) -> None:
        with suppress(Rollback), transaction.atomic():
            for client, method, address, uid, named, body in requests:
                status, text = call(client, method, address, uid, named, body)
                counts["requests"] += 1
                counts["successes"] += status < 300
                assert status < 500
                assert CANARY not in text
                assert not any(other in text for other in theirs if other not in (uid, named))
                if client is receiver and status < 300:
                    assert address.endswith(PUBLIC) or (address.endswith(FEED) and named == feed)
            after = read_all()
            for model in MODELS:
                assert {pk: after[model].get(pk) for pk in before[model]} == before[model]
            for pk in set(after[WebhookTarget]) - set(before[WebhookTarget]):
                row = after[WebhookTarget][pk]
                assert row["owner_id"] == me.pk
                assert not row["is_hidden"] or pk in own[WebhookTarget]
            assert all(row["owner_id"] == me.pk for pk, row in after[Event].items() if pk not in before[Event])
            assert not any(row["is_broadcast"] for row in after[Event].values())
            raise Rollback

    attack()

    assert counts["successes"] >= 2, "or the attack never gets past the first check"


@pytest.mark.parametrize("name", TAKEN)
def test_no_field_can_be_assigned_that_is_not_ones_own(name: str) -> None:
    """A name that is not offered is an error that says so, and not silently dropped."""
    me = make_publisher()
    target = make_target(me)
    api = Api(me)
    before = read_all()

    answers = [
        api.post("targets/", {"target_url": URL + "/new", "events": ["*"], name: 1}),
        api.patch(f"targets/{target.uid}/", {name: 1}),
        api.post("events/", {"name": "a.b", "payload": 1, name: 1}),
    ]

    assert [answer.status for answer in answers] == [400] * 3
    assert all(name in answer.mistakes for answer in answers)
    assert read_all() == before


@pytest.mark.parametrize("route", ROUTES)
def test_no_address_takes_what_it_does_not_offer(route: str) -> None:
    """Every request that has a body names each of these fields as a mistake."""
    me = make_publisher()
    webhooks = make_webhooks(me)
    [uid, *_] = list_ids(webhooks)[route.split("/")[0]] if "<" in route else [""]
    api = Api(me)
    before = read_all()

    # An answer names twenty mistakes at most.
    for method, names in product(("POST", "PUT", "PATCH"), (TAKEN[::2], TAKEN[1::2])):
        answer = api.call(method, re.sub("<.*?>", uid, route), dict.fromkeys(names, 1))
        offered = set() if method == "PATCH" else OFFERED.get(route, set())
        assert answer.status == 405 or set(answer.mistakes) >= set(names) - offered

    assert read_all() == before


def test_what_is_shown_and_cannot_be_written_is_passed_over_by_put() -> None:
    """So that what GET showed may be sent back; whatever it says then, nothing of it changes."""
    me = make_publisher()
    path = f"targets/{make_target(me).uid}/"
    api = Api(me)
    shown = api.get(path).data

    answer = api.put(path, shown | dict.fromkeys(set(shown) & set(TAKEN), 1))

    assert answer.status == 200
    assert api.get(path).data | {"modified_at": ""} == shown | {"modified_at": ""}


@pytest.mark.parametrize("route", ROUTES)
def test_a_cookie_alone_changes_nothing(route: str) -> None:
    """Another site's page could send it: every request that writes and comes with a session needs Django's CSRF token."""
    me = make_publisher()
    webhooks = make_webhooks(me)
    client = Client(enforce_csrf_checks=True)
    client.force_login(me)
    before = read_all()

    for uid in [uid for uids in list_ids(webhooks).values() for uid in uids]:
        path = "/api/" + re.sub("<.*?>", uid, route)
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            response = client.generic(method, path, b"{}", content_type="application/json")
            assert response.status_code == 403
            assert "CSRF" in response.json()["detail"]

    assert read_all() == before


@pytest.mark.parametrize("route", ROUTES)
def test_strangers_get_nowhere(route: str) -> None:
    """Without authentication every address answers alike, whether its row exists or not."""
    webhooks = make_webhooks(make_owner())
    rows = [uid for uids in list_ids(webhooks).values() for uid in uids]
    before = read_all()

    for method in METHODS:
        answers = [Api().call(method, re.sub("<.*?>", uid, route), {}) for uid in [str(MISSING), *rows]]
        assert {answer.status for answer in answers} <= {401, 403, 405}
        assert all(answer == answers[0] for answer in answers)

    assert read_all() == before
