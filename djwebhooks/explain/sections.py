"""What an explanation is made of: sections of lines, cut where there are too many."""

from dataclasses import dataclass

from djwebhooks.models import Event, WebhookTarget

#: Targets, deliveries or attempts that are listed at most, and rows that are counted at most.
LIMIT, COUNT_LIMIT = 20, 1000


@dataclass(frozen=True, slots=True)
class Section:
    """A heading, and what is said under it."""

    heading: str
    lines: list[str]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of an event or of a delivery, for people to read. It never shows a secret or a payload."""

    title: str
    sections: list[Section]


def describe_target(target: WebhookTarget) -> str:
    """Say which target it is to people: its address, whose it is, its identifier."""
    whose = "the system's" if target.owner_id is None else f"owner {target.owner_id}"
    return f"{target.target_url} ({whose}{f', identifier {target.identifier!r}' if target.identifier else ''})"


def tell_of(target: WebhookTarget, what: str) -> str:
    """Say *what* of a target, in two lines."""
    return f"{describe_target(target)}\n  target {target.uid}: {what}"


def describe_owner(event: Event) -> str:
    return "no owner" if event.owner_id is None else f"owner {event.owner_id}"


def list_some(lines: list[str], count: int, *, limit: int = LIMIT) -> list[str]:
    """Cut *lines* at the limit, and say how many of *count* are left out."""
    return lines[:limit] + ([f"… and {count - limit} more."] if count > limit else [])
