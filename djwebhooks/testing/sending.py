"""What was fired, what it tells and whom, and sending it in the caller's own thread and transaction."""

import json
from collections.abc import Callable
from typing import Any

from django.db import transaction

from djwebhooks import capture, payload
from djwebhooks.contents import Statement
from djwebhooks.database import DatabaseNow
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget
from djwebhooks.models.deliveries import FILTERED
from djwebhooks.models.events import events_database
from djwebhooks.transports.base import Reply, Request, Transport
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.versions import CURRENT, choose_version
from djwebhooks.worker import Worker, make_transport

#: The requests that ``deliver`` has sent, oldest first. Clear it between tests: ``outbox.clear()``.
outbox: list[Request] = []


def fired(name: str | None = None, *, using: str | None = None) -> list[Event]:
    """Return the events that the test has fired, oldest first: those called *name*, or all."""
    events = Event.objects.using(using or events_database()).order_by("id")
    return list(events.filter(name=name) if name is not None else events)


def payload_of(event: Event, version: str = "") -> Any:
    """Return what *event* tells, as its JSON is read again, to targets that want this version; nothing is kept or sent.

    A payload that is not built yet is built, by the hook's functions with the arguments of its call; what these write is undone.
    Raises what the functions raise, and ValueError for an event that has no payload any more.
    """
    texts = _write_texts(event)
    return json.loads(texts[choose_version(version, texts)] or "")


def _write_texts(event: Event) -> dict[str, str | None]:
    """The payload's JSON text in each of its versions."""
    if event.call:
        hook: Any = capture.resolve(event.hook)
        arguments, keywords = capture.rebuild(event.call)
        with transaction.atomic(using=event._state.db):
            built = {name: build(*arguments, **keywords) for name, build in {CURRENT: hook.build, **hook.versions}.items()}
            transaction.set_rollback(True, using=event._state.db)
        return {name: payload.encode(told) for name, told in built.items()}
    if event.payload:
        return dict(event.payloads)
    raise ValueError(f"{event} has no payload: it was erased, or nobody wanted it when it was dispatched.")


def targets_of(event: Event) -> list[WebhookTarget]:
    """Return the targets that get *event*: those that have got their delivery, or, before it is dispatched, that would now.

    Those that are paused, suspended or disabled are among them: they get it once they are well. Those whose filters do not let
    it through are not.
    """
    using = event._state.db
    targets = WebhookTarget.objects.using(using).order_by("pk")
    if Event.objects.using(using).filter(pk=event.pk, dispatched_at__isnull=False).exists():
        deliveries = Delivery.objects.using(using).filter(event=event).exclude(reason=FILTERED)
        return list(targets.filter(pk__in=deliveries.values("target")))
    matching = list(targets.matching(event))
    if not any(target.filters for target in matching):
        return matching
    statement = Statement(event.name, event.direct_targets, _write_texts(event))
    return [target for target in matching if statement.suits(target)]


class Recording:
    """Sends by another transport, and keeps every request in *requests*."""

    def __init__(self, transport: Transport) -> None:
        self.concurrency = transport.concurrency
        self.wait, self.wake, self.abort, self.close = transport.wait, transport.wake, transport.abort, transport.close
        self.requests: list[Request] = []
        self._submit = transport.submit

    def submit(self, request: Request) -> None:
        self.requests.append(request)
        self._submit(request)


def deliver(answer: Callable[[Request], Reply] | int = 200, *, network: bool = False, using: str | None = None) -> list[Request]:
    """Dispatch what was fired and send what is due, inside the test's own transaction; return the requests that were made.

    Nothing leaves the process: *answer*, a status or a function from request to reply, is what every target answers. With
    *network* requests are made, by the transport of the settings, and *answer* does not matter. Either way they are added to
    ``outbox`` as well.
    """
    transport = Recording(make_transport() if network else MemoryTransport(answer))
    Worker(using=using, transport=transport, burst=True, threaded=False).run()
    outbox.extend(transport.requests)
    return transport.requests


def make_due(*, using: str | None = None) -> None:
    """Let time pass for whatever waits for its time: retries, ``deliver_at``, cool-downs and pauses of targets are over.

    What has an ``expires_at`` does not expire by it. People's own pauses, and what disabled a target, stay.
    """
    alias = using or events_database()
    events = Event.objects.using(alias)
    events.filter(dispatched_at__isnull=True, deliver_at__isnull=False).update(deliver_at=DatabaseNow())
    events.filter(build_due_at__isnull=False).update(build_due_at=DatabaseNow())
    Delivery.objects.using(alias).pending().filter(due_at__isnull=False).update(due_at=DatabaseNow())
    lanes = Lane.objects.using(alias)
    lanes.filter(held_until__isnull=False).update(held_until=DatabaseNow())
    lanes.filter(due_at__isnull=False).update(due_at=DatabaseNow(), next_free_at=None)
