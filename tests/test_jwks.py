"""Public keys are found at an address, by whoever verifies with them."""

import base64
import uuid

import jwt
import pytest
import requests
from django.conf import LazySettings
from django.test import Client
from django.urls import reverse
from pytest_django.live_server_helper import LiveServer

from djwebhooks import signing
from djwebhooks.events import fire
from djwebhooks.models import WebhookTarget
from djwebhooks.testing import deliver
from djwebhooks.testing.receiver import Receiver
from djwebhooks.worker import work
from tests.builders import make_target, make_user

pytestmark = pytest.mark.django_db


def address_of(target: WebhookTarget) -> str:
    return reverse("djwebhooks-jwks", args=[target.uid])


@pytest.mark.django_db(transaction=True)
def test_a_receiver_verifies_with_the_key_that_it_fetched(live_server: LiveServer) -> None:
    """Delivered over a real connection, and checked by a library that knows of keys, and nothing of us."""
    with Receiver() as receiver:
        target = make_target(make_user(), url=receiver.url, signatures="v1a")
        fire("a.b", {"x": 1}, owner=target.owner)
        work(burst=True)
        [received] = receiver.requests

    fetched = requests.get(live_server.url + address_of(target), timeout=10).json()
    [key] = jwt.PyJWKSet.from_dict(fetched).keys

    content = f"{received.headers['webhook-id']}.{received.headers['webhook-timestamp']}.".encode() + received.body
    signature = received.headers["webhook-signature"].removeprefix("v1a,")
    key.key.verify(base64.b64decode(signature), content)
    assert key.key_id == target.keys[0].id


def test_the_set_has_each_live_key_and_nothing_that_signs() -> None:
    """The newest first, each with the members of the RFCs and no others."""
    target = make_target()
    ended = target.keyring.newest
    target.rotate_secret(overlap=0)
    target.rotate_secret(overlap=3600)
    response = Client().get(address_of(target))

    keys = target.keyring.keys
    assert response["content-type"] == "application/jwk-set+json"
    assert response.json() == {
        "keys": [signing.as_jwk(key.public_key) | {"kid": key.id, "use": "sig", "alg": "EdDSA"} for key in keys]
    }
    assert {name for key in response.json()["keys"] for name in key} == {"kty", "crv", "x", "kid", "use", "alg"}
    assert len(keys) == 2
    assert ended.id not in response.content.decode()


def test_it_needs_no_login_and_may_be_cached(settings: LazySettings) -> None:
    """Even where a project asks everybody to log in; and what has not changed is not sent again."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    target = make_target()
    first = Client().get(address_of(target))

    assert (first.status_code, first["cache-control"]) == (200, "public, max-age=300")
    again = Client().get(address_of(target), headers={"if-none-match": first["etag"]})
    assert (again.status_code, again.content, again["etag"]) == (304, b"", first["etag"])
    target.rotate_secret()
    changed = Client().get(address_of(target), headers={"if-none-match": first["etag"]})
    assert (changed.status_code, len(changed.json()["keys"])) == (200, 2)


def test_a_hidden_target_is_like_none() -> None:
    """Nobody learns by it which addresses were sent to."""
    hidden, missing = make_target(is_hidden=True), WebhookTarget(uid=uuid.uuid4())
    answers = [Client().get(address_of(target)) for target in (hidden, missing)]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == answers[1].content
    assert answers[0].headers == answers[1].headers


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_it_is_only_read(method: str) -> None:
    """Nothing can be done here but look."""
    assert getattr(Client(), method)(address_of(make_target())).status_code == 405


def test_keys_that_cannot_be_opened_are_not_taken_for_none(settings: LazySettings) -> None:
    """503 and not an empty set: a receiver would throw away the good keys that it has."""
    target = make_target()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another"]
    response = Client().get(address_of(target))

    assert (response.status_code, response.content) == (503, b"")
    assert "cache-control" not in response.headers


def test_a_paused_target_keeps_its_keys() -> None:
    """What was sent before the pause is verified after it."""
    target = make_target(signatures="v1a")
    fire("a.b", 1)
    [request] = deliver()
    target.pause()
    [key] = jwt.PyJWKSet.from_dict(Client().get(address_of(target)).json()).keys

    assert signing.verify(request.body, request.headers, key.key) == 0
