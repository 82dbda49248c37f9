"""What events are called, and the patterns that stand for many of them."""

import re

from djwebhooks.exceptions import InvalidEvent

#: The event that tells an owner's other targets that one was disabled.
DISABLED_EVENT = "webhook.target.disabled"
#: Events of djwebhooks' own, about webhooks. ``*`` means the application's, so these must be asked for by name.
OPERATIONAL_EVENTS = frozenset({DISABLED_EVENT})
#: How long an event's name, or a pattern, may be.
NAME_LENGTH = 255
NAME = re.compile(r"[a-zA-Z0-9_]+(?:\.[a-zA-Z0-9_]+)*")


def check_name(name: str) -> str:
    """Return *name* if it can name an event: words of ``[a-zA-Z0-9_]`` joined by dots (Standard Webhooks 1.0.0, "Event types").

    Raises InvalidEvent.
    """
    check_length(name)
    if not NAME.fullmatch(name):
        raise InvalidEvent(f"{name!r} is no event name: use words of a-z, A-Z, 0-9, _ joined by dots, as in 'project.update'.")
    return name


def check_pattern(pattern: str) -> str:
    """Return *pattern* if it is an event's name, a name followed by ``.*``, or ``*``. Raises InvalidEvent."""
    check_length(pattern)
    if pattern != "*" and not NAME.fullmatch(pattern.removesuffix(".*")):
        raise InvalidEvent(
            f"{pattern!r} is no pattern: use an event's name (words of a-z, A-Z, 0-9, _ joined by dots), "
            "'project.*' for all below project, or '*' for all."
        )
    return pattern


def check_length(name: str) -> None:
    if not isinstance(name, str):
        raise InvalidEvent(f"The name of an event must be a string, not {name!r}.")
    if len(name) > NAME_LENGTH:
        raise InvalidEvent(f"The name of an event may have {NAME_LENGTH} characters; {name[:40]!r}… has {len(name)}.")


def patterns_for(name: str) -> list[str]:
    """Every pattern that matches the event *name*: itself, then the wildcards from the narrowest to ``*``."""
    words = name.split(".")
    prefixes = (".".join(words[:count]) for count in range(len(words) - 1, 0, -1))
    patterns = [name, *(f"{prefix}.*" for prefix in prefixes)]
    return patterns if name in OPERATIONAL_EVENTS else [*patterns, "*"]


def matches(pattern: str, name: str) -> bool:
    """Whether *pattern* wants the event *name*. ``project.*`` wants any depth below ``project``, but not ``project`` itself."""
    if pattern == "*":
        return name not in OPERATIONAL_EVENTS
    return pattern == name or (pattern.endswith(".*") and name.startswith(pattern[:-1]))
