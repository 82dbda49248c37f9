"""What passes between lanes, messages and the worker: held lanes, works taken from them, and their outcomes."""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from djwebhooks.models import WebhookTarget
from djwebhooks.models.deliveries import Status

#: Due deliveries that a worker keeps ready for one lane.
READY = 200
#: How long to wait after a fault of our own that is not the network's, such as a secret that no key opens.
OWN_FAULT_PAUSE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Work:
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
    #: The key that alone signs it, by its id, if it is a check of that key.
    only_key: str = ""


@dataclass(slots=True)
class Held:
    """A lane that a worker holds, as it was when it was last looked at, and what was taken from it."""

    target_id: int
    token: int
    version: int = -1
    #: Whether its deliveries may be sent.
    is_open: bool = True
    #: When to look again, if there is nothing to do before: the receiver's wish, or the search for expired ones.
    look_again_at: datetime | None = None
    next_free_at: datetime | None = None
    is_ordered: bool = False
    target: WebhookTarget | None = None
    #: What may be sent next, in order.
    ready: deque[Work] = field(default_factory=deque)
    #: The ids of all deliveries that are in memory: ready, being built, in flight or not recorded yet.
    known: set[int] = field(default_factory=set)
    #: Until when the rate limit holds some of them back, by their ids.
    not_before: dict[int, datetime] = field(default_factory=dict)
    #: Whether nothing more was due when it was looked at.
    is_drained: bool = False
    #: Whether something was written to it since.
    is_stale: bool = True

    @property
    def rules(self) -> tuple[bool, float | None]:
        """What was said of it that binds what is ready: ordered or not, and the rate limit."""
        return self.is_ordered, self.target.rate_limit if self.target is not None else None

    @property
    def wants_more(self) -> bool:
        return self.is_stale or (not self.is_drained and len(self.ready) < READY // 2)

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
        """Forget what was ready and is not due any more: somebody has cancelled it."""
        for work in [work for work in self.ready if work.delivery_id not in due]:
            self.ready.remove(work)
            self.forget(work.delivery_id)

    def drop_ready(self) -> None:
        """Forget what was not sent: it stays pending and due for whoever looks next."""
        self.known.difference_update(work.delivery_id for work in self.ready)
        self.ready.clear()
        self.is_drained = False

    def forget(self, delivery_id: int) -> None:
        """Forget one delivery: it is recorded, or was put back."""
        self.known.discard(delivery_id)
        self.not_before.pop(delivery_id, None)


@dataclass(frozen=True, slots=True)
class Flight:
    """A request on its way: *started_at* by the database's clock, *started* by the monotonic one."""

    work: Work
    target: WebhookTarget
    started_at: datetime
    started: float


@dataclass(frozen=True, slots=True)
class Sent:
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

    def without_answer(self) -> "Sent":
        """The same exchange without what may quote the receiver."""
        return replace(self, response_headers={}, response_body="", detail="")


@dataclass(frozen=True, slots=True)
class Outcome:
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
    #: The lanes that must not be sent to for now.
    closed: set[int] = field(default_factory=set)
