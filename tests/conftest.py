"""What all test modules share: the databases, a Redis, the surroundings of a process, and a watch on secrets."""

import json
import os
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any
from weakref import WeakSet

import django_rq
import pytest
from django.conf import LazySettings
from django.db import connections
from django.db.models.signals import post_save
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from rq import Queue

from djwebhooks import catalogue
from djwebhooks.testing.receiver import Receiver
from example_project.services import Service, mariadb_server, postgres_server, redis_server
from tests.faults.processes import Launcher, launching
from tests.leaks import Leaks

# Machines may be slow; what is tested here is not their speed.
hypothesis_settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("patient")

pytest_plugins = ["djwebhooks.testing.pytest_plugin"]


def pytest_configure() -> None:
    """Let Ctrl-C end the processes of the tests also where a shell in the background has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_modify_db_settings_parallel_suffix: None
) -> Iterator[None]:
    """Put SQLite's test databases into files, as processes share them; start a server if none is given."""
    databases = connections.settings
    engine = databases["default"]["ENGINE"]
    if engine.endswith("sqlite3"):
        directory = tmp_path_factory.mktemp("databases")
        for alias, database in databases.items():
            database["TEST"]["NAME"] = str(directory / f"{alias}.sqlite3")
        yield
    elif databases["default"]["HOST"]:
        yield
    elif engine.endswith("mysql"):
        with mariadb_server() as mariadb:
            for database in databases.values():
                database["HOST"] = mariadb.environment["MYSQL_UNIX_PORT"]
            yield
    else:
        with postgres_server() as postgres:
            for database in databases.values():
                database.update({key: postgres.environment[f"PG{key}"] for key in ("HOST", "PORT", "USER")})
            yield


#: The databases that the tests with each marker run on.
MARKERS = {"server": {"postgresql", "mysql"}, "postgresql": {"postgresql"}, "mariadb": {"mysql"}, "sqlite": {"sqlite"}}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs another database."""
    vendor = connections["default"].vendor
    left_out = [item for item in items if any(item.get_closest_marker(name) and vendor not in MARKERS[name] for name in MARKERS)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


leaks = Leaks()
post_save.connect(leaks.learn, sender="djwebhooks.WebhookTarget")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test at its end if what it logged or printed shows a secret of the targets that it has saved."""
    report = yield
    if report.when == "teardown" and (found := leaks.find(text for _, text in report.sections)):
        report.outcome = "failed"
        report.longrepr = f"It has logged or printed what is secret: {', '.join(sorted(found))}"
    return report


@pytest.fixture(scope="session")
def redis_service() -> Iterator[Service]:
    """One Redis for the whole session, which a test may also kill and start again."""
    with redis_server() as service:
        yield service


@pytest.fixture
def redis(redis_service: Service, settings: LazySettings) -> Iterator[str]:
    """The URL of an empty Redis that django-rq uses during this test."""
    settings.RQ_QUEUES = {"default": {"URL": redis_service.url}}
    yield redis_service.url
    # Here start and stop are cheaper than being sure that nothing is left.
    redis_service.kill()
    redis_service.start()


@pytest.fixture
def queue(redis: str) -> Iterator[Queue]:
    """The application's queue, as the application sees it."""
    queue = django_rq.get_queue("default")
    with queue.connection:
        yield queue


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hooks that there are: none of those that other tests have defined."""
    monkeypatch.setattr(catalogue, "hooks", WeakSet())


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def server_environment(database: dict[str, Any]) -> dict[str, str]:
    """What tells tests/settings.py where the server is."""
    if database["ENGINE"].endswith("mysql"):
        return {"MYSQL_UNIX_PORT": database["HOST"]}
    return {f"PG{key}": database[key] for key in ("HOST", "PORT", "USER")}


@pytest.fixture
def process_environment(transactional_db: None, settings: LazySettings) -> Callable[..., dict[str, str]]:
    """A function that makes ``env=`` for a process on this test's databases and Redis; keywords are settings for it."""

    def make_environment(**overrides: object) -> dict[str, str]:
        return name_surroundings(settings.RQ_QUEUES["default"]["URL"], overrides)

    return make_environment


def name_surroundings(redis_url: str, overrides: dict[str, object]) -> dict[str, str]:
    """The environment of a process on the tests' databases."""
    default, other = (connections[alias].settings_dict for alias in ("default", "other"))
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DJWEBHOOKS_TEST_NAME": str(default["NAME"]),
        "DJWEBHOOKS_TEST_NAME_OTHER": str(other["NAME"]),
        "DJWEBHOOKS_TEST_REDIS": redis_url,
        "DJWEBHOOKS_TEST_SETTINGS": json.dumps(overrides),
        **server_environment(default),
    }


@pytest.fixture(scope="session")
def session_launcher(
    django_db_setup: None, redis_service: Service, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Launcher]:
    environment = name_surroundings(redis_service.url, {})
    with launching(environment, tmp_path_factory.mktemp("processes")) as running:
        yield running


@pytest.fixture
def launcher(request: pytest.FixtureRequest, transactional_db: None, session_launcher: Launcher) -> Iterator[Launcher]:
    """What starts processes on this test's databases, and on its Redis, within milliseconds; none of them outlives the test."""
    if "redis" in request.fixturenames:
        # Before this, so that it is emptied after these have ended: a scheduler would leave its lock to the next test.
        request.getfixturevalue("redis")
    yield session_launcher
    session_launcher.end_all()
