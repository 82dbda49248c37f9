"""Schemes take what real senders send, and nothing else."""

import hashlib
import hmac
import json
from base64 import b64encode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from djwebhooks.exceptions import InvalidSignature
from djwebhooks.inbox.schemes import SCHEMES, Hmac, Scheme, Standard, Stripe, Unsigned, read_json

STANDARD, GITHUB, STRIPE = SCHEMES["standard"], SCHEMES["github"], SCHEMES["stripe"]
KEY, OTHER_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
PUBLIC_KEY = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
NOW = 1614265330
BODY = b'{"test": 2432232314}'
V1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
V1A = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def sign_github(body: bytes, event: str, message_id: str, secret: str) -> dict[str, str]:
    code = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={code}", "X-GitHub-Event": event, "X-GitHub-Delivery": message_id}


def sign_stripe(body: bytes, secret: str, now: int) -> dict[str, str]:
    """As Stripe's documentation has it: the signed text is the time, a dot and the body."""
    code = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={now},v1={code},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"}


def lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def accepts(scheme: Scheme, body: bytes, headers: dict[str, str], *secrets: str, now: float = NOW) -> bool:
    try:
        scheme.verify(body, lower(headers), secrets, now)
    except InvalidSignature:
        return False
    return True


def standard_headers(signature: str = V1, prefix: str = "webhook") -> dict[str, str]:
    parts = {"id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "timestamp": str(NOW), "signature": signature}
    return {f"{prefix}-{name}": value for name, value in parts.items()}


# -- Standard Webhooks -------------------------------------------------------------------------------------------------


def test_standard_webhooks_vectors() -> None:
    """The published signatures of both versions are right for their keys, and for no others."""
    assert accepts(STANDARD, BODY, standard_headers(V1), KEY)
    assert accepts(STANDARD, BODY, standard_headers(V1A), PUBLIC_KEY)
    assert accepts(STANDARD, BODY, standard_headers(f"v1,bm8= {V1A}"), OTHER_KEY, PUBLIC_KEY)
    assert not accepts(STANDARD, BODY, standard_headers(V1), OTHER_KEY)
    assert not accepts(STANDARD, BODY + b" ", standard_headers(V1), KEY)
    assert not accepts(STANDARD, BODY, standard_headers(V1A), KEY)


def test_standard_webhooks_are_taken_while_they_are_fresh() -> None:
    """The tolerance counts in both directions and can be set."""
    assert accepts(STANDARD, BODY, standard_headers(), KEY, now=NOW + 299)
    assert not accepts(STANDARD, BODY, standard_headers(), KEY, now=NOW + 301)
    assert not accepts(STANDARD, BODY, standard_headers(), KEY, now=NOW - 301)
    assert accepts(Standard(tolerance=3600), BODY, standard_headers(), KEY, now=NOW + 301)


def test_what_the_reference_library_signs_is_taken() -> None:
    """A sender with the standardwebhooks package needs nothing else."""
    body = '{"type":"a.b","timestamp":"2026-09-21T14:13:20Z","data":"Zoë ☃"}'
    signature = Webhook(KEY).sign("an-id", datetime.fromtimestamp(NOW, UTC), body)
    headers = {"webhook-id": "an-id", "webhook-timestamp": str(NOW), "webhook-signature": signature}

    assert accepts(STANDARD, body.encode(), headers, OTHER_KEY, KEY)
    assert STANDARD.read_id(headers, body.encode()) == "an-id"
    assert STANDARD.read_event(headers, body.encode()) == "a.b"


def test_headers_may_have_another_prefix() -> None:
    """Svix's own are called svix-…."""
    svix = Standard(prefix="svix")

    assert accepts(svix, BODY, standard_headers(prefix="svix"), KEY)
    assert not accepts(svix, BODY, standard_headers(), KEY)
    assert svix.read_id(standard_headers(prefix="svix"), BODY) == "msg_p5jXN8AQM9LWM0D4loKWxJek"
    with pytest.raises(InvalidSignature, match="svix-id is missing"):
        svix.verify(BODY, standard_headers(), [KEY], NOW)


# -- GitHub, and plain HMACs -------------------------------------------------------------------------------------------


def test_githubs_own_example() -> None:
    """The values that GitHub's documentation gives for testing."""
    headers = {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}

    assert accepts(GITHUB, b"Hello, World!", headers, "another one", "It's a Secret to Everybody")
    assert not accepts(GITHUB, b"Hello, World?", headers, "It's a Secret to Everybody")
    assert not accepts(GITHUB, b"Hello, World!", headers, "another one")


def test_github_names_message_and_event_in_headers() -> None:
    """Nothing of the body is looked at for them."""
    headers = lower(sign_github(b"not JSON", "push", "72d3162e", "a secret"))

    assert (GITHUB.read_id(headers, b"not JSON"), GITHUB.read_event(headers, b"not JSON")) == ("72d3162e", "push")
    assert GITHUB.read_told_event(headers) == "push"
    assert GITHUB.ping == "ping"


def test_an_hmac_can_be_written_in_other_ways() -> None:
    """Shopify's is in base64 and without a prefix; others have other algorithms, or capitals."""
    shopify = Hmac(header="X-Shopify-Hmac-Sha256", encoding="base64", id_header="X-Shopify-Webhook-Id")
    loud = Hmac(header="X-Signature", algorithm="sha512", prefix="sig ")
    digest = hmac.new(b"key", b"body", hashlib.sha512).hexdigest().upper()

    assert accepts(shopify, b"body", {"X-Shopify-Hmac-Sha256": base64_of(b"key", b"body")}, "key")
    assert not accepts(shopify, b"body", {"X-Shopify-Hmac-Sha256": base64_of(b"other", b"body")}, "key")
    assert shopify.read_id({"x-shopify-webhook-id": " 7 "}, b"") == "7"
    assert accepts(loud, b"body", {"X-Signature": f"sig {digest}"}, "key")
    assert not accepts(loud, b"body", {"X-Signature": digest}, "key")


def base64_of(key: bytes, body: bytes) -> str:
    return b64encode(hmac.new(key, body, hashlib.sha256).digest()).decode()


# -- Stripe ------------------------------------------------------------------------------------------------------------


def test_stripes_formula() -> None:
    """Any of several signatures by any of several secrets will do, as long as its time is near."""
    headers = sign_stripe(BODY, "whsec_new", NOW)
    both = {"Stripe-Signature": headers["Stripe-Signature"] + ",v1=" + "0" * 64}

    assert accepts(STRIPE, BODY, headers, "whsec_old", "whsec_new")
    assert accepts(STRIPE, BODY, both, "whsec_new", now=NOW + 299)
    assert not accepts(STRIPE, BODY, headers, "whsec_new", now=NOW + 301)
    assert not accepts(STRIPE, BODY, headers, "whsec_old")
    for old, new in (("v1=", "v0="), (f"t={NOW}", f"t={NOW + 1}"), (f"t={NOW},", "")):
        changed = {"Stripe-Signature": headers["Stripe-Signature"].replace(old, new)}
        assert not accepts(STRIPE, BODY, changed, "whsec_new")


def test_stripe_names_message_and_event_in_the_body() -> None:
    """A redelivered event has the id that it had."""
    body = b'{"id": "evt_1", "object": "event", "type": "invoice.paid"}'

    assert (STRIPE.read_id({}, body), STRIPE.read_event({}, body)) == ("evt_1", "invoice.paid")
    assert (STRIPE.read_id({}, b"[1]"), STRIPE.read_event({}, b"{")) == ("", "")


# -- all of them -------------------------------------------------------------------------------------------------------

VALUES = st.text(st.characters(codec="latin-1", exclude_characters="\n\r\0"), max_size=80)
SIGNED = {
    "standard": [*standard_headers()],
    "github": ["x-hub-signature-256"],
    "stripe": ["stripe-signature"],
}


@pytest.mark.parametrize("name", SIGNED)
@given(data=st.data())
def test_nothing_else_is_taken(name: str, data: st.DataObject) -> None:
    """Whatever stands in the headers and in the body, it is refused, and no other error is raised."""
    likely = st.sampled_from([str(NOW), f"t={NOW}", f"t={NOW},v1=", f"t={NOW},v1=0", "v1,", "v1a,AA==", "sha256=", "=", ","])
    value = st.one_of(VALUES, likely, st.lists(likely, max_size=5).map(",".join), st.lists(likely, max_size=5).map(" ".join))
    headers = {header: data.draw(value) for header in SIGNED[name] if data.draw(st.booleans())}

    assert not accepts(SCHEMES[name], data.draw(st.binary(max_size=50)), headers, KEY)


@given(body=st.binary(max_size=200), secrets=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=3), data=st.data())
def test_what_is_signed_with_any_live_secret_is_taken(body: bytes, secrets: list[str], data: st.DataObject) -> None:
    """Whatever the body is, down to the last byte."""
    secrets = [secret.encode(errors="replace").decode() for secret in secrets]
    secret = data.draw(st.sampled_from(secrets))

    for scheme, headers in ((GITHUB, sign_github(body, "push", "1", secret)), (STRIPE, sign_stripe(body, secret, NOW))):
        assert accepts(scheme, body, headers, *secrets)
        assert not accepts(scheme, body + b"\n", headers, *secrets)


@given(
    st.one_of(
        st.binary(max_size=100), st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps).map(str.encode)
    )
)
def test_any_body_can_be_looked_into(body: bytes) -> None:
    """What is no JSON object with the right texts has neither id nor event."""
    assert isinstance(STRIPE.read_id({}, body), str)
    assert isinstance(STANDARD.read_event({}, body), str)


def test_too_deep_json_is_an_error_of_its_own() -> None:
    """It would otherwise look like a fault of ours."""
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(b"[" * 200_000)


def test_flat_bodies_name_their_event() -> None:
    """djwebhooks' own flat envelope has it under another name."""
    assert STANDARD.read_event({}, b'{"event": "a.b", "title": "x"}') == "a.b"


def test_the_field_of_the_event_can_be_said() -> None:
    """No other is looked at then."""
    scheme = Hmac(header="x-signature", event_field="topic")

    assert scheme.read_event({}, b'{"type": "book", "topic": "a.b"}') == "a.b"
    assert scheme.read_event({}, b'{"type": "book", "topic": 1}') == ""
    assert scheme.read_told_event({"topic": "a.b"}) == ""


def test_what_is_not_signed_is_taken() -> None:
    """The scheme none verifies nothing; what it tells of the message can be said."""
    scheme = Unsigned(id_header="ce-id", event_header="ce-type")

    assert accepts(scheme, b"", {})
    assert scheme.read_id({"ce-id": "1"}, b"") == "1"
    assert Unsigned().read_id({}, b'{"id": "1"}') == ""


def test_too_many_entries_are_not_compared() -> None:
    """Each would cost time."""
    with pytest.raises(InvalidSignature, match="101 entries"):
        Stripe().verify(b"", {"stripe-signature": ",".join(["v1=0"] * 101)}, ["whsec_x"], NOW)
