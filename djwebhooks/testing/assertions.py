"""Assertions about what was fired, whose failures say what was fired instead."""

import json
from collections.abc import Iterable, Iterator
from difflib import ndiff
from pprint import pformat
from typing import Any

from djwebhooks.exceptions import InvalidPayload
from djwebhooks.explain.sections import describe_owner, describe_target
from djwebhooks.models import Event, WebhookTarget
from djwebhooks.owners import check_owner
from djwebhooks.payload import encode
from djwebhooks.testing.sending import fired, payload_of, targets_of
from djwebhooks.words import make_printable

#: In the place of what does not matter.
ANYTHING: Any = object()
#: Events that a failure describes at most.
LIMIT = 10


def assert_fired(
    name: str,
    *,
    owner: Any = ANYTHING,
    identifier: str = ANYTHING,
    ordering_key: str = ANYTHING,
    payload: Any = ANYTHING,
    targets: Iterable[WebhookTarget] = ANYTHING,
    using: str | None = None,
) -> Event:
    """Return the one event called *name* that is as the other arguments say; those that are not given do not matter.

    *owner* None is an event without an owner. *payload* is compared as the JSON that it becomes, and
    ``unittest.mock.ANY`` may stand for a part of it that does not matter. *targets* are exactly those that get it.

    Raises AssertionError, which says what was fired instead and where that differs, unless there is exactly one such event.
    """
    __tracebackhide__ = True
    wanted = _choose(owner=owner, identifier=identifier, ordering_key=ordering_key, payload=payload, targets=targets)
    events = fired(using=using)
    fitting = [event for event in events if event.name == name and fits(event, wanted)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise AssertionError(f"{describe_wish(name, wanted)} was fired {len(fitting)} times, not once.")
    raise AssertionError("\n".join([f"{describe_wish(name, wanted)} was not fired.", *describe_events(events, name, wanted)]))


def assert_not_fired(
    name: str | None = None,
    *,
    owner: Any = ANYTHING,
    identifier: str = ANYTHING,
    ordering_key: str = ANYTHING,
    payload: Any = ANYTHING,
    targets: Iterable[WebhookTarget] = ANYTHING,
    using: str | None = None,
) -> None:
    """Raise AssertionError if an event is as the arguments of ``assert_fired`` say; without a name, whatever it is called."""
    __tracebackhide__ = True
    wanted = _choose(owner=owner, identifier=identifier, ordering_key=ordering_key, payload=payload, targets=targets)
    fitting = [event for event in fired(name, using=using) if fits(event, wanted)]
    if fitting:
        raise AssertionError("\n".join(["It was fired all the same:", *map(describe_event, fitting[:LIMIT])]))


def _choose(**criteria: Any) -> dict[str, Any]:
    return {name: value for name, value in criteria.items() if value is not ANYTHING}


def fits(event: Event, wanted: dict[str, Any]) -> bool:
    """Whether *event* is as *wanted*. Its payload is not looked at if it differs before."""
    return next(find_differences(event, wanted), None) is None


def find_differences(event: Event, wanted: dict[str, Any]) -> Iterator[str]:
    """Say where *event* is not as *wanted*."""
    if "owner" in wanted and event.owner_id != check_owner(wanted["owner"]):
        yield f"it has {describe_owner(event)}, not {wanted['owner']!r}"
    for name in ("identifier", "ordering_key"):
        if name in wanted and getattr(event, name) != wanted[name]:
            yield f"its {name} is {getattr(event, name)!r}, not {wanted[name]!r}"
    try:
        if "payload" in wanted and (found := payload_of(event)) != as_json(wanted["payload"]):
            yield "\n".join(["its payload differs (- wanted, + fired):", *compare(as_json(wanted["payload"]), found)])
        if "targets" in wanted:
            yield from compare_targets(targets_of(event), list(wanted["targets"]))
    except Exception as error:  # noqa: BLE001 (the application's own code raises anything; another event may be the one)
        yield describe_failure(error)


def as_json(value: Any) -> Any:
    """Return *value* as a payload's JSON would give it back; what no payload may have stays, as it may equal anything."""
    if isinstance(value, dict):
        return {key: as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(each) for each in value]
    try:
        return json.loads(encode(value))
    except InvalidPayload:
        return value


def compare(wanted: Any, found: Any) -> Iterator[str]:
    lines = ndiff(pformat(wanted, width=100).splitlines(), pformat(found, width=100).splitlines())
    return (f"  {line}" for line in lines if not line.startswith("?"))


def compare_targets(found: list[WebhookTarget], wanted: list[WebhookTarget]) -> Iterator[str]:
    yield from (f"{describe_target(target)} would not get it" for target in wanted if target not in found)
    yield from (f"{describe_target(target)} would get it, too" for target in found if target not in wanted)


# -- words -------------------------------------------------------------------------------------------------------------


def describe_wish(name: str, wanted: dict[str, Any]) -> str:
    return f"The event {name!r}" + (f" with {', '.join(f'{key}={value!r}' for key, value in wanted.items())}" if wanted else "")


def describe_events(events: list[Event], name: str, wanted: dict[str, Any]) -> Iterator[str]:
    """Describe what was fired instead: first the events called *name*, with where they differ."""
    if not events:
        yield "Nothing was fired at all."
        return
    yield "What was fired:"
    for event in sorted(events, key=lambda event: event.name != name)[:LIMIT]:
        yield describe_event(event)
        if event.name == name:
            yield from (f"    {line}" for difference in find_differences(event, wanted) for line in difference.splitlines())
    if len(events) > LIMIT:
        yield f"… and {len(events) - LIMIT} more."


def describe_event(event: Event) -> str:
    facts = [describe_owner(event)]
    facts += [f"{name} {value!r}" for name in ("identifier", "ordering_key") if (value := getattr(event, name))]
    return f"* {event.name} ({', '.join(facts)}): {make_printable(show_payload(event))}"


def show_payload(event: Event) -> str:
    try:
        return repr(payload_of(event))
    except Exception as error:  # noqa: BLE001 (the application's own code raises anything; the failure is about something else)
        return describe_failure(error)


def describe_failure(error: Exception) -> str:
    return f"its payload cannot be built: {error!r}"
