"""An application's tests make requests as senders do, and run handlers without a worker."""

import hashlib
import hmac
import time
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from djwebhooks import signing
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.testing import handle, signed
from tests.inbox.senders import store

pytestmark = pytest.mark.django_db

SHOPIFY = {
    "scheme": "hmac",
    "header": "X-Shopify-Hmac-Sha256",
    "encoding": "base64",
    "id_header": "X-Shopify-Webhook-Id",
    "event_header": "X-Shopify-Topic",
    "secrets": ["a secret"],
}
SOURCES: dict[str, dict[str, Any]] = {
    "standard": {"scheme": "standard", "secrets": [signing.new_secret(), signing.new_secret()]},
    "svix": {"scheme": "standard", "prefix": "svix", "secrets": [signing.new_secret()]},
    "github": {"scheme": "github", "secrets": ["a secret"]},
    "stripe": {"scheme": "stripe", "secrets": ["whsec_a"]},
    "shopify": SHOPIFY,
    "gitlab": {"scheme": "hmac", "header": "X-Signature", "algorithm": "sha512", "prefix": "v0=", "secrets": ["a secret"]},
    "open": {"scheme": "none"},
}


@pytest.fixture(autouse=True)
def sources(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    settings.DJWEBHOOKS_INBOX = {**settings.DJWEBHOOKS_INBOX, **SOURCES}
    caplog.set_level("ERROR")


@pytest.mark.parametrize("source", SOURCES)
def test_every_scheme_takes_what_is_signed_for_it(source: str) -> None:
    """With the source's own secret it is taken in as it is, with another one it is refused."""
    content = {"type": "a.b", "id": "evt_1", "name": "Zoë"}
    other = {"standard": signing.new_secret(), "svix": signing.new_secret()}.get(source, "another secret")

    assert Client().post(**signed(source, content)).status_code == 200
    assert Message.objects.get().json() == content
    assert Client().post(**signed(source, content, secret=other)).status_code == (200 if source == "open" else 401)


def test_a_key_pair_signs_for_a_public_key(settings: LazySettings) -> None:
    """The source knows the public half alone, which cannot sign."""
    pair = signing.new_key_pair()
    settings.DJWEBHOOKS_INBOX = {"standard": {"scheme": "standard", "secrets": [signing.public_key(pair)]}}

    assert Client().post(**signed("standard", {}, secret=pair)).status_code == 200
    with pytest.raises(ValueError, match="cannot sign: use the pair"):
        signed("standard", {})


def test_event_and_id_are_told_where_the_sender_tells_them() -> None:
    """In headers, if it has such; without an id each request has a new one."""
    for message_id in ("", "", "1", "1"):
        assert Client().post(**signed("shopify", {}, event="orders/paid", message_id=message_id)).status_code == 200

    assert {message.event for message in Message.objects.all()} == {"orders/paid"}
    assert Message.objects.count() == 3


@pytest.mark.parametrize(("source", "what"), [("standard", "event"), ("stripe", "event"), ("stripe", "message_id")])
def test_what_has_no_header_is_refused(source: str, what: str) -> None:
    """Else a test would take for told what the sender tells in the body."""
    with pytest.raises(ValueError, match=f"has no header for {what}: put it where the body has it"):
        signed(source, {}, **{what: "x"})


def test_bytes_are_sent_as_they_are() -> None:
    """And are signed as GitHub's documentation has it; further headers go along."""
    request = signed("github", b"Hello, World!", secret="It's a Secret to Everybody", headers={"X-A": "b"})

    assert request["data"] == b"Hello, World!"
    code = hmac.new(b"It's a Secret to Everybody", b"Hello, World!", hashlib.sha256).hexdigest()
    assert request["headers"]["X-Hub-Signature-256"] == f"sha256={code}"
    assert request["headers"]["X-A"] == "b"


@pytest.mark.parametrize("source", ["standard", "stripe"])
def test_an_old_request_can_be_made(source: str) -> None:
    """To see it refused."""
    assert Client().post(**signed(source, {}, now=time.time() - 3600)).status_code == 401


def test_a_source_that_there_is_not(settings: LazySettings) -> None:
    """The error says which there are, and why one cannot work."""
    with pytest.raises(ValueError, match=r"has no source 'gihub': it has 'github', 'shop', 'standard'"):
        signed("gihub", {})
    settings.DJWEBHOOKS_INBOX = {"github": {"scheme": "github", "secrets": []}}
    with pytest.raises(ConfigurationError, match="'secrets' is empty"):
        signed("github", {})
    settings.DJWEBHOOKS_INBOX = {}
    with pytest.raises(ValueError, match="it has none at all"):
        signed("github", {})


def test_handlers_run_inside_the_tests_transaction() -> None:
    """What was due comes back as its handlers have left it."""
    processed = store("order.paid")
    broken = store("order.broken")
    store(status=Status.FAILED)

    handled = handle()

    assert [(message.pk, message.status) for message in handled] == [(processed.pk, "processed"), (broken.pk, "failed")]
    assert "RuntimeError" in handled[1].error
    assert handle() == []
