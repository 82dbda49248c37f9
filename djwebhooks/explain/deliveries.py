"""Say what became of a delivery, and why it waits."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from djwebhooks import senders
from djwebhooks.conf import conf
from djwebhooks.contents import read_statements
from djwebhooks.database import read_clock
from djwebhooks.explain.events import describe_build, describe_workers, waits_for_newer
from djwebhooks.explain.sections import COUNT_LIMIT, LIMIT, Explanation, Section, describe_target
from djwebhooks.explain.targets import list_holds, list_troubles
from djwebhooks.filters import MOST_COMPARISONS
from djwebhooks.models import Attempt, Delivery, Event, Lane, Replay, WebhookTarget, Worker
from djwebhooks.models.deliveries import COALESCED, FILTERED
from djwebhooks.versions import choose_version
from djwebhooks.words import describe_count, describe_span, describe_time, make_printable, name_failure

#: By which way a replay was asked for, in words.
THROUGH = {"admin": "the admin", "api": "the API", "command": "the command", "portal": "the portal", "python": "Python"}


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
        yield from (f"Held: {reason}." for reason in holds)
        yield f"What is held expires {describe_time(find_expiry(using, delivery), now)}."
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


def find_expiry(using: str, delivery: Delivery) -> datetime:
    """When *delivery* expires if it is held until then."""
    replays = Replay.objects.using(using).filter(deliveries=delivery).values_list("created_at", flat=True)
    too_old = max([delivery.created_at, *replays]) + timedelta(seconds=conf.seconds("RETENTION"))
    return min(too_old, delivery.expires_at or too_old)


def describe_pause(delivery: Delivery, until: str) -> str:
    """Say what a delivery waits for that is not due yet."""
    if waits_for_newer(delivery):
        return f"It waits for newer events, which take its place, until {until}."
    last = f" after {name_failure(delivery.reason)}" if delivery.reason else ""
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
