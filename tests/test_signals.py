"""The application hears of attempts, ends and disabled targets."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.dispatch import Signal
from django.test.utils import CaptureQueriesContext

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event, WebhookTarget
from djwebhooks.prune import prune
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded, target_disabled, work_written
from djwebhooks.testing import deliver, make_due
from djwebhooks.transports.base import Reply, Request
from tests.builders import make_target

SIGNALS = {"attempt": attempt_made, "succeeded": delivery_succeeded, "failed": delivery_failed, "disabled": target_disabled}


@contextmanager
def connected(signal: Signal, receiver: Callable[..., None]) -> Iterator[None]:
    signal.connect(receiver, weak=False)
    try:
        yield
    finally:
        signal.disconnect(receiver)


def keep(found: list[tuple[str, dict[str, Any]]], name: str, **arguments: Any) -> None:
    found.append((name, arguments))


@pytest.fixture
def heard() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What was sent: each signal's name and its arguments."""
    found: list[tuple[str, dict[str, Any]]] = []
    with ExitStack() as stack:
        for name, signal in SIGNALS.items():
            stack.enter_context(connected(signal, partial(keep, found, name)))
        yield found


@pytest.mark.django_db
def test_a_success_is_an_attempt_and_an_end(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """Both carry the rows as they are in the database."""
    make_target()
    fire("a.b", 1)
    deliver()
    delivery, attempt = Delivery.objects.get(), Attempt.objects.get()

    assert [name for name, _ in heard] == ["attempt", "succeeded"]
    assert (heard[0][1]["sender"], heard[0][1]["delivery"], heard[0][1]["attempt"]) == (Attempt, delivery, attempt)
    assert (heard[1][1]["sender"], heard[1][1]["delivery"].status) == (Delivery, "succeeded")


@pytest.mark.django_db
def test_a_failure_is_told_when_it_is_final(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """Each attempt is one signal, and the end another."""
    make_target(retry_schedule=[0])
    fire("a.b", 1)
    deliver(500)

    assert [name for name, _ in heard] == ["attempt", "attempt", "failed"]
    assert heard[2][1]["delivery"].status == "failed"


@pytest.mark.django_db
def test_an_expired_delivery_has_failed_without_an_attempt(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """That it failed or expired is told, whether there was a request or not."""
    make_target()
    event = fire("a.b", 1)
    type(event).objects.update(expires_at="2026-01-01T00:00Z")
    deliver()

    assert [(name, arguments["delivery"].status) for name, arguments in heard] == [("failed", "expired")]


@pytest.mark.django_db
def test_what_expires_while_it_is_held_is_told(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """Nobody has taken it to send it, but its owner waits for it all the same; once."""
    target = make_target()
    fire("a.b", 1)
    fire("a.b", 2)
    target.pause()
    deliver()
    Delivery.objects.filter(sequence=1).update(expires_at="2026-01-01T00:00Z")
    for _ in range(2):
        make_due()
        deliver()

    told = [(name, arguments["delivery"].sequence, arguments["delivery"].reason) for name, arguments in heard]
    assert told == [("failed", 1, "expired")]


@pytest.mark.django_db
@pytest.mark.parametrize(("act", "status"), [("retry", "succeeded"), ("cancel", "cancelled")])
def test_what_people_decide_on_during_its_last_attempt_has_not_failed(
    heard: list[tuple[str, dict[str, Any]]], act: str, status: str
) -> None:
    """The attempt is told of, but its delivery goes on, or has ended in another way."""
    make_target(retry_schedule=[])
    fire("a.b", 1)

    def answer(request: Request) -> Reply:
        if request.headers["webhook-attempt"] == "1":
            getattr(Delivery.objects.get(), act)()
            return Reply(request.key, status=500)
        return Reply(request.key, status=200)

    deliver(answer)

    assert Delivery.objects.get().status == status
    assert "failed" not in [name for name, _ in heard]
    assert heard[0][0] == "attempt"


@pytest.mark.django_db
def test_what_is_cancelled_has_not_failed(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """Whoever cancels knows it, be it a person, or the code that deleted the event."""
    make_target()
    for number in range(2):
        fire("a.b", number)
    deliver(500)
    Delivery.objects.earliest("sequence").cancel()
    Event.objects.all().delete()
    heard.clear()
    make_due()
    deliver()

    assert set(Delivery.objects.values_list("status", "reason")) == {("cancelled", "cancelled"), ("cancelled", "event_deleted")}
    assert heard == []


@pytest.mark.django_db
def test_what_a_target_does_not_want_has_not_failed(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """A delivery that is filtered ends as its owner wants it, so nobody is told of it."""
    make_target(filters={"*": {"n": [2]}})
    fire("a.b", {"n": 1})
    deliver()

    assert Delivery.objects.get().reason == "filtered"
    assert heard == []


@pytest.mark.django_db
def test_a_disabled_target_is_told_once_with_its_reason(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """People may want to write to its owner."""
    target = make_target()
    for number in range(3):
        fire("a.b", number)
    deliver(410)

    told = [(arguments["sender"], arguments["target"], arguments["reason"]) for name, arguments in heard if name == "disabled"]
    assert told == [(WebhookTarget, target, "gone")]


@pytest.mark.django_db
def test_a_receiver_that_raises_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged; the delivery is recorded and others are sent."""
    make_target()
    fire("a.b", 1)
    fire("a.b", 2)

    def broken(**_: Any) -> None:
        raise LookupError("broken receiver")

    with ExitStack() as stack:
        for signal in SIGNALS.values():
            stack.enter_context(connected(signal, broken))
        assert len(deliver()) == 2

    assert set(Delivery.objects.values_list("status", flat=True)) == {"succeeded"}
    assert "broken receiver" in caplog.text


def prune_all(**_: Any) -> None:
    """Delete whatever has finished."""
    prune(older_than=-3600)
    assert not Attempt.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_what_is_pruned_before_it_is_read_is_told_to_nobody(heard: list[tuple[str, dict[str, Any]]], is_before: bool) -> None:
    """Whether that happens before or after its attempt is read, no worker stumbles over it."""
    make_target()
    fire("a.b", 1)
    pruned: list[str] = []

    def prune_too(execute: Any, sql: str, *arguments: Any) -> Any:
        is_reading = sql.startswith("SELECT") and "response_body" in sql and not pruned
        if is_reading:
            pruned.append(sql)
        if is_reading and is_before:
            prune_all()
        result = execute(sql, *arguments)
        if is_reading and not is_before:
            prune_all()
        return result

    with connection.execute_wrapper(prune_too):
        deliver()

    assert pruned
    assert heard == []


@pytest.mark.django_db
def test_a_receiver_may_prune_what_others_are_told_of(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """Everything is read before anybody is told."""
    make_target()
    fire("a.b", 1)
    fire("a.b", 2)
    with connected(attempt_made, prune_all):
        deliver()

    assert [name for name, _ in heard] == ["attempt", "succeeded"] * 2


@pytest.mark.django_db
def test_attempts_that_are_recorded_together_are_read_together(heard: list[tuple[str, dict[str, Any]]]) -> None:
    """However many there are: one statement writes them, one reads them, and each is told with its own delivery."""
    make_target(retry_schedule=[0])
    for number in range(5):
        fire("a.b", number)
    with CaptureQueriesContext(connection) as captured:
        deliver(500)

    told = [arguments["attempt"] for name, arguments in heard if name == "attempt"]
    statements = [query["sql"] for query in captured if "response_body" in query["sql"]]
    assert sorted((attempt.delivery_id, attempt.number) for attempt in told) == sorted(
        Attempt.objects.values_list("delivery_id", "number")
    )
    assert len(told) == 10
    inserts = [sql for sql in statements if "INSERT" in sql]
    assert len(inserts) == len(statements) - len(inserts) < 10


@pytest.mark.django_db
def test_written_work_names_its_database() -> None:
    """Whatever can make work due tells the engine so."""
    told: list[str] = []
    target = make_target()

    def receiver(using: str, **_: Any) -> None:
        told.append(using)

    with connected(work_written, receiver):
        works: list[Callable[[], object]] = [
            lambda: fire("a.b", 1),
            target.send_test,
            target.pause,
            target.resume,
            target.replay,
            target.cancel_pending,
        ]
        for work in works:
            told.clear()
            work()
            assert set(told) == {"default"}, work
        deliver(500)
        for work in (Delivery.objects.first().retry, Delivery.objects.first().cancel):
            told.clear()
            work()
            assert told == ["default"]
