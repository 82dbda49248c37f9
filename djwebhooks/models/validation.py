"""What a target may be told: the events, headers, limits and schedules that make sense."""

import re

from djwebhooks import payload
from djwebhooks.conf import conf
from djwebhooks.exceptions import InvalidEvent, InvalidTarget


def is_internal(name: str) -> bool:
    """Whether the catalogue keeps the event *name* for the system's own targets."""
    return bool((conf.EVENTS.get(name) or {}).get("internal"))


def check_subscription(pattern: str) -> None:
    """Raise ``InvalidTarget`` for a pattern that can match no event."""
    try:
        payload.check_pattern(pattern)
    except InvalidEvent as error:
        raise InvalidTarget(str(error)) from error
    if conf.EVENTS and not any(payload.matches(pattern, name) for name in conf.EVENTS):
        raise InvalidTarget(f"{pattern!r} matches no event of DJWEBHOOKS_EVENTS: {', '.join(sorted(conf.EVENTS))}.")


def check_headers(headers: object) -> None:
    """Raise ``InvalidTarget`` for additional headers that HTTP cannot hold, or that would replace ours."""
    if not isinstance(headers, dict) or not all(isinstance(part, str) for pair in headers.items() for part in pair):
        raise InvalidTarget(f"Headers are an object of names and strings, not {headers!r}.")
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name):
            raise InvalidTarget(f"{name!r} is not the name of a header.")
        if name.lower() in OUR_HEADERS or name.lower().startswith("webhook-"):
            raise InvalidTarget(f"The header {name!r} is set by djwebhooks; choose another name.")
        if not HEADER_VALUE.fullmatch(value):
            raise InvalidTarget(f"The value of the header {name!r} has characters that a header cannot hold.")


HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
OUR_HEADERS = frozenset({
    "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip


def check_schedule(schedule: object) -> None:
    """Raise ``InvalidTarget`` for a retry schedule that is not a list of seconds."""
    if schedule is None:
        return
    if not isinstance(schedule, list) or not all(isinstance(pause, int | float) and 0 <= pause <= YEAR for pause in schedule):
        raise InvalidTarget(f"The retry schedule is a list of seconds, each up to a year ({YEAR}), not {schedule!r}.")


def check_rate(rate: object) -> None:
    """Raise ``InvalidTarget`` for a rate that no worker can keep to."""
    if rate is None:
        return
    if not isinstance(rate, int | float) or not 1 / YEAR <= rate < float("inf"):
        raise InvalidTarget(f"The rate limit is a number of requests per second above 0, at least one a year, not {rate!r}.")


#: In seconds.
YEAR = 365 * 24 * 3600
