"""What replies mean for more than their own delivery."""

from datetime import UTC, datetime, timedelta

import pytest

from djwebhooks.authentication.base import TokenAuthentication
from djwebhooks.authentication.oauth2 import ClientCredentials
from djwebhooks.handshake import Handshake
from djwebhooks.models.deliveries import Status
from djwebhooks.transports.base import Reply
from djwebhooks.verdicts import LONGEST_REST, SHORTEST_REST, rest
from djwebhooks.work import Outcome, Work

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
HANDSHAKE = Handshake("https://example.com/", "app.example.com")
TOKEN = ClientCredentials("https://tokens.example.com/", "id", "secret")
WORK = Work(1, 1, 1, 1, 1, "", 0, 0, "event", None)


@pytest.mark.parametrize(
    ("asked", "delay", "fields", "seconds"),
    [
        *((asked, *rest) for asked in (HANDSHAKE, TOKEN) for rest in (
            (0, {"status": 405}, SHORTEST_REST),
            (60, {"status": 405}, 60),
            (86400, {"error": "timeout"}, LONGEST_REST),
            (None, {"status": 500}, SHORTEST_REST),
            (60, {"status": 429, "headers": {"Retry-After": "1"}}, 60),
            (60, {"status": 429, "headers": {"Retry-After": "90"}}, 90),
            (5, {"error": "no_dns_server"}, 5),
            (None, {"error": "forbidden_address"}, None),
        )),
        (HANDSHAKE, 5, {"status": 503, "headers": {"Retry-After": "3600"}}, 3600),
        (TOKEN, 5, {"status": 503, "headers": {"Retry-After": "3600"}}, LONGEST_REST),
    ],
)  # fmt: skip
def test_a_lane_rests_when_it_asked_in_vain(
    asked: Handshake | TokenAuthentication, delay: float | None, fields: dict[str, object], seconds: float | None
) -> None:
    """As long as the delivery that asked, or as it was told to; not where nobody was asked.

    Only the receiver itself may have it rest for longer than some minutes: a token server is not asked for all that is sent.
    """
    due_at = None if delay is None else NOW + timedelta(seconds=delay)
    outcome = Outcome(WORK, Status.FAILED if delay is None else Status.PENDING, due_at=due_at)

    rested = rest(outcome, asked, Reply(1, **fields), NOW)  # type: ignore[arg-type]  # any of its fields

    assert rested.hold_until == (None if seconds is None else NOW + timedelta(seconds=seconds))
    assert rested.due_at == due_at
