"""Say what became of an event."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Case, Count, Value, When

from djwebhooks.database import read_clock
from djwebhooks.engines import get_engine
from djwebhooks.explain.sections import (
    COUNT_LIMIT,
    LIMIT,
    Explanation,
    Section,
    describe_owner,
    describe_target,
    list_some,
    tell_of,
)
from djwebhooks.explain.targets import list_others, list_receivers, load
from djwebhooks.models import Body, Delivery, Event, WebhookTarget, Worker
from djwebhooks.models.deliveries import COALESCED, Status
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.versions import CURRENT
from djwebhooks.words import describe_count, describe_span, describe_time, make_printable


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
        return f"Given up after {tries}: fix it, then retry the deliveries."
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
    due = f", {describe_due(delivery, delivery.due_at, now)}" if delivery.due_at is not None else ""
    attempts = describe_count(delivery.attempt_count, "attempt")
    others = f", for {describe_count(delivery.coalesced_count, 'earlier event')} as well" if delivery.coalesced_count else ""
    return f"{delivery.status}{reason}, {attempts}{due}{others}\n  delivery {delivery.uid} to {where}"


def describe_due(delivery: Delivery, due_at: datetime, now: datetime) -> str:
    what = "waits for newer ones until" if due_at > now and waits_for_newer(delivery) else "due"
    return f"{what} {describe_time(due_at, now)}"


def waits_for_newer(delivery: Delivery) -> bool:
    """Whether newer events may take the place of *delivery*, which was not tried yet."""
    return delivery.coalesce_until is not None and not delivery.attempt_count


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


def last_line(error: str) -> str:
    """The end of a traceback: what was raised."""
    return make_printable(error.strip().splitlines()[-1])
