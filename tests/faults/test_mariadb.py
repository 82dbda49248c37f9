"""MariaDB cuts connections and is restarted: workers go on by themselves, and nothing is lost or doubled."""

from contextlib import closing, suppress
from importlib import import_module

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError

from djwebhooks.database import execute
from djwebhooks.models import Delivery
from example_project.services import mariadb_server
from tests.connections import other_way
from tests.engines.processes import wait_until
from tests.faults.workers import Sent, fire_at_once, make_owner, wait_for_more, work_through_restarts, working

pytestmark = [pytest.mark.mariadb, pytest.mark.django_db(transaction=True, databases=["default", "other"])]


@pytest.fixture
def owner(db: None) -> User:
    return make_owner()


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
        work_through_restarts(sent, server, HOST=path, NAME="restarted")
