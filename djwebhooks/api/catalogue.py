"""The events of ``DJWEBHOOKS_EVENTS`` that owners may know of: all but the internal ones."""

from typing import Any

from rest_framework.exceptions import ValidationError

from djwebhooks.conf import conf
from djwebhooks.exceptions import InvalidEvent
from djwebhooks.payload import OPERATIONAL_EVENTS, check_name, check_pattern, matches


def list_event_types() -> list[dict[str, Any]]:
    """Return what the catalogue says of each event, by name."""
    return [
        {
            "name": name,
            "description": str(entry.get("description", "")),
            "schema": entry.get("schema"),
            "sample": entry.get("sample"),
        }
        for name, entry in sorted(conf.EVENTS.items())
        if not entry.get("internal")
    ]


def check_event_type(name: str) -> None:
    """Raise ``ValidationError`` unless an event can be called *name*."""
    try:
        check_name(name)
    except InvalidEvent as error:
        raise ValidationError(str(error)) from error
    names = [event_type["name"] for event_type in list_event_types()]
    if conf.EVENTS and name not in names:
        raise ValidationError(f"There is no event {name!r}: there are {', '.join(names)}.")


def check_subscription(pattern: str) -> None:
    """Raise ``ValidationError`` unless *pattern* can match an event."""
    try:
        check_pattern(pattern)
    except InvalidEvent as error:
        raise ValidationError(str(error)) from error
    names = [event_type["name"] for event_type in list_event_types()]
    if conf.EVENTS and not any(matches(pattern, name) for name in [*names, *OPERATIONAL_EVENTS]):
        raise ValidationError(f"{pattern!r} matches no event: there are {', '.join(names)}.")
