"""What came of a delivery is recorded once, and only under the lease that it was taken with."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from djwebhooks.lanes import Outcome, Sent, Work
from djwebhooks.models import Attempt, Delivery, Lane
from djwebhooks.models.deliveries import Status
from tests.connections import second_connection, server_only
from tests.lanes import (
    delivery_of,
    enlist,
    exchange,
    failure,
    hold,
    lane_of,
    make_work,
    now,
    own_fault,
    record,
    success,
    take,
    take_one,
)

pytestmark = pytest.mark.django_db


def test_a_success_is_recorded() -> None:
    """Attempt and verdict are written together."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    timing = {"lookup_ms": 1, "connect_ms": None, "tls_ms": 3_000_000, "first_byte_ms": 0}
    sent = exchange(202, response_headers={"a": "b"}, response_body="é", duration=1.5, **timing)

    result = record(worker_id, Outcome(work, Status.SUCCEEDED, sent=sent))

    delivery = delivery_of(work)
    assert (delivery.status, delivery.reason, delivery.due_at, delivery.attempt_count) == ("succeeded", "", None, 1)
    assert delivery.finished_at is not None
    attempt = delivery.attempts.get()
    assert (attempt.number, attempt.trigger) == (1, "event")
    for name in Sent._fields:
        assert getattr(attempt, name) == getattr(sent, name)
    assert len(result.outcomes) == 1
    assert result.postponed == []


def test_a_failure_is_recorded_with_its_next_time() -> None:
    """A retry stays pending with the time and the reason that were decided, and the next attempt is called a retry."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    outcome = failure(work)

    record(worker_id, outcome)

    delivery = delivery_of(work)
    assert (delivery.status, delivery.reason, delivery.due_at) == ("pending", "http_500", outcome.due_at)
    assert (delivery.attempt_count, delivery.trigger, delivery.finished_at) == (1, "retry", None)


def test_an_outcome_without_an_exchange_is_no_attempt() -> None:
    """What was put off before it was sent counts nothing and keeps its trigger."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)

    record(worker_id, Outcome(work, Status.PENDING, "undecryptable_secret", due_at=now()))

    delivery = delivery_of(work)
    assert (delivery.attempt_count, delivery.trigger, delivery.reason) == (0, "event", "undecryptable_secret")
    assert not delivery.attempts.exists()
    assert lane_of(work).failure_count == 0


@pytest.mark.parametrize("change", [{"token": 99}, {"holder": 10**6}, {"holder": None}], ids=str)
def test_a_result_under_a_lost_lease_is_dropped(change: dict[str, int | None]) -> None:
    """With another token or another holder, nothing is written: neither attempt nor verdict nor health."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    Lane.objects.update(**change)

    result = record(worker_id, success(work))

    assert (result.outcomes, result.postponed) == ([], [])
    assert delivery_of(work).status == Status.PENDING
    assert not Attempt.objects.exists()


def test_a_result_for_a_lane_that_is_gone_is_dropped() -> None:
    """A deleted target's late answer is dropped, and disturbs no other's."""
    gone, kept = make_work(name="a"), make_work(name="b")
    worker_id = enlist()
    works = {work.target_id: work for work in take(hold(worker_id))}
    gone_pk = gone.pk
    Lane.objects.filter(pk=gone_pk).delete()

    result = record(worker_id, *(success(work) for work in works.values()))

    assert [outcome.work.target_id for outcome in result.outcomes] == [kept.pk]
    assert result.postponed == []
    assert delivery_of(works[gone_pk]).status == Status.PENDING
    assert delivery_of(works[kept.pk]).status == Status.SUCCEEDED


@server_only
@pytest.mark.django_db(transaction=True)
def test_results_for_a_busy_lane_are_recorded_later() -> None:
    """A lane that an application keeps locked postpones its own results, and nobody else's."""
    busy, free = make_work(name="a"), make_work(name="b")
    worker_id = enlist()
    works = take(hold(worker_id))
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=busy.pk))
        result = record(worker_id, *map(success, works))
        assert [outcome.work.target_id for outcome in result.outcomes] == [free.pk]
        assert [outcome.work.target_id for outcome in result.postponed] == [busy.pk]

    record(worker_id, *result.postponed)
    assert not Delivery.objects.pending().exists()


def test_what_arrived_has_arrived_even_if_it_was_cancelled() -> None:
    """A delivery that was cancelled while it was on its way, and was accepted, is recorded as succeeded."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    delivery_of(work).cancel()

    record(worker_id, success(work))

    assert (delivery_of(work).status, delivery_of(work).reason) == ("succeeded", "")


@pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED])
def test_what_was_cancelled_and_failed_stays_cancelled(status: Status) -> None:
    """Its attempt is kept and counted, so that the attempt of a later retry has the next number."""
    make_work()
    worker_id = enlist()
    held = hold(worker_id)
    work = take(held)[0]
    delivery_of(work).cancel()

    record(worker_id, failure(work, status))

    delivery = delivery_of(work)
    assert (delivery.status, delivery.reason, delivery.attempt_count) == ("cancelled", "cancelled", 1)
    assert delivery.due_at is None
    delivery.retry()
    again = take(held)[0]
    record(worker_id, success(again))
    assert list(delivery.attempts.values_list("number", "trigger", "status_code")) == [(1, "event", 500), (2, "manual", 200)]
    assert delivery_of(work).status == Status.SUCCEEDED


@pytest.mark.parametrize("make", [success, failure, lambda work: failure(work, Status.FAILED), own_fault])
def test_recording_twice_is_recording_once(make: Any) -> None:
    """When it is not known whether a record was committed, it can be made again."""
    make_work()
    worker_id = enlist()
    outcome = make(take_one(worker_id))
    moment = now()
    record(worker_id, outcome, at=moment)
    once = Delivery.objects.values().get()

    record(worker_id, outcome, at=moment)

    assert Delivery.objects.values().get() == once
    assert Attempt.objects.count() == 1


def test_a_batch_is_recorded_in_a_number_of_queries_that_does_not_grow(django_assert_max_num_queries: Any) -> None:
    """Fifty results of five lanes cost hardly more than one."""
    for name in "abcde":
        make_work(10, name=name)
    worker_id = enlist()
    works = take(hold(worker_id))
    assert len(works) == 50

    outcomes, moment = [success(work) for work in works], now()

    with django_assert_max_num_queries(20):
        record(worker_id, *outcomes, at=moment)

    assert Attempt.objects.count() == 50
    assert not Delivery.objects.pending().exists()


def succeed_oddly(work: Work) -> Outcome:
    return success(work)._replace(sent=exchange(address=None))


def fail_oddly(work: Work) -> Outcome:
    return failure(work)._replace(sent=exchange(None, error="x" * 65), reason="x" * 65)


@pytest.mark.parametrize(
    ("make", "verdict"),
    [(succeed_oddly, ("succeeded", "", 1)), pytest.param(fail_oddly, ("pending", "internal_error", 1), marks=server_only)],
)
def test_a_result_that_the_database_refuses_keeps_no_other_from_being_recorded(
    make: Callable[[Work], Outcome], verdict: tuple[str, str, int]
) -> None:
    """Its verdict is recorded as well: to send it again and again would not help. What was said of its attempt is lost."""
    make_work(5)
    worker_id = enlist()
    *works, odd, last = take(hold(worker_id))

    result = record(worker_id, *map(success, works), make(odd), success(last))

    assert [outcome.work for outcome in result.outcomes] == [*works, odd, last]
    assert {delivery_of(work).status for work in (*works, last)} == {"succeeded"}
    delivery = delivery_of(odd)
    assert (delivery.status, delivery.reason, delivery.attempt_count) == verdict
    assert delivery.attempts.get().error == "internal_error"
    assert "the database refuses what the transport said" in delivery.attempts.get().detail


def test_what_the_database_refuses_in_any_case_is_no_secret() -> None:
    """A fault that has nothing to do with what a transport said is raised, as any other of the database."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)

    for sent in (None, exchange()._replace(url=None)):
        with pytest.raises(IntegrityError):
            record(worker_id, failure(work)._replace(sent=sent, status=None))


def test_our_own_fault_uses_up_nothing_of_the_schedule() -> None:
    """An attempt that failed for want of a network is kept, but the schedule is as long as before."""
    make_work()
    worker_id = enlist()
    held = hold(worker_id)
    work = take(held)[0]

    record(worker_id, own_fault(work))

    again = take(held, at=now() + timedelta(minutes=1))[0]
    assert again.attempt_count == 1
    assert again.attempt_count - again.schedule_offset == work.attempt_count - work.schedule_offset
