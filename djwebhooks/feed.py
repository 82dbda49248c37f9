"""The feed: a target's events since a sequence number, for a receiver that was away or that would rather ask."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import prefetch_related_objects
from django.views.decorators.debug import sensitive_variables

from djwebhooks import payload, senders, signing
from djwebhooks.contents import ERASED, Content, is_sendable, read_contents, read_statements, write_bodies
from djwebhooks.database import read_clock
from djwebhooks.exceptions import UnknownSender
from djwebhooks.messages import find_keys
from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status, Trigger

#: Deliveries that one page looks at, and how many of their bodies are read at once.
PAGE, CHUNK = 200, 20
#: Bytes of bodies after which a page ends.
PAGE_BYTES = 1024 * 1024

#: A delivery's sequence, its event's id, its status, how often it was tried, and why it is tried next.
Row = tuple[int, int, str, int, str]


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
    event whose payload has yet to be built, and behind which nothing is given before it is. Numbers are left out whose
    deliveries were cancelled, whose events were erased or could not be built, or written by their sender as a text, and of tests
    of single keys.
    """

    items: Sequence[Item]
    after: int
    has_more: bool
    waiting_for: int | None = None


def read_page(target: WebhookTarget, after: int, using: str) -> Page:
    """Return what *target* was sent, or is to be sent, after the sequence number *after*, freshly signed, in order.

    A page ends before an event whose payload has yet to be built. Raises ``UndecryptableSecret``.
    """
    deliveries = Delivery.objects.using(using).filter(target=target, sequence__gt=after).exclude(status=Status.CANCELLED)
    columns = ("sequence", "event_id", "status", "attempt_count", "trigger")
    rows: list[Row] = list(deliveries.order_by("sequence").values_list(*columns)[: PAGE + 1])
    now = read_clock(using)
    writer = Writer(target, now)
    items: list[Item] = []
    size = 0
    for sequence, content in _with_contents(using, rows[:PAGE], writer, now):
        if content is not None and not content.is_built(target.version) and not content.is_given_up and not content.is_erased:
            return Page(items, after, has_more=False, waiting_for=sequence)
        if size >= PAGE_BYTES:
            return Page(items, after, has_more=True)
        item = writer.write(sequence, content)
        if item is not None:
            items.append(item)
            size += len(item.body)
        after = sequence
    return Page(items, after, has_more=len(rows) > PAGE)


def _with_contents(using: str, rows: Sequence[Row], writer: "Writer", now: datetime) -> Iterator[tuple[int, Content | None]]:
    """Each sequence with what there is to send, read as far as somebody takes it."""
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        event_ids, version = {event_id for _, event_id, *_ in chunk}, writer.target.version
        contents = read_contents(using, event_ids, now, with_versions=bool(version))
        for event_id in _find_unwanted(using, chunk, writer.target):
            contents.pop(event_id, None)
        told = set()
        for pk, content in contents.items():
            if content.is_built(version) and not content.is_erased:
                body_format = writer.find_format(content)
                content.wanted |= {body_format} - {""}
                told |= {pk} if body_format.startswith(payload.BINARY) else set()
        write_bodies(using, contents, told)
        for sequence, event_id, *_ in chunk:
            yield sequence, contents.get(event_id)


def _find_unwanted(using: str, rows: Sequence[Row], target: WebhookTarget) -> set[int]:
    """The events that wait to be sent, and that the target's filters will not let through."""
    if not target.filters:
        return set()
    prefetch_related_objects([target], "subscriptions")
    untried = (Status.PENDING, 0, Trigger.EVENT)
    undecided = {event_id for _, event_id, *state in rows if tuple(state) == untried}
    return {pk for pk, statement in read_statements(using, undecided).items() if not statement.suits(target)}


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
