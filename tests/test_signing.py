"""The rules of djwebhooks.signing."""

import base64
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from djwebhooks.exceptions import ConfigurationError, InvalidSignature
from djwebhooks.signing import (
    MOST_ENTRIES,
    TOLERANCE,
    check_versions,
    key,
    new_key_pair,
    new_secret,
    public_key,
    read_signer,
    read_verifier,
    sign,
    sign_all,
    thumbprint,
    verify,
)

ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330
BODY = b'{"test": 2432232314}'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
OTHER_SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PAIR = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
PAIR_SIGNATURE = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
OTHER_PUBLIC = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="

#: Key pair, its public half, its signature of ID, AT and BODY: Svix's, and one whose seed is the bytes 0 to 31.
V1A_VECTORS = [
    (PAIR, PUBLIC, PAIR_SIGNATURE),
    (
        "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==",
        OTHER_PUBLIC,
        "v1a,yoUrgEkc12aGqm0n4Sydmdz55xJfTz4AsAgieHFjmkR7LJtqVCZOQYzvvHjI5kAey+r4iaBGxTFRrl2iBQxtDQ==",
    ),
]

#: Secret, message id, timestamp, body, signature: the standard's libraries' and some with keys of 24, 32 and 64 bytes.
VECTORS = [
    (SECRET, ID, AT, BODY, SIGNATURE),
    (
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
    ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX", ID, AT, BODY, "v1,/485aUtxlie+TIScVpHggMfqOB4so2KWb7+Gf727B44="),
    (OTHER_SECRET, ID, AT, BODY, "v1,O4Gjv1HqPqsMrjmczoggs/sWA8gZD0VyHG+fLh4+ktI="),
    (
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==",
        ID,
        AT,
        BODY,
        "v1,LZ5zuwHTqQH3VM8ERUusjzVQq1FXzemvpR8Mk7Ivp5c=",
    ),
    (SECRET, ID, AT, '{"name":"Zoë ☃"}'.encode(), "v1,fxIoYCaz805IVmdncaJkBJZbXQ4e53xyvLXsMd6ezPA="),
]


def headers(signature: str = SIGNATURE, **overrides: str) -> dict[str, str]:
    return {"webhook-id": ID, "webhook-timestamp": str(AT), "webhook-signature": signature} | overrides


def reason_for(given_headers: dict[str, str], body: bytes = BODY, now: float = AT, keys: str | list[str | bytes] = SECRET) -> str:
    with pytest.raises(InvalidSignature) as caught:
        verify(body, given_headers, keys, now=now)
    return str(caught.value)


@pytest.mark.parametrize(("secret", "message_id", "timestamp", "body", "signature"), VECTORS)
def test_vectors(secret: str, message_id: str, timestamp: int, body: bytes, signature: str) -> None:
    """The published signatures come out, and are accepted."""
    assert sign(secret, message_id, timestamp, body) == signature
    received = {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    verify(body, received, secret, now=timestamp)


@pytest.mark.parametrize(("pair", "public", "signature"), V1A_VECTORS)
def test_v1a_vectors(pair: str, public: str, signature: str) -> None:
    """The published Ed25519 signatures come out, and are accepted with the public half."""
    assert public_key(pair) == public
    assert sign(pair, ID, AT, BODY) == sign(read_signer(pair), ID, AT, BODY) == signature
    for verifier in (public, read_verifier(public)):
        assert verify(BODY, headers(signature), verifier, now=AT) == 0


@pytest.mark.parametrize(("secret", "message_id", "timestamp", "body", "signature"), VECTORS)
def test_the_reference_library_makes_the_same(secret: str, message_id: str, timestamp: int, body: bytes, signature: str) -> None:
    """standardwebhooks signs alike, given the time in UTC."""
    assert Webhook(secret).sign(message_id, datetime.fromtimestamp(timestamp, UTC), body.decode()) == signature


def test_the_reference_library_signs_another_second_outside_utc() -> None:
    """Its sign() overwrites the zone, so tests that compare with it have to pass UTC."""
    moment = datetime.fromtimestamp(AT, timezone(timedelta(hours=2)))
    assert Webhook(SECRET).sign(ID, moment, BODY.decode()) == sign(SECRET, ID, AT + 7200, BODY)


@given(st.text())
def test_the_reference_library_verifies_ours(text: str) -> None:
    """A receiver with standardwebhooks accepts what we send: with one secret, while two are in use, and beside v1a."""
    secret, now, body = new_secret(), int(time.time()), text.encode("utf-8", "replace")
    for secrets in ([secret], [secret, OTHER_SECRET], [OTHER_SECRET, secret], [PAIR, secret], [secret, PAIR]):
        received = headers(sign_all(secrets, ID, now, body), **{"webhook-timestamp": str(now)})
        Webhook(secret).verify(body, received, json_parse=False)
        verify(body, received, secret)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body + b" ", received, json_parse=False)


def test_several_signatures_are_separated_by_single_spaces() -> None:
    """Receivers split at one space and stumble over more."""
    assert sign_all([SECRET, OTHER_SECRET], ID, AT, BODY) == f"{SIGNATURE} {sign(OTHER_SECRET, ID, AT, BODY)}"


def test_a_prepared_key_signs_the_same() -> None:
    """In a loop the secret is decoded once."""
    assert sign(key(SECRET), ID, AT, BODY) == SIGNATURE


def test_ids_with_dots_are_not_signed() -> None:
    """The signed text would be that of another id and timestamp as well."""
    with pytest.raises(ValueError, match="dot"):
        sign(SECRET, "msg.1", AT, BODY)


def test_new_secrets_have_32_random_bytes() -> None:
    """A new secret is of the size the standard allows, and never the same."""
    assert new_secret().startswith("whsec_")
    assert len(key(new_secret())) == 32
    assert new_secret() != new_secret()


def test_new_key_pairs_are_random_and_complete() -> None:
    """The public half belongs to the other one, which read_signer sees to."""
    pair, other = new_key_pair(), new_key_pair()

    assert pair.startswith("whsk_")
    assert public_key(pair).startswith("whpk_")
    assert public_key(pair) != public_key(other)
    assert verify(BODY, headers(sign(pair, ID, AT, BODY)), public_key(pair), now=AT) == 0


def test_a_thumbprint_is_that_of_the_standard() -> None:
    """The example of RFC 8037 (A.3): a name for a public key that everybody comes to alone."""
    example = base64.b64encode(base64.urlsafe_b64decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo=")).decode()

    assert thumbprint(f"whpk_{example}") == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@given(st.binary(min_size=24, max_size=64))
def test_a_secret_is_accepted_with_and_without_prefix_and_padding(secret: bytes) -> None:
    """Senders and receivers copy secrets in each of these shapes."""
    text = base64.b64encode(secret).decode()
    for shape in (text, text.rstrip("="), f"whsec_{text}", f"whsec_{text.rstrip('=')}"):
        assert key(shape) == secret


@pytest.mark.parametrize(
    ("secret", "word"),
    [
        ("", "bytes"),
        ("whsec_", "bytes"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "23"),
        (base64.b64encode(bytes(65)).decode(), "65"),
        ("whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whsk_"),
        ("whpk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "whpk_"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa_-", "characters"),
        (" " + SECRET, "characters"),
        (SECRET + "\n", "characters"),
        (SECRET + "A", "missing"),
        ("whsec_☃", "characters"),
    ],
)
def test_what_is_no_secret_is_refused_without_showing_it(secret: str, word: str) -> None:
    """Short, long and foreign keys are refused, and the error does not give them away."""
    with pytest.raises(ValueError, match=word) as caught:
        key(secret)
    assert secret.strip()[6:] not in str(caught.value) or not secret.strip()[6:]


MIXED_PAIR = f"whsk_{base64.b64encode(bytes(range(32)) + bytes(32)).decode()}"


@pytest.mark.parametrize(
    ("read", "text", "word"),
    [
        (read_signer, PUBLIC, "cannot sign"),
        (read_signer, "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "64 bytes in base64; this one has 32"),
        (read_signer, MIXED_PAIR, "do not belong together"),
        (read_signer, "whsk_" + "-" * 88, "other characters"),
        (read_verifier, PAIR, "which only the sender has"),
        (read_verifier, "whpk_AAECA", "missing or too many"),
        (read_verifier, "whpk_AAEC", "32 bytes in base64; this one has 3"),
        (read_verifier, "whpk_", "this one has 0"),
    ],
)
def test_what_is_no_ed25519_key_is_refused_without_showing_it(read: Any, text: str, word: str) -> None:
    """Halves, foreign halves and other texts are refused: a pair's public half is never believed by itself."""
    with pytest.raises(ValueError, match=word) as caught:
        read(text)

    assert text[5:] not in str(caught.value) or not text[5:]


@given(st.binary(max_size=80), st.sampled_from(["whsec_", "whsk_", "whpk_", ""]))
def test_a_key_of_one_version_is_never_one_of_the_other(content: bytes, prefix: str) -> None:
    """The prefix decides: what marks an Ed25519 key is no HMAC secret, and the other way round."""
    text = prefix + base64.b64encode(content).decode()
    is_secret = prefix in ("whsec_", "") and 24 <= len(content) <= 64
    for read in (key, read_signer, read_verifier):
        try:
            found = read(text)
        except ValueError:
            assert not is_secret
        else:
            assert (found == content) == isinstance(found, bytes) == is_secret


def test_headers_may_be_in_any_case() -> None:
    """HTTP's header names have no case."""
    verify(BODY, {name.title(): value for name, value in headers().items()}, SECRET, now=AT)


def test_one_good_secret_and_one_good_entry_suffice() -> None:
    """While a secret is replaced there are two on either side; versions that are not known are skipped."""
    good = f"v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,{SIGNATURE[3:]} v1a,AAAA nonsense {SIGNATURE}"
    verify(BODY, headers(good), SECRET, now=AT)
    verify(BODY, headers(), [OTHER_SECRET, key(SECRET)], now=AT)


def test_a_receiver_learns_which_of_its_keys_fits() -> None:
    """The first that does, in the receiver's own order: by it a rotation can be watched from there."""
    both = headers(f"{PAIR_SIGNATURE} {SIGNATURE}")

    assert verify(BODY, both, [OTHER_SECRET, SECRET], now=AT) == 1
    assert verify(BODY, both, [OTHER_PUBLIC, OTHER_SECRET, PUBLIC, SECRET], now=AT) == 2
    assert verify(BODY, both, iter([SECRET, PUBLIC]), now=AT) == 0
    assert verify(BODY, headers(), [PUBLIC, SECRET], now=AT) == 1
    assert verify(BODY, headers(PAIR_SIGNATURE), [SECRET, PUBLIC], now=AT) == 1


def test_a_key_of_the_other_version_is_asked_for() -> None:
    """A receiver with only a secret, or only a public key, is told what it lacks."""
    assert "signed with v1a alone, and there is no public key (whpk_…)" in reason_for(headers(PAIR_SIGNATURE))
    assert "signed with v1 alone, and there is no secret (whsec_…)" in reason_for(headers(), keys=PUBLIC)


@pytest.mark.parametrize(
    "signature",
    [
        PAIR_SIGNATURE.replace("v1a,h", "v1a,i"),
        "v1a," + SIGNATURE[3:],
        "v1a,",
        "v1a,☃",
        PAIR_SIGNATURE[:-1],
        PAIR_SIGNATURE + "=",
        PAIR_SIGNATURE.replace("/", "_"),
        PAIR_SIGNATURE.replace("v1a", "v1"),
    ],
)
def test_wrong_v1a_signatures(signature: str) -> None:
    """One wrong character, another version's signature or another alphabet is a mismatch."""
    assert "No signature matches" in reason_for(headers(signature), keys=[PUBLIC, SECRET])


def test_a_header_without_end_is_not_checked() -> None:
    """Each entry costs a comparison, and whoever sends them need not be known."""
    some = [PAIR_SIGNATURE] * MOST_ENTRIES
    assert verify(BODY, headers(" ".join(some)), PUBLIC, now=AT) == 0
    assert "malformed: it has 101 entries" in reason_for(headers(" ".join([*some, "v1a,"])), keys=PUBLIC)


entries = st.one_of(
    st.text(),
    st.sampled_from([SIGNATURE, PAIR_SIGNATURE, "v1,", "v1a,", "v1", "v1a", ",", "v2,x"]),
    st.binary(max_size=80).map(lambda content: "v1a," + base64.b64encode(content).decode()),
)


@given(st.text(), st.one_of(st.text(), st.just(str(AT))), st.lists(entries).map(" ".join))
def test_whatever_arrives_is_right_or_an_invalid_signature(message_id: str, timestamp: str, signature: str) -> None:
    """Headers of every kind raise this one error, which Django answers with 400, and nothing else."""
    received = {"Webhook-Id": message_id, "WEBHOOK-timestamp": timestamp, "webhook-signature": signature}
    with pytest.raises(InvalidSignature):
        verify(BODY + b" ", received, [SECRET, PUBLIC], now=AT)


@pytest.mark.parametrize("versions", ["v1", [], (), None, ["v2"], ["v1", "v3"], [["v1"]], {"v1": 1}])
def test_versions_that_cannot_be_are_refused(versions: object) -> None:
    """Nothing may go out unsigned because of a slip in the settings."""
    with pytest.raises(ConfigurationError, match="DJWEBHOOKS_SIGNATURES"):
        check_versions(versions)


def test_versions_have_one_order() -> None:
    """Some receivers look at the first entry alone: for them, v1 leads."""
    assert check_versions(["v1a", "v1"]) == check_versions(("v1", "v1a", "v1")) == ("v1", "v1a")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_missing_headers_are_named(name: str) -> None:
    """Each of the three headers is needed, with content."""
    received = headers()
    assert reason_for(received | {name: " "}) == f"The header {name} is missing."
    del received[name]
    assert reason_for(received) == f"The header {name} is missing."


@pytest.mark.parametrize("timestamp", ["x", "1614265330.0", "-1614265330", "1_614_265_330", "١٦١٤٢٦٥٣٣٠", "1e9", "9" * 20])
def test_malformed_timestamps(timestamp: str) -> None:
    """A timestamp is a whole number of seconds in plain digits."""
    assert "malformed" in reason_for(headers(**{"webhook-timestamp": timestamp}))


def test_ids_with_dots_are_not_accepted() -> None:
    """A shifted boundary between id, timestamp and body does not pass for another message."""
    signature = sign(SECRET, "msg", 1, b"2.3")
    shifted = {"webhook-id": "msg.1", "webhook-timestamp": "2", "webhook-signature": signature}
    assert "dot" in reason_for(shifted, body=b"3", now=2)


@pytest.mark.parametrize("signature", ["v2,abc", "v1ab,abc", "abc", SIGNATURE[3:], "v1", "v1a", ", ,"])
def test_malformed_signatures(signature: str) -> None:
    """Without any entry of a known version there is nothing to compare."""
    assert "malformed" in reason_for(headers(signature))


@pytest.mark.parametrize(
    "signature", ["v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OA=", "v1,", "v1,☃", "v1,\ud800", SIGNATURE + "=", SIGNATURE[:-1]]
)
def test_wrong_signatures(signature: str) -> None:
    """One wrong character, or none at all, is a mismatch."""
    assert "No signature matches" in reason_for(headers(signature))


@given(st.binary(), st.integers(0, 2**40), st.from_regex(r"[\w-]{1,40}", fullmatch=True))
def test_whatever_is_changed_is_noticed(body: bytes, timestamp: int, message_id: str) -> None:
    """Id, timestamp and body are all signed."""
    signature = sign(SECRET, message_id, timestamp, body)
    good = {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signature}
    verify(body, good, SECRET, now=timestamp)
    changes = [
        (body + b"x", good),
        (body, good | {"webhook-id": message_id + "x"}),
        (body, good | {"webhook-timestamp": str(timestamp + 1)}),
    ]
    for changed_body, changed_headers in changes:
        assert "No signature matches" in reason_for(changed_headers, changed_body, timestamp)


def test_the_tolerance_holds_both_ways() -> None:
    """What is too old may be a repeat, what is too new a wrong clock; the edge belongs to the good."""
    verify(BODY, headers(), SECRET, now=AT + TOLERANCE)
    verify(BODY, headers(), SECRET, now=AT - TOLERANCE)
    assert "too old" in reason_for(headers(), now=AT + TOLERANCE + 1)
    assert "too new" in reason_for(headers(), now=AT - TOLERANCE - 1)
    verify(BODY, headers(), SECRET, now=AT + 900, tolerance=900)


@pytest.mark.parametrize("secrets", [[], "", b"", [""], [SECRET, b""]])
def test_verifying_without_a_key_is_a_mistake(secrets: list[str | bytes] | str | bytes) -> None:
    """An empty key would accept what anybody can sign."""
    with pytest.raises(ValueError, match="no key"):
        verify(BODY, headers(), secrets, now=AT)
