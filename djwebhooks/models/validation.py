"""What a target may be told: the events, headers, limits and schedules that make sense."""

import re
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from djwebhooks import authentication, catalogue, certificates, network, versions
from djwebhooks.authentication.base import AnyAuthentication, TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.exceptions import InvalidEvent, InvalidTarget
from djwebhooks.names import check_pattern, matches

#: Events that one target may be subscribed to by name; a pattern stands for any number.
MOST_EVENTS = 1000

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: Headers that say where a request ends, or what its answer may be.
CONNECTION_HEADERS = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding",
    "upgrade",
})  # fmt: skip
#: Headers that no target may replace.
OUR_HEADERS = CONNECTION_HEADERS | {"content-encoding", "content-type", "user-agent"}
#: How our other headers begin: those of Standard Webhooks, and those of an envelope.
OUR_PREFIXES = ("webhook-", "ce-")
#: Additional headers that a target may have.
MOST_HEADERS = 50

#: Pauses that a target's own schedule may have, and how many of them may be shorter than a second.
MOST_RETRIES, MOST_HASTY_RETRIES = 100, 5
#: Seconds that a pause may last, and that a rate has for one request.
YEAR = 365 * 24 * 3600


def check_subscription(pattern: str, *, is_owned: bool) -> None:
    """Raise ``InvalidTarget`` for a pattern that can match no event, or for a target that *is_owned* none that it would get."""
    try:
        check_pattern(pattern)
    except InvalidEvent as error:
        raise InvalidTarget(str(error)) from error
    if not catalogue.is_possible(pattern):
        names = [name for name in catalogue.names_of_all() if not (is_owned and catalogue.is_internal(name))]
        raise InvalidTarget(f"{pattern!r} matches no event of the catalogue: {', '.join(names)}.")
    if is_owned and catalogue.is_internal(pattern):
        raise InvalidTarget(f"{pattern!r} is an internal event, which only the system's own targets get.")


def check_filtered(filters: Mapping[str, Any] | None, events: Collection[str]) -> None:
    """Raise ``InvalidTarget`` for a filter of what a target is not subscribed to: its *events*."""
    for event in filters or ():
        if event not in events:
            raise InvalidTarget(f"filters[{event!r}] is for none of the target's events: {', '.join(events) or 'it has none'}.")


def check_version(version: str, patterns: Collection[str], *, is_owned: bool) -> None:
    """Raise ``InvalidTarget`` for a version that cannot be, or that none of the events *patterns* has, as the catalogue says.

    What ``DJWEBHOOKS_TARGET_VERSION`` says is for all new targets, whatever their events.
    """
    if not version or version == conf.TARGET_VERSION:
        return
    try:
        versions.check_version(version)
    except InvalidEvent as error:
        raise InvalidTarget(str(error)) from error
    names = [name for name in catalogue.names_of_all() if any(matches(pattern, name) for pattern in patterns)]
    visible = [name for name in names if not (is_owned and catalogue.is_internal(name))]
    if fault := catalogue.find_version_fault(version, visible):
        raise InvalidTarget(f"{fault} Leave it empty for the current one.")


def check_headers(headers: object) -> None:
    """Raise ``InvalidTarget`` for additional headers that HTTP cannot hold, or that would replace ours."""
    if not isinstance(headers, dict) or not all(isinstance(part, str) for pair in headers.items() for part in pair):
        raise InvalidTarget("Headers are an object of names and strings.")
    if len(headers) > MOST_HEADERS:
        raise InvalidTarget(f"A target may have {MOST_HEADERS} additional headers, not {len(headers)}.")
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in OUR_HEADERS or name.lower().startswith(OUR_PREFIXES):
            raise InvalidTarget(f"The header {name!r} is set by djwebhooks; choose another name.")


def check_sender_headers(headers: object) -> dict[str, str]:
    """Return *headers* with their names in lower case.

    Raises ``InvalidTarget`` for what HTTP cannot hold, and for headers that say where a request ends, or what its answer may be.
    """
    if not isinstance(headers, Mapping) or not all(isinstance(part, str) for pair in headers.items() for part in pair):
        raise InvalidTarget("Headers are an object of names and strings.")
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in CONNECTION_HEADERS:
            raise InvalidTarget(f"The header {name!r} is the connection's own.")
    return {name.lower(): value for name, value in headers.items()}


def _check_header(name: str, value: str) -> None:
    if len(name) > 256:
        raise InvalidTarget(f"The name of a header has {len(name)} characters; at most 256 are possible.")
    if not HEADER_NAME.fullmatch(name):
        raise InvalidTarget(f"{name!r} is not the name of a header.")
    if not HEADER_VALUE.fullmatch(value):
        raise InvalidTarget(f"The value of the header {name!r} has characters that a header cannot hold.")


def check_sender(name: str) -> None:
    """Raise ``InvalidTarget`` for a sender that ``DJWEBHOOKS_SENDERS`` does not have."""
    if name and not (isinstance(name, str) and name in conf.SENDERS):
        there_are = ", ".join(map(repr, conf.SENDERS)) or "none"
        raise InvalidTarget(f"There is no sender {name!r}. In DJWEBHOOKS_SENDERS there are: {there_are}.")


@sensitive_variables()
def check_authentication(told: Mapping[str, Any]) -> AnyAuthentication | None:
    """Return what *told* describes, nothing for nothing. Raises ``InvalidTarget`` for what cannot work."""
    if not told:
        return None
    found = authentication.read(told)
    found.check()
    if isinstance(found, TokenAuthentication):
        try:
            network.check_url(found.token_url)
        except InvalidTarget as error:
            raise InvalidTarget(f"The token_url: {error.message}") from error
    return found


@sensitive_variables()
def check_certificate(pem: str) -> None:
    """Raise ``InvalidTarget`` for a client certificate that cannot be shown to anybody; none is none."""
    if pem:
        certificates.check(pem, timezone.now())


@sensitive_variables()
def check_one_authorization(headers: Mapping[str, str], told: Mapping[str, Any]) -> None:
    """Raise ``InvalidTarget`` for an authentication beside a header that says something else."""
    if told and "authorization" in map(str.lower, headers):
        raise InvalidTarget("The target has both an authentication and a header Authorization: remove one of them.")


def check_schedule(schedule: object) -> None:
    """Raise ``InvalidTarget`` for a retry schedule that is not a list of seconds, or that would hammer on a receiver."""
    if schedule is None:
        return
    if not isinstance(schedule, list) or not all(isinstance(pause, int | float) and 0 <= pause <= YEAR for pause in schedule):
        raise InvalidTarget(f"The retry schedule is a list of seconds, each up to a year ({YEAR}), not {schedule!r}.")
    if len(schedule) > MOST_RETRIES:
        raise InvalidTarget(f"The retry schedule has {len(schedule)} pauses; at most {MOST_RETRIES} are possible.")
    hasty = [pause for pause in schedule if pause < 1]
    if len(hasty) > MOST_HASTY_RETRIES:
        raise InvalidTarget(
            f"The retry schedule has {len(hasty)} pauses of less than a second, such as {hasty[-1]!r}; "
            f"at most {MOST_HASTY_RETRIES} are possible: make the others longer."
        )


def check_rate(rate: object) -> None:
    """Raise ``InvalidTarget`` for a rate that no worker can keep to, in whichever period."""
    if not (rate is None or is_rate(rate)):
        raise InvalidTarget(f"The rate limit is a number of requests above 0, at least one a year, not {rate!r}.")


def is_rate(rate: object) -> TypeGuard[float]:
    return isinstance(rate, int | float) and 1 / YEAR <= rate < float("inf")


def check_number_of_events(count: int) -> None:
    """Raise ``InvalidTarget`` for more subscriptions than one target may have."""
    if count > MOST_EVENTS:
        raise InvalidTarget(f"A target may be subscribed to {MOST_EVENTS} events, not to {count}: use a pattern such as order.*.")


def is_storable(text: str) -> bool:
    """Whether a database can hold *text*: it has neither NUL nor a lone surrogate."""
    return "\0" not in text and (text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text))


def check_storable(name: str, text: str) -> None:
    """Raise ``InvalidTarget`` for a text that a database cannot hold."""
    if isinstance(text, str) and not is_storable(text):
        raise InvalidTarget(f"The {name} {text!r} has a character that a database cannot hold (NUL or a lone surrogate).")
