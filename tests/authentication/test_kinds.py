"""Each way to authenticate: what it sends, what it refuses, and what it shows of itself."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks import authentication
from djwebhooks.authentication.base import (
    DEPTH_LIMIT,
    SIZE_LIMIT,
    AccessToken,
    Authentication,
    HeaderAuthentication,
    TokenAuthentication,
)
from djwebhooks.authentication.oauth2 import LIFETIME, LONGEST_LIFETIME, renew_in
from djwebhooks.exceptions import InvalidTarget
from tests.keys import lock, make_key, public_half

URL = "https://receiver.example/hook?a=b"
NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
SECRET = "hunter2-is-not-shown"
BASIC = {"type": "basic", "username": "ada", "password": SECRET}
BEARER = {"type": "bearer", "token": SECRET}
JWT = {"type": "jwt", "algorithm": "HS256", "key": SECRET * 2}
OAUTH2 = {"type": "oauth2", "token_url": "https://issuer.example/token", "client_id": "ada", "client_secret": SECRET}
ALL = [BASIC, BEARER, JWT, OAUTH2]


def header(told: dict[str, Any], at: datetime = NOW) -> str:
    [(name, value)] = authentication.read(told).headers(URL, at).items()
    assert name == "authorization"
    return value


@pytest.mark.parametrize("base", [Authentication, HeaderAuthentication, TokenAuthentication])
def test_a_kind_that_lacks_something_cannot_be_made(base: type[Authentication]) -> None:
    """What would only fail while a webhook is sent fails before anything is saved."""
    with pytest.raises(TypeError, match="abstract"):
        type("Lacking", (base,), {})()


@pytest.mark.parametrize("told", ALL, ids=lambda told: told["type"])
def test_a_kind_makes_headers_or_asks_for_a_token(told: dict[str, Any]) -> None:
    """One of the two, and what only the other can do it does not have."""
    found = authentication.read(told)

    assert isinstance(found, HeaderAuthentication) != isinstance(found, TokenAuthentication)
    assert hasattr(found, "headers") == isinstance(found, HeaderAuthentication)


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_basic_is_user_and_password_in_base64() -> None:
    """The example of RFC 7617, and its rule that other characters are sent in UTF-8."""
    assert header({"type": "basic", "username": "Aladdin", "password": "open sesame"}) == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert base64.b64decode(header(BASIC | {"password": "ä:b"})[6:]).decode() == "ada:ä:b"


def test_bearer_is_the_token() -> None:
    """It is sent as it is."""
    assert header(BEARER) == f"Bearer {SECRET}"


@pytest.mark.parametrize(("algorithm", "kind"), [("ES256", "P-256"), ("EdDSA", "Ed25519"), ("RS256", "2048"), ("HS256", "")])
def test_a_jwt_is_good_for_one_url_and_a_short_time(algorithm: str, kind: str) -> None:
    """The receiver verifies it with the public key; it names the key, the issuer, the audience and its end."""
    key = make_key(kind) if kind else JWT["key"]
    told = {"type": "jwt", "key": key, "algorithm": algorithm, "key_id": "k1", "issuer": "us", "claims": {"sub": "p-42"}}
    token = header(told, datetime.now(UTC)).removeprefix("Bearer ")
    known = public_half(key) if kind else key
    claims = jwt.decode(token, known, algorithms=[algorithm], audience=URL, issuer="us")

    assert jwt.get_unverified_header(token) == {"alg": algorithm, "kid": "k1", "typ": "JWT"}
    assert claims["exp"] - claims["iat"] == 60
    assert (set(claims), claims["sub"]) == ({"aud", "iss", "iat", "exp", "jti", "sub"}, "p-42")
    with pytest.raises(jwt.InvalidAudienceError):
        jwt.decode(token, known, algorithms=[algorithm], audience="https://other.example/")


def test_a_jwt_ends_when_it_was_told_to() -> None:
    """The lifetime is a part of it, and time is what the caller says."""
    claims = jwt.decode(header(JWT | {"lifetime": 5})[7:], options={"verify_signature": False})

    assert (claims["iat"], claims["exp"]) == (NOW.timestamp(), NOW.timestamp() + 5)
    assert "iss" not in claims


def test_no_two_jwts_have_the_same_id() -> None:
    """A receiver can tell a replayed token by its jti."""
    ids = {jwt.decode(header(JWT)[7:], options={"verify_signature": False})["jti"] for _ in range(10)}

    assert len(ids) == 10


# -- what is refused ---------------------------------------------------------------------------------------------------


def nest(depth: int) -> dict[str, Any]:
    """Return so many objects and lists in each other."""
    value: Any = []
    for _ in range(depth - 2):
        value = [value]
    return {"sub": value}


REFUSED = [
    ([], "an object whose type is one of basic, bearer, jwt, oauth2"),
    ("basic", "an object whose type"),
    ({}, "an object whose type"),
    ({"type": ["basic"]}, "an object whose type"),
    ({"type": "digest"}, "an object whose type"),
    (BASIC | {"realm": "x"}, "no part 'realm'; there are username, password"),
    ({"type": "basic", "username": "ada"}, "needs a part 'password'"),
    (BASIC | {"password": ""}, "needs a part 'password'"),
    (BASIC | {"password": 5}, "'password' of the authentication is a text"),
    (BASIC | {"username": "a:b"}, "has a colon"),
    (BASIC | {"password": f"{SECRET}\r\nx: y"}, "control character"),
    (BASIC | {"password": f"{SECRET}\ud800"}, "control character"),
    (BEARER | {"token": f"Bearer {SECRET}"}, "leave out what stands before it"),
    (BEARER | {"token": f"{SECRET}\r\nx: y"}, "one word of ASCII"),
    (BEARER | {"token": f"{SECRET}é"}, "one word of ASCII"),
    (BEARER | {"token": SECRET * SIZE_LIMIT}, "at most 32768 are possible"),
    (BEARER | {"token": {SECRET}}, "something that JSON cannot hold"),
    (JWT | {"algorithm": "none"}, "'none' is not one of ES256, EdDSA, RS256, HS256"),
    (JWT | {"algorithm": "HS512"}, "'HS512' is not one of"),
    (JWT | {"key": SECRET}, "HS256, which signs with a text of 32 bytes or more"),
    (JWT | {"key": make_key("P-256")}, "does not suit HS256"),
    (JWT | {"algorithm": "ES256"}, "does not suit ES256, which signs with a private key of the curve P-256"),
    (JWT | {"algorithm": "ES256", "key": make_key("P-384")}, "does not suit ES256"),
    (JWT | {"algorithm": "ES256", "key": make_key("Ed25519")}, "does not suit ES256"),
    (JWT | {"algorithm": "ES256", "key": lock(make_key("P-256"))}, "does not suit ES256"),
    (JWT | {"algorithm": "ES256", "key": public_half(make_key("P-256"))}, "does not suit ES256"),
    (JWT | {"algorithm": "EdDSA", "key": make_key("P-256")}, "does not suit EdDSA"),
    (JWT | {"algorithm": "RS256", "key": make_key("1024")}, "does not suit RS256"),
    (JWT | {"claims": {"aud": "x"}}, "The claim 'aud' is set by djwebhooks"),
    (JWT | {"claims": []}, "'claims' of the authentication is an object"),
    (JWT | {"claims": nest(DEPTH_LIMIT)}, "more than 20 objects or lists in each other"),
    (JWT | {"claims": nest(400)}, "more than 20 objects or lists in each other"),
    (JWT | {"lifetime": 0}, "1 to 3600 seconds, not 0"),
    (JWT | {"lifetime": 3601}, "1 to 3600 seconds, not 3601"),
    (JWT | {"lifetime": "60"}, "'lifetime' of the authentication is a whole number"),
    (JWT | {"lifetime": True}, "'lifetime' of the authentication is a whole number"),
    (OAUTH2 | {"client_authentication": "tls"}, "basic or body, not 'tls'"),
    (OAUTH2 | {"client_secret": f"{SECRET}\n"}, "control character"),
    (OAUTH2 | {"scope": "a\nb"}, "control character"),
]


@pytest.mark.parametrize(("told", "message"), REFUSED)
def test_what_cannot_work_is_refused(told: Any, message: str) -> None:
    """The message says what is wrong and shows nothing of what is secret, and neither does a cause of it."""
    with pytest.raises(InvalidTarget) as caught:
        authentication.read(told).check()

    assert message in caught.value.messages[0]
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "told", [*ALL, JWT | {"lifetime": 1, "claims": nest(DEPTH_LIMIT - 1)}, BASIC | {"username": "ä b", "password": "a:b"}]
)
def test_what_works_is_accepted(told: dict[str, Any]) -> None:
    """The rules leave the usual alone."""
    authentication.read(told).check()


def test_a_missing_library_is_named() -> None:
    """Without the extra ``auth``, what needs it says how to get it, and the rest works."""
    script = (
        "import sys; sys.modules['jwt'] = sys.modules['oauthlib'] = None\n"
        "from djwebhooks import authentication\n"
        "from djwebhooks.exceptions import InvalidTarget\n"
        "authentication.find_class('basic')\n"
        "for name in ('jwt', 'oauth2'):\n"
        "    try:\n"
        "        authentication.find_class(name)\n"
        "    except InvalidTarget as error:\n"
        "        print(error.messages[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == [
        "The authentication 'jwt' needs the library jwt. Install it with: pip install 'djwebhooks[auth]'",
        "The authentication 'oauth2' needs the library oauthlib. Install it with: pip install 'djwebhooks[auth]'",
    ]


# -- what is shown -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ALL)
def test_nothing_secret_is_shown(told: dict[str, Any]) -> None:
    """Neither the summary nor the repr has a secret in it."""
    assert SECRET not in f"{authentication.summarize(told)} {authentication.read(told)!r}"


def test_the_summary_has_what_is_not_secret() -> None:
    """The type, and the parts by which a person tells one from the other."""
    assert authentication.summarize({}) == {}
    assert authentication.summarize(BASIC) == {"type": "basic", "username": "ada"}
    assert authentication.summarize(BEARER) == {"type": "bearer"}
    assert authentication.summarize(JWT | {"key_id": "k1"}) == {
        "type": "jwt", "algorithm": "HS256", "key_id": "k1", "lifetime": 60,
    }  # fmt: skip
    assert authentication.summarize(OAUTH2) == {
        "type": "oauth2", "token_url": OAUTH2["token_url"], "client_id": "ada", "client_authentication": "basic",
    }  # fmt: skip


# -- OAuth 2 -----------------------------------------------------------------------------------------------------------


def oauth2(**changes: Any) -> TokenAuthentication:
    found = authentication.read(OAUTH2 | changes)
    assert isinstance(found, TokenAuthentication)
    return found


def test_the_token_server_is_asked_with_the_clients_password() -> None:
    """As RFC 6749 wants it: id and secret are encoded before they are joined, and the body has the grant."""
    headers, body = oauth2(client_id="a:b", client_secret="c d", scope="one two", audience="x&y").token_request

    assert base64.b64decode(headers["authorization"].removeprefix("Basic ")) == b"a%3Ab:c+d"
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert body == b"grant_type=client_credentials&scope=one+two&audience=x%26y"


def test_the_token_server_may_want_the_secret_in_the_body() -> None:
    """Some know no other way."""
    headers, body = oauth2(client_authentication="body").token_request

    assert "authorization" not in headers
    assert body == f"grant_type=client_credentials&client_id=ada&client_secret={SECRET}".encode()


def test_a_token_is_read() -> None:
    """Its text, and when to ask for the next."""
    found = oauth2().read_token(200, b'{"access_token": "t1", "token_type": "Bearer", "expires_in": 600}', NOW)

    assert found == AccessToken("t1", NOW + timedelta(seconds=540), oauth2().origin)
    assert found.headers(URL, NOW) == {"authorization": "Bearer t1"}
    assert "t1" not in repr(found)


@pytest.mark.parametrize(
    ("status", "answer", "words"),
    [
        (400, b'{"error": "invalid_client", "error_description": "hunter2"}', "answered 400: invalid_client."),
        (401, b'{"error": "hunter2"}', "answered 401."),
        (200, b'{"error": "invalid_scope"}', "answered 200: invalid_scope."),
        (500, b'{"access_token": "hunter2", "token_type": "bearer"}', "answered 500."),
        (200, b"{}", "answered 200."),
        (200, b'{"access_token": "hunter2", "token_type": "mac"}', "another type than bearer"),
        (200, b'{"access_token": "hunter2\\r\\nx: y", "token_type": "bearer"}', "that a header cannot hold"),
        (200, b'{"access_token": ["hunter2"], "token_type": "bearer"}', "that a header cannot hold"),
        (200, b"[]", "answered 200"),
        (200, b"5", "something that cannot be read"),
        (200, b"[" * 100_000, "something that cannot be read"),
        (502, b"<html>hunter2\xff\x00", "answered 502."),
        (302, b"", "answered 302."),
    ],
)
def test_no_token_is_said_in_words(status: int, answer: bytes, words: str) -> None:
    """Why there is none, without anything that the server may have repeated."""
    found = oauth2().read_token(status, answer, NOW)

    assert isinstance(found, str)
    assert words in found
    assert "hunter2" not in found


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(["access_token", "expires_in", "scope", "token_type", "error"]), json_values).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_whatever_a_token_server_answers_is_a_token_or_words(answer: bytes) -> None:
    """No answer raises, and a token is one that a header can hold."""
    found = oauth2().read_token(200, answer, NOW)

    assert isinstance(found, str) or found.headers(URL, NOW)["authorization"].isprintable()


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [(3600, 3540), (600, 540), (10, 9), (0, 0.9), (-5, 0.9), (None, LIFETIME - 60), ("soon", LIFETIME - 60),
     (float("nan"), LIFETIME - 60), (float("inf"), LONGEST_LIFETIME - 60), (1e300, LONGEST_LIFETIME - 60)],
)  # fmt: skip
def test_a_token_is_renewed_before_it_ends(expires_in: object, seconds: float) -> None:
    """A minute before, or a tenth of its life; never at once, which would be for ever, nor after more than a day."""
    assert renew_in(expires_in) == pytest.approx(seconds)


def test_other_credentials_have_another_origin() -> None:
    """A change of any part tells that a token is of earlier ones."""
    parts = ("token_url", "client_id", "client_secret", "scope", "audience")
    origins = {oauth2(**{part: "https://x.example/"}).origin for part in parts}

    assert len(origins | {oauth2().origin, oauth2(client_authentication="body").origin}) == len(parts) + 2
    assert SECRET not in oauth2().origin
