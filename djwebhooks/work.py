"""What passes between lanes, messages and the worker: held lanes, works taken from them, and their outcomes."""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from djwebhooks import signing
from djwebhooks.authentication.base import AccessToken, AnyAuthentication, TokenAuthentication
from djwebhooks.handshake import Handshake, Permission
from djwebhooks.health import UNKNOWN, Health
from djwebhooks.models import WebhookTarget
from djwebhooks.models.deliveries import Status, Trigger
from djwebhooks.network import cut_to_origin

#: Due deliveries that a worker keeps ready for one lane.
READY = 200
#: How far ahead instants are reserved, and how soon before the last of them more are.
LOOKAHEAD, RESERVE_AGAIN = timedelta(seconds=1), timedelta(milliseconds=500)
#: How far a worker that was held up may catch up with a rate that lets more than one request out in this time.
CATCH_UP = timedelta(milliseconds=20)


class Work(NamedTuple):
    """A delivery that is due, taken from a lane under a lease."""

    delivery_id: int
    event_id: int
    target_id: int
    token: int
    sequence: int
    ordering_key: str
    attempt_count: int
    schedule_offset: int
    trigger: str
    expires_at: datetime | None
    #: What its last attempt came to, in a word.
    reason: str = ""
    #: Whether newer events make it out of date, and how many earlier ones' place it has taken.
    is_replaceable: bool = False
    coalesced_count: int = 0
    #: What made it pending again last, if anything did.
    replay_id: int | None = None
    #: The key that alone signs it, by its id, if it is a check of that key.
    only_key: str = ""
    #: The name of the sender that sends it; empty if nobody changes how that is done.
    sender: str = ""

    @property
    def is_undecided(self) -> bool:
        """Whether its target's filters have still to judge it: nobody has sent it, or said that it is to be sent again."""
        return self.attempt_count == 0 and self.trigger == Trigger.EVENT


@dataclass(frozen=True, slots=True)
class Letterhead:
    """What all requests to a target have in common, opened and read once."""

    target: WebhookTarget
    #: The target's own.
    headers: Mapping[str, str] = field(repr=False)
    signers: Sequence[signing.Signer] = field(repr=False)
    secrets: Sequence[str] = field(repr=False)
    authentication: AnyAuthentication | None
    certificate: str = field(repr=False)
    #: When one of its keys ends.
    until: datetime | None

    def without_credentials(self) -> "Letterhead":
        """The same for a receiver that is not the target's: it is not shown what opens that one's door."""
        return replace(self, headers={}, authentication=None, certificate="")


@dataclass(slots=True)
class Held:
    """A lane that a worker holds, as it was when it was last looked at, and what was taken from it."""

    target_id: int
    token: int
    version: int = -1
    #: Whether its deliveries may be sent.
    is_open: bool = True
    #: When to look again, if there is nothing to do before: the end of a pause, or the search for expired ones.
    look_again_at: datetime | None = None
    #: The ids of what has expired in it while it was held back, and of which nobody was told yet.
    expired: list[int] = field(default_factory=list)
    #: Whether more than a page is to be ended or lined up in it, so that it is looked at again before anything is sent.
    is_unfinished: bool = False
    #: Up to where instants of its rate are reserved, and when its next request may start after those that did.
    next_free_at: datetime | None = None
    spaced_at: datetime | None = None
    health: Health = UNKNOWN
    is_ordered: bool = False
    target: WebhookTarget | None = None
    letterhead: Letterhead | None = field(default=None, repr=False)
    #: What may be sent next, in order.
    ready: deque[Work] = field(default_factory=deque)
    #: The ids of all deliveries that are in memory: ready, being built, in flight or not recorded yet.
    known: set[int] = field(default_factory=set)
    #: The ids of those of them whose payload must be built first.
    unbuilt: set[int] = field(default_factory=set)
    #: Until when the rate limit holds some of them back, by their ids; and when instants for more may be reserved.
    not_before: dict[int, datetime] = field(default_factory=dict)
    paced_until: datetime | None = None
    #: Instants that were reserved for what was not sent after all.
    spare: list[datetime] = field(default_factory=list)
    #: Whether nothing more was due when it was looked at.
    is_drained: bool = False
    #: Whether something was written to it since.
    is_stale: bool = True
    #: What a token server gave for the target, what its receiver allowed, and whether either is still to be written to the lane.
    access_token: AccessToken | None = None
    permission: Permission | None = None
    has_new_grant: bool = False
    #: The delivery that has asked for one of these, so that all others wait until its answer is seen to.
    asker: int | None = None
    #: Since when it is held, by the monotonic clock, and whether nothing more is sent, so that it can make room for others.
    since: float = field(default_factory=time.monotonic)
    is_leaving: bool = False

    @property
    def is_probed(self) -> bool:
        """Whether it gets one request at a time, to see if its receiver works again."""
        return self.health.suspended_at is not None

    def limit(self) -> int | None:
        """How many of its requests may be in flight; None for a fair share."""
        if self.is_probed:
            return 1
        return self.target.concurrency_limit if self.target is not None else None

    def rate(self, now: datetime) -> float | None:
        """How many of its requests may start in a second, as people, its receiver or its recovery say; None for any number."""
        is_free = self.permission is None and (self.target is None or self.target.rate_limit is None)
        if self.health.recovering_since is None and is_free:
            return None
        return lower(self._agreed_rate, self.health.rate(now))

    @property
    def _agreed_rate(self) -> float | None:
        of_target = self.target.rate if self.target is not None else None
        return of_target if self.permission is None else lower(of_target, self.permission.rate)

    def is_spaced(self, now: datetime) -> bool:
        """Whether its next request must wait a little more, though an instant was reserved for it: the last one was late."""
        return self.spaced_at is not None and self.spaced_at > now

    def space(self, now: datetime) -> None:
        """A request is chosen: keep the next one away from it, as the rate wants it."""
        pause = self._pause(now)
        if pause is not None:
            since = now if pause >= CATCH_UP else max(self.spaced_at or now, now - CATCH_UP)
            self.spaced_at = since + pause

    def note_start(self, delivery_id: int, now: datetime) -> None:
        """The request that was chosen starts, a little later: if it matters, the distance counts from now."""
        self.not_before.pop(delivery_id, None)
        pause = self._pause(now)
        if pause is not None and pause >= CATCH_UP:
            self.spaced_at = now + pause

    def _pause(self, now: datetime) -> timedelta | None:
        rate = self.rate(now)
        return None if rate is None else timedelta(seconds=1 / rate)

    def rules(self, now: datetime) -> tuple[object, ...]:
        """What binds what is ready: once it is different, what is ready must be chosen anew."""
        return self.is_ordered, self.is_probed, self.health.is_recovering(now), self._agreed_rate

    def keep_to_rate(self, now: datetime) -> None:
        """Wait no longer than its rate wants it: an earlier, lower one may have reserved instants that are far away."""
        pause = self._pause(now)
        latest = None if pause is None else now + LOOKAHEAD + pause
        self.next_free_at = earlier(self.next_free_at, latest)
        self.spaced_at = earlier(self.spaced_at, latest)

    def wants_more(self, now: datetime) -> bool:
        """Whether to look at it again, for more that is due or for what was said of it."""
        may_pace = self.paced_until is not None and self.paced_until <= now
        return self.is_stale or ((may_pace or not self.is_drained) and self._is_low)

    @property
    def _is_low(self) -> bool:
        return len(self.ready) + len(self.unbuilt) < READY // 2

    @property
    def look_limit(self) -> int:
        """How many deliveries to look at: those that are known, for which of them are due still, and more if little is left."""
        return len(self.known) + (READY if self._is_low else 0)

    @property
    def is_idle(self) -> bool:
        """Whether it can be given back: nothing is due, and nothing under way."""
        return self.is_drained and not self.known

    def keep(self, works: Iterable[Work]) -> None:
        """Keep *works* ready."""
        for work in works:
            self.known.add(work.delivery_id)
            self.ready.append(work)

    def keep_only(self, due: Collection[int]) -> None:
        """Forget what was ready and is not *due* any more: somebody has cancelled it."""
        for work in [work for work in self.ready if work.delivery_id not in due]:
            self.ready.remove(work)
            self.forget(work.delivery_id)

    def drop_ready(self) -> None:
        """Forget what was not sent: it stays pending and due for whoever looks next, and its instants are free again."""
        instants = [at for work in self.ready if (at := self.not_before.pop(work.delivery_id, None)) is not None]
        self.next_free_at = min(instants + self.spare, default=self.next_free_at)
        self.spare.clear()
        self.known.difference_update(work.delivery_id for work in self.ready)
        self.ready.clear()
        self.is_drained = False
        self.paced_until = None

    def put_back(self, work: Work) -> None:
        """Keep *work* ready, before all others; unless nothing may be sent any more."""
        if self.is_open:
            self.ready.appendleft(work)
        else:
            self.forget(work.delivery_id)

    def wait_for_build(self, work: Work) -> None:
        """Keep *work* in mind until its event's payload is built."""
        self.known.add(work.delivery_id)
        self.unbuilt.add(work.delivery_id)

    def make_way(self, work: Work) -> None:
        """Forget *work*: something newer has taken its place."""
        self.forget(work.delivery_id)
        self.is_drained = False

    def spare_instant(self, delivery_id: int) -> None:
        """Leave what was reserved for a delivery that is not sent to others."""
        instant = self.not_before.pop(delivery_id, None)
        if instant is not None:
            self.spare.append(instant)
            self.is_drained = False

    def find_token(self, by: AnyAuthentication | None, now: datetime) -> AccessToken | None:
        """Return the access token that *by* asks for, if there is one that is good at *now*; any other is forgotten."""
        token = self.access_token
        is_good = isinstance(by, TokenAuthentication) and token is not None and token.suits(by.origin, now)
        if token is not None and not is_good:
            self.set_token(None)
        return self.access_token

    def drop_token(self, token: AccessToken | None) -> None:
        """Use *token* no longer; one that came since is kept."""
        if self.access_token == token:
            self.set_token(None)

    def set_token(self, token: AccessToken | None) -> None:
        """Use *token* from now on, or none."""
        self.access_token, self.has_new_grant = token, True

    def set_permission(self, permission: Permission | None) -> None:
        """Keep to *permission* from now on, or ask for one: if it has another rate, what is ready must be chosen anew."""
        before = self._agreed_rate
        self.permission, self.has_new_grant = permission, True
        if self._agreed_rate != before:
            self.drop_ready()

    def forget(self, delivery_id: int) -> None:
        """Forget one delivery: it is recorded, or was put back. An instant that it has not used is left to others."""
        self.known.discard(delivery_id)
        self.unbuilt.discard(delivery_id)
        self.spare_instant(delivery_id)
        if self.asker == delivery_id:
            self.asker = None


def lower(rate: float | None, other: float | None) -> float | None:
    """Return the lower one of two rates, of which None is no limit."""
    return min((one for one in (rate, other) if one is not None), default=None)


def earlier(at: datetime | None, latest: datetime | None) -> datetime | None:
    """Return *at*, but *latest* at the latest; None if there is no such bound."""
    return None if at is None or latest is None else min(at, latest)


class Flight(NamedTuple):
    """A request on its way: *started_at* by the database's clock, *started* by the monotonic one.

    *access_token* is the one that it was sent with. One that *asks_for* a token goes to a token server, so that the delivery can
    be sent after that; a handshake asks the receiver for its permission.
    """

    work: Work
    target: WebhookTarget
    url: str
    started_at: datetime
    started: float
    access_token: AccessToken | None = None
    asks_for: TokenAuthentication | Handshake | None = None


#: What an attempt loses when its event is erased: whatever may quote the receiver.
NO_ANSWER: dict[str, Any] = {"response_headers": {}, "response_body": "", "detail": ""}


class Sent(NamedTuple):
    """One HTTP exchange, as it is recorded."""

    url: str
    started_at: datetime
    duration: float
    status_code: int | None
    response_headers: dict[str, str]
    response_body: str
    error: str
    detail: str
    address: str
    lookup_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None

    def without_data(self, own_url: str | None) -> "Sent":
        """The same exchange without what may quote the receiver or the event: of a URL that is not the target's, but where."""
        return self._replace(**NO_ANSWER, url=self.url if self.url == own_url else cut_to_origin(self.url))

    @property
    def failure(self) -> str:
        """What went wrong, in a word, if it was no success."""
        return self.error or f"http_{self.status_code}"


class Outcome(NamedTuple):
    """What came of a delivery that was taken: its next status, and the exchange if there was one."""

    work: Work
    status: str
    reason: str = ""
    due_at: datetime | None = None
    sent: Sent | None = None
    #: Whether it says something about the receiver's health.
    counts: bool = True
    #: Until when the receiver asked for silence.
    hold_until: datetime | None = None
    #: Why the target is to be disabled, in a word.
    disables: str = ""
    #: What the receiver said to a key check: ``accepted`` or ``refused``.
    key_answer: str = ""

    @property
    def is_success(self) -> bool:
        return self.status == Status.SUCCEEDED


@dataclass(slots=True)
class Recorded:
    """What a call of ``record`` did."""

    outcomes: list[Outcome] = field(default_factory=list)
    #: Their lanes are locked by an application: to be recorded a little later.
    postponed: list[Outcome] = field(default_factory=list)
    #: The targets that were disabled, with the reason.
    disabled: dict[int, str] = field(default_factory=dict)
    #: The lanes that are sent to in another way from now on, or not at all.
    changed: set[int] = field(default_factory=set)

    def add(self, other: "Recorded") -> None:
        """Take in what a second call did."""
        self.outcomes += other.outcomes
        self.postponed += other.postponed
        self.disabled |= other.disabled
        self.changed |= other.changed
