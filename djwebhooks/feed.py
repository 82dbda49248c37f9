"""The feed: a target's events since a sequence number, for a receiver that was away or that would rather ask."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from django.db.models import prefetch_related_objects
from django.views.decorators.debug import sensitive_variables

from djwebhooks import payload, senders, signing
from djwebhooks.build import build_apart
from djwebhooks.contents import ERASED, Content, is_sendable, read_contents, read_statements, write_bodies
from djwebhooks.database import read_clock
from djwebhooks.exceptions import UnknownSender
from djwebhooks.messages import find_keys
from djwebhooks.models import Delivery, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status, Trigger

#: Deliveries that one page looks at, and how many of their bodies are read at once.
PAGE, CHUNK = 200, 20
#: Bytes of bodies after which a page ends.
PAGE_BYTES = 1024 * 1024
#: Seconds of building payloads after which a page ends.
BUILD_SECONDS = 5.0


class Row(NamedTuple):
    """What a page reads of a delivery."""

    sequence: int
    event_id: int
    status: str
    attempt_count: int
    trigger: str
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Item:
    """An event as it is sent: a receiver can hand headers and body to what takes its webhooks."""

    sequence: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True, slots=True)
class Page:
    """What follows a sequence number.

    *after* is what to ask for next, and *has_more* whether there is something to get at once. *waiting_for* is the number of an
    event whose payload has yet to be built, by a worker that will send it or once its function has stopped raising; behind it
    nothing is given before it is. Numbers are left out whose deliveries were cancelled, or ended before their payload was built,
    whose events were erased or could not be built, or written by their sender as a text, and of tests of single keys.
    """

    items: Sequence[Item]
    after: int
    has_more: bool
    waiting_for: int | None = None


def read_page(target: WebhookTarget, after: int, using: str) -> Page:
    """Return what *target* was sent, or is to be sent, after the sequence number *after*, freshly signed, in order.

    A payload that is missing is built on the spot while nobody else will: nothing is sent to the target for the moment, or the
    event waits for an earlier one. A page ends after some seconds of that, and before an event that is unbuilt all the same.
    Raises ``UndecryptableSecret``.
    """
    deliveries = Delivery.objects.using(using).filter(target=target, sequence__gt=after).exclude(status=Status.CANCELLED)
    rows = [Row(*row) for row in deliveries.order_by("sequence").values_list(*Row._fields)[: PAGE + 1]]
    now = read_clock(using)
    writer, builds = Writer(target, now), Builds(using, target, now)
    items: list[Item] = []
    size = 0
    for sequence, content in _with_contents(using, rows[:PAGE], writer, builds):
        if content is not None and content.is_awaited(target.version):
            return Page(items, after, builds.is_out_of_time, None if builds.is_out_of_time else sequence)
        if size >= PAGE_BYTES:
            return Page(items, after, has_more=True)
        item = writer.write(sequence, content)
        if item is not None:
            items.append(item)
            size += len(item.body)
        after = sequence
    return Page(items, after, has_more=len(rows) > PAGE)


def _with_contents(using: str, rows: Sequence[Row], writer: "Writer", builds: "Builds") -> Iterator[tuple[int, Content | None]]:
    """Each sequence with what there is to send, read as far as somebody takes it."""
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        contents, version = builds.read([row.event_id for row in chunk]), writer.target.version
        builds.complete(chunk, contents)
        for event_id in _find_unwanted(using, chunk, writer.target):
            contents.pop(event_id, None)
        told = set()
        for pk, content in contents.items():
            if content.is_built(version) and not content.is_erased:
                body_format = writer.find_format(content)
                content.wanted |= {body_format} - {""}
                told |= {pk} if body_format.startswith(payload.BINARY) else set()
        write_bodies(using, contents, told)
        for row in chunk:
            yield row.sequence, contents.get(row.event_id)


def _find_unwanted(using: str, rows: Sequence[Row], target: WebhookTarget) -> set[int]:
    """The events that wait to be sent, and that the target's filters will not let through."""
    if not target.filters:
        return set()
    prefetch_related_objects([target], "subscriptions")
    untried = (Status.PENDING, 0, Trigger.EVENT)
    undecided = {row.event_id for row in rows if (row.status, row.attempt_count, row.trigger) == untried}
    return {pk for pk, statement in read_statements(using, undecided).items() if not statement.suits(target)}


class Builds:
    """Builds for one page what no worker is about to: each builds what it may send next."""

    def __init__(self, using: str, target: WebhookTarget, now: datetime) -> None:
        self._using, self._target, self._now = using, target, now
        self._seconds = 0.0
        #: Whether there is more to build than one page has the time for.
        self.is_out_of_time = False

    def read(self, event_ids: Sequence[int]) -> dict[int, Content]:
        """Return what there is to send of these events."""
        return read_contents(self._using, event_ids, self._now, with_versions=bool(self._target.version))

    def complete(self, rows: Sequence[Row], contents: dict[int, Content]) -> None:
        """Build what *contents* lack, in order, up to the first that stays unbuilt; take out what nobody builds any more."""
        for row in rows:
            content = contents.get(row.event_id)
            if content is None or not content.is_awaited(self._target.version):
                continue
            if row.status in (Status.FAILED, Status.EXPIRED):
                del contents[row.event_id]
            elif self._is_workers(row) or not self._build(row.event_id, contents):
                return

    def _is_workers(self, row: Row) -> bool:
        """Whether a worker builds it soon: its lane is open, and no earlier event of an ordered target stands before it."""
        return row.due_at is not None and self._is_lane_open

    @cached_property
    def _is_lane_open(self) -> bool:
        lane = Lane.objects.using(self._using).select_related("target").filter(pk=self._target.pk).first()
        return lane is not None and lane.target.is_active and not lane.health.is_closed(self._now)

    def _build(self, event_id: int, contents: dict[int, Content]) -> bool:
        """Build the event's payload and read it; return whether nobody need wait for it any more."""
        if self._seconds >= BUILD_SECONDS:
            self.is_out_of_time = True
            return False
        started = time.monotonic()
        build_apart(self._using, event_id, BUILD_SECONDS - self._seconds)
        self._seconds += time.monotonic() - started
        contents |= self.read([event_id])
        return not contents[event_id].is_awaited(self._target.version)


class Writer:
    """Writes the items of one page."""

    @sensitive_variables()
    def __init__(self, target: WebhookTarget, now: datetime) -> None:
        versions = target.signature_versions
        self._signers = [signer for key in find_keys(target, "", now) for signer in key.read_signers(versions)]
        self._timestamp = int(now.timestamp())
        self.target = target

    def find_format(self, content: Content) -> str:
        """Return the format that the target gets *content* in; empty if nobody knows its sender any more."""
        try:
            return senders.find_format_for(self.target, content.sender, content.built)
        except UnknownSender:
            return ""

    def write(self, sequence: int, content: Content | None) -> Item | None:
        """Return the item, or nothing for an event that has no body, or one that is no text."""
        if content is None or content.only_key or content.is_erased:
            return None
        body_format = self.find_format(content)
        body = content.bodies.get(body_format, ERASED)
        if not is_sendable(body) or not is_text(body):
            return None
        headers = {
            "content-type": senders.content_type(body_format),
            "webhook-id": content.message_id,
            "webhook-timestamp": str(self._timestamp),
            "webhook-signature": signing.sign_all(self._signers, content.message_id, self._timestamp, body),
            "webhook-sequence": str(sequence),
        }
        if content.messages is not None:
            headers |= payload.envelope_headers(body_format, content.tell(body_format))
        if version := content.name_version(self.target.version):
            headers["webhook-version"] = version
        return Item(sequence, headers, body.decode())


def is_text(body: bytes) -> bool:
    """Whether *body* can be shown in JSON: a sender may write anything."""
    try:
        return bool(body.decode())
    except UnicodeDecodeError:
        return False
