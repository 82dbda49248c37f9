"""JSON in, JSON out."""

import json
from io import BytesIO

import pytest
from django.conf import LazySettings

from djwebhooks.api.formats import BoundedJSONParser
from djwebhooks.hidden import HiddenText
from tests.api.world import Api, make_owner, make_publisher

pytestmark = pytest.mark.django_db


def post(api: Api, body: bytes, content_type: str = "application/json") -> tuple[int, object]:
    response = api.client.post("/api/events/", body, content_type=content_type)
    return response.status_code, json.loads(response.content)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"payload": NaN}',
        b'{"payload": 1e999}',
        b'{"payload": -Infinity}',
        b'{"payload": ' + b"9" * 5000 + b"}",
        b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """400, with a text that says what is wrong."""
    status, data = post(Api(make_publisher()), body)

    assert status == 400
    assert isinstance(data, dict)
    assert "JSON" in data["detail"]


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null", b'[{"name": "a"}]'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    """400, as nothing else has fields."""
    assert post(Api(make_publisher()), body)[0] == 400


def test_a_body_has_a_limit(settings: LazySettings) -> None:
    """413: not more is read than the largest payload can take."""
    settings.DJWEBHOOKS_PAYLOAD_LIMIT = 1000
    api = Api(make_publisher())
    escaped = b'{"name": "a", "payload": "' + b"\\u0041" * 900 + b'"}'

    assert post(api, escaped)[0] == 201
    assert post(api, b" " * 80_000)[0] == 413


def test_a_body_is_hidden_once() -> None:
    """What may be a password is a field of the request itself: what is called so further in is hidden with it, or not at all."""
    body = b'{"headers": {"headers": "a"}, "payload": {"headers": "b"}}'

    parsed = BoundedJSONParser().parse(BytesIO(body))

    assert (type(parsed["headers"]["headers"]), type(parsed["payload"]["headers"])) == (HiddenText, str)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"])
def test_other_formats_are_not_read(content_type: str) -> None:
    """415, in JSON."""
    status, data = post(Api(make_publisher()), b"name=a&payload=1", content_type)

    assert status == 415
    assert isinstance(data, dict)
    assert list(data) == ["code", "detail"]


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=0.9", "image/*", "nonsense"])
def test_everybody_gets_json(accept: str) -> None:
    """Whatever is accepted, and whatever ``format=`` says."""
    answer = Api(make_owner()).get("targets/?format=api", accept=accept)

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")


def test_a_refusal_can_repeat_any_text() -> None:
    """Half a surrogate pair, which UTF-8 cannot hold, comes back as it was written."""
    answer = Api(make_owner()).post("targets/", {"\ud800": 1})

    assert (answer.status, answer.wrong_fields) == (400, ["\ud800"])
