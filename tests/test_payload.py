"""The rules of djwebhooks.payload."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import PurePosixPath
from urllib.parse import unquote
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks import payload
from djwebhooks.exceptions import ConfigurationError, InvalidPayload, PayloadTooLarge
from djwebhooks.payload import (
    DEPTH_LIMIT,
    ENVELOPES,
    FORMATS,
    Message,
    PayloadEncoder,
    content_type,
    encode,
    envelope_format,
    envelope_headers,
    render,
)

UID = UUID("0199d0c0-0000-7000-8000-000000000001")
MESSAGE = Message(UID, "project.update", datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC), '{"title":"x"}', "acme")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(texts, values, max_size=4),
    max_leaves=20,
)


class Colour(Enum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


@dataclass(frozen=True)
class Point:
    x: int
    colour: Colour


def nested(levels: int) -> object:
    value: object = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def fault_of(data: object) -> str:
    with pytest.raises(InvalidPayload) as caught:
        encode(data)
    return str(caught.value)


# JSON text


@given(json_values)
def test_what_is_json_comes_back_as_it_was(data: object) -> None:
    """Reading the text gives the same value."""
    assert json.loads(encode(data)) == data


@given(
    st.recursive(
        st.text() | st.floats() | st.binary() | st.integers(),
        lambda v: st.lists(v) | st.dictionaries(st.integers() | st.text(), v),
    )
)
def test_any_value_is_written_or_refused(data: object) -> None:
    """Whatever comes, the outcome is UTF-8 text of strict JSON or InvalidPayload."""
    try:
        text = encode(data)
    except InvalidPayload:
        assert fault_of(data).startswith(("payload", "A key of payload"))
    else:
        assert json.loads(text.encode(), parse_constant=pytest.fail) == data


def test_text_is_compact_and_not_escaped() -> None:
    """There are no spaces, and characters outside ASCII are as they are: fewer bytes to sign and send."""
    assert encode({"name": "Zoë ☃ 🎉", "a": [1, None]}) == '{"name":"Zoë ☃ 🎉","a":[1,null]}'


def describe_lazily() -> Promise:
    return gettext_lazy("Yes")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (UID, f'"{UID}"'),
        (timedelta(days=1, hours=2, seconds=3.5), '"P1DT02H00M03.500000S"'),
        (-timedelta(minutes=1), '"-P0DT00H01M00S"'),
        ({3, 1, 2}, "[1,2,3]"),
        (frozenset({"b", "a"}), '["a","b"]'),
        ({"a", 1, None}, '["a",1,null]'),
        (Colour.RED, '"red"'),
        (Size.LARGE, "3"),
        (Point(1, Colour.RED), '{"x":1,"colour":"red"}'),
        (PurePosixPath("a/b"), '"a/b"'),
        ((1, 2), "[1,2]"),
        (date(2026, 9, 21), '"2026-09-21"'),
        (datetime(2026, 9, 21, 14, 13, 20, 123456, tzinfo=UTC), '"2026-09-21T14:13:20.123Z"'),
        (datetime(2026, 9, 21, 14, 13, 20, tzinfo=ZoneInfo("Asia/Kolkata")), '"2026-09-21T14:13:20+05:30"'),
        (Decimal("1.10"), '"1.10"'),
    ],
)
def test_types_that_json_does_not_know(value: object, text: str) -> None:
    """What applications put into payloads has one spelling."""
    assert encode(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (time(12, 34, 56, 789123, timezone(timedelta(hours=5, minutes=30))), '"12:34:56.789+05:30"'),
        (time(12, 34, 56, 789123, UTC), '"12:34:56.789Z"'),
        (time(12, 34, 56, 789123), '"12:34:56.789"'),
        (time(12, 34), '"12:34:00"'),
        (time(12, 34, tzinfo=UTC), '"12:34:00Z"'),
    ],
)
def test_a_time_keeps_its_offset(value: time, text: str) -> None:
    """The offset, which standardjson loses beside microseconds, is written."""
    assert encode(value) == text


def test_lazy_strings_are_written_in_the_active_language() -> None:
    """A lazy translation is evaluated when the payload is."""
    with translation.override("nl"):
        assert encode({"a": describe_lazily()}) == '{"a":"Ja"}'


def test_sets_have_the_same_order_in_every_process() -> None:
    """Sets whose members cannot be compared do not follow the seed of the hashes."""
    code = "from djwebhooks.payload import encode; print(encode({'a', 'b', 'c', 1, None, frozenset({1, 2}), frozenset({3})}))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert outputs == {'["a","b","c",1,[1,2],[3],null]\n'}


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (-float("inf"), "-inf"),
        (Decimal("NaN"), "NaN"),
        (Decimal("-Infinity"), "Infinity"),
        (b"x", "bytes"),
        (bytearray(b"x"), "bytes"),
        (memoryview(b"x"), "bytes"),
        ("a\0b", "NUL"),
        ("\ud800", "surrogate"),
        ({"x\0": 1}, "A key of"),
        ({"\udfff": 1}, "A key of"),
        ({1: 1}, "int"),
        ({None: 1}, "NoneType"),
        ({True: 1}, "bool"),
        ({UID: 1}, "UUID"),
        ({date(2026, 9, 21): 1}, "date"),
        ({describe_lazily(): 1}, "__proxy__"),
        ({(1, 2): 1}, "tuple"),
        ((number for number in range(3)), "lazily"),
        (map(str, [1]), "lazily"),
        (Group.objects.all(), "lazily"),
        (Group(name="x"), "Group"),
        (object(), "object"),
        (Point, "type"),
        ({1.5, float("nan")}, "nan"),
        ({"a", b"b"}, "bytes"),
        (Point(1, b"x"), "bytes"),  # type: ignore[arg-type]  # it is wrong on purpose
    ],
)
def test_the_place_of_what_is_wrong_is_named(value: object, word: str) -> None:
    """An error says where in the payload the fault is, and what it is."""
    fault = fault_of({"good": 1, "a": [0, "\\u0000", {"b": 2}, value]})
    assert 'payload["a"][3]' in fault
    assert word in fault


def test_numbers_of_too_many_digits_are_refused() -> None:
    """Python does not write integers of more than 4,300 digits."""
    assert fault_of({"a": 10**5000}).startswith('payload["a"]: the number has too many digits')


def test_keys_that_json_would_merge_are_refused() -> None:
    """``{1: …, "1": …}`` would have one key twice."""
    assert "key of type int" in fault_of({1: "a", "1": "b"})


def test_keys_are_checked_in_what_the_encoder_makes() -> None:
    """A dictionary that only comes about by encoding has string keys too."""

    @dataclass
    class Box:
        content: dict[int, int]

    assert fault_of({"box": Box({1: 2})}).startswith('payload["box"]["content"] has a key of type int')


def test_strings_of_other_classes_may_be_keys() -> None:
    """A subclass of str is a string."""

    class Name(str):
        __slots__ = ()

    assert encode({Name("a"): Name("b")}) == '{"a":"b"}'


def test_a_backslash_before_u0000_is_no_nul() -> None:
    """Text that spells the escape of NUL out is only text."""
    assert json.loads(encode({"a": "\\u0000"})) == {"a": "\\u0000"}


def test_cycles_are_refused() -> None:
    """A payload that contains itself is named as such."""
    loop: list[object] = [1]
    loop.append({"again": loop})
    assert fault_of({"a": loop}) == 'payload["a"][1]["again"] contains itself: send a copy that ends somewhere.'


def test_one_value_at_two_places_is_no_cycle() -> None:
    """Sharing is not looping."""
    shared = {"x": 1}
    assert encode([shared, shared]) == '[{"x":1},{"x":1}]'


def test_nesting_has_a_limit() -> None:
    """The limit is the same wherever a payload is fired from, and no receiver's parser stumbles."""
    assert json.loads(encode(nested(DEPTH_LIMIT))) == nested(DEPTH_LIMIT)
    assert f"more than {DEPTH_LIMIT} levels" in fault_of(nested(DEPTH_LIMIT + 1))
    assert "levels deep" in fault_of(nested(200_000))


def test_size_is_counted_in_bytes(settings: LazySettings) -> None:
    """The limit is one of UTF-8 bytes, quotes included, and the error names both numbers."""
    settings.DJWEBHOOKS_PAYLOAD_LIMIT = 5
    assert encode("☃") == '"☃"'
    with pytest.raises(PayloadTooLarge, match=r"has 8 bytes.*DJWEBHOOKS_PAYLOAD_LIMIT is 5"):
        encode("☃☃")
    assert encode("☃☃", limit=8) == '"☃☃"'
    with pytest.raises(PayloadTooLarge, match=r"has 8 bytes.*the limit is 7"):
        encode("☃☃", limit=7)


class ShoutingEncoder(PayloadEncoder):
    """An application's own encoder."""

    def default(self, o: object) -> object:
        return o.decode("ascii").upper() if isinstance(o, bytes) else super().default(o)


class EndlessEncoder(PayloadEncoder):
    """An encoder that puts off what it has to do."""

    def default(self, o: object) -> object:
        return object()


class BrokenEncoder(json.JSONEncoder):
    """An encoder that fails on a whole, not on a part."""

    def encode(self, o: object) -> str:
        raise ValueError("not today")


def test_the_encoder_can_be_replaced(settings: LazySettings) -> None:
    """DJWEBHOOKS_JSON_ENCODER decides what can be sent, and its refusals are placed like our own."""
    settings.DJWEBHOOKS_JSON_ENCODER = f"{__name__}.ShoutingEncoder"
    assert encode({"a": b"x", "b": Colour.RED}) == '{"a":"X","b":"red"}'
    assert 'payload["a"]: ' in fault_of({"a": b"\xff"})


def test_a_refusal_without_a_place_is_passed_on(settings: LazySettings) -> None:
    """What an encoder says is told even if no part of the payload is to blame."""
    settings.DJWEBHOOKS_JSON_ENCODER = f"{__name__}.BrokenEncoder"
    assert fault_of({"a": 1}) == "The payload cannot be written as JSON: not today"


def test_an_encoder_that_never_ends_is_stopped(settings: LazySettings) -> None:
    """A ``default`` whose results need another ``default`` for ever is nesting without end."""
    settings.DJWEBHOOKS_JSON_ENCODER = f"{__name__}.EndlessEncoder"
    assert 'payload["a"]… is nested more than' in fault_of({"a": b"x"})


# Envelopes


def test_standard_envelope() -> None:
    """Standard Webhooks: type, timestamp, data, byte for byte."""
    expected = b'{"type":"project.update","timestamp":"2026-09-21T14:13:20Z","data":{"title":"x"}}'
    assert render("standard", MESSAGE) == expected


def test_standard_envelope_with_owner() -> None:
    """A system target is told whose event it is."""
    expected = b'{"type":"project.update","timestamp":"2026-09-21T14:13:20Z","owner":"acme","data":{"title":"x"}}'
    assert render("standard+owner", MESSAGE) == expected
    assert json.loads(render("standard+owner", replace(MESSAGE, owner=None)))["owner"] is None


def test_flat_envelope_is_the_payload_with_event_and_owner() -> None:
    """As dj-webhooks had it: the two names win over the payload's own."""
    message = replace(MESSAGE, payload='{"event":"mine","title":"Zoë"}')
    assert render("flat", message) == '{"event":"project.update","title":"Zoë","owner":"acme"}'.encode()


@pytest.mark.parametrize("payload", ["[1]", '"x"', "null", "3"])
def test_flat_envelope_needs_an_object(payload: str) -> None:
    """There is no place for a name in what is no object."""
    with pytest.raises(InvalidPayload, match=r"project\.update"):
        render("flat", replace(MESSAGE, payload=payload))


def test_cloudevents_envelope() -> None:
    """CloudEvents 1.0 in structured mode; owner is an extension attribute, absent without a value."""
    event = {
        "specversion": "1.0",
        "id": str(UID),
        "source": "/djwebhooks",
        "type": "project.update",
        "time": "2026-09-21T14:13:20Z",
        "datacontenttype": "application/json",
        "data": {"title": "x"},
    }
    assert json.loads(render("cloudevents", MESSAGE)) == event
    assert json.loads(render("cloudevents+owner", MESSAGE)) == event | {"owner": "acme"}
    assert json.loads(render("cloudevents+owner", replace(MESSAGE, owner=None))) == event


def test_binary_cloudevents() -> None:
    """The body is the data alone; the attributes are headers, owner among them where it is told and has a value."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": str(UID),
        "ce-source": "/djwebhooks",
        "ce-type": "project.update",
        "ce-time": "2026-09-21T14:13:20Z",
    }
    assert render("cloudevents-binary", MESSAGE) == render("cloudevents-binary+owner", MESSAGE) == b'{"title":"x"}'
    assert envelope_headers("cloudevents-binary", MESSAGE) == headers
    assert envelope_headers("cloudevents-binary+owner", MESSAGE) == headers | {"ce-owner": "acme"}
    assert envelope_headers("cloudevents-binary+owner", replace(MESSAGE, owner=None)) == headers
    assert [envelope_headers(other, MESSAGE) for other in FORMATS if "binary" not in other] == [{}] * 5


@given(texts)
def test_values_of_attributes_fit_into_headers(owner: str) -> None:
    """They are percent-encoded, and what a receiver decodes is what was said."""
    value = envelope_headers("cloudevents-binary+owner", replace(MESSAGE, owner=owner))["ce-owner"]

    assert unquote(value) == owner
    assert set(value) <= {chr(code) for code in range(0x21, 0x7F)} - {'"'}


def test_no_more_of_a_value_is_encoded_than_must_be() -> None:
    """The example of the HTTP protocol binding, and all of ASCII that may stay as it is."""
    kept = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
    message = replace(MESSAGE, owner=f"Euro € 😀{kept}")

    assert envelope_headers("cloudevents-binary+owner", message)["ce-owner"] == f"Euro%20%E2%82%AC%20%F0%9F%98%80{kept}"


@given(json_values, texts, st.sampled_from(sorted(name for name in FORMATS if name != "flat" and "binary" not in name)))
def test_data_is_the_payload_in_every_format(data: object, owner: str, body_format: str) -> None:
    """The payload's own text is in the body, unchanged."""
    payload = encode(data)
    body = render(body_format, replace(MESSAGE, payload=payload, owner=owner))
    assert json.loads(body)["data"] == data
    assert body.endswith(f'"data":{payload}}}'.encode())


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 9, 21, 14, 13, 20, 123456, tzinfo=UTC), "2026-09-21T14:13:20.123456Z"),
        (datetime(2026, 9, 21, 14, 13, 20, 1, tzinfo=UTC), "2026-09-21T14:13:20.000001Z"),
        (datetime(2026, 9, 21, 16, 13, 20, tzinfo=ZoneInfo("Europe/Amsterdam")), "2026-09-21T14:13:20Z"),
    ],
)
def test_timestamp_is_in_utc(moment: datetime, text: str) -> None:
    """The timestamp ends in Z, whatever zone the datetime is in, and has a fraction only where there is one."""
    assert json.loads(render("standard", replace(MESSAGE, created_at=moment)))["timestamp"] == text


def test_timestamp_of_a_naive_datetime_is_refused() -> None:
    """A naive datetime would be taken for the machine's zone."""
    with pytest.raises(ValueError, match="no time zone"):
        render("standard", replace(MESSAGE, created_at=datetime(2026, 9, 21)))


@pytest.mark.parametrize("with_owner", [False, True])
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_every_envelope_has_a_format(envelope: str, with_owner: bool) -> None:
    """What envelope_format names, render knows."""
    body_format = envelope_format(envelope, with_owner=with_owner)
    sent = render(body_format, MESSAGE).decode() + str(envelope_headers(body_format, MESSAGE))
    assert "project.update" in sent
    assert ("acme" in sent) == (with_owner or envelope == "flat")


def test_flat_has_one_format() -> None:
    """The flat envelope names the owner to everyone, so one body serves all."""
    assert envelope_format("flat", with_owner=True) == envelope_format("flat", with_owner=False) == "flat"


def test_content_types() -> None:
    """A structured CloudEvent has a media type of its own."""
    assert {body_format: content_type(body_format) for body_format in FORMATS} == {
        "standard": "application/json",
        "standard+owner": "application/json",
        "flat": "application/json",
        "cloudevents": "application/cloudevents+json",
        "cloudevents+owner": "application/cloudevents+json",
        "cloudevents-binary": "application/json",
        "cloudevents-binary+owner": "application/json",
    }


def test_unknown_envelopes_are_refused() -> None:
    """A wrong setting is named together with what is possible."""
    with pytest.raises(ConfigurationError, match=r"'soap' is no envelope.*standard, flat, cloudevents"):
        envelope_format("soap", with_owner=False)
    with pytest.raises(ConfigurationError, match="'soap' is no format"):
        render("soap", MESSAGE)


def test_a_large_payload_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """For each event, as it may be meant."""
    monkeypatch.setattr(payload, "_large", set())
    text = "x" * (payload.LARGE + 1)
    for name in ("report.ready", "report.ready", "export.ready"):
        payload.warn_if_large(name, text)
        payload.warn_if_large("small", text[1:])

    assert [record.args[0] for record in caplog.records] == ["report.ready", "export.ready"]
    assert text not in caplog.text
