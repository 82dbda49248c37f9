"""The event of django-domain-events; only where that is installed."""

from dataclasses import dataclass

from django_domain_events import event


@event
@dataclass(frozen=True, slots=True)
class NoteSaved:
    """A note was saved."""

    id: int
    text: str
    number: int
    fired_at: float
