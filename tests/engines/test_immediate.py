"""The immediate engine sends before the call that committed returns."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import transaction

from djwebhooks.decorators import hook
from djwebhooks.engines.immediate import ImmediateEngine
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event, Lane, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.signals import delivery_succeeded
from djwebhooks.testing.receiver import Receiver
from tests.builders import make_target, make_user

pytestmark = pytest.mark.django_db(transaction=True)


@hook("order.placed")
def order_placed(number: int, owner: User) -> dict[str, int]:
    """Fires something itself, in the worker."""
    fire("order.counted", {"count": number}, owner=owner)
    return {"number": number}


@hook("order.broken")
def order_broken(owner: User) -> dict[str, int]:
    raise RuntimeError("no such order")


@pytest.fixture(autouse=True)
def engine(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.immediate.ImmediateEngine"


@pytest.fixture
def owner(receiver: Receiver) -> User:
    """Somebody who wants every event."""
    user = make_user()
    make_target(user, url=receiver.url)
    return user


def bodies(receiver: Receiver) -> list[Any]:
    return [json.loads(request.body) for request in receiver.requests]


@contextmanager
def following(name: str, act: Callable[[], object]) -> Iterator[None]:
    """Has a receiver of the signal *act* when an event called *name* was delivered."""

    def follow(delivery: Delivery, **_: Any) -> None:
        if delivery.event.name == name:
            act()

    delivery_succeeded.connect(follow)
    try:
        yield
    finally:
        delivery_succeeded.disconnect(follow)


def test_an_event_has_arrived_when_fire_returns(receiver: Receiver, owner: User) -> None:
    """Outside a transaction the request, its attempt and its verdict are there at once."""
    fire("a.b", {"x": 1}, owner=owner)

    assert [body["data"] for body in bodies(receiver)] == [{"x": 1}]
    assert Delivery.objects.get().status == Status.SUCCEEDED
    assert Attempt.objects.get().status_code == 200


def test_it_sends_after_the_commit(receiver: Receiver, owner: User) -> None:
    """Inside a transaction nothing is sent; when its block ends all has arrived."""
    with transaction.atomic():
        fire("a.b", {"x": 1}, owner=owner)
        fire("a.b", {"x": 2}, owner=owner)
        assert receiver.requests == []

    assert sorted(body["data"]["x"] for body in bodies(receiver)) == [1, 2]


def test_a_rollback_sends_nothing(receiver: Receiver, owner: User) -> None:
    """What was not committed was never fired."""
    with transaction.atomic():
        fire("a.b", {}, owner=owner)
        transaction.set_rollback(True)

    fire("a.c", {}, owner=owner)
    assert [body["type"] for body in bodies(receiver)] == ["a.c"]


def test_an_event_fired_by_a_builder_is_sent_too(receiver: Receiver, owner: User) -> None:
    """A hook that fires does not nest: both events have arrived when the call returns."""
    order_placed(7, owner)

    assert sorted(body["type"] for body in bodies(receiver)) == ["order.counted", "order.placed"]
    assert not Delivery.objects.pending().exists()


def test_an_event_fired_by_a_signal_is_sent_too(receiver: Receiver, owner: User) -> None:
    """What a receiver of a signal fires when all else is done has arrived as well when the call returns."""
    with following("a.first", lambda: fire("a.second", {}, owner=owner)):
        fire("a.first", {}, owner=owner)

    assert [body["type"] for body in bodies(receiver)] == ["a.first", "a.second"]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_an_event_of_another_database_is_sent_too(receiver: Receiver, owner: User) -> None:
    """What a receiver of a signal fires in another database has arrived as well when the call returns."""
    WebhookTarget.objects.using("other").register(receiver.url, ["*"], owner=None)

    with following("a.first", lambda: fire("a.second", {}, using="other")):
        fire("a.first", {}, owner=owner)

    assert [body["type"] for body in bodies(receiver)] == ["a.first", "a.second"]


def test_a_failure_is_kept_for_later(receiver: Receiver, owner: User) -> None:
    """What fails is recorded with its next attempt; the call that fired it goes on."""
    receiver.answers = [500]

    event = fire("a.b", {}, owner=owner)

    delivery = Delivery.objects.get(event=event)
    assert (delivery.status, delivery.attempt_count) == (Status.PENDING, 1)
    assert delivery.due_at is not None


def test_a_builder_that_raises_harms_nobody(receiver: Receiver, owner: User) -> None:
    """The caller is not the one to hear what a hook raises; the event says it."""
    order_broken(owner)

    assert "no such order" in Event.objects.get().build_error
    assert receiver.requests == []
    fire("a.b", {}, owner=owner)
    assert [body["type"] for body in bodies(receiver)] == ["a.b"]


def test_nothing_is_left_behind(receiver: Receiver, owner: User) -> None:
    """After the call no worker is registered and no lane is held."""
    fire("a.b", {}, owner=owner)

    assert not Worker.objects.exists()
    assert not Lane.objects.filter(holder__isnull=False).exists()


def test_a_planned_wake_up_is_left_to_others(receiver: Receiver, owner: User) -> None:
    """There is nobody to wait for a later time, so asking for one does nothing."""
    Event.objects.create(name="a.b", payload="1", owner=owner)

    ImmediateEngine().wake("default", datetime.now(UTC))

    assert receiver.requests == []
