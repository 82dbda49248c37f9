"""What a worker holds of a lane: its limits, and the distance that its requests keep."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.health import RAMP_START, Health
from djwebhooks.models import WebhookTarget
from djwebhooks.work import CATCH_UP, Held

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def hold(**fields: object) -> Held:
    return Held(1, 1, target=WebhookTarget(**fields))  # type: ignore[misc]  # any of its fields


@pytest.mark.parametrize(("period", "rate"), [("second", 30), ("minute", 0.5), ("hour", 1 / 120)])
def test_a_rate_is_per_second_minute_or_hour(period: str, rate: float) -> None:
    """It is spread evenly over its period."""
    assert hold(rate_limit=30, rate_period=period).rate(NOW) == rate


def test_the_lower_rate_counts() -> None:
    """While a target recovers, people's limit and the rising one bind together."""
    recovering = Health(recovering_since=NOW)
    held = hold(rate_limit=3)
    held.health = recovering
    assert held.rate(NOW) == 3
    held = hold(rate_limit=3000)
    held.health = recovering

    assert held.rate(NOW) == RAMP_START


def test_a_suspended_target_has_one_slot() -> None:
    """Whatever people allow it."""
    held = hold(concurrency_limit=50)
    assert held.limit() == 50
    held.health = Health(suspended_at=NOW)

    assert held.limit() == 1


def test_requests_without_a_rate_keep_no_distance() -> None:
    """As many start at once as there is room for."""
    held = hold()
    held.space(NOW)

    assert not held.is_spaced(NOW)


@given(st.floats(0.01, 1000), st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_a_worker_that_was_held_up_does_not_make_up_for_it(rate: float, pauses: list[float]) -> None:
    """However it is held up, no span of time has more starts than the rate allows, but for what a turn may catch up with."""
    held, now, starts = hold(rate_limit=rate), NOW, []
    for pause in pauses:
        now += timedelta(seconds=pause)
        while not held.is_spaced(now) and len(starts) < 500:
            held.space(now)
            starts.append(now)
    grace = CATCH_UP.total_seconds() if rate * CATCH_UP.total_seconds() > 1 else 0.0

    for first, start in enumerate(starts):
        for last in range(first, len(starts), 7):
            span = (starts[last] - start).total_seconds() + grace
            assert last - first + 1 <= rate * span + 1.001


def test_the_distance_counts_from_the_real_start() -> None:
    """Not from when the request was chosen: to prepare it takes its time."""
    held = hold(rate_limit=10)
    held.space(NOW)
    held.note_start(1, NOW + SECOND)

    assert held.is_spaced(NOW + 1.099 * SECOND)
    assert not held.is_spaced(NOW + 1.1 * SECOND)


def test_what_is_not_sent_leaves_its_instant_to_others() -> None:
    """Whether somebody cancelled it or something newer took its place; what was sent has used its instant up."""
    held = hold(rate_limit=1)
    held.known = {1, 2}
    held.not_before = {1: NOW, 2: NOW + SECOND}
    held.note_start(1, NOW)
    for delivery_id in (1, 2):
        held.forget(delivery_id)

    assert held.spare == [NOW + SECOND]
