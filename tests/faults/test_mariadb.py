"""MariaDB cuts connections and is restarted: workers go on by themselves, and nothing is lost or doubled."""

import itertools
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib import import_module

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, connection

from djwebhooks.database import execute
from djwebhooks.models import Delivery
from example_project.services import mariadb_server
from tests.connections import other_way, swapped
from tests.engines.processes import wait_until
from tests.faults.proxy import Proxy
from tests.faults.test_postgres import CutAt, work_till_done
from tests.faults.workers import Sent, fire_at_once, fire_some, make_owner, wait_for_more, working

pytestmark = [pytest.mark.mariadb, pytest.mark.django_db(transaction=True, databases=["default", "other"])]


@pytest.fixture
def owner(db: None) -> User:
    return make_owner()


@pytest.fixture
def sent() -> Sent:
    return Sent()


@pytest.fixture
def proxy(db: None) -> Iterator[Proxy]:
    """Stands between the alias ``other`` and the server."""
    path = connection.settings_dict["HOST"]

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        return client

    with Proxy(connect) as running, other_way(HOST="127.0.0.1", PORT=running.port):
        yield running


#: The statement, and not the READ COMMITTED that a new connection begins with.
COMMIT = b"\x03COMMIT"


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_connection_may_break_at_any_commit(owner: User, proxy: Proxy, sent: Sent, is_heard: bool) -> None:
    """Whether a transaction was committed or not when its answer is lost, each delivery is sent once and no lane is stranded."""
    for number in itertools.count(1):
        cut = CutAt(proxy, number, COMMIT, is_heard=is_heard)
        fire_some(owner)
        work_till_done(sent)
        sent.check_each_once()
        if not cut.has_cut:
            break
    assert number > 8


def kill_others() -> int:
    """Cut all other connections to this database, and return how many there were."""
    others = execute("default", "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()")
    count = 0
    for (number,) in others:
        with suppress(OperationalError):  # It left by itself meanwhile.
            execute("default", f"KILL {number}")
            count += 1
    return count


def test_connections_are_killed_all_the_time(owner: User, sent: Sent) -> None:
    """Two workers that lose their connections at ten moments send hundreds of deliveries, each once and in order."""
    with other_way(), working(sent, 2):
        for number in range(10):
            fire_at_once(owner, 20)
            wait_for_more(sent, number % 7)
            wait_until(kill_others, "somebody is connected")

    assert Delivery.objects.count() == 10 * 20 * 4
    sent.check_each_once()


def test_the_server_is_restarted(sent: Sent) -> None:
    """Shut down in order or at once, while workers work: these go on when it is up again."""
    with mariadb_server() as server:
        path = server.environment["MYSQL_UNIX_PORT"]
        with closing(import_module("MySQLdb").connect(unix_socket=path, user="root")) as first:
            first.query("CREATE DATABASE restarted")
        with other_way(HOST=path, NAME="restarted") as alias, swapped(alias):
            call_command("migrate", verbosity=0)
            owner = make_owner()
            with working(sent, 2):
                for stop in (server.stop, server.kill):
                    fire_at_once(owner, 50)
                    wait_for_more(sent)
                    stop()
                    server.start()
                    connection.close()
                fire_some(owner)
            sent.check_each_once()
