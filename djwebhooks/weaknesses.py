"""Say at a deployment what works, but is weak: keys that can be guessed, open doors, limits that limit nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.utils.encoding import force_str

from djwebhooks.conf import as_seconds, conf
from djwebhooks.network import find_own_names

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


def check_longest(**_: Any) -> Iterator[CheckMessage]:
    """Durations that are absurdly long."""
    for name, (days, consequence) in LONGEST.items():
        seconds = _read_seconds(getattr(conf, name))
        if seconds is not None and seconds > days * 86400:
            most = f"{days:g} days" if days > 1 else "a day" if days == 1 else f"{days * 86400:g} seconds"
            yield checks.Warning(f"DJWEBHOOKS_{name} is longer than {most}: {consequence}.", id="djwebhooks.W007")


def _read_seconds(value: Any) -> float | None:
    is_number = isinstance(value, int | float | timedelta) and not isinstance(value, bool)
    return as_seconds(value) if is_number else None  # Another check says what is no duration.


def check_most(**_: Any) -> Iterator[CheckMessage]:
    """Limits that are absurdly high."""
    for name, (most, consequence) in MOST.items():
        value = getattr(conf, name)
        if isinstance(value, int | float) and value > most:
            yield checks.Warning(f"DJWEBHOOKS_{name} is {value}, more than {most}: {consequence}.", id="djwebhooks.W008")


def check_tries(**_: Any) -> Iterator[CheckMessage]:
    """A schedule that goes on for ever, or that hammers."""
    pauses = [_read_seconds(pause) for pause in conf.RETRY_SCHEDULE] if isinstance(conf.RETRY_SCHEDULE, Sequence) else []
    if any(pause is None for pause in pauses):
        return
    if (
        sum(pause or 0 for pause in pauses) > 30 * 86400
        or len(pauses) > 100
        or (pauses and max(pause or 0 for pause in pauses) < 1)
    ):
        yield checks.Warning(
            "DJWEBHOOKS_RETRY_SCHEDULE has more than 100 retries, goes on for more than 30 days, or never pauses for a second: "
            "it costs you and a receiver in trouble more than it delivers.",
            id="djwebhooks.W009",
        )


def check_development(**_: Any) -> Iterator[CheckMessage]:
    """What is meant for development or for tests."""
    for name, paths in DEVELOPMENT.items():
        path = getattr(conf, name)
        if isinstance(path, str) and path in paths:
            yield checks.Warning(f"DJWEBHOOKS_{name} is {path!r}: {paths[path]}.", id="djwebhooks.W010")


def check_redis(**_: Any) -> Iterator[CheckMessage]:
    """A Redis on another machine that asks nobody for a password: who can write to it, runs code in the workers."""
    queue = getattr(settings, "RQ_QUEUES", {}).get(conf.QUEUE, {})
    if conf.ENGINE == "djwebhooks.engines.rq.RQEngine" and _is_open(queue):
        yield checks.Warning(
            f"RQ_QUEUES[{conf.QUEUE!r}] is on another machine, without a password. RQ's workers run whatever stands in it, so "
            "who reaches it, be it over TLS, can run code in them.",
            hint="Give Redis a password, and a URL that begins with rediss://.",
            id="djwebhooks.W011",
        )


def _is_open(queue: Mapping[str, Any]) -> bool:
    url = urlsplit(str(queue.get("URL", "")))
    host = url.hostname or queue.get("HOST", "localhost")
    is_near = url.scheme == "unix" or "UNIX_SOCKET_PATH" in queue or host in {"localhost", "::1"} or host.startswith("127.")
    return not is_near and not (url.password or queue.get("PASSWORD"))


def check_own_hosts(**_: Any) -> Iterator[CheckMessage]:
    """An application that sends webhooks to itself."""
    given = conf.FORBIDDEN_HOSTS
    if given is None and not find_own_names(tuple(conf.own_hosts)):
        fault = (
            f"DJWEBHOOKS_FORBIDDEN_HOSTS is not set, and ALLOWED_HOSTS, {list(conf.own_hosts)!r}, has no name of the application"
        )
    elif given is not None and not given:
        fault = "DJWEBHOOKS_FORBIDDEN_HOSTS is empty"
    else:
        return
    yield checks.Warning(
        f"{fault}: webhooks may go to the application itself, also to what trusts its own network, and in circles.",
        hint="Name the hosts that the application answers to, in one of the two.",
        id="djwebhooks.W012",
    )


def check_throttles(**_: Any) -> Iterator[CheckMessage]:
    """An API that makes as many requests as somebody asks for."""
    if conf.API_THROTTLES == {}:
        yield checks.Warning(
            "DJWEBHOOKS_API_THROTTLES is empty: a user of the API may have tests and replays made without end.",
            hint="Leave the setting out. If the throttles of your REST framework settings limit these, silence this warning.",
            id="djwebhooks.W013",
        )


WEAKNESSES: Sequence[Callable[..., Iterator[CheckMessage]]] = (
    check_metadata,
    check_guessable_keys,
    check_shared_keys,
    check_old_keys,
    check_longest,
    check_most,
    check_tries,
    check_development,
    check_redis,
    check_own_hosts,
    check_throttles,
)
