"""Say who would get an event of a name, fired or not."""

from typing import Any

from djwebhooks import catalogue
from djwebhooks.explain.events import last_line
from djwebhooks.explain.sections import COUNT_LIMIT, Explanation, Section, describe_owner
from djwebhooks.explain.targets import list_others, list_receivers
from djwebhooks.models import Event, WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.names import OPERATIONAL_EVENTS, check_name
from djwebhooks.words import describe_count

#: Of how many of the newest events it is said whether their payloads could be built: no index tells.
BUILT_LIMIT = 10_000
#: In the place of an owner's primary key: whichever owner it is.
ANYONE: Any = object()


def explain_name(name: str, *, owner_pk: Any = ANYONE, identifier: str = "", using: str | None = None) -> Explanation:
    """Say which targets would get an event called *name*, and why others would not.

    *owner_pk* (None for an event without owner) and *identifier* are the event's; without *owner_pk* all subscribers are
    listed, each with the events that it gets.
    Raises ``InvalidEvent`` for a name that no event can have, and ``UnknownEvent`` for one that is not in the catalogue.
    """
    alias = using or events_database()
    check_name(name)
    if name not in OPERATIONAL_EVENTS:
        catalogue.check_known(name)
    if owner_pk is ANYONE:
        # A broadcast reaches every subscriber.
        subscribers = list_receivers(alias, Event(name=name, is_broadcast=True), "Subscribed", with_condition=True)
        return Explanation(f"Event {name} of any owner", [doubt(alias, name, subscribers), *list_failing(alias, name)])
    event = Event(name=name, owner_id=owner_pk, identifier=identifier)
    title = f"Event {name} of {describe_owner(event)}" + (f" with identifier {identifier!r}" if identifier else "")
    receivers, others = list_receivers(alias, event, "Would get it"), list_others(alias, event, "Would not get it")
    return Explanation(title, [doubt(alias, name, receivers), others, *list_failing(alias, name)])


def list_failing(using: str, name: str) -> list[Section]:
    """Say whether payloads of the newest events called *name* cannot be built, and what was raised last; nothing if they can."""
    failing = Event.objects.using(using).failing(BUILT_LIMIT).filter(name=name)
    latest = failing.order_by("-pk").first()
    if latest is None:
        return []
    count = describe_count(failing[:COUNT_LIMIT].count(), "event")
    words = f"{count} of this name could not be built the last time, the latest being {latest.uid}, by {latest.hook}"
    return [Section("Payloads", [words, f"Last error: {last_line(latest.build_error)}"])]


def doubt(using: str, name: str, section: Section) -> Section:
    """Add to *section* that *name* may be misspelt, if nobody subscribed to it and it was never fired."""
    if not catalogue.is_open() or WebhookTarget.objects.using(using).subscribed_to(name).exists():
        return section
    if Event.objects.using(using).filter(name=name).exists():
        return section
    line = "No event of this name was ever fired; without a catalogue any name will do, so check its spelling."
    key = ["If it is a row's primary key, ask by its uid instead."] if name.isdecimal() else []
    return Section(section.heading, [*section.lines, line, *key])
