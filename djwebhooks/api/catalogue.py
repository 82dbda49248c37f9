"""What owners may know of the catalogue: all but the internal events."""

from rest_framework.exceptions import ValidationError

from djwebhooks import catalogue
from djwebhooks.catalogue import EventType
from djwebhooks.exceptions import InvalidEvent
from djwebhooks.names import OPERATIONAL_EVENTS, check_name, check_pattern, matches


def list_event_types() -> list[EventType]:
    """Return what the catalogue says of each event, by name."""
    return [event_type for event_type in catalogue.list_event_types() if not event_type.internal]


def check_event_name(name: str) -> None:
    """Raise ``ValidationError`` unless *name* is made as names of events are."""
    try:
        check_name(name)
    except InvalidEvent as error:
        raise ValidationError(str(error)) from error


def check_event_type(name: str) -> None:
    """Raise ``ValidationError`` unless an event can be called *name*."""
    check_event_name(name)
    names = _list_names()
    if not catalogue.is_open() and name not in names:
        raise ValidationError(f"There is no event {name!r}: there are {', '.join(names)}.")


def check_subscription(pattern: str) -> None:
    """Raise ``ValidationError`` unless *pattern* can match an event."""
    try:
        check_pattern(pattern)
    except InvalidEvent as error:
        raise ValidationError(str(error)) from error
    names = _list_names()
    if not catalogue.is_open() and not any(matches(pattern, name) for name in [*names, *OPERATIONAL_EVENTS]):
        raise ValidationError(f"{pattern!r} matches no event: there are {', '.join(names)}.")


def _list_names() -> list[str]:
    return [name for name in catalogue.names_of_all() if not catalogue.is_internal(name)]
