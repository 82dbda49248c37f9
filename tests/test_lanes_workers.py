"""A worker enlists, beats and retires; the lanes of one that died are freed."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connection, transaction

from djwebhooks import lanes
from djwebhooks.database import DatabaseNow
from djwebhooks.lanes import Held, LeaseLost
from djwebhooks.models import Lane, Worker
from tests.connections import Thread, run_together, second_connection, server_only
from tests.lanes import (
    DB,
    SECOND,
    enlist,
    hold,
    kill,
    lane_of,
    make_work,
    now,
)

pytestmark = pytest.mark.django_db


def test_at_most_so_many_workers_of_a_name_enlist() -> None:
    """Whoever is one too many learns when the first of the others will have been silent; other names do not count."""
    first, _ = enlist("rq"), enlist("other")
    assert isinstance(lanes.enlist(DB, "rq", "here:2", 2), int)

    refused = lanes.enlist(DB, "rq", "here:3", 2)

    begun_at = Worker.objects.get(pk=first).expires_at - timedelta(seconds=lanes.lease_seconds())
    assert refused == begun_at + timedelta(seconds=lanes.SILENCE)
    assert lanes.count_workers(DB, "rq") == 2


def test_a_worker_that_was_killed_keeps_nobody_from_beginning() -> None:
    """Its lanes rest until its lease ends, but what it did not hold is sent as soon as its heartbeat is missed."""
    dead = enlist("rq")
    silent = timedelta(seconds=lanes.lease_seconds() - lanes.SILENCE) - SECOND
    Worker.objects.filter(pk=dead).update(expires_at=DatabaseNow() + silent)

    assert lanes.count_workers(DB, "rq") == 0
    assert isinstance(lanes.enlist(DB, "rq", "here:2", 1), int)


@server_only
@pytest.mark.django_db(transaction=True)
def test_workers_that_enlist_at_once_keep_to_the_number() -> None:
    """Of many that enlist at the same moment, as many get in as may."""
    found = run_together(*[partial(lanes.enlist, DB, "rq", "here:1", 2)] * 6)

    assert sum(isinstance(worker_id, int) for worker_id in found) == 2


def test_a_heartbeat_renews_the_lease() -> None:
    """One update keeps all the worker's lanes."""
    worker_id = enlist()
    kill(worker_id)

    lanes.beat(DB, worker_id)

    assert lanes.reap(DB) == 0
    assert Worker.objects.get(pk=worker_id).expires_at > now() + timedelta(seconds=lanes.start_seconds())


def test_a_lease_outlasts_an_exchange(settings: LazySettings) -> None:
    """A lease lasts longer than an exchange and half a minute; an attempt that may start ends within it."""
    settings.DJWEBHOOKS_TIMEOUT = 100

    assert lanes.lease_seconds() > 130
    assert 100 < lanes.start_seconds() < lanes.lease_seconds()


def test_a_worker_that_was_struck_off_finds_out() -> None:
    """After reaping, neither a heartbeat nor a lease goes on as if nothing had happened."""
    make_work()
    worker_id = enlist()
    kill(worker_id)

    assert lanes.reap(DB) == 1

    with pytest.raises(LeaseLost):
        lanes.beat(DB, worker_id)
    with pytest.raises(LeaseLost):
        lanes.lease(DB, worker_id, 10)


def test_reaping_frees_the_lanes_of_the_dead_only() -> None:
    """Lanes of a worker that stopped beating can be leased again, with another token; those of the living cannot."""
    dead, alive = enlist(), enlist()
    make_work(name="a")
    lost = next(iter(hold(dead).values()))
    make_work(name="b")
    kept = next(iter(hold(alive).values()))
    kill(dead)

    lanes.reap(DB)

    found = hold(enlist())
    assert list(found) == [lost.target_id]
    assert found[lost.target_id].token > lost.token
    assert lane_of(kept).holder == alive


def test_a_retired_worker_leaves_nothing_behind() -> None:
    """A worker that ends gives its lanes back at once."""
    make_work()
    worker_id = enlist()
    held = hold(worker_id)

    lanes.retire(DB, worker_id)

    assert not Worker.objects.filter(pk=worker_id).exists()
    assert list(hold(enlist())) == list(held)


@server_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [lanes.reap, lambda using: lanes.retire(using, Worker.objects.get().pk)], ids=["reap", "retire"])
def test_freeing_lanes_waits_for_no_application(end: Any) -> None:
    """A lane that an application keeps locked is freed later; the others of its dead worker at once."""
    busy, free = make_work(name="a"), make_work(name="b")
    worker_id = enlist()
    assert set(hold(worker_id)) == {busy.pk, free.pk}
    kill(worker_id)
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=busy.pk))
        Thread(lambda: end(DB)).result(timeout=10)
        assert lane_of(free).holder is None
        with pytest.raises(LeaseLost):
            lanes.beat(DB, worker_id)

    lanes.reap(DB)
    assert lane_of(busy).holder is None


def test_an_orphan_is_freed_only_as_long_as_it_is_one() -> None:
    """Two workers see it at once; what the first has freed and a third one holds by then, the second leaves alone."""
    make_work()
    dead, living = enlist(), enlist()
    hold(dead)
    Worker.objects.filter(pk=dead).delete()
    others: list[Held] = []

    def let_others_act(execute: Any, sql: str, *arguments: Any) -> Any:
        result = execute(sql, *arguments)
        if "EXISTS" in sql and not others:  # The second worker has seen its orphans.
            others.append(Held(0, 0))
            lanes.reap(DB)
            others[:] = hold(living).values()
        return result

    with connection.execute_wrapper(let_others_act):
        lanes.retire(DB, enlist("second"))

    [held] = others
    assert lane_of(held).holder == living
