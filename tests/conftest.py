"""Fixtures that many test modules share: the databases, a Redis, and the surroundings of a process."""

import json
import os
from collections.abc import Callable, Iterator

import pytest
from django.conf import LazySettings
from django.db import connections

from example_project.services import Service, postgres_server, redis_server
from tests.faults.processes import Launcher, launching


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, django_db_modify_db_settings_parallel_suffix: None
) -> Iterator[None]:
    """Put SQLite's test databases into files, as processes share them; start a PostgreSQL if none is given."""
    databases = connections.settings
    if databases["default"]["ENGINE"].endswith("sqlite3"):
        directory = tmp_path_factory.mktemp("databases")
        for alias, database in databases.items():
            database["TEST"]["NAME"] = str(directory / f"{alias}.sqlite3")
        yield
    elif databases["default"]["HOST"]:
        yield
    else:
        with postgres_server() as postgres:
            for database in databases.values():
                database.update({key: postgres.environment[f"PG{key}"] for key in ("HOST", "PORT", "USER")})
            yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs PostgreSQL where there is none."""
    if connections.settings["default"]["ENGINE"].endswith("postgresql"):
        return
    left_out = [item for item in items if item.get_closest_marker("postgresql")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


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
        **{f"PG{key}": default[key] for key in ("HOST", "PORT", "USER")},
    }


@pytest.fixture(scope="session")
def launcher(django_db_setup: None, redis_service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """What starts processes on the tests' databases, and on a Redis if they use one, within milliseconds."""
    environment = name_surroundings(redis_service.url, {})
    with launching(environment, tmp_path_factory.mktemp("processes")) as running:
        yield running
