"""The shift of a worker that a job is: when the next one is due."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User

from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.engines.shift import next_due
from djwebhooks.events import fire
from djwebhooks.models import Lane, Worker
from djwebhooks.testing.receiver import Receiver
from djwebhooks.worker import work
from tests.builders import make_target, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def owner(receiver: Receiver) -> User:
    """Somebody who wants every event."""
    user = make_user()
    make_target(user, url=receiver.url)
    return user


def test_nothing_is_due_when_all_is_sent(owner: User) -> None:
    """With nothing to do there is no next wake-up."""
    assert next_due("default") is None


def test_a_waiting_event_is_due_now(owner: User) -> None:
    """An event that nobody has dispatched is work for now."""
    fire("a.b", {}, owner=owner)

    at = next_due("default")
    assert at is not None
    assert at <= read_clock("default")


def test_a_planned_event_is_due_then(owner: User) -> None:
    """An event with a time of its own is due at that time."""
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    fire("a.b", {}, owner=owner, deliver_at=at)

    assert next_due("default") == at


def test_a_dead_workers_lane_is_due_when_its_lease_ends(receiver: Receiver, owner: User) -> None:
    """Nobody else would say when the work that a killed worker held may go on."""
    fire("a.b", {}, owner=owner)
    work(burst=True)
    dead = Worker.objects.create(name="worker", place="x", expires_at=DatabaseNow() + timedelta(seconds=50))
    dead.refresh_from_db()

    assert next_due("default") is None
    Lane.objects.update(holder=dead.pk, due_at=DatabaseNow())
    assert next_due("default") == dead.expires_at


def test_a_lane_that_could_not_be_given_back_is_due_soon(receiver: Receiver, owner: User) -> None:
    """An application had the lane locked when its worker ended: somebody must look again, and the next worker frees it."""
    fire("a.b", {}, owner=owner)
    work(burst=True)
    Lane.objects.update(holder=12345)

    at = next_due("default")
    assert at is not None
    assert at > read_clock("default")
    work(burst=True)
    assert next_due("default") is None
