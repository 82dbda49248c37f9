"""What works but is weak is a warning of ``check --deploy``, and every setting has been thought about."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import checks as django_checks

from djwebhooks.conf import conf

#: Django's own checks may ask the databases what they can do.
pytestmark = pytest.mark.django_db(databases="__all__")

KEY = "5Zp0wYq2eT7uXk9cVb1nM4aQ8rL6sD3f"
OTHER_KEY = KEY[::-1]
RQ = "djwebhooks.engines.rq.RQEngine"
THROTTLES = {"test": "16/second", "retry": "1000/minute", "replay": "60000/hour"}

#: Each check's id, the settings that it complains about, and what it says.
WEAK: list[tuple[str, dict[str, Any], str]] = [
    ("W001", {"ALLOW_HTTP": True}, "payloads may travel unencrypted"),
    ("W002", {"ALLOWED_NETWORKS": ["10.0.0.0/8"]}, "['10.0.0.0/8']"),
    ("E020", {"ALLOWED_NETWORKS": ["169.254.0.0/16"]}, "'169.254.0.0/16': whoever may make a target can ask 169.254.169.254"),
    ("E020", {"ALLOWED_NETWORKS": ["0.0.0.0/0"]}, "credentials"),
    ("E020", {"ALLOWED_NETWORKS": ["fd00::/8"]}, "fd00:ec2::254"),
    ("E020", {"ALLOWED_NETWORKS": ["168.63.0.0/16"]}, "168.63.129.16"),
    ("W004", {"ENCRYPTION_KEYS": ["short"]}, "Key 1 of DJWEBHOOKS_ENCRYPTION_KEYS, which"),
    ("W004", {"ENCRYPTION_KEYS": [KEY, "ab" * 30]}, "Key 2 of DJWEBHOOKS_ENCRYPTION_KEYS, which"),
    (
        "W005",
        {"ENCRYPTION_KEYS": [KEY, "the key of the tests, long enough that no check complains about it"]},
        "has the SECRET_KEY",
    ),
    ("W006", {"ENCRYPTION_KEYS": [KEY, OTHER_KEY, KEY + OTHER_KEY]}, "3 keys open"),
    ("W007", {"TIMEOUT": 121}, "DJWEBHOOKS_TIMEOUT is longer than 120 seconds"),
    ("W007", {"CONNECT_TIMEOUT": timedelta(minutes=1)}, "DJWEBHOOKS_CONNECT_TIMEOUT is longer than 30 seconds"),
    ("W007", {"RETENTION": timedelta(days=4000)}, "DJWEBHOOKS_RETENTION is longer than 400 days"),
    ("W007", {"EXPIRE_AFTER": timedelta(days=91)}, "DJWEBHOOKS_EXPIRE_AFTER is longer than 90 days"),
    ("W007", {"DISABLE_AFTER": timedelta(days=91)}, "DJWEBHOOKS_DISABLE_AFTER is longer than 90 days"),
    ("W007", {"SUSPEND_AFTER": timedelta(days=2)}, "DJWEBHOOKS_SUSPEND_AFTER is longer than a day"),
    ("W007", {"DISABLE_AFTER": timedelta(hours=23)}, "DJWEBHOOKS_DISABLE_AFTER is shorter than a day"),
    ("W007", {"RETENTION": 3600}, "DJWEBHOOKS_RETENTION is shorter than a day"),
    ("W008", {"PAYLOAD_LIMIT": 2**30}, "DJWEBHOOKS_PAYLOAD_LIMIT is 1073741824, more than 4194304"),
    ("W008", {"RESPONSE_LIMIT": 2**30}, "DJWEBHOOKS_RESPONSE_LIMIT is 1073741824"),
    ("W008", {"CONCURRENCY": 100_000}, "DJWEBHOOKS_CONCURRENCY is 100000"),
    ("W008", {"RQ_JOBS": 100}, "DJWEBHOOKS_RQ_JOBS is 100"),
    ("W008", {"REPLAY_RATE": 6000.0}, "DJWEBHOOKS_REPLAY_RATE is 6000.0, more than 5000"),
    ("W008", {"TARGETS_PER_OWNER": 10**9}, "DJWEBHOOKS_TARGETS_PER_OWNER is 1000000000"),
    ("W009", {"RETRY_SCHEDULE": [86400] * 31}, "DJWEBHOOKS_RETRY_SCHEDULE"),
    ("W009", {"RETRY_SCHEDULE": [1] * 101}, "DJWEBHOOKS_RETRY_SCHEDULE"),
    ("W009", {"RETRY_SCHEDULE": [0, 0]}, "DJWEBHOOKS_RETRY_SCHEDULE"),
    ("W009", {"RETRY_SCHEDULE": [0, 0, 0, 0, 0, 0.9, 60]}, "more than 5 after less than a second"),
    ("W009", {"COOLDOWN_SCHEDULE": [0]}, "gives a suspended receiver no rest"),
    ("W009", {"COOLDOWN_SCHEDULE": [60, timedelta(days=2)]}, "nobody sees that it works again"),
    ("W010", {"ENGINE": "djwebhooks.engines.immediate.ImmediateEngine"}, "requests wait for receivers"),
    ("W010", {"TRANSPORT": "djwebhooks.transports.memory.MemoryTransport"}, "nothing is sent"),
    ("W012", {"FORBIDDEN_HOSTS": ()}, "may go to the application itself"),
    ("W012", {"FORBIDDEN_HOSTS": ["intranet.example"]}, "DJWEBHOOKS_FORBIDDEN_HOSTS leaves out ['app.example.com']"),
    ("W013", {"API_THROTTLES": {}}, "for test, retry, replay: a user of the API may have requests made without end"),
    ("W013", {"API_THROTTLES": {"test": "1/minute", "feed": "1/day"}}, "for retry, replay: a user"),
    ("W013", {"API_THROTTLES": THROTTLES | {"test": "17/second", "replay": "60001/hour"}}, "for test, replay: a user"),
]
#: Settings that cannot be weak, and why.
CANNOT_BE_WEAK = {
    "OWNER_MODEL": "says whose the targets are, and does nothing else",
    "REQUEST_OWNER": "is code: no check can tell which owner it should return",
    "OWNER_FIELD": "shows what the application wants to be shown",
    "EVENTS": "names events; an empty one allows any name, and still only those that the application fires",
    "MODEL_EVENTS": "sends no more of a row than it names",
    "VALIDATE_PAYLOADS": "looks at what is sent, and changes nothing of it",
    "INBOX": "has checks of its own, those of the app that receives",
    "INBOX_QUEUE": "is a name; what stands behind it is looked at as W011",
    "ENVELOPE": "all bodies are signed as a whole; what binary mode says in headers is told on the page about the wire",
    "CLOUDEVENTS_ORIGIN": "asks before anything is sent, and sends no more than without",
    "SENDERS": "is code: what it sends is the application's business, and where to is looked at like any target's address",
    "SENDER": "names one of them",
    "TARGET_VERSION": "chooses among payloads that the application has made",
    "SIGNATURES": "both versions are strong, and none at all is an error",
    "JSON_ENCODER": "is code, and what it makes is only ever data",
    "GIVE_UP_ON": "ends deliveries earlier, as its owner wants it",
    "TASK_BACKEND": "is a name; what stands behind it is looked at as W010",
    "QUEUE": "is a name; what stands behind it is looked at as W011",
    "DISABLED_EMAIL": "tells an owner what the owner may see anyway",
    "ALLOWED_PORTS": "narrows; on any port a forbidden address stays forbidden",
}


@pytest.fixture(autouse=True)
def production(settings: LazySettings, hooks: None) -> LazySettings:
    """Settings with no weakness, to be spoilt by each test in one way."""
    settings.DJWEBHOOKS_ALLOW_HTTP = False
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
    settings.ALLOWED_HOSTS = ["app.example.com"]
    settings.RQ_QUEUES = {"default": {"URL": "rediss://:password@redis.example.com/0"}}
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "counts"}}
    return settings


def run_checks() -> list[django_checks.CheckMessage]:
    """The messages of djwebhooks' own checks at a deployment."""
    found = django_checks.run_checks(include_deployment_checks=True)
    return [message for message in found if str(message.id).startswith("djwebhooks.")]


def apply(settings: LazySettings, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(settings, f"DJWEBHOOKS_{name}", value)


@pytest.mark.parametrize(("identifier", "values", "message"), WEAK, ids=[f"{case[0]} {list(case[1])}" for case in WEAK])
def test_a_weak_setting_is_said(settings: LazySettings, identifier: str, values: dict[str, Any], message: str) -> None:
    """One message names the setting; a private network is told of besides, whichever it is."""
    apply(settings, values)

    found = [one for one in run_checks() if one.id != "djwebhooks.W002" or identifier == "W002"]

    assert [one.id for one in found] == [f"djwebhooks.{identifier}"]
    assert message in found[0].msg


def test_the_defaults_are_strong(settings: LazySettings) -> None:
    """Nothing is said of them, nor of a rotation that is under way, of no retries, and of throttles that are just low enough."""
    assert run_checks() == []
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = [KEY, OTHER_KEY]
    settings.DJWEBHOOKS_ENGINE = RQ
    settings.DJWEBHOOKS_RETRY_SCHEDULE = ()
    settings.DJWEBHOOKS_API_THROTTLES = THROTTLES

    assert run_checks() == []


def test_every_setting_has_been_thought_about() -> None:
    """A setting can be weak, and a check says so, or it cannot, and the reason is written down."""
    checked = {name for _, values, _ in WEAK for name in values}

    assert checked.isdisjoint(CANNOT_BE_WEAK)
    assert {f"DJWEBHOOKS_{name}" for name in checked.union(CANNOT_BE_WEAK)} == set(conf.names())


@pytest.mark.parametrize(
    "values",
    [
        {"ENCRYPTION_KEYS": "one key"},
        {"ENCRYPTION_KEYS": [b"bytes"]},
        {"TIMEOUT": "15"},
        {"RETRY_SCHEDULE": 5},
        {"RETRY_SCHEDULE": ["5"]},
        {"ALLOWED_NETWORKS": ["10.0.0.0/33"]},
        {"ALLOWED_NETWORKS": 5},
        {"CONCURRENCY": "many"},
        {"ENGINE": 5},
        {"API_THROTTLES": 5},
        {"API_THROTTLES": {"test": "often", "retry": 5, "replay": "1/day"}},
        {"FORBIDDEN_HOSTS": [5]},
        {"FORBIDDEN_HOSTS": "intranet"},
        {"FORBIDDEN_HOSTS": ["*"]},
        {"COOLDOWN_SCHEDULE": 5},
    ],
    ids=str,
)
def test_what_is_wrong_is_not_called_weak(settings: LazySettings, values: dict[str, Any]) -> None:
    """No check stumbles over what another one reports as an error."""
    apply(settings, values)

    assert {str(message.id)[:12] for message in run_checks() if message.id != "djwebhooks.W002"} == {"djwebhooks.E"}


def test_no_key_is_shown(settings: LazySettings) -> None:
    """A message says which key it is by its place alone."""
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["hunter2", "the key of the tests, long enough that no check complains about it", "x"]

    said = str([(message.msg, message.hint) for message in run_checks()])

    assert "Key 1" in said
    assert "hunter2" not in said
    assert "the key of the tests" not in said


def test_the_secret_key_must_be_strong_where_it_encrypts(settings: LazySettings) -> None:
    """Without keys of our own it is the key, and so are its fallbacks; with some it is Django's business alone."""
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "django-insecure-" + KEY, ["old"]

    assert [message.msg.partition(",")[0] for message in run_checks()] == ["SECRET_KEY", "Key 1 of SECRET_KEY_FALLBACKS"]
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = [KEY]
    assert run_checks() == []


@pytest.mark.parametrize(
    ("queue", "is_open"),
    [
        ({"URL": "redis://redis.example.com/0"}, True),
        ({"HOST": "10.0.0.5", "PORT": 6379}, True),
        ({"URL": "redis://:password@redis.example.com/0"}, False),
        ({"URL": "rediss://redis.example.com/0"}, True),
        ({"URL": "rediss://:password@redis.example.com/0"}, False),
        ({"HOST": "10.0.0.5", "PASSWORD": "password"}, False),
        ({"HOST": "10.0.0.5", "SSL": True}, True),
        ({"URL": "redis://localhost:6379/0"}, False),
        ({"URL": "redis://127.0.0.1:6379/0"}, False),
        ({"URL": "unix:///run/redis.sock"}, False),
        ({"UNIX_SOCKET_PATH": "/run/redis.sock"}, False),
        ({"HOST": "localhost"}, False),
        ({"HOST": "10.0.0.5", "REDIS_CLIENT_KWARGS": {"password": "password"}}, False),
        ({"SENTINELS": [("localhost", 26379), ("10.0.0.5", 26379)], "MASTER_NAME": "main"}, True),
        ({"SENTINELS": [("10.0.0.5", 26379)], "MASTER_NAME": "main", "PASSWORD": "password"}, False),
        ({"SENTINELS": [("10.0.0.5", 26379)], "CONNECTION_KWARGS": {"password": "password"}}, False),
        ({"SENTINELS": [("localhost", 26379)], "MASTER_NAME": "main"}, False),
        # django-rq takes no password from beside a URL.
        ({"URL": "redis://redis.example.com/0", "PASSWORD": "password"}, True),
    ],
    ids=str,
)
def test_a_redis_elsewhere_must_be_guarded(settings: LazySettings, queue: dict[str, Any], is_open: bool) -> None:
    """Whoever can write to it can run code in RQ's workers, and TLS keeps nobody out; with another engine it is not ours."""
    settings.RQ_QUEUES = {"default": queue}
    assert run_checks() == []
    settings.DJWEBHOOKS_ENGINE = RQ

    assert [message.id for message in run_checks()] == (["djwebhooks.W011"] if is_open else [])


@pytest.mark.parametrize(
    ("cache", "is_open"),
    [
        ({"LOCATION": "redis://redis.example.com/0"}, True),
        ({"LOCATION": ["redis://localhost/0", "redis://redis.example.com/0"]}, True),
        ({"LOCATION": "redis://localhost/0,redis://redis.example.com/0"}, True),
        ({"LOCATION": "10.0.0.5:6379"}, True),
        ({"LOCATION": "redis://:password@redis.example.com/0"}, False),
        ({"LOCATION": "redis://redis.example.com/0", "OPTIONS": {"PASSWORD": "password"}}, False),
        ({"LOCATION": "10.0.0.5:6379", "OPTIONS": {"password": "password"}}, False),
        ({"LOCATION": "redis://localhost/0"}, False),
        ({"LOCATION": "127.0.0.1:6379"}, False),
        ({"LOCATION": "unix:/run/redis.sock"}, False),
        ({"LOCATION": "/run/redis.sock"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_cache_s_redis_elsewhere_must_be_guarded(settings: LazySettings, cache: dict[str, Any], is_open: bool) -> None:
    """Django-rq can use the Redis of a cache, and then no host of the queue's own."""
    settings.CACHES = settings.CACHES | {"jobs": {"BACKEND": "django.core.cache.backends.redis.RedisCache", **cache}}
    settings.RQ_QUEUES = {"default": {"USE_REDIS_CACHE": "jobs", "HOST": "10.0.0.5"}}
    settings.DJWEBHOOKS_ENGINE = RQ

    assert [message.id for message in run_checks()] == (["djwebhooks.W011"] if is_open else [])


def test_a_queue_whose_cache_is_not_there_is_told_of_elsewhere(settings: LazySettings) -> None:
    """Django-rq says so as soon as it is used."""
    settings.RQ_QUEUES = {"default": {"USE_REDIS_CACHE": "missing"}}
    settings.DJWEBHOOKS_ENGINE = RQ

    assert run_checks() == []


def test_the_queue_of_the_inbox_must_be_guarded(settings: LazySettings) -> None:
    """It is used whatever the engine is; a queue that nobody uses is not ours."""
    settings.RQ_QUEUES = {"mail": {"URL": "redis://redis.example.com/0"}, "default": {"HOST": "localhost"}}
    assert run_checks() == []
    settings.DJWEBHOOKS_INBOX_QUEUE = "mail"
    [found] = run_checks()

    assert found.id == "djwebhooks.W011"
    assert "RQ_QUEUES['mail']" in found.msg


@pytest.mark.parametrize("name", ["QUEUE", "INBOX_QUEUE"])
def test_a_queue_must_be_worked_on_elsewhere(settings: LazySettings, name: str) -> None:
    """Django-rq can run jobs where they are enqueued, which is for tests."""
    settings.RQ_QUEUES = {"default": {"HOST": "localhost"}, "inline": {"HOST": "localhost", "ASYNC": False}}
    settings.DJWEBHOOKS_ENGINE = RQ
    assert run_checks() == []
    apply(settings, {name: "inline"})
    [found] = run_checks()

    assert found.id == "djwebhooks.W010"
    assert "RQ_QUEUES['inline'] is not ASYNC" in found.msg


@pytest.mark.parametrize(
    ("backend", "words"),
    [("dummy.DummyCache", "counts nothing"), ("locmem.LocMemCache", "counts in each process by itself")],
)
def test_the_cache_must_count(settings: LazySettings, backend: str, words: str) -> None:
    """The limits of the API's users and of the inbox's senders are kept in it; where there are none of them, it is not ours."""
    settings.CACHES = {"default": {"BACKEND": f"django.core.cache.backends.{backend}"}}
    [found] = run_checks()

    assert found.id == "djwebhooks.W016"
    assert words in found.msg
    settings.ROOT_URLCONF = "djwebhooks.jwks"  # No API there.
    assert run_checks() == []
    settings.DJWEBHOOKS_INBOX = settings.DJWEBHOOKS_INBOX | {"form": {"scheme": "none", "rate_limit": "1/second"}}
    assert [message.id for message in run_checks()] == ["djwebhooks.W016"]


@pytest.mark.parametrize(
    ("hosts", "is_known"),
    [
        (["*"], False),
        ([], False),
        (["localhost", "127.0.0.1", "10.0.0.1", "[::1]"], False),
        (["*", ".example.com"], False),
        ([".example.com"], True),
        (["app.example.com"], True),
        (["8.8.8.8"], True),
    ],
    ids=str,
)
def test_the_application_must_know_its_own_hosts(settings: LazySettings, hosts: list[str], is_known: bool) -> None:
    """Without DJWEBHOOKS_FORBIDDEN_HOSTS they are those in ALLOWED_HOSTS, which may name none or all; with it they are in it."""
    settings.ALLOWED_HOSTS = hosts

    found = run_checks()

    assert [message.id for message in found] == ([] if is_known else ["djwebhooks.W012"])
    assert all(str(hosts) in message.msg for message in found)
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = [".example.com", "8.8.8.8"]
    assert run_checks() == []
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = ["example.com"]
    own = [host for host in hosts if "example.com" in host or host == "8.8.8.8"]
    assert [message.id for message in run_checks()] == (["djwebhooks.W012"] if own else [])
