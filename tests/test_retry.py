"""The rules of djwebhooks.retry."""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.conf import Settings, as_seconds
from djwebhooks.retry import MOST_OWN_FAULTS, OUR_OWN_FAULTS, OWN_FAULT_PAUSE, Verdict, is_plain_success, judge, parse_retry_after
from djwebhooks.transports.base import Reply

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
SCHEDULE = (5, 300, 1800)


@dataclass(frozen=True, slots=True)
class Given:
    """An answer, as plain as can be."""

    status: int | None = None
    error: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def middle() -> float:
    return 0.5


def verdict(
    answer: Given, retries_done: int = 0, give_up_on: tuple[int, ...] = (), chance: Callable[[], float] = middle
) -> Verdict:
    return judge(answer, retries_done=retries_done, schedule=SCHEDULE, give_up_on=give_up_on, now=NOW, chance=chance)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_success(status: int) -> None:
    """The receiver has it, even if that status is in the list to give up on."""
    assert verdict(Given(status), give_up_on=(status,)) == Verdict("succeeded", "", None)


@pytest.mark.parametrize("status", [100, 301, 302, 307, 400, 401, 404, 422, 429, 500, 502, 503])
def test_other_statuses_are_tried_again(status: int) -> None:
    """Redirects are failures too, and so is "not found": the receiver may be mended."""
    assert verdict(Given(status)) == Verdict("pending", f"http_{status}", 5)


def test_the_schedule_is_followed_and_then_ends() -> None:
    """There are as many retries as pauses in the schedule."""
    assert [verdict(Given(500), done).delay for done in range(3)] == [5, 300, 1800]
    assert verdict(Given(500), 3) == Verdict("failed", "schedule_exhausted", None)
    assert verdict(Given(error="timeout"), 99) == Verdict("failed", "schedule_exhausted", None)


def test_pauses_may_be_timedeltas() -> None:
    """The setting takes both, so judge does."""
    again = judge(Given(500), retries_done=0, schedule=[timedelta(minutes=2)], now=NOW, chance=middle)
    assert again.delay == 120


def test_errors_are_tried_again_under_their_own_name() -> None:
    """A timeout is no verdict on the message, even if a status came before the body broke off."""
    assert verdict(Given(error="timeout")) == Verdict("pending", "timeout", 5)
    broken = Given(410, "connection_reset", {"webhook-delivery": "disable", "retry-after": "9"})
    assert verdict(broken) == Verdict("pending", "connection_reset", 5)


def test_an_answer_without_anything_is_invalid() -> None:
    """There is always a word for what happened."""
    assert verdict(Given()).reason == "invalid_response"


def test_jitter_is_a_fifth_either_way() -> None:
    """What failed together is not tried again together."""
    assert verdict(Given(500), 1, chance=lambda: 0.0).delay == pytest.approx(240)
    assert verdict(Given(500), 1, chance=lambda: 1.0).delay == pytest.approx(360)


@given(st.integers(0, 2), st.integers())
def test_jitter_stays_in_its_bounds(done: int, seed: int) -> None:
    """Chance never makes more of a pause, nor less, than a fifth."""
    delay = verdict(Given(500), done, chance=random.Random(seed).random).delay
    assert delay is not None
    assert SCHEDULE[done] * 0.8 <= delay <= SCHEDULE[done] * 1.2


def test_gone_disables_the_target() -> None:
    """410 ends the delivery and the target."""
    assert verdict(Given(410), give_up_on=(410,)) == Verdict("failed", "gone", None, disables="gone")


def test_statuses_to_give_up_on_end_the_delivery() -> None:
    """The target stays as it is."""
    assert verdict(Given(422), give_up_on=(400, 422)) == Verdict("failed", "gave_up", None)
    assert verdict(Given(404), give_up_on=(400, 422)).status == "pending"


@pytest.mark.parametrize("error", ["forbidden_address", "invalid_url"])
def test_hopeless_errors_fail_at_once(error: str) -> None:
    """Trying again would only knock at the same closed door."""
    assert verdict(Given(error=error)) == Verdict("failed", error, None)


@pytest.mark.parametrize(("count", "pause"), [(1, 10.0), (2, 20.0), (5, 160.0), (6, 300.0), (MOST_OWN_FAULTS - 1, 300.0)])
def test_faults_of_our_own_are_tried_again_less_and_less_often(count: int, pause: float) -> None:
    """What looks like one may be a domain whose own DNS servers fail, and will for ever."""
    answer = Given(error="no_dns_server")

    assert judge(answer, retries_done=0, schedule=(), own_faults=count, now=NOW, chance=lambda: 0.5).delay == pause


def test_faults_of_our_own_end_a_delivery_after_a_month() -> None:
    """Nothing is tried for ever; and still it says nothing about the target."""
    result = judge(Given(error="no_dns_server"), retries_done=0, schedule=(), own_faults=MOST_OWN_FAULTS, now=NOW)

    assert result == Verdict("failed", "no_dns_server", None, counts=False)


@pytest.mark.parametrize("error", sorted(OUR_OWN_FAULTS))
def test_our_own_faults_cost_the_delivery_nothing(error: str) -> None:
    """Even after the last retry there is another, after a short pause, and it is not counted."""
    assert verdict(Given(error=error), 99) == Verdict("pending", error, OWN_FAULT_PAUSE, counts=False)


@pytest.mark.parametrize("name", ["webhook-delivery", "Webhook-Delivery"])
@pytest.mark.parametrize("value", ["disable", " DISABLE ", "Disable, abort-message"])
def test_a_receiver_can_disable_its_target(name: str, value: str) -> None:
    """``webhook-delivery: disable`` ends delivery and target, in any case."""
    answer = Given(500, headers={name: value})
    assert verdict(answer) == Verdict("failed", "disabled_by_receiver", None, disables="receiver")


@pytest.mark.parametrize("value", ["abort-message", "Abort-Message", "x, abort-message"])
def test_a_receiver_can_abort_a_message(value: str) -> None:
    """``webhook-delivery: abort-message`` ends this delivery only."""
    assert verdict(Given(400, headers={"webhook-delivery": value})) == Verdict("failed", "abort_message", None)


def test_success_stays_a_success_whatever_else_the_receiver_says() -> None:
    """A receiver may take the message and ask for no more."""
    assert verdict(Given(200, headers={"webhook-delivery": "abort-message"})) == Verdict("succeeded", "", None)
    assert verdict(Given(200, headers={"webhook-delivery": "disable"})) == Verdict("succeeded", "", None, disables="receiver")


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_the_lane(status: int) -> None:
    """The whole target rests, and the delivery never comes back before that, whatever chance says."""
    answer = Given(status, headers={"Retry-After": "120"})
    assert verdict(answer, chance=lambda: 0.0) == Verdict("pending", f"http_{status}", 120, hold=120)
    assert verdict(answer, 2) == Verdict("pending", f"http_{status}", 1800, hold=120)


def test_retry_after_holds_the_lane_even_when_the_delivery_ends() -> None:
    """The receiver is overloaded for the next message too."""
    answer = Given(429, headers={"retry-after": "120"})
    assert verdict(answer, 3) == Verdict("failed", "schedule_exhausted", None, hold=120)
    assert verdict(answer, give_up_on=(429,)) == Verdict("failed", "gave_up", None, hold=120)


def test_retry_after_elsewhere_is_ignored() -> None:
    """Other statuses have no say in our schedule."""
    assert verdict(Given(500, headers={"retry-after": "120"})) == Verdict("pending", "http_500", 5)
    assert verdict(Given(200, headers={"retry-after": "120"})).hold == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("0", 0),
        ("+7", 7),
        ("-1", 0),
        ("64.57", 64.57),
        ("86401", 86400),
        ("9" * 5000, 86400),
        ("Mon, 21 Sep 2026 14:14:20 GMT", 60),
        ("Monday, 21-Sep-26 14:14:20 GMT", 60),
        ("Mon Sep 21 14:14:20 2026", 60),
        ("Mon, 21 Sep 2026 14:12:20 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400),
        ("", None),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("12, 13", None),
        ("١٢", None),
        ("Mon, 99 Sep 2026 14:14:20 GMT", None),
        ("Mon, 21 Sep 2026 14:14:20 CEST", None),
    ],
)
def test_retry_after_values(value: str, seconds: float | None) -> None:
    """Seconds and all three forms of HTTP-date are understood, the past is now, and nobody has us wait for more than a day."""
    assert parse_retry_after(value, NOW) == seconds


@given(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_retry_after_as_a_date_is_the_time_until_then(moment: datetime) -> None:
    """A date says the same as the seconds until it."""
    expected = min(max(0.0, (moment.replace(microsecond=0) - NOW).total_seconds()), 86400)
    assert parse_retry_after(format_datetime(moment, usegmt=True), NOW) == expected


@given(
    st.builds(
        Reply,
        key=st.none(),
        status=st.none() | st.integers(-1, 999),
        error=st.sampled_from(["", "timeout", "dns_error", "invalid_url", *sorted(OUR_OWN_FAULTS)]) | st.text(),
        headers=st.dictionaries(
            st.sampled_from(["retry-after", "webhook-delivery"]) | st.text(),
            st.sampled_from(["disable", "abort-message", "-1", "1e999", format_datetime(NOW, usegmt=True)]) | st.text(),
        ),
    ),
    st.integers(0, 20),
    st.lists(st.floats(0, 1e6) | st.timedeltas(timedelta(0), timedelta(days=9))),
    st.frozensets(st.integers(100, 599)),
)
def test_every_answer_gets_a_sound_verdict(
    reply: Reply, retries_done: int, schedule: list[float | timedelta], give_up_on: frozenset[int]
) -> None:
    """Whatever a receiver answers, judging it does not raise, and what is pending has a time."""
    result = judge(reply, retries_done=retries_done, schedule=schedule, give_up_on=give_up_on, now=NOW)
    assert result.status in {"succeeded", "pending", "failed"}
    is_success = reply.status is not None and 200 <= reply.status < 300 and not reply.error
    assert (result.status == "succeeded") == is_success == (result.reason == "")
    assert (result.delay is None) == (result.status != "pending")
    assert result.delay is None or (result.delay >= result.hold and math.isfinite(result.delay))
    assert 0 <= result.hold <= 86400
    assert result.counts == (reply.error not in OUR_OWN_FAULTS)
    assert not result.disables or result.status != "pending"
    if is_plain_success(reply):
        assert result == Verdict("succeeded", "", None)


def test_the_default_schedule_is_the_standards() -> None:
    """Nine retries over 75 hours, 35 minutes and 5 seconds."""
    assert sum(as_seconds(pause) for pause in Settings.RETRY_SCHEDULE) == 75 * 3600 + 35 * 60 + 5
