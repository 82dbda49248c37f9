"""The page on partitions: its SQL cuts up the large tables and empties what is old, and all else goes on as before."""

import re
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from djwebhooks.erasure import erase
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Body, Delivery, Event, WebhookTarget
from djwebhooks.prune import Pruned, prune
from djwebhooks.testing import deliver
from tests.test_prune import age

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

PAGE = Path(__file__).parent.parent / "docs/how-to/partitions.rst"
#: Ids of a partition in the tests, as nobody waits for the ten millions of the page.
SIZE = 5


def read_script(number: int) -> str:
    """The page's SQL, with partitions of a few ids."""
    blocks = re.findall(r"\.\. code-block:: postgres\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    script, count = re.subn("10000000", str(SIZE), blocks[number])
    assert count
    return script


def run_script(number: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(read_script(number))


def restart_ids() -> None:
    """Let the ids begin at the first partition, whatever other tests have used up."""
    with connection.cursor() as cursor:
        for model in (Event, Delivery, Attempt, Body):
            cursor.execute(f"ALTER TABLE {model._meta.db_table} ALTER id RESTART")


@pytest.fixture
def owner() -> User:
    restart_ids()
    owner = User.objects.create(username="owner")
    WebhookTarget.objects.register("http://127.0.0.1:9/", ["a"], owner=owner)
    return owner


def send(owner: User, count: int) -> list[Event]:
    events = [fire("a", {"n": number}, owner=owner) for number in range(count)]
    deliver()
    return events


def places_of(model: type[Attempt | Body]) -> list[str]:
    """The name of the partition of each row, without the table's, sorted."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT tableoid::regclass::text FROM {model._meta.db_table}")
        return sorted(table.rpartition("_")[2] for (table,) in cursor.fetchall())


def places(ids: Iterable[int]) -> list[str]:
    """The partitions that these ids of deliveries, or events, belong to."""
    return [str(id_ // SIZE) for id_ in ids]


def constraints_of(model: type[Attempt | Body]) -> set[str]:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, model._meta.db_table)
    return {name for name in found if not name.endswith("_pkey")}


def test_what_there_is_stays_and_what_comes_finds_its_place(owner: User) -> None:
    """Nothing is lost or renamed, later ids do not collide, and workers, prune and erasures do as before."""
    before = send(owner, 3)
    constraints = [constraints_of(model) for model in (Attempt, Body)]
    rows = [list(model.objects.order_by("id").values()) for model in (Attempt, Body)]
    run_script(0)
    assert [list(model.objects.order_by("id").values()) for model in (Attempt, Body)] == rows
    assert [constraints_of(model) for model in (Attempt, Body)] == constraints

    after = send(owner, 3)

    assert places_of(Attempt) == places_of(Body) == places(range(1, 7))
    for event in before + after[:1]:
        age(event)
    assert prune() == Pruned(events=4, bodies=4, deliveries=4, attempts=4)
    assert erase(owner).events == 2


def test_what_is_beyond_the_last_partition_is_kept_as_well(owner: User) -> None:
    """Nothing ever fails for want of a partition."""
    run_script(0)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE djw_delivery ALTER id RESTART WITH 1000000")

    send(owner, 1)

    assert places_of(Attempt) == ["rest"]


def test_a_partition_is_emptied_when_all_of_it_is_old(owner: User) -> None:
    """One delivery that is younger, or waits, keeps its own partition and those behind it."""
    run_script(0)
    events = send(owner, 4 * SIZE)
    for event in events[: 3 * SIZE]:
        age(event)
    Delivery.objects.filter(event=events[2 * SIZE]).update(status="pending", finished_at=None)

    run_script(1)

    assert places_of(Attempt) == places_of(Body) == places(range(2 * SIZE, 4 * SIZE + 1))
    assert Delivery.objects.count() == 4 * SIZE


def test_an_event_that_is_planned_keeps_the_bodies_behind_it(owner: User) -> None:
    """It gets its own when it is dispatched; the attempts, which it has none of, need not wait for that."""
    run_script(0)
    fire("a", {}, owner=owner, deliver_at=timezone.now() + timedelta(days=1))
    for event in send(owner, 2 * SIZE):
        age(event)
    send(owner, SIZE)

    run_script(1)

    assert places_of(Attempt) == places(range(2 * SIZE, 3 * SIZE + 1))
    assert places_of(Body) == places(range(2, 3 * SIZE + 2))
