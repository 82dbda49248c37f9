"""What replies mean for more than their own delivery."""

from datetime import UTC, datetime, timedelta

import pytest

from djwebhooks.models.deliveries import Status
from djwebhooks.transports.base import Reply
from djwebhooks.verdicts import LONGEST_REST, SHORTEST_REST, rest
from djwebhooks.work import Outcome, Work

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
WORK = Work(1, 1, 1, 1, 1, "", 0, 0, "event", None)


@pytest.mark.parametrize(
    ("delay", "fields", "seconds"),
    [
        (0, {"status": 405}, SHORTEST_REST),
        (60, {"status": 405}, 60),
        (86400, {"error": "timeout"}, LONGEST_REST),
        (None, {"status": 500}, SHORTEST_REST),
        (5, {"status": 503, "headers": {"Retry-After": "3600"}}, 3600),
        (60, {"status": 429, "headers": {"Retry-After": "1"}}, 60),
        (5, {"error": "no_dns_server"}, 5),
        (None, {"error": "forbidden_address"}, None),
    ],
)
def test_a_lane_rests_when_it_asked_in_vain(delay: float | None, fields: dict[str, object], seconds: float | None) -> None:
    """As long as the delivery that asked, within bounds, or as long as it was told to; not where nobody was asked."""
    due_at = None if delay is None else NOW + timedelta(seconds=delay)
    outcome = Outcome(WORK, Status.FAILED if delay is None else Status.PENDING, due_at=due_at)

    rested = rest(outcome, Reply(1, **fields), NOW)  # type: ignore[arg-type]  # any of its fields

    assert rested.hold_until == (None if seconds is None else NOW + timedelta(seconds=seconds))
    assert rested.due_at == due_at
