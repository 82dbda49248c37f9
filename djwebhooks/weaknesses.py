"""Say at a deployment what works, but is weak: keys that can be guessed, open doors, limits that limit nothing."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils.encoding import force_str

from djwebhooks.conf import as_seconds, conf
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.models.validation import MOST_HASTY_RETRIES, MOST_RETRIES
from djwebhooks.network import find_own_names, is_forbidden_host

#: Characters, and different ones among them, that a key must have not to be guessed.
KEY_LENGTH, KEY_LETTERS = 32, 10
#: Keys that a rotation needs at once: the new one and the one before it.
KEYS_AT_ONCE = 2
#: How Django marks the key that it writes into a new project's settings.
INSECURE = "django-insecure-"
#: Where clouds hand out credentials to whoever asks from inside; 168.63.129.16 is Azure's WireServer.
METADATA = (
    *("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
    *("fd00:ec2::254", "fd20:ce::254"),
)
#: The most that still limits something, and what happens beyond it.
MOST: Mapping[str, tuple[int, str]] = {
    "PAYLOAD_LIMIT": (4 * 1024 * 1024, "workers keep many payloads in memory at once"),
    "RESPONSE_LIMIT": (1024 * 1024, "any receiver may fill the memory and the database with what it answers"),
    "CONCURRENCY": (2000, "each request takes a socket and, with most transports, a thread"),
    "RQ_JOBS": (32, "each job takes an rqworker from your other work"),
    "REPLAY_RATE": (5000, "a replay is the flood that its rate is there to prevent"),
    "TARGETS_PER_OWNER": (10_000, "one owner may make a flood of requests out of each event"),
}
#: The longest that makes sense, in days, and what happens beyond it.
LONGEST: Mapping[str, tuple[float, str]] = {
    "CONNECT_TIMEOUT": (30 / 86400, "receivers that are away hold the places of others"),
    "TIMEOUT": (120 / 86400, "slow receivers hold the places of others, and the lanes of a killed worker rest for as long"),
    "EXPIRE_AFTER": (90, "payloads are kept for as long, and receivers get news that are none"),
    "SUSPEND_AFTER": (1, "a target that is in trouble gets all of its requests for as long"),
    "DISABLE_AFTER": (90, "targets that are dead are tried for as long"),
    "RETENTION": (400, "payloads and answers, with the personal data in them, are kept for as long"),
}
#: The shortest that makes sense, in days, and what happens below it.
SHORTEST: Mapping[str, tuple[float, str]] = {
    "DISABLE_AFTER": (1, "a receiver that is away for a night gets nothing more until somebody resumes it"),
    "RETENTION": (1, "what is held for a receiver that is away expires, and what happened cannot be looked up"),
}
#: Requests a minute beyond which a throttle limits nothing, and what makes them.
MOST_REQUESTS, REQUESTING = 1000, ("test", "retry", "replay")
#: Seconds of the periods of throttles, by their first letters.
PERIODS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Caches in which no request is counted, or not those of other processes.
FORGETFUL: Mapping[str, str] = {
    "django.core.cache.backends.dummy.DummyCache": "counts nothing, so that there is no limit",
    "django.core.cache.backends.locmem.LocMemCache": "counts in each process by itself, so that each has the limit",
}
RQ_ENGINE = "djwebhooks.engines.rq.RQEngine"
TASKS_ENGINE = "djwebhooks.engines.tasks.TasksEngine"
#: What runs tasks where they are enqueued, or never: the end of its path.
DEVELOPMENT_TASKS = ("ImmediateBackend", "DummyBackend")
#: Engines and transports for development and for tests.
DEVELOPMENT: Mapping[str, Mapping[str, str]] = {
    "ENGINE": {"djwebhooks.engines.immediate.ImmediateEngine": "requests wait for receivers, and nobody makes retries"},
    "TRANSPORT": {"djwebhooks.transports.memory.MemoryTransport": "nothing is sent, and all of it counts as delivered"},
}


def check_metadata(**_: Any) -> Iterator[CheckMessage]:
    """Allowed networks in which a cloud's credentials lie."""
    for network in _read_networks():
        inside = [address for address in METADATA if ip_address(address) in network]
        if inside:
            yield Error(
                f"DJWEBHOOKS_ALLOWED_NETWORKS has {str(network)!r}: whoever may make a target can ask {inside[0]}, where clouds "
                "hand out credentials, and read the answer in the log.",
                hint="Name the networks that you need, without the addresses of the metadata service.",
                id="djwebhooks.E020",
            )


def _read_networks() -> list[Any]:
    try:
        return [ip_network(str(network), strict=False) for network in conf.ALLOWED_NETWORKS]
    except (TypeError, ValueError):
        return []  # Another check says so.


def check_guessable_keys(**_: Any) -> Iterator[CheckMessage]:
    """Keys of the secrets in the database that can be guessed."""
    for name, key in _list_keys():
        if len(key) < KEY_LENGTH or len(set(key)) < KEY_LETTERS or key.startswith(INSECURE):
            yield checks.Warning(
                f"{name}, which signing secrets are encrypted with, can be guessed: it is short, monotonous or Django's example.",
                hint="Put a new one first (python -c 'import secrets; print(secrets.token_urlsafe(48))'), "
                "run manage.py webhooks reencrypt, and remove this one.",
                id="djwebhooks.W004",
            )


def _list_keys() -> list[tuple[str, str]]:
    """The keys that are in use, newest first, each with what it is called; their values are secret."""
    keys = _read_keys()
    if keys:
        return [(f"Key {number} of DJWEBHOOKS_ENCRYPTION_KEYS", key) for number, key in enumerate(keys, start=1)]
    return [("SECRET_KEY", force_str(settings.SECRET_KEY))] + [
        (f"Key {number} of SECRET_KEY_FALLBACKS", force_str(key))
        for number, key in enumerate(settings.SECRET_KEY_FALLBACKS, start=1)
    ]


def _read_keys() -> list[str]:
    keys = conf.ENCRYPTION_KEYS
    is_list = isinstance(keys, Sequence) and not isinstance(keys, str)
    return [key for key in keys if isinstance(key, str)] if is_list else []  # Another check says what is no key.


def check_shared_keys(**_: Any) -> Iterator[CheckMessage]:
    """A key that is used for everything else as well."""
    others = {force_str(key) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)}
    if others.intersection(_read_keys()):
        yield checks.Warning(
            "DJWEBHOOKS_ENCRYPTION_KEYS has the SECRET_KEY, or one of its fallbacks: whoever learns one key has both.",
            id="djwebhooks.W005",
        )


def check_old_keys(**_: Any) -> Iterator[CheckMessage]:
    """More old keys than a rotation needs."""
    count = len(_list_keys())
    if count > KEYS_AT_ONCE:
        yield checks.Warning(
            f"{count} keys open the signing secrets, and a rotation needs {KEYS_AT_ONCE}: whichever of them leaks opens all.",
            hint="Run manage.py webhooks reencrypt, and remove all but the newest.",
            id="djwebhooks.W006",
        )


def check_durations(**_: Any) -> Iterator[CheckMessage]:
    """Durations that are absurdly long, or short."""
    for word, bounds in (("longer", LONGEST), ("shorter", SHORTEST)):
        for name, (days, consequence) in bounds.items():
            seconds, bound = _read_seconds(getattr(conf, name)), days * 86400
            if seconds is not None and (seconds > bound if word == "longer" else seconds < bound):
                yield checks.Warning(
                    f"DJWEBHOOKS_{name} is {word} than {_write_days(days)}: {consequence}.", id="djwebhooks.W007"
                )


def _write_days(days: float) -> str:
    return f"{days:g} days" if days > 1 else "a day" if days == 1 else f"{days * 86400:g} seconds"


def _read_seconds(value: Any) -> float | None:
    is_number = isinstance(value, int | float | timedelta) and not isinstance(value, bool)
    return as_seconds(value) if is_number else None  # Another check says what is no duration.


def check_most(**_: Any) -> Iterator[CheckMessage]:
    """Limits that are absurdly high."""
    for name, (most, consequence) in MOST.items():
        value = getattr(conf, name)
        if isinstance(value, int | float) and value > most:
            yield checks.Warning(f"DJWEBHOOKS_{name} is {value}, more than {most}: {consequence}.", id="djwebhooks.W008")


def check_schedules(**_: Any) -> Iterator[CheckMessage]:
    """Schedules that go on for ever, or that hammer."""
    pauses = _read_pauses(conf.RETRY_SCHEDULE)
    hasty = sum(pause < 1 for pause in pauses)
    is_hasty = hasty > MOST_HASTY_RETRIES or 0 < hasty == len(pauses)
    if is_hasty or len(pauses) > MOST_RETRIES or sum(pauses) > 30 * 86400:
        yield checks.Warning(
            f"DJWEBHOOKS_RETRY_SCHEDULE has more than {MOST_RETRIES} retries or more than {MOST_HASTY_RETRIES} after less than a "
            "second, goes on for more than 30 days, or never pauses for a second: it costs you and a receiver in trouble more "
            "than it delivers.",
            id="djwebhooks.W009",
        )
    if any(not 1 <= pause <= 86400 for pause in _read_pauses(conf.COOLDOWN_SCHEDULE)):
        yield checks.Warning(
            "DJWEBHOOKS_COOLDOWN_SCHEDULE has a pause of less than a second, which gives a suspended receiver no rest, or of "
            "more than a day, for which nobody sees that it works again.",
            id="djwebhooks.W009",
        )


def _read_pauses(schedule: Any) -> list[float]:
    pauses = [_read_seconds(pause) for pause in schedule] if isinstance(schedule, Sequence) else []
    known = [pause for pause in pauses if pause is not None]
    return known if len(known) == len(pauses) else []  # Another check says what is no schedule.


def check_development(**_: Any) -> Iterator[CheckMessage]:
    """What is meant for development or for tests."""
    for name, paths in DEVELOPMENT.items():
        path = getattr(conf, name)
        if isinstance(path, str) and path in paths:
            yield checks.Warning(f"DJWEBHOOKS_{name} is {path!r}: {paths[path]}.", id="djwebhooks.W010")
    for name, queue in _list_queues().items():
        if not queue.get("ASYNC", True):
            yield checks.Warning(
                f"RQ_QUEUES[{name!r}] is not ASYNC: jobs run where they are enqueued, so that requests wait for them.",
                id="djwebhooks.W010",
            )
    if conf.ENGINE == TASKS_ENGINE:
        backend = getattr(settings, "TASKS", {"default": {}}).get(conf.TASK_BACKEND, {}).get("BACKEND", "ImmediateBackend")
        if backend.endswith(DEVELOPMENT_TASKS):
            yield checks.Warning(
                f"TASKS[{conf.TASK_BACKEND!r}] has the backend {backend!r}: requests wait for receivers, or nothing is sent.",
                id="djwebhooks.W010",
            )


def _list_queues() -> dict[str, Mapping[str, Any]]:
    """The queues of django-rq that are used, by their names."""
    queues, used = getattr(settings, "RQ_QUEUES", {}), [conf.INBOX_QUEUE]
    if conf.ENGINE == RQ_ENGINE:
        used.append(conf.QUEUE)
    return {name: queue for name, queue in queues.items() if name in used}


def check_redis(**_: Any) -> Iterator[CheckMessage]:
    """A Redis on another machine that asks nobody for a password: who can write to it, runs code in the workers."""
    for name, queue in _list_queues().items():
        if _is_open(queue):
            yield checks.Warning(
                f"RQ_QUEUES[{name!r}] is on another machine, without a password. RQ's workers run whatever stands in it, so "
                "who reaches it, be it over TLS, can run code in them.",
                hint="Give Redis a password, and a URL that begins with rediss://.",
                id="djwebhooks.W011",
            )


def _is_open(queue: Mapping[str, Any]) -> bool:
    if "URL" in queue:
        return _is_open_url(str(queue["URL"]))
    if "USE_REDIS_CACHE" in queue:
        return _is_open_cache(settings.CACHES.get(queue["USE_REDIS_CACHE"], {}))
    if "UNIX_SOCKET_PATH" in queue:
        return False
    hosts = [host for host, _ in queue.get("SENTINELS", [])] or [queue.get("HOST")]
    more = queue.get("CONNECTION_KWARGS") or queue.get("REDIS_CLIENT_KWARGS") or {}
    password = queue.get("PASSWORD") or more.get("password")
    return not password and not all(map(_is_near, hosts))


def _is_open_cache(cache: Mapping[str, Any]) -> bool:
    options, location = cache.get("OPTIONS") or {}, cache.get("LOCATION") or []
    servers = re.split("[,;]", location) if isinstance(location, str) else location
    has_password = options.get("PASSWORD") or options.get("password")
    return not has_password and any(_is_open_url(str(server)) for server in servers)


def _is_open_url(address: str) -> bool:
    if address.startswith(("unix:", "/")):
        return False
    url = urlsplit(address if "://" in address else f"redis://{address}")
    return not url.password and not _is_near(url.hostname)


def _is_near(host: str | None) -> bool:
    return host is None or host in {"localhost", "::1"} or host.startswith("127.")


def check_own_hosts(**_: Any) -> Iterator[CheckMessage]:
    """An application that sends webhooks to itself."""
    if fault := _describe_own_hosts():
        yield checks.Warning(
            f"{fault}: webhooks may go to the application itself, also to what trusts its own network, and in circles.",
            hint="Name all hosts that it answers to in DJWEBHOOKS_FORBIDDEN_HOSTS or, with no '*', in ALLOWED_HOSTS.",
            id="djwebhooks.W012",
        )


def _describe_own_hosts() -> str:
    given, hosts = conf.FORBIDDEN_HOSTS, list(conf.own_hosts)
    names = find_own_names(tuple(hosts))
    if given is None:
        allowed = f"DJWEBHOOKS_FORBIDDEN_HOSTS is not set, and ALLOWED_HOSTS, {hosts},"
        if "*" in hosts:
            return f"{allowed} has the application answer to every name"
        return "" if names else f"{allowed} has no name of the application"
    if not given:
        return "DJWEBHOOKS_FORBIDDEN_HOSTS is empty"
    try:
        left_out = [] if isinstance(given, str) else [name for name in names if not is_forbidden_host(name)]
    except (ConfigurationError, TypeError):
        return ""  # Another check says so.
    return f"DJWEBHOOKS_FORBIDDEN_HOSTS leaves out {left_out}, which ALLOWED_HOSTS has" if left_out else ""


def check_throttles(**_: Any) -> Iterator[CheckMessage]:
    """An API that makes as many requests as somebody asks for."""
    rates = conf.API_THROTTLES
    # Another check says what is no dictionary.
    unlimited = [scope for scope in REQUESTING if isinstance(rates, Mapping) and not _is_limit(rates.get(scope))]
    if unlimited:
        yield checks.Warning(
            f"DJWEBHOOKS_API_THROTTLES has no limit, or one above {MOST_REQUESTS} a minute, for {', '.join(unlimited)}: a user "
            "of the API may have requests made without end.",
            hint="Leave the setting out. If the throttles of your REST framework settings limit these, silence this warning.",
            id="djwebhooks.W013",
        )


def _is_limit(rate: Any) -> bool:
    if rate is None:
        return False
    found = re.fullmatch("([0-9]+)/([smhd]).*", str(rate))
    return found is None or 60 * int(found[1]) <= MOST_REQUESTS * PERIODS[found[2]]  # Another check says what is no rate.


def check_cache(**_: Any) -> Iterator[CheckMessage]:
    """Limits that are not kept, as the requests that they are for are counted nowhere, or by each process for itself."""
    backend = settings.CACHES.get("default", {}).get("BACKEND", "")
    if backend in FORGETFUL and (_has_limited_sources() or _has_api()):
        yield checks.Warning(
            f"The default cache, {backend}, {FORGETFUL[backend]}: DJWEBHOOKS_API_THROTTLES and the rate limits of the inbox rest "
            "on it.",
            hint="Use one in CACHES that all processes share, such as Redis or the database's.",
            id="djwebhooks.W016",
        )


def _has_limited_sources() -> bool:
    sources = conf.INBOX.values() if isinstance(conf.INBOX, Mapping) else ()
    return any(isinstance(options, Mapping) and options.get("rate_limit") is not None for options in sources)


def _has_api() -> bool:
    return bool(getattr(settings, "ROOT_URLCONF", None)) and _find_api(get_resolver().url_patterns)


def _find_api(patterns: Sequence[URLPattern | URLResolver]) -> bool:
    """Whether the API's routes are among *patterns*, or included there."""
    return any(
        _find_api(one.url_patterns) if isinstance(one, URLResolver) else str(one.name).startswith("djwebhooks-target")
        for one in patterns
    )


WEAKNESSES: Sequence[Callable[..., Iterator[CheckMessage]]] = (
    check_metadata,
    check_guessable_keys,
    check_shared_keys,
    check_old_keys,
    check_durations,
    check_most,
    check_schedules,
    check_development,
    check_redis,
    check_own_hosts,
    check_throttles,
    check_cache,
)
