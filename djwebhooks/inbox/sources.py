"""Who may send: the sources that ``DJWEBHOOKS_INBOX`` names, each with its scheme, its secrets and its limits."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.views.decorators.debug import sensitive_variables

from djwebhooks import network, signing
from djwebhooks.conf import as_seconds, conf
from djwebhooks.exceptions import ConfigurationError, InvalidTarget
from djwebhooks.hidden import hide
from djwebhooks.inbox.schemes import HEADER, SCHEMES, Scheme, Standard

logger = logging.getLogger(__name__)

#: How long a source's name may be.
SOURCE_LENGTH = 64
#: Headers of every source that are kept: what the body is, who sent it, and what it is about.
KEPT_HEADERS = ("content-type", "content-encoding", "user-agent", "traceparent")
#: How the names of further such headers begin.
KEPT_PREFIXES = ("webhook-", "x-github-", "ce-")

NAME = re.compile(rf"[A-Za-z0-9_-]{{1,{SOURCE_LENGTH}}}")
RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour|day)")
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
#: The longest pause that makes sense, in seconds.
LONGEST_PAUSE = 365 * 86400


@dataclass(frozen=True, slots=True)
class Rate:
    """So many messages in so many *seconds*."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One sender, or one endpoint of a sender.

    *secrets* are all that are live, so that they can be replaced one after the other. *body_limit* is in bytes.
    *retry_schedule* has the pauses in seconds between attempts to handle a message; None is ``DJWEBHOOKS_RETRY_SCHEDULE``.
    *headers* are further headers to keep. With *keep_rejected*, what has a wrong signature is stored as rejected. *feed_url* is
    where what has not come can be asked for.
    """

    name: str
    scheme: Scheme = SCHEMES["none"]
    secrets: Sequence[str] = field(default=(), repr=False)
    body_limit: int = 1024 * 1024
    rate_limit: str | None = None
    retry_schedule: Sequence[float | timedelta] | None = None
    headers: Sequence[str] = ()
    keep_rejected: bool = False
    feed_url: str = ""

    @property
    def signing_secrets(self) -> Sequence[str]:
        """Those of the secrets that can also sign: requests to the sender's feed are signed with them."""
        return [secret for secret in self.secrets if not secret.startswith(signing.PUBLIC_PREFIX)]

    @property
    def rate(self) -> Rate | None:
        if self.rate_limit is None or not (match := RATE.fullmatch(self.rate_limit)):
            return None
        return Rate(int(match[1]), PERIODS[match[2]])

    @property
    def pauses(self) -> Sequence[float]:
        """The pauses between attempts, in seconds."""
        return [as_seconds(pause) for pause in (conf.RETRY_SCHEDULE if self.retry_schedule is None else self.retry_schedule)]

    def choose_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Return those of the received *headers*, their names in lower case, that are kept: never one that lets somebody in."""
        names = {*KEPT_HEADERS, *self.scheme.telling_headers, *(name.lower() for name in self.headers)}
        return {name: value for name, value in headers.items() if name in names or name.startswith(KEPT_PREFIXES)}


@dataclass(frozen=True, slots=True)
class Sources:
    """What ``DJWEBHOOKS_INBOX`` says, where it is *given*: the sources that can work, and what is wrong with the others."""

    given: Mapping[str, Any] = field(repr=False)
    good: Mapping[str, Source]
    faults: Mapping[str, str]


_latest: Sources | None = None


def list_sources() -> Sources:
    """Return all sources: read, and what is wrong with them logged, once for each dictionary that the setting is set to.

    Raises ConfigurationError if it is none.
    """
    global _latest
    latest = _latest
    if latest is None or latest.given is not conf.INBOX:
        _latest = latest = read_sources(conf.INBOX)
        for fault in latest.faults.values():
            logger.error("%s Until this is fixed, nothing is taken in for this source, and nothing of it is handled.", fault)
    return latest


@sensitive_variables()
def read_sources(given: Any) -> Sources:
    if not isinstance(given, Mapping):
        # The value stays out of it: it may have secrets.
        raise ConfigurationError(f"DJWEBHOOKS_INBOX must be a dictionary, not a {type(given).__name__}.")
    good, faults = {}, {}
    for name, options in given.items():
        try:
            good[name] = read_source(name, options)
        except ConfigurationError as error:
            faults[name] = str(error)
    return Sources(given, good, faults)


def find_source(name: str) -> Source | None:
    """Return the source of this name; None if there is none. Raises ConfigurationError if its settings cannot work."""
    sources = list_sources()
    if name in sources.faults:
        raise ConfigurationError(sources.faults[name])
    return sources.good.get(name)


@sensitive_variables()
def read_source(name: str, options: Any) -> Source:
    """Return the source that *options* describe. Raises ConfigurationError for what cannot work, without showing secrets."""
    fault = next(list_faults(name, options), None)
    if fault is not None:
        raise ConfigurationError(fault)
    return make_source(name, options)


@sensitive_variables()
def make_source(name: str, options: Mapping[str, Any]) -> Source:
    """Return the source that *options* describe, whether it can work or not; none of them may be unknown."""
    scheme = SCHEMES[options["scheme"]]
    own = {option: options[option] for option in list_options(type(scheme)) if option in options}
    others = {option: options[option] for option in list_options(Source) if option in options}
    return Source(name=name, scheme=replace(scheme, **own), **others | {"secrets": hide(others.get("secrets", ()))})


def list_options(class_: type[Any]) -> list[str]:
    return [each.name for each in fields(class_) if each.name not in ("name", "scheme")]


def list_faults(name: Any, options: Any) -> Iterator[str]:
    """Say, without showing secrets, everything that is wrong with what ``DJWEBHOOKS_INBOX`` says of a source."""
    place = f"DJWEBHOOKS_INBOX[{name!r}]"
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"{place}: a source's name is a part of its address: 1 to {SOURCE_LENGTH} letters, digits, hyphens, underscores."
    scheme = options.get("scheme") if isinstance(options, Mapping) else None
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        yield (
            f"{place} must be a dictionary whose 'scheme' is one of {', '.join(SCHEMES)}, not {scheme!r}: "
            "write {'scheme': 'github', 'secrets': [os.environ['GITHUB_WEBHOOK_SECRET']]}."
        )
        return
    known = ["scheme", *list_options(Source), *list_options(type(SCHEMES[scheme]))]
    unknown = [option for option in options if option not in known]
    for option in unknown:
        yield f"{place} has the option {option!r}, which means nothing: there are {', '.join(known)}."
    if not unknown:
        source = make_source("", options)
        yield from (f"{place}: {fault}" for fault in [*source.scheme.list_faults(), *_list_source_faults(source)])


def _list_source_faults(source: Source) -> Iterator[str]:
    yield from _list_secret_faults(source)
    if not isinstance(source.body_limit, int) or isinstance(source.body_limit, bool) or source.body_limit < 1:
        yield f"'body_limit' must be a whole number of bytes above 0, not {source.body_limit!r}."
    if source.rate_limit is not None and not (isinstance(source.rate_limit, str) and RATE.fullmatch(source.rate_limit)):
        yield f"'rate_limit' must be None or such as '600/minute', not {source.rate_limit!r}."
    if not isinstance(source.keep_rejected, bool):
        yield f"'keep_rejected' must be True or False, not {source.keep_rejected!r}."
    if not _is_list(source.headers) or not all(isinstance(name, str) and HEADER.fullmatch(name) for name in source.headers):
        yield f"'headers' must be a list of names of headers, with - for each _, not {source.headers!r}."
    if source.retry_schedule is not None and not (_is_list(source.retry_schedule) and all(map(_is_pause, source.retry_schedule))):
        yield f"'retry_schedule' must be None or a list of seconds or timedeltas, not {source.retry_schedule!r}."
    if source.feed_url:
        yield from _list_feed_faults(source)


def _list_feed_faults(source: Source) -> Iterator[str]:
    if not isinstance(source.scheme, Standard) or source.scheme.prefix != Standard().prefix:
        yield "'feed_url' is for sources of djwebhooks: they have the scheme 'standard', with its own prefix."
        return
    try:
        query = parse_qs(urlsplit(network.check_url(source.feed_url)).query)
    except InvalidTarget as error:
        yield f"'feed_url' cannot be asked: {error.messages[0]}"
        return
    if list(query) != ["target"]:
        yield "'feed_url' must name the target, and nothing else, after its question mark: https://…/feed/?target=<its id>."
    if _is_list(source.secrets) and not source.signing_secrets:
        yield "'feed_url' needs the target's secret (whsec_…) among 'secrets': requests are signed with it, public keys cannot."


def _list_secret_faults(source: Source) -> Iterator[str]:
    secrets = source.secrets
    # The values stay out of it: they are secret.
    if not _is_list(secrets) or not all(isinstance(secret, str) and secret for secret in secrets):
        yield "'secrets' must be a list of texts, none of them empty: is a variable of the environment missing?"
    elif source.scheme.has_secrets:
        if not secrets:
            yield "'secrets' is empty: this scheme needs one, or several while one is being replaced."
        yield from filter(None, map(source.scheme.find_secret_fault, secrets))
    elif secrets:
        yield "'secrets' must be empty, as the scheme 'none' verifies nothing."


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _is_pause(value: object) -> bool:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds <= LONGEST_PAUSE
