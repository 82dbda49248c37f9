"""Receivers that let only those in who authenticate, each as a real server: what reaches them, and what becomes of the rest."""

import base64
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from django.test import override_settings

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Lane, WebhookTarget
from djwebhooks.testing import deliver
from djwebhooks.testing.receiver import Conversation, Receiver
from djwebhooks.transports.base import Transport
from djwebhooks.transports.requests import RequestsTransport
from djwebhooks.worker import work
from tests.builders import make_target
from tests.keys import make_certificate, make_key, make_strict_context, public_half
from tests.test_secrets import Watch
from tests.transports.exchanges import lookup

SECRET = "hunter2-is-not-shown"
BASIC = {"type": "basic", "username": "ada", "password": SECRET}

pytestmark = pytest.mark.django_db


class Guard:
    """A receiver's script that answers 401 with a challenge unless *knows* accepts the header Authorization."""

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self.knows = knows

    def __call__(self, conversation: Conversation) -> None:
        is_known = self.knows(conversation.request.headers.get("authorization", ""))
        conversation.answer(200 if is_known else 401, b"", www_authenticate='Basic realm="x", Bearer, Digest nonce="1"')


def send(count: int = 1, transport: Transport | None = None) -> None:
    """Fire events and work until nothing is due."""
    for number in range(count):
        fire("a.b", {"number": number})
    work(burst=True, transport=transport or RequestsTransport(concurrency=8), threaded=False)


def outcomes() -> list[tuple[str, str]]:
    return list(Delivery.objects.order_by("sequence").values_list("status", "reason"))


# -- what the receiver knows -------------------------------------------------------------------------------------------


def test_basic() -> None:
    """The receiver gets user name and password."""
    expected = "Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode()
    with Receiver(Guard(expected.__eq__)) as receiver:
        make_target(url=receiver.url, authentication=BASIC)
        send()

    assert outcomes() == [("succeeded", "")]


def test_bearer() -> None:
    """The receiver gets the token."""
    with Receiver(Guard(f"Bearer {SECRET}".__eq__)) as receiver:
        make_target(url=receiver.url, authentication={"type": "bearer", "token": SECRET})
        send()

    assert outcomes() == [("succeeded", "")]


def test_jwt() -> None:
    """The receiver verifies a token of each request with the public key and its own URL; each is used once."""
    key = make_key("Ed25519")
    seen: list[dict[str, Any]] = []

    def knows(value: str) -> bool:
        seen.append(jwt.decode(value.removeprefix("Bearer "), public_half(key), algorithms=["EdDSA"], audience=receiver.url))
        return True

    with Receiver(Guard(knows)) as receiver:
        make_target(url=receiver.url, authentication={"type": "jwt", "key": key, "algorithm": "EdDSA", "issuer": "us"})
        send(3)

    assert outcomes() == [("succeeded", "")] * 3
    assert len({claims["jti"] for claims in seen}) == 3
    assert {claims["iss"] for claims in seen} == {"us"}


def test_the_authentication_replaces_a_header_of_that_name() -> None:
    """A target that was saved unchecked with both sends one Authorization."""
    with Receiver(Guard(f"Bearer {SECRET}".__eq__)) as receiver:
        make_target(url=receiver.url, headers={"AUTHORIZATION": "x"}, authentication={"type": "bearer", "token": SECRET})
        send()

    assert outcomes() == [("succeeded", "")]


def test_a_challenge_changes_nothing() -> None:
    """Whatever a 401 asks for, the next attempt sends what the first did, and it is a failure like any other."""
    with Receiver(Guard(lambda value: False)) as receiver:
        make_target(url=receiver.url, authentication=BASIC, retry_schedule=[0, 0])
        make_target(url=receiver.url + "/none", retry_schedule=[0, 0])
        send()

    by_path: dict[str, set[str | None]] = {}
    for received in receiver.requests:
        by_path.setdefault(received.path, set()).add(received.headers.get("authorization"))
    assert [len(values) for values in by_path.values()] == [1, 1]
    assert by_path["/hook/none"] == {None}
    assert outcomes() == [("failed", "schedule_exhausted")] * 2


# -- mutual TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def transport(authority: trustme.CA, tmp_path: Path) -> Iterator[RequestsTransport]:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    made = RequestsTransport(concurrency=4, ca_bundle=str(bundle), getaddrinfo=lookup(["127.0.0.1"]))
    yield made
    made.close()


def test_a_client_certificate(authority: trustme.CA, transport: RequestsTransport) -> None:
    """A receiver that wants a certificate lets the target in that has one, and no other."""
    with Receiver(tls=make_strict_context(authority, "receiver.example")) as receiver:
        url = receiver.url_for("receiver.example")
        known = make_target(url=url, client_certificate=make_certificate(authority), retry_schedule=[])
        make_target(url=url + "/none", retry_schedule=[])
        make_target(url=url + "/wrong", client_certificate=make_certificate(trustme.CA()), retry_schedule=[])
        send(transport=transport)

    assert [received.path for received in receiver.requests] == ["/hook"]
    assert Delivery.objects.get(status="succeeded").target == known
    assert sorted(Attempt.objects.values_list("error", flat=True)) == ["", "tls_error", "tls_error"]


# -- what cannot be sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["headers", "authentication", "client_certificate"])
def test_a_lost_key_holds_the_lane(field: str) -> None:
    """What no key opens is our own fault: nothing is sent without it, counted or lost."""
    make_target()
    with override_settings(SECRET_KEY="a key of another time, long enough that no check complains about it"):
        WebhookTarget.objects.update(**{field: {"type": "bearer", "token": SECRET} if field == "authentication" else {"a": "b"}})
    fire("a.b", 1)

    assert deliver() == []
    assert outcomes() == [("pending", "undecryptable_secret")]
    assert Lane.objects.get().failure_count == 0


@pytest.mark.parametrize("told", [{"type": "magic", "token": SECRET}, {"type": "jwt", "algorithm": "ES256", "key": SECRET}])
def test_what_was_saved_unchecked_holds_the_lane(told: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """An authentication that cannot work is said, in the delivery and in the log, without what is secret of it."""
    target = make_target(authentication=told)
    fire("a.b", 1)

    assert deliver() == []
    assert outcomes() == [("pending", "invalid_authentication")]
    assert f"target={target.uid} cannot be sent to" in caplog.text
    assert SECRET not in caplog.text


# -- nothing secret is left behind -------------------------------------------------------------------------------------


def test_secrets_are_in_the_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Neither an attempt, nor the log, nor a request's repr has them, while the receiver got them."""
    caplog.set_level(logging.DEBUG)
    certificate = make_certificate(trustme.CA())
    make_target(authentication=BASIC, client_certificate=certificate)
    fire("a.b", 1)
    [request] = deliver(500)
    shown = f"{caplog.text} {list(Attempt.objects.values())} {list(WebhookTarget.objects.values())} {request!r}"

    assert SECRET in base64.b64decode(request.headers["authorization"][6:]).decode()
    assert request.client_certificate == certificate
    assert not [secret for secret in (SECRET, request.headers["authorization"], certificate[100:150]) if secret in shown]


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA", "RS256"])
def test_no_variable_shows_a_private_key(authority: trustme.CA, transport: RequestsTransport, algorithm: str) -> None:
    """Neither that of a JWT nor that of a client certificate, from their being set to their use."""
    key = make_key({"ES256": "P-256", "EdDSA": "Ed25519", "RS256": "2048"}[algorithm])
    certificate = make_certificate(authority)
    with Receiver(tls=make_strict_context(authority, "receiver.example")) as receiver:
        target = make_target(url=receiver.url_for("receiver.example"))
        with Watch(key.splitlines()[1], certificate.splitlines()[1]) as watch:
            target.authentication = {"type": "jwt", "algorithm": algorithm, "key": key}
            target.client_certificate = certificate
            target.full_clean(exclude=["digest"])
            target.save()
            send(transport=transport)

    assert outcomes() == [("succeeded", "")]
    assert watch.lines > 1000
    assert watch.found == set()
