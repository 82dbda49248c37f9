"""A worker's shift: what the jobs of any queue have in common that are a worker for a while."""

from datetime import datetime

from djwebhooks import dispatch, lanes, replays
from djwebhooks.database import read_clock

#: Seconds that a job works at most, and goes on looking when there is nothing to do.
BUDGET, LINGER = 60.0, 1.0


def next_due(using: str) -> datetime | None:
    """When there is something to do next, by the database's clock; a time that has passed for now."""
    if dispatch.has_waiting(using):
        return read_clock(using)
    times = (lanes.next_due_lane(using), lanes.next_expiry(using), dispatch.next_planned(using), replays.next_replay(using))
    return min((at for at in times if at is not None), default=None)
