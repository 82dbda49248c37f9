"""Nobody learns of another owner's rows, or changes one, by any address, method, body or filter."""

import re
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from djwebhooks.api.urls import urlpatterns
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subscription, WebhookTarget
from djwebhooks.models.deliveries import Status
from tests.api.world import URL, Api, Webhooks, make_owner, make_publisher, make_target, make_webhooks

pytestmark = pytest.mark.django_db

BODIES = (None, {"x": 1}, [], {"target_url": URL + "/taken", "events": ["*"]}, {"dry_run": True})
REQUESTS = [
    *((method, None) for method in ("GET", "HEAD", "DELETE", "OPTIONS", "TRACE")),
    *((method, body) for method in ("POST", "PUT", "PATCH") for body in BODIES),
]
MISSING = UUID("01990000-0000-7000-8000-000000000000")
ROUTES = [str(pattern.pattern) for pattern in urlpatterns]
#: Numbers that tell of nothing but the row itself.
INTEGERS = {
    *("sequence", "attempt_count", "failure_count", "number", "status_code", "concurrency_limit", "count", "coalesced_count"),
    *("lookup_ms", "connect_ms", "tls_ms", "first_byte_ms", "duration_ms"),
    *Status.values,
}


def list_ids(webhooks: Webhooks) -> dict[str, list[str]]:
    """The ids that each kind of address can have for these rows, the hidden target's included."""
    return {
        "targets": [str(webhooks.target.uid), str(webhooks.hidden.uid)],
        "events": [str(webhooks.event.uid), str(webhooks.published.uid)],
        "deliveries": [str(webhooks.delivery.uid)],
        "attempts": [f"{webhooks.delivery.uid}-1"],
        "hooks": [f"{webhooks.target.uid}-project.*"],
        "replays": [str(uid) for uid in Replay.objects.of_owner(webhooks.target.owner).values_list("uid", flat=True)],
    }


def read_everything() -> list[list[dict[str, Any]]]:
    models = (WebhookTarget, Subscription, Event, Body, Delivery, Attempt, Lane, Replay)
    return [list(model.objects.order_by("pk").values()) for model in models]


def list_texts(data: object, key: str = "") -> Iterator[tuple[str, object]]:
    """Every single value in *data* with its key."""
    if isinstance(data, dict):
        for name, value in data.items():
            yield from list_texts(value, name)
    elif isinstance(data, list):
        for value in data:
            yield from list_texts(value, key)
    else:
        yield key, data


def test_all_addresses_are_known() -> None:
    """Whoever adds an address sees that it is tested here."""
    assert sorted(ROUTES) == sorted([
        "targets/",
        "targets/<str:webhooks_id>/",
        *(f"targets/<str:webhooks_id>/{name}/" for name in ("test", "rotate-secret", "check-keys", "finish-rotation")),
        *(f"targets/<str:webhooks_id>/{name}/" for name in ("pause", "resume", "probe", "replay")),
        "events/",
        "events/<str:webhooks_id>/",
        "deliveries/",
        "deliveries/<str:webhooks_id>/",
        "deliveries/<str:webhooks_id>/retry/",
        "deliveries/<str:webhooks_id>/cancel/",
        "attempts/",
        "attempts/<str:webhooks_id>/",
        "replays/",
        "replays/<str:webhooks_id>/",
        "replays/<str:webhooks_id>/cancel/",
        "event-types/",
        "hooks/",
        "hooks/<str:webhooks_id>/",
        "hooks/samples/",
        "feed/",
    ])  # fmt: skip


@pytest.mark.parametrize("route", [route for route in ROUTES if "<" in route])
def test_a_foreign_row_is_like_a_missing_one(route: str) -> None:
    """Same status, same body and same headers, whatever the method and the body; and nothing changes."""
    theirs, of_system = make_webhooks(make_owner("theirs")), make_webhooks(None)
    api = Api(make_publisher("mine"))
    kind = route.split("/")[0]
    missing = str(MISSING) + {"attempts": "-1", "hooks": "-project.*"}.get(kind, "")
    before = read_everything()

    for method, body in REQUESTS:
        absent = api.call(method, re.sub("<.*>", missing, route), body)
        assert absent.status in (404, 405)
        for row in [*list_ids(theirs)[kind], *list_ids(of_system)[kind]]:
            foreign = api.call(method, re.sub("<.*>", row, route), body)
            assert foreign == absent
            assert foreign.headers == absent.headers

    assert read_everything() == before


@pytest.mark.parametrize("of_system", [False, True], ids=["other", "system"])
@pytest.mark.parametrize("route", [route for route in ROUTES if "<" not in route])
def test_lists_have_ones_own_rows_only(route: str, of_system: bool) -> None:
    """No list shows another's row, nor does a filter by one differ from a filter by nothing."""
    theirs = make_webhooks(None if of_system else make_owner("theirs"))
    mine = make_owner("mine")
    make_target(mine, "own.thing")
    api = Api(mine)

    text = str(api.get(route).data)

    for rows in list_ids(theirs).values():
        for row in rows:
            assert row not in text
            for name in ("target", "event", "delivery", "id", "uid", "owner"):
                foreign, absent = (api.get(f"{route}?{name}={uid}") for uid in (row[:36], MISSING))
                assert str(foreign.data).replace(row[:36], "") == str(absent.data).replace(str(MISSING), "")
                assert foreign.status == absent.status


def test_registering_takes_nobodys_target() -> None:
    """An address that another owner has, or the system, becomes a new target with a secret of its own."""
    theirs, ours = make_target(make_owner("theirs")), make_target(None)

    answer = Api(make_owner("mine")).post("targets/", {"target_url": URL, "events": ["*"]})

    assert answer.status == 201
    assert answer.data["secret"] not in (theirs.secret, ours.secret)
    assert WebhookTarget.objects.filter(owner=None).count() == 1


def test_no_integers_leak() -> None:
    """No primary key is in any answer, as a number or as a text, nor any name for the owner."""
    for name in ("a", "b", "c"):
        owner = make_owner(name)
        webhooks = make_webhooks(owner)
    api = Api(owner)

    for kind, rows in list_ids(webhooks).items():
        answers = [api.get(f"{kind}/"), api.get(f"{kind}/{rows[0]}/")]
        for key, value in list_texts([answer.data for answer in answers]):
            assert not isinstance(value, int) or isinstance(value, bool) or key in INTEGERS
            assert not (isinstance(value, str) and value.isdigit())
        assert "owner" not in answers[1].data
