"""Decide what an answer means for its delivery, and when a failed one is tried again."""

import random
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from django.utils.http import parse_http_date_safe

from djwebhooks.conf import as_seconds

SUCCEEDED, PENDING, FAILED = "succeeded", "pending", "failed"

#: Reason: the receiver answered with one of ``DJWEBHOOKS_GIVE_UP_ON``.
GAVE_UP = "gave_up"
#: Reason: the last retry of the schedule failed too.
SCHEDULE_EXHAUSTED = "schedule_exhausted"
#: Reason: the receiver answered 410, so the target was disabled.
GONE = "gone"
#: Reason: the receiver answered ``webhook-delivery: abort-message``.
ABORT_MESSAGE = "abort_message"
#: Reason: the receiver answered ``webhook-delivery: disable``, so the target was disabled.
DISABLED_BY_RECEIVER = "disabled_by_receiver"
#: Reason: the address is one that is never sent to.
FORBIDDEN_ADDRESS = "forbidden_address"
#: Reason: the URL cannot be sent to.
INVALID_URL = "invalid_url"
#: Reason: the receiver did not take the access token, so that another one is got at once.
TOKEN_REFUSED = "token_refused"
#: Reason, and error: no access token could be got.
AUTHENTICATION_ERROR = "authentication_error"
#: Reason, and error: the receiver did not allow that it is sent CloudEvents.
NOT_PERMITTED = "not_permitted"
#: Reason: there was neither a status nor an error.
INVALID_RESPONSE = "invalid_response"

#: Why a target is disabled: by 410, or by ``webhook-delivery: disable``.
DISABLED_GONE, DISABLED_RECEIVER = GONE, "receiver"

#: Errors that another attempt would not mend.
HOPELESS = frozenset({FORBIDDEN_ADDRESS, INVALID_URL})
#: Errors that say something about us and nothing about the receiver.
OUR_OWN_FAULTS = frozenset({"network_unreachable", "no_dns_server", "out_of_sockets", "aborted", "internal_error"})
#: Seconds until the next attempt after a fault of our own: at first, and at most. Each pause is twice the one before, as what
#: looks like our fault may be a receiver's, such as a domain whose own DNS servers fail.
OWN_FAULT_PAUSE, LONGEST_OWN_FAULT_PAUSE = 5.0, 300.0
#: Faults of our own after which a delivery ends all the same: a month of them.
MOST_OWN_FAULTS = 30 * 24 * 12
#: How far a delay may stray, so that what failed together is not tried again together.
JITTER = 0.2
#: The most seconds that a receiver may have us wait.
LONGEST_HOLD = 86400.0
#: Statuses whose ``Retry-After`` is obeyed.
THROTTLING = frozenset({429, 503})

SECONDS = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]*)?)")


class Answer(Protocol):
    """What came of an attempt: a *status* with *headers*, or an *error* in one word."""

    @property
    def status(self) -> int | None: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def error(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer means.

    *status* is the delivery's new one. *reason* is empty for a success, a word from above for the end, else ``http_`` and the
    status, or the error. *delay* is in seconds until the next attempt, None if there is none. *hold* is in seconds for which
    the whole lane rests, 0 for none. *disables* is why the target must be disabled, empty if it must not. *counts* is False if
    the attempt uses up nothing of the schedule and says nothing about the target's health.
    """

    status: str
    reason: str
    delay: float | None
    hold: float = 0.0
    disables: str = ""
    counts: bool = True


def judge(
    answer: Answer,
    *,
    retries_done: int,
    schedule: Sequence[float | timedelta],
    own_faults: int = 0,
    give_up_on: Collection[int] = (),
    now: datetime,
    chance: Callable[[], float] = random.random,
) -> Verdict:
    """Decide what *answer* means for its delivery.

    *retries_done*, 0 or more, is how many retries have used up their place in *schedule*, the pauses in seconds (or timedelta),
    and *own_faults* how many attempts failed by faults of our own. *give_up_on* are statuses that end the delivery. *now* is
    aware. *chance* returns 0 to 1.
    The rules are Standard Webhooks 1.0.0's ("Deliverability and reliability"), and Svix's header ``webhook-delivery``.
    """
    if answer.error in OUR_OWN_FAULTS:
        return judge_own_fault(answer.error, own_faults, chance)
    if answer.error in HOPELESS:
        return Verdict(FAILED, answer.error, None)
    ending = judge_status(answer, give_up_on)
    hold = hold_of(answer, now)
    if ending is not None:
        return replace(ending, hold=hold)
    delay = next_delay(retries_done, schedule, chance)
    if delay is None:
        return Verdict(FAILED, SCHEDULE_EXHAUSTED, None, hold)
    return Verdict(PENDING, describe(answer), max(delay, hold), hold)


def next_delay(
    retries_done: int, schedule: Sequence[float | timedelta], chance: Callable[[], float] = random.random
) -> float | None:
    """Return how many seconds to wait for the next retry, by the *schedule* and jittered; None after the last one."""
    return jitter(as_seconds(schedule[retries_done]), chance) if retries_done < len(schedule) else None


def is_plain_success(answer: Answer) -> bool:
    """Whether *answer* is a success, and says nothing besides: what nearly all answers are."""
    is_success = answer.status is not None and 200 <= answer.status < 300 and not answer.error
    return is_success and not read_header(answer.headers, "webhook-delivery")


def judge_own_fault(error: str, count: int, chance: Callable[[], float] = random.random) -> Verdict:
    """The verdict on an attempt that failed by a fault of our own, as *count* before it did."""
    if count >= MOST_OWN_FAULTS:
        return Verdict(FAILED, error, None, counts=False)
    pause = min(OWN_FAULT_PAUSE * 2 ** min(count, 16), LONGEST_OWN_FAULT_PAUSE)
    return Verdict(PENDING, error, jitter(pause, chance), counts=False)


def judge_status(answer: Answer, give_up_on: Collection[int]) -> Verdict | None:
    """The verdict on an *answer* that ends its delivery; None for one that may be tried again."""
    if answer.status is None or answer.error:
        # Headers of an answer that broke off are not taken at their word.
        return None
    words = delivery_words(answer.headers)
    disables = DISABLED_RECEIVER if "disable" in words else ""
    if 200 <= answer.status < 300:
        return Verdict(SUCCEEDED, "", None, disables=disables)
    if answer.status == 410:
        return Verdict(FAILED, GONE, None, disables=DISABLED_GONE)
    if disables:
        return Verdict(FAILED, DISABLED_BY_RECEIVER, None, disables=disables)
    if "abort-message" in words:
        return Verdict(FAILED, ABORT_MESSAGE, None)
    if answer.status in give_up_on:
        return Verdict(FAILED, GAVE_UP, None)
    return None


def describe(answer: Answer) -> str:
    """Say in one word what went wrong."""
    if answer.error:
        return answer.error
    return INVALID_RESPONSE if answer.status is None else f"http_{answer.status}"


def delivery_words(headers: Mapping[str, str]) -> set[str]:
    """What the receiver says in ``webhook-delivery``, in lower case."""
    return {word.strip().lower() for word in read_header(headers, "webhook-delivery").split(",")}


def hold_of(answer: Answer, now: datetime) -> float:
    """For how many seconds the receiver asks us to send nothing at all."""
    if answer.error or answer.status not in THROTTLING:
        return 0.0
    return parse_retry_after(read_header(answer.headers, "retry-after"), now) or 0.0


def read_header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def jitter(delay: float, chance: Callable[[], float]) -> float:
    """*delay* give or take a fifth."""
    return max(0.0, delay * (1 - JITTER + 2 * JITTER * chance()))


def parse_retry_after(value: str, now: datetime) -> float | None:
    """Return how many seconds a ``Retry-After`` header asks for, 0 to 86400; None if it says nothing that can be understood.

    It is a number of seconds or an HTTP-date (RFC 9110, section 10.2.3). Fractions are accepted, because Discord sends them.
    *now* is aware.
    """
    value = value.strip()
    if number := SECONDS.fullmatch(value):
        sign, digits = number.groups()
        seconds = 0.0 if sign == "-" else float(digits)
    else:
        moment = parse_http_date_safe(value)
        if moment is None:
            return None
        seconds = moment - now.timestamp()
    return min(max(0.0, seconds), LONGEST_HOLD)
