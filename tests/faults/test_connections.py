"""The connection to a server breaks at any moment: workers go on by themselves, and nothing is lost or doubled."""

import itertools
import socket
from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User
from django.db import connection

from tests.connections import other_way, postgresql_only, server_only
from tests.faults.proxy import CutAt, Proxy
from tests.faults.workers import Sent, fire_some, make_owner, work_till_done

pytestmark = [server_only, pytest.mark.django_db(transaction=True, databases=["default", "other"])]

#: How a client says it; MariaDB's connections begin with READ COMMITTED.
COMMIT = {"postgresql": b"COMMIT", "mysql": b"\x03COMMIT"}


@pytest.fixture
def owner(db: None) -> User:
    return make_owner()


@pytest.fixture
def proxy(db: None) -> Iterator[Proxy]:
    """Stands between the alias ``other`` and the server."""
    settings = connection.settings_dict
    path = settings["HOST"]
    if connection.vendor == "postgresql":
        path = f"{path}/.s.PGSQL.{settings['PORT'] or 5432}"

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        return client

    with Proxy(connect) as running, other_way(HOST="127.0.0.1", PORT=running.port):
        yield running


@pytest.mark.parametrize("is_heard", [True, False])
def test_a_connection_may_break_at_any_commit(owner: User, proxy: Proxy, sent: Sent, is_heard: bool) -> None:
    """Whether a transaction was committed or not when its answer is lost, each delivery is sent once and no lane is stranded."""
    for number in itertools.count(1):
        cut = CutAt(proxy, number, COMMIT[connection.vendor], is_heard=is_heard)
        fire_some(owner)
        work_till_done(sent)
        sent.check_each_once()
        if not cut.has_cut:
            break
    assert number > 8


@postgresql_only
@pytest.mark.parametrize("is_heard", [True, False])
def test_a_connection_may_break_at_any_word(owner: User, proxy: Proxy, sent: Sent, is_heard: bool) -> None:
    """So it is wherever else the connection breaks, those of the threads that build included."""
    for number in itertools.count(1, step=5):
        cut = CutAt(proxy, number, b"", is_heard=is_heard)
        fire_some(owner, 1)
        work_till_done(sent)
        sent.check_each_once()
        if not cut.has_cut:
            break
    assert number > 60
