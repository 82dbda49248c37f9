"""A lane gives its holder instants at its rate, however often it changes hands."""

from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from djwebhooks import lanes
from djwebhooks.database import DatabaseNow
from djwebhooks.lanes import Held
from djwebhooks.models import Lane, WebhookTarget, Worker
from tests.builders import make_target
from tests.lanes import DB, SECOND, enlist, hold, kill, lane_of, make_owner, make_work, now, take

pytestmark = pytest.mark.django_db


def test_instants_are_reserved_at_the_rate() -> None:
    """Instants are one pause apart, begin now or where the last ones ended, and are remembered in the lane."""
    target = make_work()
    held = hold(enlist())[target.pk]
    take({target.pk: held})
    moment = now()

    first = lanes.reserve(DB, held, 4.0, 3, moment)
    more = lanes.reserve(DB, held, 4.0, 1, moment)
    after_a_rest = lanes.reserve(DB, held, 4.0, 1, moment + timedelta(hours=1))

    assert first == [moment, moment + SECOND / 4, moment + SECOND / 2]
    assert more == [moment + SECOND * 3 / 4]
    assert after_a_rest == [moment + timedelta(hours=1)]
    assert lane_of(target).next_free_at == moment + timedelta(hours=1) + SECOND / 4


def test_nothing_is_reserved_without_the_lease() -> None:
    """A holder that lost its lane gets no instant, and takes none from its successor."""
    target = make_work()
    first = enlist()
    held = hold(first)[target.pk]
    take({target.pk: held})
    kill(first)
    lanes.reap(DB)
    hold(enlist())

    assert lanes.reserve(DB, held, 1.0, 5, now()) == []
    assert lane_of(target).next_free_at is None


def test_a_rate_limited_lane_is_due_when_its_limit_allows() -> None:
    """A lane whose next free instant is later than its next delivery is due at that instant."""
    target = make_work(2, rate_limit=1, rate_period="hour")
    free_at = now() + timedelta(hours=1)
    Lane.objects.update(next_free_at=free_at)
    worker_id = enlist()
    held = hold(worker_id)
    take(held)

    assert lanes.release(DB, worker_id, list(held.values()), now()) == set()

    assert lane_of(target).due_at == free_at


def test_a_raised_rate_counts_at_once() -> None:
    """What an earlier, lower one had reserved does not hold the lane back for an hour."""
    make_work(rate_limit=100)
    Lane.objects.update(next_free_at=now() + timedelta(hours=1))
    worker_id = enlist()
    held = hold(worker_id)
    moment = now()
    take(held, at=moment)

    [lane] = held.values()
    assert lane.next_free_at == moment + 1.01 * SECOND


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.integers(0, 1), st.integers(1, 4)),
        st.tuples(st.just("look"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("steal"), st.integers(0, 1), st.just(0)),
        st.tuples(st.just("wait"), st.just(0), st.integers(1, 3000)),
    ),
    max_size=25,
)


@given(script=STEPS)
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_interleaving_of_holders_exceeds_the_rate(db: None, script: list[tuple[str, int, int]]) -> None:
    """Whatever two holders do that take each other for dead, instants are never closer than the rate allows."""
    Worker.objects.all().delete()
    Lane.objects.all().delete()
    target = WebhookTarget.objects.first() or make_target(make_owner(), rate_limit=1)
    Lane.objects.update_or_create(pk=target.pk, defaults={"due_at": now() - SECOND})
    workers: list[tuple[int, Held] | None] = [None, None]
    moment = now()
    instants: list[datetime] = []
    for action, number, amount in script:
        mine = workers[number]
        if action == "wait":
            moment += timedelta(milliseconds=amount)
        elif action == "steal":
            for worker in filter(None, workers):
                kill(worker[0])
            lanes.reap(DB)
            Lane.objects.update(due_at=DatabaseNow() - SECOND)
            worker_id = enlist()
            leased = lanes.lease(DB, worker_id, 1)[0]
            workers[number] = (worker_id, leased)
            lanes.take(DB, {target.pk: 1}, {target.pk: leased}, moment)
        elif mine is not None and action == "look":
            lanes.take(DB, {target.pk: 1}, {target.pk: mine[1]}, moment)
        elif mine is not None:
            instants += lanes.reserve(DB, mine[1], 1.0, amount, moment)

    instants.sort()
    assert all(later - earlier >= SECOND for earlier, later in pairwise(instants))
