"""Say to owners why a target is not sent to, and why a delivery waits or has ended.

Unlike ``djwebhooks.explain``, which speaks to the staff, this names neither workers nor settings nor hooks.
"""

from collections.abc import Iterator
from datetime import datetime

from djwebhooks.conf import conf
from djwebhooks.explain.endings import ENDINGS
from djwebhooks.explain.events import waits_for_newer
from djwebhooks.explain.targets import describe_suspension, list_troubles
from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.words import describe_span, describe_time, name_failure

#: States in which nothing is sent, or no more than a probe.
CLOSED = ("paused", "disabled", "suspended")


def explain_target(target: WebhookTarget, now: datetime) -> list[str]:
    """Say in sentences why *target* is in its state; nothing if it is healthy."""
    return [f"{reason[0].upper()}{reason[1:]}." for reason in _list_reasons(target, now)]


def _list_reasons(target: WebhookTarget, now: datetime) -> Iterator[str]:
    health = target.health
    if not target.is_active:
        yield "it is paused: events wait until you resume it"
    if health.disabled_at is not None:
        yield f"it was disabled {describe_time(health.disabled_at, now)}: {_describe_end(health.disabled_reason)}"
        yield "events wait until you resume it"
    elif health.suspended_at is not None:
        yield describe_suspension(health, now)
    elif health.held_until is not None and health.is_held(now):
        yield f"nothing is sent until {describe_time(health.held_until, now)}: its receiver asked for a pause, or we need one"
    yield from list_troubles(health, now)


def _describe_end(reason: str) -> str:
    return {
        "gone": "its receiver answered 410 Gone",
        "receiver": "its receiver asked for it",
        "failing": f"there was nothing but failures for {describe_span(conf.seconds('DISABLE_AFTER'))}",
    }.get(reason, reason)


def explain_delivery(delivery: Delivery, now: datetime) -> str:
    """Say in a sentence why *delivery* waits, or why it has ended; empty if it succeeded."""
    reason = _find_wait(delivery, now) if not delivery.is_finished else describe_reason(delivery)
    return f"{reason[0].upper()}{reason[1:]}." if reason else ""


def describe_reason(delivery: Delivery) -> str:
    """Say why *delivery* has ended, or what went wrong last; empty if nothing did."""
    return ENDINGS.get(delivery.reason, name_failure(delivery.reason))


def _find_wait(delivery: Delivery, now: datetime) -> str:
    state = delivery.target.state
    if state in CLOSED:
        return f"it waits, as its webhook is {state}"
    if delivery.due_at is None:
        return "it waits for an earlier event, as this webhook gets them in their order"
    if delivery.due_at <= now:
        return "it is sent as soon as possible"
    if waits_for_newer(delivery):
        return f"it waits for newer events, which take its place, until {describe_time(delivery.due_at, now)}"
    last = f" after {describe_reason(delivery)}" if delivery.reason else ""
    return f"it is tried again{last}: {describe_time(delivery.due_at, now)}"
