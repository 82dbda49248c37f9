"""A lane is told that it is due in the very statement that says why."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from djwebhooks.models import Dispatcher, Lane, Worker
from tests.builders import make_target


def make_lane(**fields: object) -> Lane:
    return Lane.objects.create(target=make_target(), **fields)


def make_due(lane: Lane, at: datetime | None = None) -> Lane:
    assert Lane.objects.all().make_due([lane.pk], at) == 1
    lane.refresh_from_db()
    return lane


@pytest.mark.django_db
def test_a_lane_falls_due_at_the_earliest_time() -> None:
    """A later time never puts off an earlier one, and every word counts as a new version."""
    soon, later = timezone.now() + timedelta(hours=1), timezone.now() + timedelta(hours=2)
    lane = make_lane()
    seen = [(make_due(lane, at).due_at, lane.version) for at in (later, soon, later)]

    assert seen == [(later, 1), (soon, 2), (soon, 3)]
    assert make_due(lane).due_at < soon


@pytest.mark.django_db
def test_saving_a_target_makes_its_lane_due() -> None:
    """Whoever looked before looks again, as the target may now be active, ordered or limited in another way."""
    lane = make_lane()
    lane.target.description = "changed"
    lane.target.save()
    lane.refresh_from_db()

    assert lane.version == 1
    assert lane.due_at is not None


@pytest.mark.django_db
def test_saving_a_target_does_not_overwrite_its_lane() -> None:
    """The hot state is on a row of its own."""
    lane = make_lane(tail=7, holder=3, token=2)
    lane.target.save()
    lane.refresh_from_db()

    assert (lane.tail, lane.holder, lane.token) == (7, 3, 2)


@pytest.mark.django_db
def test_lanes_are_locked_in_one_order() -> None:
    """Whatever order they are asked for in."""
    lanes = [Lane.objects.create(target=make_target(url=f"http://127.0.0.1:9/{number}")) for number in range(3)]

    assert Lane.objects.all().lock([lane.pk for lane in reversed(lanes)]) == lanes


@pytest.mark.django_db
def test_the_dispatchers_row_makes_itself() -> None:
    """Nobody need have made it: a flushed table is as good as a migrated one."""
    Dispatcher.objects.all().delete()

    assert Dispatcher.lock("default")
    Dispatcher.wait_for_lock("default")
    assert Dispatcher.objects.count() == 1


def test_rows_say_what_they_are() -> None:
    """In a shell and in a log."""
    assert str(Lane(pk=7)) == "lane 7"
    assert str(Worker(name="rq", place="host:1")) == "rq at host:1"
    assert str(Dispatcher()) == "dispatcher"
