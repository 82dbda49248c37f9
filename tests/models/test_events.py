"""An event has an identifier of its own, and keeps what became of it."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction
from django.db.models import Model

from djwebhooks.decorators import hook
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.exceptions import AlreadyDispatched
from djwebhooks.models import Body, Delivery, Event, WebhookTarget
from djwebhooks.models.events import BUILD_TRIES, events_database
from djwebhooks.testing import deliver, make_due
from tests.builders import URL, make_target, make_user
from tests.connections import second_connection, server_only

runs: list[str] = []


@hook("nobody.cares")
def nobody_cares(text: str) -> str:
    runs.append(text)
    return text


@pytest.mark.django_db
def test_an_events_id_is_of_version_7() -> None:
    """It is the ``webhook-id`` and sorts by time."""
    make_target()
    event = fire("a.b", 1)

    assert (event.uid.version, event.uid.variant) == (7, "specified in RFC 4122")
    assert [request.headers["webhook-id"] for request in deliver()] == [str(event.uid)]
    assert str(event) == f"a.b {event.uid}"


@pytest.mark.django_db
def test_what_is_not_dispatched_yet_can_be_taken_back() -> None:
    """It is never sent, and another one may be fired with its idempotency key."""
    make_target()
    event = fire("a.b", 1, idempotency_key="k")
    event.cancel()
    fire("a.b", 2, idempotency_key="k")

    assert [json.loads(request.body)["data"] for request in deliver()] == [2]
    with pytest.raises(Event.DoesNotExist):
        event.cancel()


@pytest.mark.django_db
@pytest.mark.parametrize("page", [1, 10], ids=["begun", "done"])
def test_what_is_dispatched_cannot_be_taken_back(page: int) -> None:
    """Nor can what has only some of its deliveries; whoever holds the event as it was before learns so from its row."""
    for number in range(3):
        make_target(url=f"{URL}/{number}")
    event = fire("a.b", 1)
    dispatch("default", page=page)

    with pytest.raises(AlreadyDispatched, match=f"{event.uid} cannot be taken back"):
        event.cancel()
    assert Event.objects.filter(pk=event.pk).exists()


@server_only
@pytest.mark.django_db(transaction=True)
def test_what_is_just_being_dispatched_cannot_be_taken_back() -> None:
    """Whoever saw it wait, while a dispatcher had it, judges by what the dispatcher commits."""
    make_target()
    event = fire("a.b", 1)

    def commit_first(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if "FOR UPDATE" in sql or "DELETE" in sql:  # What waits for the dispatcher.
            dispatching.close()
        return run(sql, *rest)

    with second_connection() as other, ExitStack() as dispatching:
        dispatching.enter_context(transaction.atomic(using=other))
        dispatch(other)
        with connection.execute_wrapper(commit_first), pytest.raises(AlreadyDispatched):
            event.cancel()

    assert Event.objects.filter(pk=event.pk).exists()
    assert len(deliver()) == 1


@pytest.mark.django_db
def test_what_a_cancelled_event_would_have_replaced_is_sent() -> None:
    """A newer event takes an older one's place when it is dispatched, and not before."""
    make_target()
    fire("a.b", 1, ordering_key="k", coalesce=60)
    dispatch("default")
    fire("a.b", 2, ordering_key="k", coalesce=60).cancel()
    make_due()

    assert [json.loads(request.body)["data"] for request in deliver()] == [1]


@pytest.mark.django_db
def test_an_event_that_nobody_wants_is_kept_without_its_call() -> None:
    """It can be explained, its hook never runs and its captured call is dropped."""
    runs.clear()
    make_target(event="x.y")
    event = nobody_cares("secret")
    assert "secret" in event.call
    deliver()
    event.refresh_from_db()

    assert (event.call, event.payload, event.build_attempts) == ("", "", 0)
    assert event.dispatched_at is not None
    assert runs == []
    assert Delivery.objects.count() == 0


@pytest.mark.django_db
def test_a_built_event_drops_its_call() -> None:
    """The payload is kept, the arguments are not."""
    make_target()
    event = nobody_cares("text")
    deliver()
    event.refresh_from_db()

    assert (event.call, event.payload) == ("", '"text"')
    assert bytes(Body.objects.get(event=event).content).endswith(b'"data":"text"}')


@pytest.mark.django_db
def test_a_build_is_counted_before_it_runs() -> None:
    """One build at a time, and so many in all."""
    event = nobody_cares("x")
    events = Event.objects.all()
    assert events.start_build(event.pk, timedelta(minutes=1))
    assert not events.start_build(event.pk, timedelta(minutes=1))

    past = -timedelta(hours=1)
    for number in range(2, BUILD_TRIES + 1):
        events.fail_build(event.pk, "why", past)
        assert events.start_build(event.pk, past)
        event.refresh_from_db()
        assert event.build_attempts == number
    events.fail_build(event.pk, "why", past)
    assert not events.start_build(event.pk, past)
    event.refresh_from_db()
    assert event.has_failed_to_build
    assert event.build_error == "why"


@pytest.mark.django_db
def test_the_first_payload_stays() -> None:
    """A second builder that comes late changes nothing."""
    event = nobody_cares("x")
    Event.objects.all().finish_build(event.pk, '"first"')
    Event.objects.all().finish_build(event.pk, '"second"')
    Event.objects.all().fail_build(event.pk, "late", timedelta(0))
    event.refresh_from_db()

    assert (event.payload, event.build_error) == ('"first"', "")


@pytest.mark.django_db
def test_direct_targets_are_read_from_the_row() -> None:
    """Empty says that subscribers get it."""
    event = fire("a.b", 1, urls=[URL])

    assert len(Event.objects.get(pk=event.pk).direct_targets) == 1
    assert fire("a.b", 1).direct_targets == []
    assert set(Event.objects.waiting()) == set(Event.objects.all())


def test_there_is_one_database_for_events() -> None:
    """The database routers choose it."""
    assert events_database() == "default"


class Replica:
    """Reads from another database than it writes to."""

    def db_for_read(self, model: type[Model], **_: object) -> str:
        return "other"

    def db_for_write(self, model: type[Model], **_: object) -> str:
        return "default"


@pytest.mark.django_db
def test_nothing_is_read_from_a_replica(settings: LazySettings) -> None:
    """It may be stale: all of the app's reads go where it writes, or here pytest-django would refuse them."""
    user = make_user()
    settings.DATABASE_ROUTERS = [f"{__name__}.Replica"]
    target = WebhookTarget.objects.register(URL, ["a.b"], owner=user)
    WebhookTarget.objects.register(URL, ["a.c"], owner=user)
    WebhookTarget(target_url=f"{URL}/2", owner=user, event="x.y").save()
    target.rotate_secret()
    target.events = ["a.b"]
    target.save()
    fire("a.b", 1, owner=user, idempotency_key="k")
    fire("a.b", 1, owner=user, idempotency_key="k")
    fire("a.b", 2, owner=user, urls=f"{URL}/hidden")
    nobody_cares("x")
    assert len(deliver(500)) == 2
    delivery = Delivery.objects.get(target=target)
    delivery.retry()
    delivery.cancel()
    target.replay(status="cancelled")
    target.send_test()
    target.pause()
    target.resume()

    assert target.events == ["a.b"]
    assert target.state == "healthy"
    assert len(deliver()) == 2
    assert WebhookTarget.objects.deregister(URL, owner=user) == 1
    target.delete()
