"""What is sent: JSON text, envelopes, exact bytes."""

import dataclasses
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.db.models import QuerySet
from django.utils.duration import duration_iso_string
from django.utils.functional import Promise
from django.utils.module_loading import import_string
from standardjson import StandardJSONEncoder  # type: ignore[import-untyped]  # it has no types

from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError, InvalidPayload, PayloadTooLarge

logger = logging.getLogger(__name__)

#: How many levels of objects and arrays a payload may have: receivers' parsers have limits of that order, such as Ruby's 100.
DEPTH_LIMIT = 90
#: Characters of a payload that are worth a word, though they are allowed.
LARGE = 64 * 1024
#: The events that were seen to have such payloads in this process.
_large: set[str] = set()
#: What ``DJWEBHOOKS_ENVELOPE``, and a target's own envelope, may be.
ENVELOPES = ("standard", "flat", "cloudevents", "cloudevents-binary")
#: The envelope that is written around the body, in headers.
BINARY = "cloudevents-binary"
#: How the formats of all bodies begin that are CloudEvents.
CLOUDEVENTS = "cloudevents"
#: What stands before the version in a format.
VERSION_MARK = "@"
#: The ``source`` of a CloudEvent: a constant, because ``id`` is unique in the whole world.
CLOUDEVENTS_SOURCE = "/djwebhooks"

SURROGATE = re.compile("[\ud800-\udfff]")
UNQUOTED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
CONTAINERS = (dict, list, tuple)
SEPARATORS = (",", ":")


# -- JSON text ---------------------------------------------------------------------------------------------------------


class PayloadEncoder(StandardJSONEncoder):  # type: ignore[misc]  # standardjson has no types
    """standardjson's encoder, widened to what applications put into payloads.

    Further types: UUID, timedelta (ISO 8601), set and frozenset (sorted), Enum (its value), dataclass instances, lazy strings
    and paths. A ``time`` keeps its offset. Bytes, and decimals that are no number, are errors.
    """

    def default(self, o: object) -> object:
        """Return what to write in the place of *o*. Raises TypeError or ValueError, which say what to do instead."""
        if isinstance(o, time):
            return write_time(o)
        if isinstance(o, UUID | PurePath | Promise):
            return str(o)
        if isinstance(o, timedelta):
            return duration_iso_string(o)
        if isinstance(o, set | frozenset):
            return self.sort(o)
        if isinstance(o, Enum):
            return o.value
        if dataclasses.is_dataclass(o) and not isinstance(o, type):
            return {field.name: getattr(o, field.name) for field in dataclasses.fields(o)}
        if isinstance(o, date) or (isinstance(o, Decimal) and o.is_finite()):
            return super().default(o)
        raise TypeError(describe_refusal(o))

    def sort(self, values: set[object] | frozenset[object]) -> list[object]:
        """Put a set in an order that is the same in every process, whatever the seed of its hashes."""
        by_text: list[object] = sorted(values, key=self.encode)
        try:
            return sorted(by_text)  # type: ignore[type-var]  # whether they can be compared is what is tried
        except TypeError:
            return by_text


def write_time(value: time) -> str:
    """ISO 8601 to the millisecond like ECMA-262's date-times, with the offset, which standardjson cuts off."""
    text = value.isoformat(timespec="milliseconds" if value.microsecond else "seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def describe_refusal(value: object) -> str:
    """Say why *value* is not written, and what to do."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes are not text: decode them, or send them as base64 text"
    if isinstance(value, QuerySet | Iterator):
        return f"{type(value).__name__} is evaluated lazily: wrap it in list(…)"
    if isinstance(value, Decimal):
        return f"JSON cannot hold {value!r}: send None or a string"
    return f"JSON cannot hold an instance of {type(value).__name__}: send its parts, or str() of it"


def encode(data: object, *, limit: int | None = None) -> str:
    """Write *data* as JSON text, without spaces and with non-ASCII characters as they are.

    *limit* is the most bytes that the text may have as UTF-8; None is ``DJWEBHOOKS_PAYLOAD_LIMIT``.
    Raises InvalidPayload, which names the place of what cannot be sent, and PayloadTooLarge.
    """
    encoder: json.JSONEncoder = import_string(conf.JSON_ENCODER)(ensure_ascii=False, separators=SEPARATORS, allow_nan=False)
    replaced: list[object] = []
    try:
        text = recording(encoder, replaced).encode(data)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidPayload(find_fault(data, "payload", encoder) or f"The payload cannot be written as JSON: {exc}") from exc
    # The walk is quick and sees keys that json would silently turn into strings; a backslash before "u0000" may be a text's own.
    is_suspect = "\\u0000" in text or not is_plain([data, *replaced])
    if is_suspect and (fault := find_fault(data, "payload", encoder)):
        raise InvalidPayload(fault)
    check_size(size, limit)
    return text


def warn_if_large(name: str, text: str) -> None:
    """Say once in this process that payloads of the event *name*, of which *text* is one, are large."""
    if len(text) > LARGE and name not in _large:
        _large.add(name)
        logger.warning(
            "A payload of %r has %s characters. Every receiver has to take it in before it can answer: "
            "send what most of them need, and a link to the rest.",
            name,
            len(text),
        )


def check_size(size: int, limit: int | None) -> None:
    """Raise PayloadTooLarge if *size* bytes are more than *limit*, where None is ``DJWEBHOOKS_PAYLOAD_LIMIT``."""
    allowed, name = (conf.PAYLOAD_LIMIT, "DJWEBHOOKS_PAYLOAD_LIMIT") if limit is None else (limit, "the limit")
    if size > allowed:
        raise PayloadTooLarge(f"The payload has {size} bytes as JSON and {name} is {allowed}: send less, or a link to the rest.")


def recording(encoder: json.JSONEncoder, replaced: list[object]) -> json.JSONEncoder:
    """Have *encoder* put into *replaced* whatever it writes in the place of something else; return it."""
    default = encoder.default

    def default_recorded(o: object) -> object:
        replacement = default(o)
        if isinstance(replacement, CONTAINERS):
            replaced.append(replacement)
        return replacement

    # JSONEncoder's own way of taking a function: its __init__ does the same with the argument `default`.
    encoder.default = default_recorded  # type: ignore[method-assign]  # as JSONEncoder does
    return encoder


def is_plain(values: list[object]) -> bool:
    """Whether the dictionaries among and in *values* have string keys only, and none is nested too deeply."""
    level = [value for value in values if isinstance(value, CONTAINERS)]
    for _ in range(DEPTH_LIMIT):
        if not all(set(map(type, value)) <= {str} for value in level if isinstance(value, dict)):
            return False
        insides = (value.values() if isinstance(value, dict) else value for value in level)
        level = [item for inside in insides for item in inside if isinstance(item, CONTAINERS)]
        if not level:
            return True
    return False


def find_fault(value: object, path: str, encoder: json.JSONEncoder, parents: tuple[int, ...] = ()) -> str:
    """Say what is wrong with *value*, found at *path* inside the objects with the ids *parents*; empty if nothing is."""
    if value is None or isinstance(value, str | int | float):
        return find_scalar_fault(value, path)
    if id(value) in parents:
        return f"{path} contains itself: send a copy that ends somewhere."
    if len(parents) >= DEPTH_LIMIT:
        return f"{path[:80]}… is nested more than {DEPTH_LIMIT} levels deep: flatten it."
    faults = (find_fault(part, place, encoder, (*parents, id(value))) for place, part in parts(value, path))
    return find_key_fault(value, path) or next(filter(None, faults), "") or find_kind_fault(value, path, encoder, parents)


def parts(value: object, path: str) -> Iterator[tuple[str, object]]:
    """The places inside *value* and what is there."""
    if isinstance(value, dict):
        yield from ((f"{path}[{json.dumps(key[:60])}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield from ((f"{path}{{…}}", item) for item in value)


def find_key_fault(value: object, path: str) -> str:
    if not isinstance(value, dict):
        return ""
    for key in value:
        if not isinstance(key, str):
            kind = type(key).__name__
            return f"{path} has a key of type {kind}, and JSON's keys are strings: convert it, for example with str()."
    return next(filter(None, (find_text_fault(key, f"A key of {path}") for key in value)), "")


def find_kind_fault(value: object, path: str, encoder: json.JSONEncoder, parents: tuple[int, ...]) -> str:
    """Say what is wrong with *value* if it is of a kind that JSON does not know."""
    if isinstance(value, CONTAINERS):
        return ""
    try:
        replacement = encoder.default(value)
    except (TypeError, ValueError) as exc:
        return f"{path}: {exc}."
    return find_fault(replacement, path, encoder, (*parents, id(value)))


def find_scalar_fault(value: str | float | None, path: str) -> str:
    return find_text_fault(value, path) if isinstance(value, str) else find_number_fault(value, path)


def find_text_fault(text: str, path: str) -> str:
    if "\0" in text:
        return f"{path} contains a NUL character, which many databases refuse: remove it."
    if SURROGATE.search(text):
        return f"{path} contains half of a surrogate pair, which UTF-8 cannot hold: decode the text with errors='replace'."
    return ""


def find_number_fault(value: float | None, path: str) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: JSON cannot hold {float(value)!r}: send None or a string."
    try:
        repr(value)
    except ValueError as exc:
        return f"{path}: the number has too many digits; {exc}."
    return ""


# -- envelopes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Message:
    """An event as it is sent.

    *created_at* is an aware datetime, *payload* the JSON text from ``encode``, *owner* what payloads show as the owner, *version*
    what the payload's version is called, if anything.
    """

    uid: UUID
    name: str
    created_at: datetime
    payload: str
    owner: str | None
    version: str = ""

    @property
    def data(self) -> Any:
        """The payload, read."""
        return json.loads(self.payload)


def envelope_format(envelope: str, *, with_owner: bool, version: str = "") -> str:
    """Return the format that *envelope* has for a target: the key of a ``Body`` and the argument of ``render``.

    *with_owner*: whether the target must be told whose event it is, as targets of the system are. "flat" always tells.
    *version* is that of the payload, if it is not the current one. Raises ConfigurationError if there is no such envelope.
    """
    if envelope not in ENVELOPES:
        raise ConfigurationError(f"{envelope!r} is no envelope: DJWEBHOOKS_ENVELOPE is one of {', '.join(ENVELOPES)}.")
    return add_version(f"{envelope}+owner" if with_owner and envelope != "flat" else envelope, version)


def add_version(wrapping: str, version: str) -> str:
    """Return the format of bodies that are wrapped so, and whose payload is in *version*; empty for the current one."""
    return f"{wrapping}{VERSION_MARK}{version}" if version else wrapping


@lru_cache
def split_format(body_format: str) -> tuple[str, str]:
    """Return what a *body_format* is made of: how it is wrapped, and the payload's version, empty for the current one."""
    wrapping, _, version = body_format.partition(VERSION_MARK)
    return wrapping, version


def tells_owner(body_format: str) -> bool:
    """Whether a body in *body_format* says whose event it is."""
    wrapping, _ = split_format(body_format)
    return wrapping == "flat" or wrapping.endswith("+owner")


def render(body_format: str, message: Message) -> bytes:
    """Return the exact body of *message* in a *body_format* from ``envelope_format``.

    Raises InvalidPayload if the payload does not fit the format, and ConfigurationError if there is no such format.
    """
    wrapping, _ = split_format(body_format)
    if wrapping not in FORMATS:
        raise ConfigurationError(f"{body_format!r} is no format of a body: there are {', '.join(FORMATS)}.")
    return FORMATS[wrapping](message).encode()


def content_type(body_format: str) -> str:
    """Return the ``content-type`` header for a body in *body_format*."""
    is_structured = body_format.startswith(CLOUDEVENTS) and not body_format.startswith(BINARY)
    return "application/cloudevents+json" if is_structured else "application/json"


def envelope_headers(body_format: str, message: Message) -> dict[str, str]:
    """Return what of *message* is said in headers: all but the data in CloudEvents' binary mode, else nothing.

    CloudEvents 1.0.2, HTTP protocol binding, section 3.1.
    """
    if not body_format.startswith(BINARY):
        return {}
    attributes = cloudevents_head(message)
    del attributes["datacontenttype"]  # That is the content-type.
    if tells_owner(body_format) and message.owner is not None:
        attributes["owner"] = message.owner
    # All printable ASCII but the space, the double quote and the percent sign stays as it is.
    return {f"ce-{name}": quote(value, safe=UNQUOTED) for name, value in attributes.items()}


def render_standard(message: Message) -> str:
    """Standard Webhooks 1.0.0, "Payload structure"."""
    return splice({"type": message.name, "timestamp": write_timestamp(message.created_at)}, message.payload)


def render_standard_with_owner(message: Message) -> str:
    head = {"type": message.name, "timestamp": write_timestamp(message.created_at), "owner": message.owner}
    return splice(head, message.payload)


def render_flat(message: Message) -> str:
    """The payload itself. Its own ``event`` and ``owner`` give way, as they did in dj-webhooks."""
    data = message.data
    if not isinstance(data, dict):
        raise InvalidPayload(f"The flat envelope needs a payload that is an object, and that of {message.name!r} is none.")
    return write_json({**data, "event": message.name, "owner": message.owner})


def render_data(message: Message) -> str:
    """CloudEvents 1.0.2, HTTP protocol binding, binary mode: the data alone. ``envelope_headers`` has the rest."""
    return message.payload


def cloudevents_head(message: Message) -> dict[str, str]:
    return {
        "specversion": "1.0",
        "id": str(message.uid),
        "source": CLOUDEVENTS_SOURCE,
        "type": message.name,
        "time": write_timestamp(message.created_at),
        "datacontenttype": "application/json",
    }


def render_cloudevents(message: Message) -> str:
    """CloudEvents 1.0.2, JSON event format, structured mode."""
    return splice(cloudevents_head(message), message.payload)


def render_cloudevents_with_owner(message: Message) -> str:
    """As above, with the extension attribute ``owner``; one without a value is left out (JSON event format, section 2.2)."""
    owner = {} if message.owner is None else {"owner": message.owner}
    return splice(cloudevents_head(message) | owner, message.payload)


FORMATS: Mapping[str, Callable[[Message], str]] = {
    "standard": render_standard,
    "standard+owner": render_standard_with_owner,
    "flat": render_flat,
    "cloudevents": render_cloudevents,
    "cloudevents+owner": render_cloudevents_with_owner,
    "cloudevents-binary": render_data,
    "cloudevents-binary+owner": render_data,
}


def splice(head: Mapping[str, object], payload: str) -> str:
    """Write the object *head* with the text *payload* as its ``data``. Unparsed, it costs nothing and stays what it is."""
    return f'{write_json(head)[:-1]},"data":{payload}}}'


def write_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=SEPARATORS, allow_nan=False)


def write_timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC: ``2026-09-21T14:13:20.123456Z``, without the fraction where it is zero. Raises ValueError if naive."""
    if moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no time zone: pass an aware datetime.")
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
