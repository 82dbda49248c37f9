"""A worker's shift: what the jobs of any queue have in common that are a worker for a while."""

import time
from datetime import UTC, datetime

from djwebhooks import dispatch, lanes, replays
from djwebhooks.database import read_clock
from djwebhooks.engines.base import Engine
from djwebhooks.inline import Inline
from djwebhooks.wakeups import MOMENT
from djwebhooks.worker import Worker

#: Seconds that a job works at most, and goes on looking when there is nothing to do.
BUDGET, LINGER = 60.0, 1.0

#: The shift of a job that is run where it is enqueued.
inline = Inline(lambda using: Worker(using=using, burst=True, threaded=False).run())


def next_due(using: str) -> datetime | None:
    """When there is something to do next, by the database's clock; a time that has passed for now."""
    if dispatch.has_waiting(using):
        return read_clock(using)
    times = (lanes.next_due_lane(using), lanes.next_expiry(using), dispatch.next_planned(using), replays.next_replay(using))
    return min((at for at in times if at is not None), default=None)


def wake_next(engine: Engine, using: str, at: datetime | None = None) -> None:
    """At the end of a shift, see to it that another begins *at* that time, or when there is something to do.

    Whoever committed until now saw a worker, or had just woken one, and did not wake another: so it looks once more.
    """
    time.sleep(MOMENT)
    at = at or next_due(using)
    if at is not None:
        # The database says when; jobs are planned by a clock like this machine's, read last so that nobody comes too early.
        now = read_clock(using)
        engine.wake(using, datetime.now(UTC) + (at - now))
