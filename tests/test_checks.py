"""What is set up wrongly is said at the start, by a check with an id of its own."""

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from inspect import getsource
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import checks as django_checks
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.models import Model
from django.utils.module_loading import import_string

from djwebhooks import checks
from djwebhooks.database.server import LEVELS, describe_fault
from djwebhooks.decorators import hook
from djwebhooks.exceptions import InvalidEvent, UnknownEvent
from djwebhooks.weaknesses import WEAKNESSES
from tests.connections import mariadb_only, server_only
from tests.test_weaknesses import WEAK

#: Django's own checks may ask the databases what they can do.
pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.usefixtures("hooks")]

#: Each check's id, the settings that it complains about, and what it says.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("djwebhooks.E001", {"TIMEOUTS": 5}, "There is no setting DJWEBHOOKS_TIMEOUTS"),
    ("djwebhooks.E002", {"ENGINE": "djwebhooks.engines.RQEngine"}, "DJWEBHOOKS_ENGINE is 'djwebhooks.engines.RQEngine'"),
    ("djwebhooks.E002", {"ENGINE": "no.such.Engine"}, "'no.such.Engine'"),
    ("djwebhooks.E002", {"ENGINE": "Engine"}, "'Engine'"),
    ("djwebhooks.E002", {"ENGINE": 5}, "DJWEBHOOKS_ENGINE must be a dotted path, not 5"),
    ("djwebhooks.E002", {"ENGINE": None}, "DJWEBHOOKS_ENGINE must be a dotted path, not None"),
    ("djwebhooks.E002", {"ENGINE": "."}, "'.'"),
    ("djwebhooks.E002", {"ENGINE": "djwebhooks.engines.base.Engine"}, "is not a subclass of djwebhooks.engines.base.Engine"),
    ("djwebhooks.E002", {"ENGINE": "djwebhooks.engines.get_engine"}, "is not a subclass of djwebhooks.engines.base.Engine"),
    ("djwebhooks.E002", {"ENGINE": "collections.OrderedDict"}, "is not a subclass of djwebhooks.engines.base.Engine"),
    ("djwebhooks.E002", {"TRANSPORT": "collections.OrderedDict"}, "is not a class with the methods submit, wait"),
    ("djwebhooks.E002", {"TRANSPORT": "os.path.join"}, "is not a class with the methods submit, wait"),
    ("djwebhooks.E002", {"JSON_ENCODER": "json.JSONDecoder"}, "is not a subclass of json.JSONEncoder"),
    ("djwebhooks.E002", {"JSON_ENCODER": "json.dumps"}, "is not a subclass of json.JSONEncoder"),
    ("djwebhooks.E002", {"REQUEST_OWNER": "os.path.sep"}, "is not a function"),
    ("djwebhooks.E002", {"TRANSPORT": "djwebhooks.transports.Nothing"}, "DJWEBHOOKS_TRANSPORT"),
    ("djwebhooks.E002", {"JSON_ENCODER": "json.Encoder"}, "DJWEBHOOKS_JSON_ENCODER"),
    ("djwebhooks.E002", {"REQUEST_OWNER": "accounts.owner"}, "DJWEBHOOKS_REQUEST_OWNER"),
    ("djwebhooks.E003", {"OWNER_MODEL": "auth.Nobody"}, "'auth.Nobody'"),
    ("djwebhooks.E003", {"OWNER_MODEL": "User"}, "'User'"),
    ("djwebhooks.E004", {"TIMEOUT": 0}, "DJWEBHOOKS_TIMEOUT must be seconds above 0"),
    ("djwebhooks.E004", {"TIMEOUT": "15"}, "'15'"),
    ("djwebhooks.E004", {"TIMEOUT": None}, "None"),
    ("djwebhooks.E004", {"TIMEOUT": True}, "True"),
    ("djwebhooks.E004", {"TIMEOUT": float("nan")}, "nan"),
    ("djwebhooks.E004", {"CONNECT_TIMEOUT": timedelta(seconds=-1)}, "DJWEBHOOKS_CONNECT_TIMEOUT"),
    ("djwebhooks.E004", {"RETENTION": float("inf")}, "DJWEBHOOKS_RETENTION"),
    ("djwebhooks.E004", {"DISABLE_AFTER": 1e300}, "DJWEBHOOKS_DISABLE_AFTER"),
    ("djwebhooks.E004", {"EXPIRE_AFTER": 0}, "DJWEBHOOKS_EXPIRE_AFTER"),
    ("djwebhooks.E005", {"RETRY_SCHEDULE": 5}, "DJWEBHOOKS_RETRY_SCHEDULE"),
    ("djwebhooks.E005", {"RETRY_SCHEDULE": "5,10"}, "'5,10'"),
    ("djwebhooks.E005", {"RETRY_SCHEDULE": [5, -1]}, "-1"),
    ("djwebhooks.E005", {"RETRY_SCHEDULE": [float("inf")]}, "inf"),
    ("djwebhooks.E028", {"TARGET_VERSION": "a b"}, "'a b' cannot name a version"),
    ("djwebhooks.E028", {"TARGET_VERSION": None}, "None cannot name a version"),
    ("djwebhooks.E028", {"TARGET_VERSION": "3", "EVENTS": {"a.b": {"version": "2"}}}, "there are 2"),
    ("djwebhooks.E009", {"EVENTS": {"a.b": {"versions": ["2"]}}}, "a dictionary of other versions by their names"),
    ("djwebhooks.E009", {"EVENTS": {"a.b": {"versions": {"a b": {}}}}}, "'a b' cannot name a version"),
    (
        "djwebhooks.E009",
        {"EVENTS": {"a.b": {"versions": {"2": {"internal": True}}}}},
        "'a.b' in version '2' has the key 'internal'",
    ),
    ("djwebhooks.E019", {"SIGNATURES": ()}, "DJWEBHOOKS_SIGNATURES must be a list of one or more of v1, v1a, not ()"),
    ("djwebhooks.E019", {"SIGNATURES": "v1"}, "'v1'"),
    ("djwebhooks.E019", {"SIGNATURES": ["v1", "v2"]}, "['v1', 'v2']"),
    ("djwebhooks.E006", {"RQ_JOBS": 0}, "DJWEBHOOKS_RQ_JOBS"),
    ("djwebhooks.E006", {"PAYLOAD_LIMIT": 1.5}, "1.5"),
    ("djwebhooks.E006", {"RESPONSE_LIMIT": None}, "DJWEBHOOKS_RESPONSE_LIMIT"),
    ("djwebhooks.E006", {"TARGETS_PER_OWNER": "100"}, "'100'"),
    ("djwebhooks.E006", {"CONCURRENCY": -1}, "DJWEBHOOKS_CONCURRENCY"),
    ("djwebhooks.E007", {"ENVELOPE": "letter"}, "'letter'"),
    ("djwebhooks.E007", {"ENVELOPE": None}, "None"),
    ("djwebhooks.E031", {"CLOUDEVENTS_ORIGIN": "https://app.example.com"}, "not 'https://app.example.com'"),
    ("djwebhooks.E031", {"CLOUDEVENTS_ORIGIN": ["app"]}, "must be a DNS name, such as 'app.example.com', not ['app']"),
    ("djwebhooks.E030", {"SENDERS": ["slack"]}, "must be a dictionary of names and dotted paths, not ['slack']"),
    ("djwebhooks.E030", {"SENDERS": {"sl/ack": "djwebhooks.senders.Sender"}}, "'sl/ack'"),
    ("djwebhooks.E030", {"SENDERS": {"slack": "djwebhooks.senders.find"}}, "not a subclass of djwebhooks.senders.Sender"),
    ("djwebhooks.E030", {"SENDERS": {"slack": None}}, "The sender 'slack' is None"),
    ("djwebhooks.E030", {"SENDER": "slack"}, "DJWEBHOOKS_SENDER is 'slack', which DJWEBHOOKS_SENDERS does not have."),
    ("djwebhooks.E008", {"ALLOWED_NETWORKS": ("10.0.0.0/33",)}, "10.0.0.0/33"),
    ("djwebhooks.E008", {"ALLOWED_NETWORKS": "127.0.0.0/8"}, "must be a list, such as ['127.0.0.0/8'], not '127.0.0.0/8'"),
    ("djwebhooks.E008", {"ALLOWED_NETWORKS": 5}, "must be a list, such as ['127.0.0.0/8'], not 5"),
    ("djwebhooks.E008", {"ALLOWED_NETWORKS": [["127.0.0.0/8"]]}, "must be a list, such as ['127.0.0.0/8'], not [["),
    ("djwebhooks.E009", {"EVENTS": {"project update": {}}}, "'project update'"),
    ("djwebhooks.E009", {"EVENTS": {"project.*": {}}}, r"'project.*'"),
    ("djwebhooks.E009", {"EVENTS": {5: {}}}, "5"),
    ("djwebhooks.E009", {"EVENTS": ["project.update"]}, "DJWEBHOOKS_EVENTS"),
    (
        "djwebhooks.E009",
        {"EVENTS": {"user.update": "A user changed."}},
        "DJWEBHOOKS_EVENTS: 'user.update' must have a dictionary, not 'A user changed.': write {'description': …}.",
    ),
    ("djwebhooks.E009", {"EVENTS": {"user.update": None}}, "DJWEBHOOKS_EVENTS: 'user.update' must have a dictionary, not None"),
    ("djwebhooks.E009", {"EVENTS": {"a": {"descripton": "x"}}}, "DJWEBHOOKS_EVENTS: 'a' has the key 'descripton'"),
    ("djwebhooks.E009", {"EVENTS": {"a": {"schema": {"type": "x"}}}}, "DJWEBHOOKS_EVENTS: 'a' has an invalid schema: $.type"),
    ("djwebhooks.E025", {"VALIDATE_PAYLOADS": "raise"}, "must be one of None, 'warn', 'refuse', not 'raise'"),
    (
        "djwebhooks.W015",
        {"MODEL_EVENTS": {"b": "auth.User.created"}},
        "DJWEBHOOKS_MODEL_EVENTS has 'b' without an owner, so that the system's own targets alone get it.",
    ),
    ("djwebhooks.E010", {"ENGINE": "djwebhooks.engines.rq.RQEngine", "QUEUE": "mail"}, "DJWEBHOOKS_QUEUE is 'mail'"),
    ("djwebhooks.E010", {"ENGINE": "djwebhooks.engines.rq.RQEngine", "QUEUE": ["default"]}, "DJWEBHOOKS_QUEUE is ['default']"),
    ("djwebhooks.E012", {"GIVE_UP_ON": 404}, "DJWEBHOOKS_GIVE_UP_ON"),
    ("djwebhooks.E012", {"GIVE_UP_ON": ["404"]}, "'404'"),
    ("djwebhooks.E012", {"GIVE_UP_ON": [200]}, "200"),
    ("djwebhooks.E013", {"OWNER_FIELD": "slugg"}, "'slugg', which auth.User does not have"),
    ("djwebhooks.E013", {"OWNER_FIELD": ["username"]}, "['username'], which auth.User does not have"),
    ("djwebhooks.E014", {"ENCRYPTION_KEYS": "one key"}, "DJWEBHOOKS_ENCRYPTION_KEYS"),
    ("djwebhooks.E014", {"ENCRYPTION_KEYS": [b"key"]}, "DJWEBHOOKS_ENCRYPTION_KEYS"),
    ("djwebhooks.E016", {"ALLOW_HTTP": "no"}, "DJWEBHOOKS_ALLOW_HTTP must be True or False, not 'no'"),
    ("djwebhooks.E016", {"ALLOW_HTTP": None}, "not None"),
    ("djwebhooks.E017", {"ALLOWED_PORTS": 443}, "DJWEBHOOKS_ALLOWED_PORTS must be None or a list of ports"),
    ("djwebhooks.E017", {"ALLOWED_PORTS": "443"}, "'443'"),
    ("djwebhooks.E017", {"ALLOWED_PORTS": ()}, "not ()"),
    ("djwebhooks.E017", {"ALLOWED_PORTS": [443, True]}, "True"),
    ("djwebhooks.E017", {"ALLOWED_PORTS": [70000]}, "70000"),
    ("djwebhooks.E018", {"FORBIDDEN_HOSTS": "example.com"}, "must be None or a list, such as ['example.com'], not 'example.com'"),
    ("djwebhooks.E018", {"FORBIDDEN_HOSTS": [5]}, "5"),
    ("djwebhooks.E018", {"FORBIDDEN_HOSTS": ["*"]}, "'*'"),
    ("djwebhooks.E018", {"FORBIDDEN_HOSTS": ["https://example.com"]}, "Write them like 'example.com'"),
    ("djwebhooks.E024", {"REPLAY_RATE": 0}, "DJWEBHOOKS_REPLAY_RATE: The rate is a number of deliveries per second"),
    ("djwebhooks.E024", {"REPLAY_RATE": "fast"}, "not 'fast'"),
    ("djwebhooks.E024", {"API_THROTTLES": "60/hour"}, "DJWEBHOOKS_API_THROTTLES must be a dictionary such as"),
    ("djwebhooks.E024", {"API_THROTTLES": {"tests": "60/hour"}}, "{'tests': '60/hour'}"),
    ("djwebhooks.E024", {"API_THROTTLES": {"test": "60"}}, "{'test': '60'}"),
]
#: Values that each of these settings may have.
GOOD: list[dict[str, Any]] = [
    {},
    {"ENGINE": "djwebhooks.engines.rq.RQEngine"},
    {"ENGINE": "djwebhooks.engines.immediate.ImmediateEngine"},
    {"TRANSPORT": "djwebhooks.transports.memory.MemoryTransport"},
    {"REQUEST_OWNER": "os.path.join"},
    {"OWNER_MODEL": "auth.User"},
    {"TIMEOUT": 0.5, "CONNECT_TIMEOUT": timedelta(seconds=1), "RETENTION": timedelta(days=400), "EXPIRE_AFTER": 60},
    {"RETRY_SCHEDULE": []},
    {"RETRY_SCHEDULE": [0, 1.5, timedelta(hours=1)]},
    {"RQ_JOBS": 2, "CONCURRENCY": 5},
    {"ENVELOPE": "flat"},
    {"CLOUDEVENTS_ORIGIN": "app.example.com"},
    {"SENDERS": {"form": "djwebhooks.senders.FormSender"}, "SENDER": "form"},
    {"ALLOWED_NETWORKS": ["10.0.0.0/8", "fd00::/8"]},
    {"EVENTS": {"project.update": {"description": "x"}, "project": {}}},
    {"EVENTS": {"a": {"description": "x", "schema": {}, "sample": {}, "internal": True, "deprecated": "Use b."}}},
    {"VALIDATE_PAYLOADS": "refuse"},
    {"MODEL_EVENTS": {"a": {"on": "auth.User.created", "owner": None}, "b": {"on": "auth.User.created", "broadcast": True}}},
    {"MODEL_EVENTS": {"a": "djwebhooks.WebhookTarget.created"}, "EVENTS": {"b": {}}},
    {"JSON_ENCODER": "json.JSONEncoder"},
    {"ALLOW_HTTP": False},
    {"ALLOWED_PORTS": [443, 8443]},
    {"FORBIDDEN_HOSTS": ()},
    {"FORBIDDEN_HOSTS": ["example.com", ".bücher.example", "192.0.2.1", "[2001:db8::1]"]},
    {"GIVE_UP_ON": [404, 410]},
    {"OWNER_FIELD": "email"},
    {"ENCRYPTION_KEYS": ["new", "old"]},
]


def run_checks(**options: Any) -> list[django_checks.CheckMessage]:
    """The messages of djwebhooks' own checks."""
    found = django_checks.run_checks(**options)
    return [message for message in found if str(message.id).startswith("djwebhooks.")]


def apply(settings: LazySettings, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(settings, f"DJWEBHOOKS_{name}", value)


@pytest.mark.parametrize(("identifier", "values", "message"), BAD, ids=[f"{case[0][-4:]} {case[1]}" for case in BAD])
def test_a_wrong_setting_is_said(settings: LazySettings, identifier: str, values: dict[str, Any], message: str) -> None:
    """One message, which names the setting and shows its value; no check stumbles over what another one reports."""
    apply(settings, values)
    found = run_checks()

    assert [one.id for one in found] == [identifier]
    assert message in found[0].msg
    assert found[0].level == (django_checks.ERROR if identifier[-4] == "E" else django_checks.WARNING)


@pytest.mark.parametrize("values", GOOD, ids=str)
def test_a_right_setting_is_not_complained_of(settings: LazySettings, values: dict[str, Any]) -> None:
    """Whatever the documentation allows is allowed."""
    apply(settings, values)

    assert run_checks() == []


def test_hooks_are_held_against_the_catalogue(settings: LazySettings) -> None:
    """One whose every call would raise is said before anybody calls it; without a catalogue any name will do."""

    @hook("thing.made", build="now")
    def thing_made() -> int:
        return 1

    @hook("thing.maed", build="now")
    def misspelt() -> int:
        return 1

    assert run_checks() == []
    settings.DJWEBHOOKS_EVENTS = {"thing.made": {}}
    [found] = run_checks()

    assert found.id == "djwebhooks.E032"
    assert ".misspelt fires 'thing.maed', which is not in the catalogue." in found.msg
    with pytest.raises(UnknownEvent):
        misspelt()
    assert thing_made.event == "thing.made"


def test_versions_of_hooks_are_held_against_the_catalogue(settings: LazySettings) -> None:
    """Where it says which there are; one that it does not have would fail at every build."""

    @hook("thing.seen", build="now", version="2")
    def thing_seen() -> int:
        return 1

    @thing_seen.version("1")
    def thing_seen_1() -> int:
        return 1

    settings.DJWEBHOOKS_EVENTS = {"thing.seen": {}}
    assert run_checks() == []
    settings.DJWEBHOOKS_EVENTS = {"thing.seen": {"version": "2"}}
    [found] = run_checks()

    assert found.id == "djwebhooks.E032"
    assert "thing_seen: 'thing.seen' has no version '1' in the catalogue, which has 2." in found.msg
    assert thing_seen_1() == 1


def test_senders_of_hooks_are_held_against_the_setting(settings: LazySettings) -> None:
    """A name that it lacks would make every call raise; what a function finds is not known before."""

    @hook("a.plain", build="now")
    def plain() -> int:
        return 1

    @hook("a.known", build="now", sender="form")
    def known() -> int:
        return 1

    @hook("a.misspelt", build="now", sender="fomr")
    def misspelt() -> int:
        return 1

    @hook("a.found", build="now", sender=lambda: "form")
    def found_late() -> int:
        return 1

    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender"}
    [found] = run_checks()

    assert found.id == "djwebhooks.E033"
    assert found.msg.endswith(".misspelt has the sender 'fomr', which DJWEBHOOKS_SENDERS does not have.")
    with pytest.raises(InvalidEvent, match="'fomr'"):
        misspelt()
    assert [hooked().sender for hooked in (plain, known, found_late)] == ["", "form", "form"]


def test_manage_py_check_is_clean() -> None:
    """The test project itself is set up rightly."""
    out = StringIO()
    call_command("check", stdout=out)

    assert "no issues" in out.getvalue()


def test_manage_py_check_fails_for_a_wrong_setting(settings: LazySettings) -> None:
    """So that a deployment stops."""
    settings.DJWEBHOOKS_ENGINE = "no.such.Engine"

    with pytest.raises(SystemCheckError, match=r"djwebhooks\.E002"):
        call_command("check")


def test_a_network_that_is_none_is_said_once(settings: LazySettings) -> None:
    """The message names the setting one time."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ["10.0.0.0/33"]
    [found] = run_checks()

    assert found.msg.count("DJWEBHOOKS_ALLOWED_NETWORKS") == 1


def test_a_package_in_the_same_directory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip lets dj-webhooks and this overwrite each other's files, and removes those of both with either."""
    (tmp_path / "dj_webhooks-0.2.1.dist-info").mkdir()
    (tmp_path / "dj_webhooks-0.2.1.dist-info" / "METADATA").write_text("Name: dj-webhooks\nVersion: 0.2.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    [found] = run_checks()

    assert found.id == "djwebhooks.W021"
    assert "pip uninstall dj-webhooks" in str(found.hint)


def test_rq_needs_the_app_of_django_rq(settings: LazySettings) -> None:
    """The first thing to add is the app, so it is said before the queue."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.rq.RQEngine"
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_rq"]
    settings.RQ_QUEUES = {}
    [found] = run_checks()

    assert found.id == "djwebhooks.E010"
    assert "'django_rq' is not in INSTALLED_APPS" in found.msg
    assert "Add 'django_rq' to INSTALLED_APPS and the queue 'default' to RQ_QUEUES" in str(found.hint)


def test_times_need_zones(settings: LazySettings) -> None:
    """Without USE_TZ the worker's clock and the times of rows cannot be compared."""
    settings.USE_TZ = False

    assert [(message.id, message.msg) for message in run_checks()] == [("djwebhooks.E015", "djwebhooks needs USE_TZ = True.")]


def test_deployments_are_warned_of_open_doors(settings: LazySettings) -> None:
    """What is fine in development is a warning of ``check --deploy``."""
    settings.ALLOWED_HOSTS = ["app.example.com"]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "counts"}}
    assert {message.id for message in run_checks(include_deployment_checks=True)} == {"djwebhooks.W001", "djwebhooks.W002"}
    settings.DJWEBHOOKS_ALLOW_HTTP = False
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()

    assert run_checks(include_deployment_checks=True) == []


@pytest.fixture
def options() -> Iterator[dict[str, Any]]:
    """The options of the connection, which may be changed."""
    options = connection.settings_dict.setdefault("OPTIONS", {})
    before = dict(options)
    yield options
    options.clear()
    options.update(before)


@pytest.mark.parametrize(
    ("mode", "ids"),
    [(None, ["djwebhooks.W003"]), ("DEFERRED", ["djwebhooks.W003"]), ("immediate", []), ("EXCLUSIVE", [])],
)
def test_sqlite_must_wait_for_its_writer(options: dict[str, Any], mode: str | None, ids: list[str]) -> None:
    """A transaction that begins as a reader fails as soon as it writes beside a worker; one that begins as a writer waits."""
    options["transaction_mode"] = mode

    assert [message.id for message in run_checks()] == (ids if connection.vendor == "sqlite" else [])


def test_workers_must_be_able_to_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that commits only what it is told to is an error."""
    monkeypatch.setitem(connection.settings_dict, "AUTOCOMMIT", False)

    assert [message.id for message in run_checks()] == ["djwebhooks.E034"]


@server_only
def test_a_snapshot_for_each_transaction_is_an_error(options: dict[str, Any]) -> None:
    """Under REPEATABLE READ one worker does not see what another one has done."""
    levels: Any = import_string(LEVELS) if connection.vendor == "postgresql" else Levels
    assert run_checks(databases=["default"]) == []
    options["isolation_level"] = levels.READ_COMMITTED
    assert run_checks(databases=["default"]) == []
    options["isolation_level"] = levels.REPEATABLE_READ

    assert [message.id for message in run_checks(databases=["default"])] == ["djwebhooks.E011"]


class Levels:
    """As Django calls MariaDB's."""

    READ_COMMITTED = "read committed"
    REPEATABLE_READ = "repeatable read"


@mariadb_only
def test_the_servers_own_level_may_be_another(options: dict[str, Any]) -> None:
    """Who tells Django to leave the level to the server has to say READ COMMITTED instead."""
    options["isolation_level"] = None

    assert [message.id for message in run_checks(databases=["default"])] == ["djwebhooks.E011"]


@mariadb_only
@pytest.mark.django_db
def test_a_database_must_hold_every_text() -> None:
    """A database with another character set than utf8mb4 is an error."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE djw_latin CHARACTER SET latin1")
        cursor.execute(f"USE {connection.ops.quote_name('djw_latin')}")
        try:
            messages = run_checks(databases=["default"])
        finally:
            cursor.execute(f"USE {connection.ops.quote_name(connection.settings_dict['NAME'])}")
            cursor.execute("DROP DATABASE djw_latin")

    assert [message.id for message in messages] == ["djwebhooks.E021"]
    assert "latin1" in messages[0].msg


@pytest.mark.parametrize(
    ("version", "is_mariadb", "words"),
    [((8, 4, 2), False, "MySQL"), ((10, 5, 26), True, "10.5.26"), ((10, 6, 0), True, ""), ((11, 4, 2), True, "")],
)
def test_old_servers_and_mysql_are_not_supported(version: tuple[int, ...], is_mariadb: bool, words: str) -> None:
    """What misses a part that the promises rest on is named."""
    fault = describe_fault(version, "utf8mb4", is_mariadb=is_mariadb)

    assert words in fault
    assert bool(fault) == bool(words)


def test_ids_are_unique() -> None:
    """One id means one thing, and each is tested here."""
    checks_of = defaultdict(set)
    for function in (
        *checks.CHECKS,
        checks.check_isolation,
        checks.check_server,
        checks.check_chosen_senders,
        checks.check_http,
        *WEAKNESSES,
    ):
        for identifier in re.findall(r"djwebhooks\.[EW]\d{3}", getsource(function)):
            checks_of[identifier].add(function.__name__)
    elsewhere = {
        f"djwebhooks.{name}"
        for name in (
            "E011",
            "E015",
            "E021",
            "E026",
            "E027",
            "E032",
            "E033",
            "E034",
            "W001",
            "W002",
            "W003",
            "W014",
            "W020",
            "W021",
            "W022",
        )
    }
    tested = (
        {case[0] for case in BAD}
        | elsewhere
        | {f"djwebhooks.{case[0]}" for case in WEAK}
        | {"djwebhooks.W011", "djwebhooks.W016"}
    )

    assert all(len(functions) == 1 for functions in checks_of.values())
    assert set(checks_of) == tested


class Apart:
    """Keeps webhooks away from everything else."""

    def db_for_write(self, model: type[Model], **_: object) -> str:
        return "other" if model._meta.app_label == "djwebhooks" else "default"


def test_rows_in_another_database_than_events_are_said(settings: LazySettings) -> None:
    """They could not be saved: nothing commits in two databases at once."""
    settings.DATABASE_ROUTERS = [Apart()]
    settings.DJWEBHOOKS_MODEL_EVENTS = {"a": {"on": "auth.User.created", "owner": "self"}}

    [found] = [message for message in run_checks() if message.id == "djwebhooks.E027"]

    assert "auth.User is kept in the database 'default', and events in 'other'" in found.msg


def test_owners_in_another_database_than_targets_are_said(settings: LazySettings) -> None:
    """A foreign key leads to no other database."""
    settings.DATABASE_ROUTERS = [Apart()]

    [found] = [message for message in run_checks() if message.id == "djwebhooks.W022"]

    assert "auth.User is kept in the database 'default', and targets, which refer to their owners, in 'other'" in found.msg
