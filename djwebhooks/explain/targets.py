"""Say who gets an event, who does not and why, and what holds a target back."""

import json
from collections.abc import Iterator
from datetime import datetime

from djwebhooks import senders
from djwebhooks.database import read_clock
from djwebhooks.explain.sections import LIMIT, Section, describe_owner, list_some, tell_of
from djwebhooks.health import UNKNOWN, Health
from djwebhooks.models import Event, Lane, WebhookTarget
from djwebhooks.models.targets import WebhookTargetQuerySet
from djwebhooks.names import matches
from djwebhooks.notices import DISABLED_BECAUSE
from djwebhooks.words import describe_count, describe_time, name_failure


def list_receivers(using: str, event: Event, heading: str, *, with_condition: bool = False) -> Section:
    """List the targets that *event* goes to as things are now, and why each of them holds it back, if it does."""
    targets = WebhookTarget.objects.using(using).matching(event)
    now = read_clock(using)
    lines = []
    for target in load(targets):
        parts = [describe_wish(target, event)] + ([describe_condition(target)] if with_condition else [])
        parts += [f"HELD: {reason}" for reason in list_holds(using, target, now)]
        lines.append(tell_of(target, "; ".join(parts)))
    return Section(heading, list_some(lines, targets.count()) or ["Nobody."])


def list_others(using: str, event: Event, heading: str) -> Section:
    """List near misses: subscribers that their owner or identifier keeps out, and the owner's targets that want other events."""
    targets = WebhookTarget.objects.using(using)
    if event.direct_targets:
        return Section(heading, ["It goes straight to the addresses in urls=, whatever others are subscribed to."])
    subscribers = targets.subscribed_to(event.name)
    others = subscribers.exclude(pk__in=targets.matching(event).values("pk"))
    lines = [tell_of(target, describe_mismatch(using, target, event)) for target in load(others)]
    unsubscribed = targets.filter(owner=event.owner_id, is_hidden=False).exclude(pk__in=subscribers.values("pk"))
    lines += [tell_of(target, f"it is not subscribed; {describe_events(target)}") for target in load(unsubscribed)]
    return Section(heading, list_some(lines, others.count() + unsubscribed.count()) or ["No other target comes near."])


def load(targets: WebhookTargetQuerySet) -> list[WebhookTarget]:
    """The first of *targets*, with their subscriptions."""
    return list(targets.order_by("pk").prefetch_related("subscriptions")[:LIMIT])


def describe_wish(target: WebhookTarget, event: Event) -> str:
    version = f", in version {target.version} if there is one" if target.version else ""
    if event.direct_targets:
        return f"named by urls={version}"
    wanted = [describe_interest(target, name) for name in target.events if matches(name, event.name)]
    return f"subscribed to {', '.join(wanted)}{version}"


def describe_interest(target: WebhookTarget, name: str) -> str:
    wanted = (target.filters or {}).get(name)
    return name if wanted is None else f"{name} (if its payload fits {json.dumps(wanted, ensure_ascii=False)})"


def describe_condition(target: WebhookTarget) -> str:
    whose = "events of every owner" if target.owner_id is None else f"events of owner {target.owner_id}"
    return f"gets {whose}{f' with identifier {target.identifier!r}' if target.identifier else ''}, and broadcasts"


def describe_events(target: WebhookTarget) -> str:
    return f"it wants {', '.join(target.events)}" if target.events else "it wants nothing"


def describe_mismatch(using: str, target: WebhookTarget, event: Event) -> str:
    """Say why *target* does not get *event*, by asking what it would take for it to match."""
    this = WebhookTarget.objects.using(using).filter(pk=target.pk)
    identifier = f"its identifier is {target.identifier!r}, and the event's is {event.identifier!r}"
    owner = f"it belongs to owner {target.owner_id}, and the event has {describe_owner(event)}"
    if this.matching(Event(name=event.name, owner_id=event.owner_id, identifier=target.identifier)).exists():
        return identifier
    if this.matching(Event(name=event.name, owner_id=target.owner_id, identifier=event.identifier)).exists():
        return owner
    return f"{owner}; {identifier}"


def list_holds(using: str, target: WebhookTarget, now: datetime) -> Iterator[str]:
    """Say why nothing is sent to *target* at the moment, or only a probe, one reason at a time."""
    lane = Lane.objects.using(using).filter(pk=target.pk).first()
    health = lane.health if lane is not None else UNKNOWN
    if not target.is_active:
        yield "it is paused; resume it"
    if fault := senders.find_fault(target.sender):
        yield f"nobody can send to it: {fault}"
    if health.disabled_at is not None:
        because = DISABLED_BECAUSE.get(health.disabled_reason, health.disabled_reason)
        yield f"it was disabled {describe_time(health.disabled_at, now)}: {because}; resume it once it is fixed"
    elif health.suspended_at is not None:
        yield describe_suspension(health, now)
    elif health.held_until is not None and health.is_held(now):
        yield f"it is suspended until {describe_time(health.held_until, now)}: its receiver asked for a pause, or we need one"


def describe_suspension(health: Health, now: datetime) -> str:
    """Say since when and why only probes are sent, and when the next one goes."""
    probe = describe_time(health.held_until, now) if health.held_until is not None and health.is_held(now) else "now"
    attempts = describe_count(health.failure_count, "attempt")
    failures = f": the last {attempts} failed, the latest with {name_failure(health.failure)}"
    since = describe_time(health.suspended_at or now, now)
    return f"it has been suspended since {since}{failures if health.failure_count else ''}; the next probe goes {probe}"


def list_troubles(health: Health, now: datetime) -> Iterator[str]:
    """Say what is known of a receiver that is sent to, but not fully trusted."""
    if health.failing_since is not None and health.suspended_at is None:
        since = describe_time(health.failing_since, now)
        latest = name_failure(health.failure)
        yield f"failed attempts since the last success: {health.failure_count}, from {since}, the latest with {latest}"
    rate = health.rate(now)
    if rate is not None:
        yield f"what was held goes out at a rising rate, now {rate:.0f} requests a second"
