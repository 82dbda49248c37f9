"""How a receiver fares by what its attempts showed: whether it is sent to, only probed, or left alone."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from djwebhooks.conf import as_seconds, conf

#: Failures in a row that it takes to suspend a target, and one that has only just recovered.
FAILURES, FAILURES_RECOVERING = 5, 3
#: How far a cool-down may stray, so that what failed together is not probed together.
JITTER = 0.1
#: After a recovery: requests per second at first, seconds in which that doubles, and seconds until there is no bound.
RAMP_START, RAMP_DOUBLING, RAMP_SECONDS = 10.0, 5.0, 40.0

#: Why a target is disabled: there was nothing but failures for ``DJWEBHOOKS_DISABLE_AFTER``.
FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a receiver. All times are aware, and the database's.

    It is *healthy* as long as its attempts succeed, and *degraded* after one that failed. After ``DJWEBHOOKS_SUSPEND_AFTER`` of
    nothing but failures it is *suspended*: it gets one probe for each cool-down, and these grow. A success ends that, and what
    was held goes out at a rising rate. After ``DJWEBHOOKS_DISABLE_AFTER`` of nothing but failures it is *disabled*.
    """

    failing_since: datetime | None = None
    #: Failed attempts since the last success.
    failure_count: int = 0
    #: What went wrong last, in a word.
    failure: str = ""
    #: Nothing is sent before: the receiver asked for it, or it cools down.
    held_until: datetime | None = None
    #: Since when only probes are sent.
    suspended_at: datetime | None = None
    #: Cool-downs since it was last fully trusted.
    cooldown_count: int = 0
    #: Since when it is sent to at a rising rate.
    recovering_since: datetime | None = None
    disabled_at: datetime | None = None
    disabled_reason: str = ""

    # -- questions ------------------------------------------------------------------------------------------------------

    def state(self, now: datetime) -> str:
        """One word: ``healthy``, ``degraded``, ``suspended`` or ``disabled``."""
        if self.disabled_at is not None:
            return "disabled"
        if self.suspended_at is not None or self.is_held(now):
            return "suspended"
        is_watched = self.is_recovering(now) and self.cooldown_count > 0
        return "degraded" if self.failure_count or is_watched else "healthy"

    def is_held(self, now: datetime) -> bool:
        """Whether nothing may be sent for the moment."""
        return self.held_until is not None and self.held_until > now

    def is_closed(self, now: datetime) -> bool:
        """Whether nothing is sent, for the moment or until people say so."""
        return self.disabled_at is not None or self.is_held(now)

    def is_recovering(self, now: datetime) -> bool:
        return self.recovering_since is not None and now - self.recovering_since < timedelta(seconds=RAMP_SECONDS)

    def rate(self, now: datetime) -> float | None:
        """How many requests a second a receiver that recovers may get; None for any number."""
        if self.recovering_since is None or not self.is_recovering(now):
            return None
        seconds = (now - self.recovering_since).total_seconds()
        return float(RAMP_START * 2 ** (max(seconds, 0.0) / RAMP_DOUBLING))

    # -- what happened --------------------------------------------------------------------------------------------------

    def hold(self, until: datetime) -> "Health":
        """The receiver asked for silence *until* a time, or we cannot send before it."""
        return replace(self, held_until=max(self.held_until or until, until))

    def succeed(self, now: datetime) -> "Health":
        """An attempt succeeded."""
        well = replace(self, failing_since=None, failure_count=0, failure="") if self.failure_count else self
        if self.suspended_at is not None:
            return well.recover(now)
        if self.recovering_since is None or self.is_recovering(now):
            return well
        return replace(well, recovering_since=None, cooldown_count=0)

    def fail(self, failure: str, started_at: datetime, now: datetime, chance: Callable[[], float] = random.random) -> "Health":
        """An attempt that began at *started_at* failed, and not through a fault of our own. *chance* returns 0 to 1."""
        failing_since = self.failing_since or now
        ill = replace(self, failing_since=failing_since, failure_count=self.failure_count + 1, failure=failure)
        if ill.disabled_at is None and now - failing_since >= timedelta(seconds=conf.seconds("DISABLE_AFTER")):
            return ill.disable(FAILING, now)
        if self.suspended_at is None:
            return ill.cool_down(now, chance) if ill.is_unbearable(now) else ill
        # What was on its way when it was suspended says nothing new.
        return ill.cool_down(now, chance) if started_at >= self.suspended_at else ill

    def is_unbearable(self, now: datetime) -> bool:
        if self.is_recovering(now):
            return self.failure_count >= FAILURES_RECOVERING
        is_old = self.failing_since is not None and now - self.failing_since >= timedelta(seconds=conf.seconds("SUSPEND_AFTER"))
        return is_old and self.failure_count >= FAILURES

    def cool_down(self, now: datetime, chance: Callable[[], float]) -> "Health":
        """Leave the receiver alone for a while, each time for longer; then it is probed."""
        schedule = conf.COOLDOWN_SCHEDULE
        seconds = as_seconds(schedule[min(self.cooldown_count, len(schedule) - 1)])
        until = now + timedelta(seconds=seconds * (1 - JITTER + 2 * JITTER * chance()))
        suspended = replace(
            self, suspended_at=self.suspended_at or now, cooldown_count=self.cooldown_count + 1, recovering_since=None
        )
        return suspended.hold(until)

    def recover(self, now: datetime) -> "Health":
        """The receiver works again, or people say so: what was held goes out, at a rising rate."""
        return replace(self, suspended_at=None, held_until=None, recovering_since=now)

    def probe(self, now: datetime) -> "Health":
        """People want to know now whether it works again: the next request is a probe, whatever was said before."""
        if self.disabled_at is not None:
            return replace(self, held_until=None, suspended_at=now, disabled_at=None, disabled_reason="")
        suspended_at = now if self.suspended_at is None and self.is_held(now) else self.suspended_at
        return replace(self, held_until=None, suspended_at=suspended_at)

    def disable(self, reason: str, now: datetime) -> "Health":
        """Send nothing more until people say so. *reason* is a word."""
        return self if self.disabled_at is not None else replace(self, disabled_at=now, disabled_reason=reason)


#: The state of a receiver that nothing is known of.
UNKNOWN = Health()
