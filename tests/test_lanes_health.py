"""What the outcomes that are recorded say of a target: how it fares, until when it is held, whether it is disabled."""

from datetime import timedelta

import pytest
from django.conf import LazySettings

from djwebhooks.lanes import Outcome
from djwebhooks.models import Lane
from djwebhooks.models.deliveries import Status
from tests.lanes import (
    SECOND,
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


def test_failures_are_counted_until_a_success() -> None:
    """failing_since is the first failure's time; a success forgets both it and the count."""
    make_work(4)
    worker_id = enlist()
    works = take(hold(worker_id))
    first = now()
    record(worker_id, failure(works[0]), at=first)
    record(worker_id, failure(works[1]), failure(works[2], Status.FAILED), at=first + timedelta(hours=1))

    lane = lane_of(works[0])
    assert (lane.failing_since, lane.failure_count) == (first, 3)
    record(worker_id, success(works[3]), at=first + timedelta(hours=2))
    lane.refresh_from_db()
    assert (lane.failing_since, lane.failure_count) == (None, 0)


@pytest.mark.parametrize("is_last_a_failure", [True, False])
def test_a_target_is_disabled_after_days_of_nothing_but_failures(settings: LazySettings, is_last_a_failure: bool) -> None:
    """DJWEBHOOKS_DISABLE_AFTER counts from the first of an unbroken row of failures."""
    settings.DJWEBHOOKS_DISABLE_AFTER = timedelta(days=5)
    target = make_work(2)
    worker_id = enlist()
    works = take(hold(worker_id))
    first = now()
    record(worker_id, failure(works[0]), at=first)

    early = record(worker_id, failure(works[0]), at=first + timedelta(days=4, hours=23))
    late = record(worker_id, failure(works[1]) if is_last_a_failure else success(works[1]), at=first + timedelta(days=5))

    assert early.disabled == {}
    assert late.disabled == ({target.pk: "failing"} if is_last_a_failure else {})
    assert (lane_of(target).disabled_at is not None) is is_last_a_failure
    assert (target.pk in late.changed) is is_last_a_failure


def test_our_own_fault_says_nothing_about_a_target() -> None:
    """A fault of our own neither counts as a failure nor disables a target that has been failing for long."""
    make_work()
    worker_id = enlist()
    work = take_one(worker_id)
    since = now() - timedelta(days=30)
    Lane.objects.update(failing_since=since, failure_count=3)

    result = record(worker_id, own_fault(work), own_fault(work)._replace(sent=None, hold_until=now() + SECOND))

    lane = lane_of(work)
    assert result.disabled == {}
    assert (lane.failing_since, lane.failure_count, lane.disabled_at) == (since, 3, None)


@pytest.mark.parametrize("status", [Status.FAILED, Status.SUCCEEDED])
def test_the_receivers_word_disables(status: Status) -> None:
    """An outcome that disables does so once, and says so once."""
    target = make_work(2)
    worker_id = enlist()
    works = take(hold(worker_id))

    first, second = (record(worker_id, Outcome(work, status, "gone", sent=exchange(410), disables="gone")) for work in works)

    assert (first.disabled, second.disabled) == ({target.pk: "gone"}, {})
    assert lane_of(target).disabled_reason == "gone"
    assert (first.changed, second.changed) == ({target.pk}, set())


def test_the_longest_hold_counts() -> None:
    """A receiver's wish for silence holds the lane, and a shorter one does not shorten it."""
    target = make_work(2)
    worker_id = enlist()
    works = take(hold(worker_id))
    moment = now()

    first = record(worker_id, failure(works[0], hold_until=moment + timedelta(hours=2)), at=moment)
    record(worker_id, failure(works[1], hold_until=moment + timedelta(hours=1)), at=moment)

    assert lane_of(target).held_until == moment + timedelta(hours=2)
    assert first.changed == {target.pk}
    assert first.disabled == {}
