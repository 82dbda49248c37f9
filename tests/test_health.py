"""How receivers fare: when they are suspended, probed, trusted again, disabled."""

from datetime import UTC, datetime, timedelta
from functools import reduce

import pytest
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.health import FAILURES, FAILURES_RECOVERING, RAMP_SECONDS, RAMP_START, UNKNOWN, Health

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


def middle() -> float:
    """The chance that jitters nothing."""
    return 0.5


def fail(health: Health, at: datetime = NOW, *, started_at: datetime | None = None, count: int = 1) -> Health:
    return reduce(lambda health, _: health.fail("http_500", started_at or at, at, middle), range(count), health)


def suspend(at: datetime = NOW) -> Health:
    """A receiver that was suspended *at* a time, after a minute of nothing but failures."""
    return fail(fail(UNKNOWN, at - MINUTE, count=FAILURES - 1), at)


def test_one_that_nothing_is_known_of_is_healthy() -> None:
    """It is sent to at any rate."""
    assert UNKNOWN.state(NOW) == "healthy"
    assert UNKNOWN.rate(NOW) is None
    assert not UNKNOWN.is_closed(NOW)


def test_a_failure_degrades_until_the_next_success() -> None:
    """What failed, how often and since when is known until then."""
    ill = fail(fail(UNKNOWN), NOW + MINUTE)

    assert (ill.state(NOW), ill.failure_count, ill.failing_since, ill.failure) == ("degraded", 2, NOW, "http_500")
    assert not ill.is_closed(NOW + MINUTE)
    assert ill.succeed(NOW) == UNKNOWN


def test_a_short_outage_suspends_nobody() -> None:
    """However many attempts fail within DJWEBHOOKS_SUSPEND_AFTER: the retry schedule is enough for that."""
    ill = fail(fail(UNKNOWN, count=1000), NOW + MINUTE - SECOND, count=1000)

    assert ill.state(NOW + MINUTE) == "degraded"


def test_a_few_failures_suspend_nobody() -> None:
    """However long they are apart: one bad event in a quiet night says little."""
    ill = fail(UNKNOWN, count=1)
    for hour in range(1, FAILURES - 1):
        ill = fail(ill, NOW + timedelta(hours=hour))

    assert ill.state(NOW + timedelta(hours=9)) == "degraded"


def test_nothing_but_failures_suspends(settings: LazySettings) -> None:
    """After DJWEBHOOKS_SUSPEND_AFTER, and then nothing is sent before the first cool-down is over."""
    settings.DJWEBHOOKS_SUSPEND_AFTER = 30
    ill = fail(fail(UNKNOWN, count=FAILURES - 1), NOW + 30 * SECOND)

    assert ill.suspended_at == NOW + 30 * SECOND
    assert ill.held_until == NOW + 30 * SECOND + MINUTE
    assert ill.state(NOW + 30 * SECOND) == "suspended"
    assert ill.is_closed(NOW + 30 * SECOND)
    assert not ill.is_closed(ill.held_until)
    assert ill.state(ill.held_until) == "suspended"


def test_cool_downs_grow(settings: LazySettings) -> None:
    """Each failed probe is followed by a longer one; the last of the schedule is repeated."""
    settings.DJWEBHOOKS_COOLDOWN_SCHEDULE = (60, timedelta(minutes=5), 3600)
    ill, pauses, now = suspend(), [], NOW
    for _ in range(4):
        assert ill.held_until is not None
        pauses.append((ill.held_until - now).total_seconds())
        now = ill.held_until
        ill = fail(ill, now)

    assert pauses == [60, 300, 3600, 3600]
    assert ill.suspended_at == NOW


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 54), (1.0, 66)])
def test_cool_downs_are_jittered(chance: float, seconds: int) -> None:
    """What failed together is not probed together."""
    ill = fail(UNKNOWN, NOW - MINUTE, count=FAILURES - 1).fail("timeout", NOW, NOW, lambda: chance)

    assert ill.held_until == NOW + seconds * SECOND


def test_what_was_on_its_way_is_no_probe() -> None:
    """Failures of attempts that began before the suspension do not make the cool-down longer."""
    ill = suspend()

    assert fail(ill, NOW + SECOND, started_at=NOW - SECOND, count=50).held_until == ill.held_until


def test_a_probe_that_succeeds_ends_the_suspension() -> None:
    """What was held goes out at a rate that rises, and has no bound in the end."""
    well = suspend().succeed(NOW + MINUTE)

    assert (well.suspended_at, well.held_until, well.failure_count) == (None, None, 0)
    assert well.state(NOW + MINUTE) == "degraded"
    rates = [well.rate(NOW + MINUTE + timedelta(seconds=seconds)) for seconds in (0, 5, 10, RAMP_SECONDS)]
    assert rates == [RAMP_START, 2 * RAMP_START, 4 * RAMP_START, None]
    assert well.state(NOW + MINUTE + timedelta(seconds=RAMP_SECONDS)) == "healthy"


def test_a_few_failures_in_a_row_suspend_one_that_recovers() -> None:
    """It is left alone for longer than before: the cool-downs are forgotten only once it was sent to without a bound."""
    well = suspend().succeed(NOW + MINUTE)
    ill = fail(well, NOW + 2 * MINUTE - SECOND, count=FAILURES_RECOVERING)
    relapsed = fail(well, NOW + MINUTE + SECOND, count=FAILURES_RECOVERING)

    assert ill.state(NOW + 2 * MINUTE) == "degraded", "the rise was over"
    assert relapsed.held_until == NOW + MINUTE + SECOND + 5 * MINUTE
    assert relapsed.recovering_since is None


def test_failures_between_successes_suspend_nobody() -> None:
    """One event that the receiver cannot bear does not stop the others, even while it recovers."""
    health = suspend().succeed(NOW + MINUTE)
    for second in range(30):
        now = NOW + MINUTE + second * SECOND
        health = fail(health, now, count=FAILURES_RECOVERING - 1).succeed(now)

    assert health.suspended_at is None


def test_one_that_has_recovered_is_fully_trusted() -> None:
    """The first success after the rise forgets all that was before."""
    well = suspend().succeed(NOW)

    assert well.succeed(NOW + timedelta(seconds=RAMP_SECONDS)) == UNKNOWN
    assert well.succeed(NOW + SECOND) == well


def test_one_is_disabled_after_days_of_failures(settings: LazySettings) -> None:
    """DJWEBHOOKS_DISABLE_AFTER counts from the first failure since the last success; the first reason stays."""
    settings.DJWEBHOOKS_DISABLE_AFTER = timedelta(days=1)
    ill = fail(UNKNOWN)
    assert fail(ill, NOW + timedelta(hours=23)).disabled_at is None

    dead = fail(ill, NOW + timedelta(days=1))

    assert (dead.state(NOW), dead.disabled_reason, dead.is_closed(NOW)) == ("disabled", "failing", True)
    assert dead.disable("gone", NOW + timedelta(days=2)) == dead


def test_the_longest_hold_counts() -> None:
    """A receiver's wish for silence suspends it, and a shorter one shortens nothing."""
    held = UNKNOWN.hold(NOW + MINUTE).hold(NOW + SECOND)

    assert held.held_until == NOW + MINUTE
    assert held.state(NOW) == "suspended"
    assert held.state(NOW + MINUTE) == "healthy"
    assert held.succeed(NOW).held_until == NOW + MINUTE


@pytest.mark.parametrize("health", [suspend(), suspend().disable("gone", NOW), UNKNOWN.hold(NOW + MINUTE)])
def test_a_probe_may_be_forced(health: Health) -> None:
    """It goes at once, whatever was said, and also if the receiver asked for silence; only its success sends the rest."""
    probed = health.probe(NOW + SECOND)

    assert not probed.is_closed(NOW + SECOND)
    assert probed.state(NOW + SECOND) == "suspended"
    assert probed.succeed(NOW + SECOND).is_recovering(NOW + SECOND)


def test_a_probe_casts_no_doubt_on_a_receiver() -> None:
    """One that is sent to, because nothing was said of it or its rest is over, goes on being sent to."""
    for health in (UNKNOWN, UNKNOWN.hold(NOW)):
        assert health.probe(NOW + SECOND).state(NOW + SECOND) == "healthy"


def test_a_forced_probe_that_fails_cools_down_again() -> None:
    """Also when the target was disabled: then it is suspended, until it has failed for long enough once more."""
    dead = UNKNOWN.disable("gone", NOW)

    ill = fail(dead.probe(NOW), NOW + SECOND)

    assert (ill.disabled_at, ill.state(NOW + SECOND)) == (None, "suspended")
    assert ill.is_closed(NOW + SECOND)


steps = st.lists(st.tuples(st.sampled_from(["fail", "succeed", "hold", "probe"]), st.integers(0, 7200)), max_size=40)


@given(steps)
def test_whatever_happens_it_is_probed_again(history: list[tuple[str, int]]) -> None:
    """One that is not disabled is never held for longer than the longest pause, and a success always lets it recover."""
    health, now = UNKNOWN, NOW
    for what, seconds in history:
        now += timedelta(seconds=seconds)
        match what:
            case "fail":
                health = fail(health, now)
            case "succeed":
                health = health.succeed(now)
            case "hold":
                health = health.hold(now + MINUTE)
            case "probe":
                health = health.probe(now)
        assert health.held_until is None or health.held_until <= now + timedelta(hours=4, minutes=24)
        assert health.disabled_at is not None or not health.is_closed(now + timedelta(hours=5))
    well = health.succeed(now)
    assert well.suspended_at is None
    assert well.disabled_at == health.disabled_at
