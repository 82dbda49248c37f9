"""Say who gets an event, who does not and why, and why a delivery waits."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Count, Value, When
from django.utils import timezone

from djwebhooks import catalogue, payload, senders
from djwebhooks.conf import conf
from djwebhooks.contents import read_statements
from djwebhooks.database import read_clock
from djwebhooks.engines import get_engine
from djwebhooks.filters import MOST_COMPARISONS
from djwebhooks.health import UNKNOWN, Health
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Replay, WebhookTarget, Worker
from djwebhooks.models.deliveries import COALESCED, FILTERED, Status
from djwebhooks.models.events import BUILD_TRIES, events_database
from djwebhooks.models.targets import WebhookTargetQuerySet
from djwebhooks.notices import DISABLED_BECAUSE
from djwebhooks.versions import CURRENT, choose_version
from djwebhooks.words import describe_count, describe_span

#: Targets, deliveries or attempts that are listed at most, and rows that are counted at most.
LIMIT, COUNT_LIMIT = 20, 1000
#: Of how many of the newest events it is said whether their payloads could be built: no index tells.
BUILT_LIMIT = 10_000
#: In the place of an owner's primary key: whichever owner it is.
ANYONE: Any = object()

#: By which way a replay was asked for, in words.
THROUGH = {"admin": "the admin", "api": "the API", "command": "the command", "python": "Python"}


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


def explain_name(name: str, *, owner_pk: Any = ANYONE, identifier: str = "", using: str | None = None) -> Explanation:
    """Say which targets would get an event called *name*, and why others would not.

    *owner_pk* (None for an event without owner) and *identifier* are the event's; without *owner_pk* all subscribers are
    listed, each with the events that it gets.
    Raises ``InvalidEvent`` for a name that no event can have, and ``UnknownEvent`` for one that is not in the catalogue.
    """
    alias = using or events_database()
    payload.check_name(name)
    if name not in payload.OPERATIONAL_EVENTS:
        catalogue.check_known(name)
    if owner_pk is ANYONE:
        # A broadcast reaches every subscriber.
        subscribers = list_receivers(alias, Event(name=name, is_broadcast=True), "Subscribed", with_condition=True)
        return Explanation(f"Event {name} of any owner", [doubt(alias, name, subscribers), *list_failing(alias, name)])
    event = Event(name=name, owner_id=owner_pk, identifier=identifier)
    title = f"Event {name} of {describe_owner(event)}" + (f" with identifier {identifier!r}" if identifier else "")
    receivers, others = list_receivers(alias, event, "Would get it"), list_others(alias, event, "Would not get it")
    return Explanation(title, [doubt(alias, name, receivers), others, *list_failing(alias, name)])


def explain_uid(uid: uuid.UUID, *, using: str | None = None) -> Explanation | None:
    """Explain the event or the delivery with this uid; None when there is neither."""
    alias = using or events_database()
    event = Event.objects.using(alias).filter(uid=uid).first()
    if event is not None:
        return explain_event(alias, event)
    delivery = Delivery.objects.using(alias).filter(uid=uid).first()
    return explain_delivery(alias, delivery) if delivery is not None else None


def list_failing(using: str, name: str) -> list[Section]:
    """Say whether payloads of the newest events called *name* cannot be built, and what was raised last; nothing if they can."""
    failing = Event.objects.using(using).failing(BUILT_LIMIT).filter(name=name)
    latest = failing.order_by("-pk").first()
    if latest is None:
        return []
    count = describe_count(failing[:COUNT_LIMIT].count(), "event")
    words = f"{count} of this name could not be built the last time, the latest being {latest.uid}, by {latest.hook}"
    return [Section("Payloads", [words, f"Last error: {last_line(latest.build_error)}"])]


def last_line(error: str) -> str:
    """The end of a traceback: what was raised."""
    return make_printable(error.strip().splitlines()[-1])


def doubt(using: str, name: str, section: Section) -> Section:
    """Add to *section* that *name* may be misspelt, if nobody subscribed to it and it was never fired."""
    if not catalogue.is_open() or WebhookTarget.objects.using(using).subscribed_to(name).exists():
        return section
    if Event.objects.using(using).filter(name=name).exists():
        return section
    line = "No event of this name was ever fired; without a catalogue any name will do, so check its spelling."
    return Section(section.heading, [*section.lines, line])


# -- words -------------------------------------------------------------------------------------------------------------


def describe_time(at: datetime, now: datetime) -> str:
    """Say when something was, or will be: ``2026-09-21 16:13:20 (3 min ago)``, in the current time zone."""
    seconds = (at - now).total_seconds()
    relation = f"in {describe_span(seconds)}" if seconds > 0 else f"{describe_span(-seconds)} ago"
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S} ({relation})"


def describe_target(target: WebhookTarget) -> str:
    """Say which target it is to people: its address, whose it is, its identifier."""
    whose = "the system's" if target.owner_id is None else f"owner {target.owner_id}"
    return f"{target.target_url} ({whose}{f', identifier {target.identifier!r}' if target.identifier else ''})"


def tell_of(target: WebhookTarget, what: str) -> str:
    """Say *what* of a target, in two lines."""
    return f"{describe_target(target)}\n  target {target.uid}: {what}"


def describe_owner(event: Event) -> str:
    return "no owner" if event.owner_id is None else f"owner {event.owner_id}"


def make_printable(text: str, length: int = 200) -> str:
    """Return the beginning of *text* as one line that does nothing to a terminal."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def list_some(lines: list[str], count: int, *, limit: int = LIMIT) -> list[str]:
    """Cut *lines* at the limit, and say how many of *count* are left out."""
    return lines[:limit] + ([f"… and {count - limit} more."] if count > limit else [])


# -- who gets it -------------------------------------------------------------------------------------------------------


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
    wanted = [describe_interest(target, name) for name in target.events if payload.matches(name, event.name)]
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
        yield f"it was disabled {describe_time(health.disabled_at, now)}: {because}; resume it once it is mended"
    elif health.suspended_at is not None:
        yield describe_suspension(health, now)
    elif health.held_until is not None and health.is_held(now):
        yield f"it is suspended until {describe_time(health.held_until, now)}: its receiver asked for a pause, or we need one"


def describe_suspension(health: Health, now: datetime) -> str:
    """Say since when and why only probes are sent, and when the next one goes."""
    probe = describe_time(health.held_until, now) if health.held_until is not None and health.is_held(now) else "now"
    failures = f"the last {describe_count(health.failure_count, 'attempt')} failed, the latest with {health.failure}"
    since = describe_time(health.suspended_at or now, now)
    return f"it has been suspended since {since}: {failures}; the next probe goes {probe}"


def list_troubles(health: Health, now: datetime) -> Iterator[str]:
    """Say what is known of a receiver that is sent to, but not fully trusted."""
    if health.failing_since is not None and health.suspended_at is None:
        since = describe_time(health.failing_since, now)
        yield f"failed attempts since the last success: {health.failure_count}, from {since}, the latest with {health.failure}"
    rate = health.rate(now)
    if rate is not None:
        yield f"what was held goes out at a rising rate, now {rate:.0f} requests a second"


# -- an event ----------------------------------------------------------------------------------------------------------


def explain_event(using: str, event: Event) -> Explanation:
    """Say what became of *event*."""
    now = read_clock(using)
    sections = [Section("What happened", list(describe_event(using, event, now)))]
    sections.append(Section("Payload", list(describe_payload(using, event, now))))
    if event.erased_at is not None:
        sections.append(list_deliveries(using, event, now))  # Who would get it, only what was erased could tell.
    elif event.dispatched_at is None and not event.dispatch_cursor:
        sections += [list_receivers(using, event, "Will get it"), list_others(using, event, "Will not get it")]
    else:
        sections += [list_deliveries(using, event, now), list_latecomers(using, event)]
        sections.append(list_others(using, event, "Did not get it"))
    return Explanation(f"Event {event.name} {event.uid}", sections)


def describe_event(using: str, event: Event, now: datetime) -> Iterator[str]:
    yield f"Committed: fired {describe_time(event.created_at, now)}"
    audience = "everybody who is subscribed (broadcast)" if event.is_broadcast else describe_owner(event)
    yield f"For: {audience}" + (f", identifier {event.identifier!r}" if event.identifier else "")
    if event.sender:
        yield f"Sender: {event.sender!r}"
    if event.ordering_key:
        yield f"Ordering key: {event.ordering_key!r}"
    if event.idempotency_key:
        yield f"Idempotency key: {event.idempotency_key!r}"
    if event.coalesce is not None:
        wait = f", and waits for them for {describe_span(event.coalesce)} at most" if event.coalesce else ""
        yield f"Coalesced: newer ones of its name and ordering key may take its place{wait}"
    if event.expires_at is not None:
        yield f"Expires: {describe_time(event.expires_at, now)}"
    yield describe_dispatch(using, event, now)


def describe_dispatch(using: str, event: Event, now: datetime) -> str:
    if event.dispatched_at is not None:
        return f"Dispatched: {describe_time(event.dispatched_at, now)}"
    if event.deliver_at is not None and event.deliver_at > now:
        return f"Not dispatched yet: it is planned for {describe_time(event.deliver_at, now)}"
    if event.dispatch_cursor:
        return "Partly dispatched: its many targets get their deliveries page by page"
    ahead = Event.objects.using(using).waiting().filter(pk__lt=event.pk)[:COUNT_LIMIT].count()
    return f"Not dispatched yet, with {describe_count(ahead, 'event')} ahead of it: {describe_workers(using, now)}"


def describe_workers(using: str, now: datetime) -> str:
    """Say whether somebody is at work, and what to do if not."""
    count = Worker.objects.using(using).filter(expires_at__gte=now).count()
    if count:
        return f"{describe_count(count, 'worker')} at work"
    return f"no worker is at work: {get_engine().advice}"


def describe_payload(using: str, event: Event, now: datetime) -> Iterator[str]:
    if event.erased_at is not None:
        yield f"Erased {describe_time(event.erased_at, now)}, with its identifier, its keys and what receivers answered."
        return
    if event.payload:
        yield f"Built, {describe_count(len(event.payload.encode()), 'byte')}" + (f", by {event.hook}" if event.hook else "")
    elif event.dispatched_at is not None and not event.call:
        yield "Never built: nobody wanted the event when it was dispatched."
    else:
        yield describe_build(event, now)
    yield from describe_versions(event, now)
    if event.build_error:
        yield f"Last error: {last_line(event.build_error)}"
    formats = list(Body.objects.using(using).filter(event=event).order_by("format").values_list("format", flat=True))
    if formats:
        yield f"Its bytes are fixed in {', '.join(formats)}."


def describe_versions(event: Event, now: datetime) -> Iterator[str]:
    """Say in which versions the payload is, or is not."""
    if event.version:
        yield f"Its current version is {event.version}."
    others = {version: text for version, text in event.payloads.items() if version != CURRENT}
    if built := [version for version, text in others.items() if text is not None]:
        yield f"Built in version {', '.join(built)} as well."
    if missing := [version for version, text in others.items() if text is None]:
        yield f"In version {', '.join(missing)}: {describe_build(event, now)}"


def describe_build(event: Event, now: datetime) -> str:
    tries = f"{event.build_attempts} of {BUILD_TRIES} runs of {event.hook}"
    if event.has_failed_to_build:
        return f"Given up after {tries}: mend it, then retry the deliveries."
    if event.build_attempts == 0:
        return f"Not built yet: {event.hook} runs when the first delivery is sent."
    again = f"; it runs again {describe_time(event.build_due_at, now)}" if event.build_due_at is not None else ""
    return f"Not built yet after {tries}{again}."


def list_deliveries(using: str, event: Event, now: datetime) -> Section:
    """List the event's deliveries, those that did not succeed first."""
    deliveries = Delivery.objects.using(using).filter(event=event)
    counts: list[tuple[str, int]] = list(deliveries.order_by("status").values_list("status").annotate(Count("pk")))
    if not counts:
        return Section("Deliveries", ["None: nobody wanted it, or they were pruned."])
    trouble_first = deliveries.order_by(Case(When(status=Status.SUCCEEDED, then=Value(1)), default=Value(0)), "pk")
    listed = list(trouble_first[:LIMIT])
    targets = WebhookTarget.objects.using(using).in_bulk([delivery.target_id for delivery in listed])
    lines = [describe_delivery(delivery, targets.get(delivery.target_id), now) for delivery in listed]
    heading = f"Deliveries: {', '.join(f'{count} {status}' for status, count in counts)}"
    return Section(heading, list_some(lines, sum(count for _, count in counts)))


def describe_delivery(delivery: Delivery, target: WebhookTarget | None, now: datetime) -> str:
    where = describe_target(target) if target is not None else f"a target that was deleted ({delivery.target_id})"
    replaced = f" with delivery {delivery.replaced_by}" if delivery.reason == COALESCED else ""
    reason = f" ({delivery.reason}{replaced})" if delivery.reason else ""
    due = f", due {describe_time(delivery.due_at, now)}" if delivery.due_at is not None else ""
    attempts = describe_count(delivery.attempt_count, "attempt")
    return f"{delivery.status}{reason}, {attempts}{due}\n  delivery {delivery.uid} to {where}"


def list_latecomers(using: str, event: Event) -> Section:
    """List targets that match now, but have no delivery of *event*."""
    targets = WebhookTarget.objects.using(using).matching(event)
    late = targets.exclude(pk__in=Delivery.objects.using(using).filter(event=event).values("target"))
    lines = [tell_of(target, describe_lateness(target, event)) for target in load(late)]
    return Section("Would get it now, but did not", list_some(lines, late.count()) or ["Nobody."])


def describe_lateness(target: WebhookTarget, event: Event) -> str:
    if event.dispatched_at is None:
        return "its turn has not come yet"
    if target.created_at > event.dispatched_at:
        return "it was made after the event was dispatched"
    return "it was subscribed, or changed, after the event was dispatched, or its delivery was pruned"


# -- a delivery --------------------------------------------------------------------------------------------------------


def explain_delivery(using: str, delivery: Delivery) -> Explanation:
    """Say what became of *delivery* and, while it is pending, why it waits."""
    now = read_clock(using)
    event = Event.objects.using(using).filter(pk=delivery.event_id).first()
    target = WebhookTarget.objects.using(using).filter(pk=delivery.target_id).first()
    sections = [Section("What it is", list(describe_parts(using, delivery, event, target, now)))]
    if not delivery.is_finished:
        sections.append(Section("Why it waits", list(list_waits(using, delivery, event, target, now))))
    sections.append(list_attempts(using, delivery, now))
    return Explanation(f"Delivery {delivery.uid}: {delivery.status}", sections)


def describe_parts(
    using: str, delivery: Delivery, event: Event | None, target: WebhookTarget | None, now: datetime
) -> Iterator[str]:
    yield f"Event: {event.name} {event.uid}" if event is not None else "Event: deleted"
    yield f"Target: {describe_target(target)}, {target.uid}" if target is not None else "Target: deleted"
    if target is not None and event is not None and target.version and any(event.payloads.values()):
        yield f"Version: {describe_pin(target, event)}"
    key = f", ordering key {delivery.ordering_key!r}" if delivery.ordering_key else ""
    yield f"Sequence: {delivery.sequence} of its target{key}"
    yield from describe_choice(using, delivery, target)
    if delivery.finished_at is not None:
        reason = f", {delivery.reason}" if delivery.reason else ""
        yield f"Ended: {delivery.status}{reason}, {describe_time(delivery.finished_at, now)}"
    elif delivery.expires_at is not None:
        yield f"Expires: {describe_time(delivery.expires_at, now)}"
    if delivery.replay_id is not None:
        yield describe_replay(Replay.objects.using(using).filter(pk=delivery.replay_id).first(), now)


def describe_choice(using: str, delivery: Delivery, target: WebhookTarget | None) -> Iterator[str]:
    """Say what was left out for it, or why it was."""
    if delivery.coalesced_count:
        yield f"Stands for: {describe_count(delivery.coalesced_count, 'earlier event')}, whose place it took"
    if delivery.reason == COALESCED:
        yield f"Coalesced: its place was taken by delivery {delivery.replaced_by}, of a newer event"
    if delivery.reason == FILTERED:
        yield "Filtered: its payload is none that the target's filters let through"
    elif is_unfiltered(using, delivery, target):
        yield f"Not filtered: to hold its payload against the target's filters takes more than {MOST_COMPARISONS} comparisons"


def is_unfiltered(using: str, delivery: Delivery, target: WebhookTarget | None) -> bool:
    """Whether the filters of its target would take too long to judge by."""
    if target is None or not target.filters:
        return False
    statements = read_statements(using, [delivery.event_id])
    return any(statement.judge(target) is None for statement in statements.values())


def describe_pin(target: WebhookTarget, event: Event) -> str:
    """Say which version of *event* its target gets."""
    if target.version == event.version or target.version in event.payloads:
        return f"{target.version}, as its target wants it"
    return (
        f"the current one ({event.version or 'without a name'}), as there is none called {target.version}, which its target wants"
    )


def describe_replay(replay: Replay | None, now: datetime) -> str:
    """Say who wanted it sent again."""
    if replay is None:
        return "Replayed: longer ago than anything is known of it"
    what = "Retried" if replay.is_retry else f"Replayed (replay {replay.uid}, {replay.state})"
    who = f" by {make_printable(replay.requested_by)}" if replay.requested_by else ""
    cancelled_by = f" by {make_printable(replay.cancelled_by)}" if replay.cancelled_by else ""
    end = f"; cancelled{cancelled_by} {describe_time(replay.cancelled_at, now)}" if replay.cancelled_at is not None else ""
    return f"{what}{who} through {THROUGH[replay.requested_through]}, {describe_time(replay.created_at, now)}{end}"


def list_waits(using: str, delivery: Delivery, event: Event | None, target: WebhookTarget | None, now: datetime) -> Iterator[str]:
    """Say why *delivery* is not sent at the moment, one reason at a time."""
    if target is None or event is None:
        yield "What it was for is deleted: it is cancelled when a worker, or webhooks prune, comes past."
        return
    holds = list(list_holds(using, target, now))
    if holds:
        end = delivery.created_at + timedelta(seconds=conf.seconds("RETENTION"))
        yield from (f"Held: {reason}." for reason in holds)
        yield f"What is held expires {describe_time(end, now)}."
    if not target.sender and (fault := senders.find_fault(event.sender or conf.SENDER)):
        yield f"Nobody can send it: {fault}"
    if delivery.due_at is None:
        yield describe_line(using, delivery, now)
    elif delivery.due_at > now:
        yield describe_pause(delivery, describe_time(delivery.due_at, now))
    elif not holds:
        yield from describe_lane(using, target, now)
    if event.erased_at is None and event.payloads[choose_version(target.version, event.payloads)] is None:
        yield f"Payload: {describe_build(event, now)}"


def describe_pause(delivery: Delivery, until: str) -> str:
    """Say what a delivery waits for that is not due yet."""
    if delivery.coalesce_until is not None and not delivery.attempt_count:
        return f"It waits for newer events, which take its place, until {until}."
    last = f" after {delivery.reason}" if delivery.reason else ""
    return f"Tried again{last}: {until}."


def describe_line(using: str, delivery: Delivery, now: datetime) -> str:
    """Say behind which delivery of its ordering key it waits."""
    same_key = Delivery.objects.using(using).filter(target=delivery.target_id, ordering_key=delivery.ordering_key).pending()
    ahead = same_key.filter(sequence__lt=delivery.sequence).order_by("sequence")
    first = ahead.first()
    if first is None:
        return "It is first of its ordering key, and is sent when a worker looks at its target next."
    count = ahead[:COUNT_LIMIT].count()
    many = f"{COUNT_LIMIT} or more deliveries" if count == COUNT_LIMIT else describe_count(count, "delivery", "deliveries")
    due = f", due {describe_time(first.due_at, now)}" if first.due_at is not None else ""
    attempts = describe_count(first.attempt_count, "attempt")
    line = f"of its ordering key {delivery.ordering_key!r}" if delivery.ordering_key else "without an ordering key"
    return (
        f"Behind {many} {line}. First is delivery {first.uid} "
        f"(sequence {first.sequence}, {attempts}{due}): cancel it, or wait for it."
    )


def describe_lane(using: str, target: WebhookTarget, now: datetime) -> Iterator[str]:
    """Say who works, or should, on what is due for *target*."""
    lane = Lane.objects.using(using).filter(pk=target.pk).first()
    if lane is None:
        yield "Its target has no lane yet."
        return
    if target.rate is not None and lane.next_free_at is not None and lane.next_free_at > now:
        limit = f"{target.rate_limit:g} a {target.rate_period}"
        yield f"The rate limit of {limit} is used up until {describe_time(lane.next_free_at, now)}."
    if lane.permission.get("rate"):
        yield f"Its receiver allowed {lane.permission['rate'] * 60:g} requests a minute."
    yield from (f"{trouble[0].upper()}{trouble[1:]}." for trouble in list_troubles(lane.health, now))
    if lane.holder is None:
        yield f"It is due, and waits for a worker: {describe_workers(using, now)}."
        return
    worker = Worker.objects.using(using).filter(pk=lane.holder).first()
    if worker is None or worker.expires_at < now:
        yield f"Worker {lane.holder}, which holds its target, stopped beating: another one takes over when it looks."
        return
    yield f"Worker {worker.pk} ({worker.place}) holds its target since it was due, and sends it now or soon."
    yield f"If that worker has died, its lease ends {describe_time(worker.expires_at, now)}."


def list_attempts(using: str, delivery: Delivery, now: datetime) -> Section:
    """List the latest attempts, and the beginning of the last answer."""
    attempts = Attempt.objects.using(using).filter(delivery=delivery)
    latest = list(attempts.order_by("-number")[:LIMIT])
    lines = [describe_attempt(attempt, now) for attempt in reversed(latest)]
    if latest and latest[0].response_body:
        lines.append(f"Last answer: {make_printable(latest[0].response_body)!r}")
    return Section(describe_count(delivery.attempt_count, "attempt"), lines or ["None is recorded."])


def describe_attempt(attempt: Attempt, now: datetime) -> str:
    outcome = str(attempt.status_code) if not attempt.error else attempt.error
    detail = f": {make_printable(attempt.detail)}" if attempt.detail else ""
    address = f" from {attempt.address}" if attempt.address else ""
    when = describe_time(attempt.started_at, now)
    return f"#{attempt.number} ({attempt.trigger}) {when}: {outcome}{address} after {describe_span(attempt.duration)}{detail}"
