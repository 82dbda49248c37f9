"""How many of the transport's slots a target may have."""

from collections import deque
from datetime import UTC, datetime

import pytest

from djwebhooks.fairness import Paces, Usage, choose
from djwebhooks.transports import curl, requests
from djwebhooks.transports.base import Reply
from djwebhooks.transports.files import fit_concurrency
from djwebhooks.work import Held, Work

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)


def make_lane(work_count: int) -> Held:
    works = (Work(number, number, 1, 1, number, "", 0, 0, "event", None) for number in range(work_count))
    return Held(1, 1, ready=deque(works))


@pytest.mark.parametrize(
    "concurrency",
    [
        fit_concurrency(requests.CONCURRENCY, requests.IDLE, files=1024),
        fit_concurrency(curl.CONCURRENCY, files=2176),
    ],
    ids=["requests", "curl"],
)
def test_one_slow_target_may_have_300_requests_in_flight(concurrency: int) -> None:
    """With each transport's default, after a few answers: that is 200 a second for one that takes a second and a half."""
    paces = Paces()
    for _ in range(6):
        sent = list(choose({1: make_lane(concurrency)}, Usage([], paces, concurrency), concurrency, NOW))
        for work in sent:
            paces[1].note(Reply(work.delivery_id, status=200, duration=1.5))

    assert paces[1].is_slow
    assert len(sent) >= 300
