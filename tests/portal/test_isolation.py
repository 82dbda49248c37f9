"""Nobody sees or changes what is another owner's, by any address or method; and nothing changes that was not asked for."""

import re
from uuid import UUID

import pytest
from django.test import Client

from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, Subscription, WebhookTarget
from djwebhooks.portal.urls import urlpatterns
from tests.api.world import make_owner, make_webhooks
from tests.portal.visitors import KINDS, visit

pytestmark = pytest.mark.django_db

ROUTES = [str(pattern.pattern) for pattern in urlpatterns]
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
FORM = {"url": "https://example.com/taken", "events": "*", "description": "taken"}
MISSING = UUID("01990000-0000-7000-8000-000000000000")
TYPE = "application/x-www-form-urlencoded"


def read_everything() -> list[object]:
    models = (WebhookTarget, Subscription, Event, Body, Delivery, Attempt, Lane, Replay)
    return [list(model.objects.order_by("pk").values()) for model in models]


def call(client: Client, method: str, route: str, uid: object = MISSING) -> tuple[int, bytes]:
    """The status and the body, without the token that each page has anew."""
    answer = client.generic(method, "/portal/" + re.sub("<.*>", str(uid), route), "url=x&events=*", content_type=TYPE)
    return answer.status_code, re.sub(rb'value="\w{64}"', b"", answer.content)


def test_all_addresses_are_known() -> None:
    """Whoever adds an address sees that it is tested here, and that it is named by nothing but a uid."""
    assert sorted(ROUTES) == sorted([
        "",
        "targets/<uuid:webhooks_id>/",
        *(f"targets/<uuid:webhooks_id>/{name}/" for name in ("edit", "delete", "rotate-secret")),
        *(f"targets/<uuid:webhooks_id>/{name}/" for name in ("test", "pause", "resume", "probe")),
        "deliveries/<uuid:webhooks_id>/",
        *(f"deliveries/<uuid:webhooks_id>/{name}/" for name in ("retry", "cancel")),
    ])  # fmt: skip


@pytest.mark.parametrize("route", [route for route in ROUTES if "<" in route])
def test_what_is_not_ones_own_is_like_what_is_missing(route: str) -> None:
    """Another owner's rows, the system's and hidden ones are 404, whatever the method; and nothing changes."""
    me = make_owner("mine")
    mine, theirs, of_system = make_webhooks(me), make_webhooks(make_owner("theirs")), make_webhooks(None)
    client = visit(me)
    everybodys = (mine, theirs, of_system)
    hidden = {"target": [all_.hidden for all_ in everybodys], "delivery": [all_.hidden.deliveries.get() for all_ in everybodys]}
    kind = KINDS[route.partition("<")[0]]
    before = read_everything()

    for method in METHODS:
        absent = call(client, method, route)
        assert absent[0] in ({200} if method == "OPTIONS" else {404, 405})
        for row in (getattr(theirs, kind), getattr(of_system, kind), *hidden[kind]):
            assert call(client, method, route, row.uid) == absent

    assert read_everything() == before


@pytest.mark.parametrize("route", ROUTES)
def test_strangers_log_in_first(route: str) -> None:
    """Whatever they ask for, they are sent to the page for that, and nothing changes."""
    webhooks = make_webhooks(make_owner())
    row = getattr(webhooks, KINDS.get(route.partition("<")[0], "target"))
    before = read_everything()

    for method in METHODS:
        path = "/portal/" + re.sub("<.*>", str(row.uid), route)
        answer = Client().generic(method, path, "url=x&events=*", content_type=TYPE)
        assert (answer.status_code, answer["location"]) == (302, f"/accounts/login/?next={path}")
        assert "no-store" in answer["cache-control"]

    assert read_everything() == before


@pytest.mark.parametrize("route", ROUTES)
def test_only_posts_change_anything(route: str) -> None:
    """Whoever follows links, or has them followed for them, changes nothing."""
    me = make_owner()
    webhooks = make_webhooks(me)
    row = getattr(webhooks, KINDS.get(route.partition("<")[0], "target"))
    before = read_everything()

    statuses = {method: call(visit(me), method, route, row.uid)[0] for method in METHODS if method != "POST"}

    assert statuses["GET"] == statuses["HEAD"]
    assert statuses["GET"] in (200, 405)
    assert read_everything() == before


@pytest.mark.parametrize("route", ROUTES)
def test_other_sites_cannot_post(route: str) -> None:
    """Without the token that the page's form has, nothing is done, whichever middleware the project has."""
    me = make_owner()
    webhooks = make_webhooks(me)
    row = getattr(webhooks, KINDS.get(route.partition("<")[0], "target"))
    before = read_everything()

    answer = visit(me, enforce_csrf_checks=True).post("/portal/" + re.sub("<.*>", str(row.uid), route), FORM)

    assert answer.status_code == 403
    assert read_everything() == before


def test_the_list_has_ones_own_targets_only() -> None:
    """Neither others', nor the system's, nor hidden ones, nor those of any other page."""
    me = make_owner("mine")
    mine = make_webhooks(me)
    others = [make_webhooks(make_owner("theirs")), make_webhooks(None)]

    page = visit(me).get("/portal/").content.decode()

    assert str(mine.target.uid) in page
    assert not [webhooks for webhooks in others if str(webhooks.target.uid) in page]
    assert str(mine.hidden.uid) not in page
