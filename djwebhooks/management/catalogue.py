"""The catalogue as it is told to people (text, Markdown) and to programs (OpenAPI)."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from djwebhooks import payload
from djwebhooks.catalogue import EventType, list_event_types
from djwebhooks.conf import conf

Schema = dict[str, Any]
NOTHING = "There is no catalogue: any event can be fired. See DJWEBHOOKS_EVENTS and register_event."


def describe_catalogue(form: str, *, with_internal: bool = False) -> str:
    """Write the catalogue in a *form* of ``FORMS``; *with_internal*, also the events that owners do not know of."""
    shown = [event_type for event_type in list_event_types() if with_internal or not event_type.internal]
    return FORMS[form](shown)


def write_text(event_types: list[EventType]) -> str:
    """A line for each event."""
    width = max((len(event_type.name) for event_type in event_types), default=0)
    lines = [f"{event_type.name:{width}}  {'; '.join(_remarks(event_type))}".rstrip() for event_type in event_types]
    return "\n".join(lines or [NOTHING])


def _remarks(event_type: EventType) -> list[str]:
    return [
        *filter(None, [event_type.description]),
        *(["internal"] if event_type.internal else []),
        *([f"deprecated: {event_type.deprecated}"] if event_type.deprecated else []),
        *([f"version {event_type.version}"] if event_type.version else []),
        *([f"also in {', '.join(map(_name_version, event_type.versions))}"] if event_type.versions else []),
    ]


def _name_version(event_type: EventType) -> str:
    return f"{event_type.version} (deprecated)" if event_type.deprecated else event_type.version


def write_markdown(event_types: list[EventType]) -> str:
    """A section for each event."""
    sections = ["# Webhook events", *(section for event_type in event_types for section in _write_sections(event_type))]
    return "\n\n".join(sections if event_types else [*sections, NOTHING])


def _write_sections(event_type: EventType) -> Iterator[str]:
    heading = f"## `{event_type.name}`"
    yield _write_section(heading, event_type, "Version `{}`, the current one.")
    for version in event_type.versions:
        yield _write_section(f"#{heading} in version `{version.version}`", version, "For who asks for it.")


def _write_section(heading: str, event_type: EventType, remark: str) -> str:
    parts = [heading]
    if event_type.version:
        parts.append(remark.format(event_type.version))
    if event_type.deprecated:
        parts.append(f"**Deprecated.** {event_type.deprecated}")
    if event_type.internal:
        parts.append("For the system's own targets only.")
    if event_type.description:
        parts.append(event_type.description)
    for title, value in (("Sample", event_type.sample), ("Schema", event_type.schema)):
        if value is not None:
            parts.append(f"{title}:\n\n```json\n{_indent(value)}\n```")
    return "\n\n".join(parts)


def _indent(value: object) -> str:
    return json.dumps(json.loads(payload.encode(value)), indent=2, ensure_ascii=False)


# -- OpenAPI -----------------------------------------------------------------------------------------------------------


def write_openapi(event_types: list[EventType]) -> str:
    """An OpenAPI 3.1 document that has a webhook for each event, as it is sent: its envelope, its headers, what answers mean."""
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Webhooks", "version": "1", "description": "Signed as Standard Webhooks 1.0.0 says."},
        "webhooks": {key: {"post": _operation(key, event_type)} for key, event_type in _list_webhooks(event_types)},
        "components": {"parameters": {name: _parameter(name, text) for name, text in HEADERS.items()}},
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def _list_webhooks(event_types: list[EventType]) -> Iterator[tuple[str, EventType]]:
    """Each event, and each other version of it, with a key of its own."""
    for event_type in event_types:
        yield event_type.name, event_type
        yield from ((f"{event_type.name}@{version.version}", version) for version in event_type.versions)


#: The headers of each request, and what they are.
HEADERS: Mapping[str, str] = {
    "webhook-id": "The event's id, the same at each attempt: what was seen before can be left out.",
    "webhook-timestamp": "When this attempt was signed, in seconds since 1970.",
    "webhook-signature": "Signatures of id, timestamp and body, separated by spaces.",
    "webhook-sequence": "The number of the event at this address, from 1 on. Not signed.",
    "webhook-attempt": "The number of this attempt, from 1 on. Not signed.",
    "webhook-coalesced": "For how many earlier events, which are not sent any more, this one stands. Not signed.",
}
#: Those of them that not every request has.
OPTIONAL = {"webhook-coalesced"}
RESPONSES: Mapping[str, str] = {
    "2XX": "The event was received.",
    "410": "Send nothing more to this address.",
    "default": "The event is sent again later.",
}


def _parameter(name: str, description: str) -> Schema:
    is_required = name not in OPTIONAL
    return {"name": name, "in": "header", "required": is_required, "description": description, "schema": {"type": "string"}}


def _operation(key: str, event_type: EventType) -> Schema:
    body: Schema = {"schema": _envelop(key, event_type)}
    if event_type.sample is not None:
        body["example"] = _fill(event_type)
    operation: Schema = {
        "operationId": key,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in HEADERS]
        + _list_attributes(event_type)
        + _tell_version(event_type),
        "requestBody": {"required": True, "content": {payload.content_type(conf.ENVELOPE): body}},
        "responses": {status: {"description": description} for status, description in RESPONSES.items()},
    }
    told = " ".join(filter(None, [event_type.description, event_type.deprecated]))
    return operation | ({"description": told} if told else {}) | ({"deprecated": True} if event_type.deprecated else {})


def _list_attributes(event_type: EventType) -> list[Schema]:
    """The headers of the envelope, for targets of owners."""
    body_format = payload.envelope_format(conf.ENVELOPE, with_owner=False)
    message = payload.Message(SAMPLE_UID, event_type.name, SAMPLE_TIME, "null", None)
    headers = payload.envelope_headers(body_format, message)
    return [_parameter(name, "An attribute of the CloudEvent.") | {"example": value} for name, value in headers.items()]


def _tell_version(event_type: EventType) -> list[Schema]:
    if not event_type.version:
        return []
    parameter = _parameter("webhook-version", "The version of the payload. Not signed.")
    return [parameter | {"schema": {"const": event_type.version}}]


def _envelop(key: str, event_type: EventType) -> Schema:
    """The schema of the whole body, for targets of owners."""
    name, schema = event_type.name, event_type.schema
    data = _embed(key, schema) if schema is not None else {}
    if conf.ENVELOPE == "flat":
        told = _object({"event": {"const": name}, "owner": {"type": ["string", "null"]}})
        return {"allOf": [data, told]} if data else told
    if conf.ENVELOPE == payload.BINARY:
        return data
    time = {"type": "string", "format": "date-time"}
    if conf.ENVELOPE == "cloudevents":
        source, kind = payload.CLOUDEVENTS_SOURCE, "application/json"
        constants = {"specversion": "1.0", "source": source, "type": name, "datacontenttype": kind}
        fixed: Schema = {key: {"const": value} for key, value in constants.items()}
        return _object(fixed | {"id": {"type": "string", "format": "uuid"}, "time": time, "data": data})
    return _object({"type": {"const": name}, "timestamp": time, "data": data})


def _object(properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _embed(key: str, schema: Mapping[str, Any]) -> Schema:
    """Let what *schema* refers to be looked up in itself, wherever it stands (JSON Schema 2020-12, core, 8.2.1)."""
    return dict(schema) if "$id" in schema or '"$ref"' not in json.dumps(schema) else {"$id": f"urn:webhook:{key}", **schema}


def _fill(event_type: EventType) -> Any:
    """The sample as it would be sent."""
    body_format = payload.envelope_format(conf.ENVELOPE, with_owner=False)
    message = payload.Message(SAMPLE_UID, event_type.name, SAMPLE_TIME, payload.encode(event_type.sample), "owner")
    return json.loads(payload.render(body_format, message))


SAMPLE_UID, SAMPLE_TIME = UUID("01960de8-0000-7000-8000-000000000000"), datetime(2026, 1, 1, 12, tzinfo=UTC)
FORMS: Mapping[str, Callable[[list[EventType]], str]] = {
    "text": write_text,
    "markdown": write_markdown,
    "openapi": write_openapi,
}
