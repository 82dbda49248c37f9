"""Ask a sender's feed for what has not come, and store it as if it had been delivered."""

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Max
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from djwebhooks import network, signing
from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError, InvalidSignature, InvalidTarget
from djwebhooks.inbox.arrivals import clean_headers, describe_message
from djwebhooks.inbox.gaps import BEYOND, Gap, find_gaps, note_position, read_positions
from djwebhooks.inbox.models import Message, inbox_database, insert_message
from djwebhooks.inbox.sources import Source, find_source, list_sources
from djwebhooks.transports.base import USER_AGENT, Reply, Request, Transport
from djwebhooks.uid import uuid7

logger = logging.getLogger(__name__)

#: Pages that one call asks for at most. The sender looks at 200 numbers for each.
PAGES = 100
#: Bytes that a page may have.
PAGE_LIMIT = 8 * 1024 * 1024
#: Seconds for a page to come in, and for a connection.
TIMEOUT, CONNECT_TIMEOUT = 30.0, 5.0
#: Numbers that a page may pass over: with more, a wrong answer could have it that nothing is ever missing again.
FURTHEST = 10_000_000
#: Gaps that one call closes.
MOST_GAPS = 1000

NOTHING_IS_KEPT = (
    "Its feed was never read, and no message with a number is kept, so nobody can know what was handled before: say after which "
    "number to ask, 0 for all that the sender has."
)
#: What the statuses of a feed mean to whoever asks.
ADVICE = {
    401: "It knows another secret, another target, or another time: compare 'secrets' and 'feed_url' with the sender's, "
    "and the clocks.",
    403: "Whoever has the target's secret may read it: is 'feed_url' the address of the feed?",
    404: "There is no feed at 'feed_url'.",
    429: "It was asked too often: ask again later.",
}


class FeedFailed(Exception):
    """The feed cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Item:
    """A message as the feed has it."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """What the feed has after a number: *after* is what to ask for next."""

    items: Sequence[Item]
    after: int
    has_more: bool
    waiting_for: int | None
    address: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of asking: how many messages were *stored*, and how many *refused*, as their signature or size is wrong.

    *missing* are the gaps that are left. *waiting_for* is the number of a message that the sender has yet to build. With
    *go_on_after*, there may be more after that number, for which there was no room in one call. *error* says in a sentence why
    the feed could not be read to its end; what was stored before stays.
    """

    source: str
    stored: int = 0
    refused: int = 0
    missing: Sequence[Gap] = ()
    waiting_for: int | None = None
    go_on_after: int | None = None
    error: str = ""

    def describe(self) -> Iterator[str]:
        """Say in sentences what came of it, but for what is missing still."""
        yield f"{self.stored} stored."
        if self.refused:
            yield f"{self.refused} refused, as the log says why."
        if self.waiting_for is not None:
            yield f"Number {self.waiting_for} has yet to be built by the sender: ask again later."
        if self.go_on_after is not None:
            yield f"There may be more after number {self.go_on_after}."
        if self.error:
            yield self.error


def list_feeds() -> list[str]:
    """Return the names of the sources whose senders have a feed."""
    return [name for name, source in list_sources().good.items() if source.feed_url]


def fetch_missing(
    name: str, *, after: int | None = None, using: str | None = None, pages: int = PAGES, transport: Transport | None = None
) -> Fetched:
    """Ask the feed of the source *name* for the numbers that are missing, and for those after the last one; store what it has.

    What is stored is as if it had been delivered: its signature is verified, an id that is known already is left alone, and its
    handlers run in a worker. With *after*, everything after that number is asked for instead. At most so many *pages* are.
    *transport* makes the requests, by default one as ``DJWEBHOOKS_TRANSPORT`` says; a given one is left open, and must have
    nothing else in flight.
    Raises ConfigurationError for a source that has no feed.
    """
    alias = using or inbox_database()
    source = find_feed(name)
    read_to = read_positions(alias).get(name)
    wanted = [(after + 1, BEYOND)] if after is not None else list_wanted(source, alias, read_to)
    if not wanted:
        return Fetched(name, error=NOTHING_IS_KEPT)
    sender = transport or import_string(conf.TRANSPORT)(concurrency=1)
    # Who begins later knows nothing of what is before.
    is_noted = after is None or after <= (read_to or 0)
    try:
        fetched = fetch(Feed(source, sender), wanted, alias, pages, is_noted=is_noted)
    finally:
        if transport is None:
            sender.close()
    return replace(fetched, missing=tuple(find_gaps(name, using=alias)))


def find_feed(name: str) -> Source:
    """Return the source of this name. Raises ConfigurationError if it has no feed."""
    source = find_source(name)
    if source is None or not source.feed_url:
        raise ConfigurationError(
            f"DJWEBHOOKS_INBOX has no source {name!r} with a 'feed_url', the address of the sender's feed; there are "
            f"{', '.join(list_feeds()) or 'none'}."
        )
    return source


def list_wanted(source: Source, using: str, read_to: int | None) -> list[tuple[int, int]]:
    """Return from which number to which is missing, in order; nothing if no number is known at all.

    A feed that was *read_to* 0 had none, and all that it has now came after that.
    """
    messages = Message.objects.using(using).filter(source=source.name, sequence__isnull=False)
    newest = max(messages.aggregate(newest=Max("sequence"))["newest"] or 0, read_to or 0)
    if not newest and read_to is None:
        return []
    gaps = [(gap.first, gap.last) for gap in find_gaps(source.name, using=using, limit=MOST_GAPS)]
    # With more of them, the next call goes on there.
    return gaps if len(gaps) == MOST_GAPS else [*gaps, (newest + 1, BEYOND)]


def fetch(feed: "Feed", wanted: Sequence[tuple[int, int]], using: str, pages: int, *, is_noted: bool) -> Fetched:
    """Store what *feed* has of the *wanted* numbers, which are in order; note how far it was read if it is to be noted."""
    stored = refused = after = 0
    waiting_for = None
    for first, last in wanted:
        # A page goes beyond the numbers that were asked for.
        after = max(after, first - 1)
        while after < last:
            if not pages:
                return Fetched(feed.source.name, stored, refused, go_on_after=after)
            pages -= 1
            try:
                page = feed.ask(after)
            except FeedFailed as failure:
                return Fetched(feed.source.name, stored, refused, error=str(failure))
            good = [item for item in page.items if feed.is_acceptable(item)]
            refused += len(page.items) - len(good)
            stored += store(feed.source, good, page.address, using)
            after, waiting_for = page.after, page.waiting_for
            if is_noted and not refused:
                note_position(feed.source, after, using)
            if not page.has_more:
                return Fetched(feed.source.name, stored, refused, waiting_for=waiting_for)
    return Fetched(feed.source.name, stored, refused)


def store(source: Source, items: Sequence[Item], address: str, using: str) -> int:
    """Store those that are not known yet; return how many."""
    described = [describe_message(source, item.headers, item.body, address or None) for item in items]
    rows = {row["message_id"]: row for row in described}
    known = Message.objects.using(using).filter(source=source.name, message_id__in=list(rows))
    for message_id in known.values_list("message_id", flat=True):
        del rows[message_id]
    for row in rows.values():
        insert_message(using, row)
    return len(rows)


class Feed:
    """The feed of a source's sender."""

    def __init__(self, source: Source, transport: Transport) -> None:
        self.source = source
        self.transport = transport

    def ask(self, after: int) -> Page:
        """Return what follows the number *after*. Raises FeedFailed."""
        try:
            request = self.make_request(after)
        except InvalidTarget as error:
            # Settings have changed since 'feed_url' was read.
            raise FeedFailed(f"The feed could not be asked: {error.messages[0]}") from error
        self.transport.submit(request)
        replies: list[Reply] = []
        while not replies:
            replies = self.transport.wait(TIMEOUT)
        return read_page(replies[0], after)

    @sensitive_variables("secrets")
    def make_request(self, after: int) -> Request:
        """Return the request, its query signed with every secret as if it was the body of a webhook."""
        url = network.check_url(f"{self.source.feed_url}&after={after}")
        message_id, timestamp = str(uuid7()), int(time.time())
        secrets = self.source.signing_secrets
        return Request(
            key=message_id,
            url=url,
            method="GET",
            body=b"",
            headers={
                "accept": "application/json",
                "user-agent": USER_AGENT,
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": signing.sign_all(secrets, message_id, timestamp, url.partition("?")[2].encode()),
            },
            timeout=TIMEOUT,
            connect_timeout=CONNECT_TIMEOUT,
            response_limit=PAGE_LIMIT,
        )

    def is_acceptable(self, item: Item) -> bool:
        """Whether *item* would have been taken if it had been sent."""
        try:
            self.source.scheme.verify(item.body, item.headers, self.source.secrets, time.time())
        except InvalidSignature as error:
            logger.warning("source=%s feed refused: %s", self.source.name, error)
            return False
        if len(item.body) > self.source.body_limit:
            logger.warning("source=%s feed refused: a body of %s bytes", self.source.name, len(item.body))
            return False
        return True


def read_page(reply: Reply, after: int) -> Page:
    """Return the page that *reply* is. Raises FeedFailed."""
    if reply.status is None:
        raise FeedFailed(f"The feed could not be asked: {reply.error}. {reply.detail}".rstrip())
    if reply.status != 200:
        raise FeedFailed(f"The feed answered {reply.status}. {ADVICE.get(reply.status, '')}".rstrip())
    if len(reply.body) >= PAGE_LIMIT:
        raise FeedFailed(f"The feed's answer has more than {PAGE_LIMIT:,} bytes.")
    try:
        content = json.loads(reply.body)
        items = list(read_items(content["results"]))
        waiting_for = None if content["waiting_for"] is None else read_number(content["waiting_for"])
        page = Page(items, read_number(content["after"]), bool(content["has_more"]), waiting_for, reply.address)
        is_sound = after < page.after <= after + FURTHEST or (page.after == after and not page.has_more)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FeedFailed("The feed's answer is none of a feed: is 'feed_url' its address?") from error
    if not is_sound:
        raise FeedFailed("The feed's answer says nothing to go on with: is 'feed_url' its address?")
    return page


def read_number(value: object) -> int:
    if type(value) is not int or not 0 <= value < BEYOND:
        raise ValueError(f"{value!r} is no number of a message")
    return value


def read_items(results: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
    for result in results:
        yield Item(clean_headers(result["headers"]), result["body"].encode())
