"""Each hot query finds its rows by an index: on tables with many rows, of the statements that the code really runs."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djwebhooks import dispatch, lanes, replays, stats
from djwebhooks.coalescing import Kind, Places, Tried, end_outdated
from djwebhooks.database import read_clock
from djwebhooks.erasure import erase
from djwebhooks.lanes import Held
from djwebhooks.models import Attempt, Delivery, Event, Lane, Subject, Subscription, TargetOwner, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.prune import prune
from tests.api.world import Api, make_publisher
from tests.builders import make_target, make_user
from tests.connections import plain

DB = "default"
#: Enough that a sequential scan costs more than any index.
ROWS, TARGETS = 20_000, 200

#: The tables that grow with the traffic.
GROWING = "djw_event", "djw_delivery", "djw_attempt", "djw_subject"


@pytest.fixture(scope="module")
def full_tables(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Fill the tables as after some time of work: nearly all is done, a little is waiting; and take it away again."""
    with django_db_blocker.unblock():
        fill_tables()
        yield
        for model in (Attempt, Delivery, Subject, Event, Subscription, Lane, WebhookTarget):
            model._base_manager.all()._raw_delete(DB)
        WebhookTarget.objects.all().delete()


def fill_tables() -> None:
    now = read_clock(DB)
    targets = WebhookTarget.objects.bulk_create([
        WebhookTarget(target_url=f"http://127.0.0.1/{number}", secrets="-") for number in range(TARGETS)
    ])  # fmt: skip
    Lane.objects.bulk_create(
        [Lane(pk=target.pk, due_at=now if number < 5 else None) for number, target in enumerate(targets)], ignore_conflicts=True
    )
    Subscription.objects.bulk_create([Subscription(target=target, event=f"e.n{target.pk}") for target in targets])
    events = Event.objects.bulk_create([
        Event(
            name="e.x",
            payload="1",
            dispatched_at=now if number < ROWS - 20 else None,
            deliver_at=now + timedelta(hours=1) if number >= ROWS - 10 else None,
        )
        for number in range(ROWS)
    ])  # fmt: skip
    deliveries = Delivery.objects.bulk_create([
        Delivery(
            event=event,
            target=targets[number % TARGETS],
            sequence=number,
            ordering_key=str(number % 7),
            status=Status.PENDING if number % 40 == 0 else Status.FAILED if number % 40 == 1 else Status.SUCCEEDED,
            due_at=now if number % 40 == 0 else None,
        )
        for number, event in enumerate(events)
    ])  # fmt: skip
    Attempt.objects.bulk_create([
        Attempt(delivery=delivery, number=1, trigger="event", url="-", started_at=now, duration=0.1) for delivery in deliveries
    ])  # fmt: skip
    Subject.objects.bulk_create([Subject(event=event, digest=f"{number % 1000:032}") for number, event in enumerate(events)])
    tables = ", ".join(model._meta.db_table for model in (Attempt, Subject, Delivery, Event, Subscription, Lane, WebhookTarget))
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE TABLE {tables}" if connection.vendor == "mysql" else "ANALYZE")


# -- the queries -------------------------------------------------------------------------------------------------------


def find_places() -> None:
    event = Event.objects.all()[0]
    Places(DB, [Kind.of(event, some_target().pk)])


def some_target() -> WebhookTarget:
    found = WebhookTarget.objects.filter(deliveries__status=Status.PENDING).first()
    assert found is not None
    return found


def hold(target: WebhookTarget) -> Held:
    lane = Lane.objects.get(pk=target.pk)
    return Held(target.pk, lane.token, lane.version)


def take_due() -> None:
    target = some_target()
    lanes.take(DB, {target.pk: 10}, {target.pk: hold(target)}, read_clock(DB))


def line_up() -> None:
    Delivery.objects.line_up([(some_target().pk, "0")], read_clock(DB))


def dispatch_ordered() -> None:
    owner = make_user("index")
    make_target(owner, event="e.index", is_ordered=True, url="http://127.0.0.1/index")
    Event.objects.create(name="e.index", owner=owner, payload="1")
    dispatch.dispatch(DB)


HOT: dict[str, tuple[Callable[[], object], str, str]] = {
    # what is run, the statement's table and a word of it, the index that it must use, or of two the smaller one
    "events that are ready": (lambda: dispatch.has_waiting(DB), "djw_event", "djw_event_waiting"),
    # One index is for both on MariaDB.
    "the next planned event": (lambda: dispatch.next_planned(DB), "djw_event", "djw_event_(planned|waiting)"),
    "free lanes": (lambda: lanes.next_due_lane(DB), "djw_lane", "djw_lane_free_due"),
    "what is due of a lane": (take_due, "due_at <= ", "djw_delivery_(due|key)"),
    "what a lane has next": (
        lambda: lanes.release(DB, 1, [hold(some_target())], read_clock(DB)), "due_at IS NOT NULL", "djw_delivery_(due|key)",
    ),
    "the head of a key": (line_up, "ORDER BY sequence LIMIT 1", "djw_delivery_key"),
    "whether a key waits": (dispatch_ordered, "SELECT target_id, ordering_key", "djw_delivery_key"),
    "what a newer event replaces": (
        find_places, "coalesce_until IS NOT", "djw_delivery_(replaceable|key)",
    ),
    "what a result makes out of date": (
        lambda: end_outdated(DB, [Tried(0, 0, some_target().pk, "0", None)], read_clock(DB)),
        "AND is_replaceable", "djw_delivery_key",
    ),
    "the attempts of a delivery": (
        lambda: list(Delivery.objects.all()[0].attempts.all()), "djw_attempt", "djw_attempt_number",
    ),
    "an event by its uid": (lambda: Event.objects.filter(uid=Event.objects.all()[0].uid).exists(), '"uid" =', "uid"),
    "who wants an event": (
        lambda: list(Subscription.objects.filter(event__in=["e.n5", "e.*", "*"])), "djw_subscription", "djw_subscription_once",
    ),
    "the deliveries of an event": (
        lambda: list(Event.objects.all()[0].deliveries.all()), '"djw_delivery"."event_id"', "djw_delivery_once_per_target",
    ),
    "the events about somebody": (
        lambda: list(Subject.objects.filter(digest="5" * 32, event_id__gt=5).order_by("event_id")[:50]),
        "djw_subject",
        "djw_subject_once_per_event",
    ),
    "what a replay has not sent": (
        lambda: list(Delivery.objects.filter(replay=5).unsent().order_by("pk")[:50]), "replay_id", "djw_delivery_replay",
    ),
    "the next replay": (lambda: replays.next_replay(DB), "djw_replay", "djw_replay_running"),
    "an owner's events": (lambda: list(Event.objects.filter(owner=1).order_by("-id")[:50]), "owner_id", "djw_event_owner"),
}  # fmt: skip


if connection.vendor != "mysql":  # It has no partial indexes, and finds what waits by another one.
    HOT["what an owner has published and waits"] = (
        lambda: Api(make_publisher("index")).get("events/?is_waiting=true"), '"is_published"', "djw_event_published",
    )  # fmt: skip


if connection.vendor != "sqlite":  # It does not see that a status is one of several.
    HOT["failed deliveries"] = (
        lambda: list(Delivery.objects.filter(status=Status.FAILED).order_by("-id")[:50]),
        "djw_delivery",
        "djw_delivery_unsuccessful",
    )


def find_statement(run: Callable[[], object], words: str) -> str:
    with CaptureQueriesContext(connection) as captured:
        run()
    found = [re.sub(r"^\d+ times: ", "", query["sql"]) for query in captured if words in plain(query["sql"])]
    assert found, f"nothing of {words!r} was run"
    return found[-1]


def explain(sql: str) -> str:
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"EXPLAIN {sql.split('; UPDATE')[0]}")
            return "\n".join(describe_access(*row) for row in cursor.fetchall())
        if connection.vendor == "postgresql":
            cursor.execute(
                f"EXPLAIN {sql.replace('%', '%%')}" if "%s" not in sql else f"EXPLAIN (GENERIC_PLAN) {number_marks(sql)}"
            )
            return "\n".join(row[0] for row in cursor.fetchall())
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}" if "%s" not in sql else f"EXPLAIN QUERY PLAN {sql.replace('%s', 'NULL')}")
        return "\n".join(row[3] for row in cursor.fetchall())


def describe_access(_: int, kind: str, table: str, access: str, possible: str, index: str, *rest: object) -> str:
    """Say in PostgreSQL's words what MariaDB would do with one table."""
    return f"Seq Scan on {table}" if access in {"ALL", "index"} else f"{access} of {table} by {index}: {rest[-1]}"


def number_marks(sql: str) -> str:
    """Write the parameters as PostgreSQL's own, $1 and so on, which a plan can be made of without values."""
    parts = sql.split("%s")
    return "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], start=1)) + parts[-1]


@pytest.mark.django_db
@pytest.mark.parametrize("what", HOT)
def test_a_hot_query_uses_its_index(full_tables: None, what: str) -> None:
    """No statement that is run again and again reads a whole table that grows."""
    run, words, index = HOT[what]

    statement = find_statement(run, words)
    if connection.vendor == "postgresql" and not any(table in statement for table in GROWING):
        # With so few targets, reading all of them is as good as any index.
        connection.cursor().execute("SET LOCAL enable_seqscan = off")
    plan = explain(statement)

    assert re.search(index, plan) or is_answered(plan) or (connection.vendor == "sqlite" and is_searched(plan)), plan
    for table in GROWING:
        assert f"Seq Scan on {table}" not in plan, plan


def is_answered(plan: str) -> bool:
    """MariaDB looks for a least value in the index while it plans."""
    return "No matching min/max row" in plan or "Select tables optimized away" in plan


def is_searched(plan: str) -> bool:
    """SQLite names a unique constraint's index by itself."""
    return "sqlite_autoindex" in plan and "SEARCH" in plan


@pytest.mark.django_db
def test_dispatch_reads_no_whole_table(full_tables: None) -> None:
    """Whatever dispatching runs on tables that grow, it finds by an index."""
    check_all(dispatch_ordered)


@pytest.mark.django_db
def test_pruning_reads_no_whole_table(full_tables: None) -> None:
    """Pruning walks along ranges of ids."""
    Event.objects.filter(pk__lt=Event.objects.order_by("pk")[500].pk).update(created_at="2020-01-01T00:00Z")
    Delivery.objects.filter(event__created_at__lt="2021-01-01T00:00Z").update(finished_at="2020-01-01T00:00Z")
    TargetOwner.objects.create(target_id=2**40, owner=make_user("gone"))

    check_all(lambda: prune(older_than=86400, batch=200))


@pytest.mark.django_db
def test_erasing_reads_no_whole_table(full_tables: None) -> None:
    """It costs what the events that are found cost, however many others there are."""
    owner = make_user("index")
    Event.objects.filter(pk__in=[event.pk for event in Event.objects.order_by("pk")[:20]]).update(owner=owner)
    TargetOwner.objects.create(target=some_target(), owner=owner)

    check_all(lambda: erase(owner))


@pytest.mark.django_db
def test_counting_reads_no_whole_table(full_tables: None) -> None:
    """Monitoring may ask every few seconds."""
    check_all(lambda: stats.count(DB, read_clock(DB), limit=100))


def check_all(run: Callable[[], object]) -> None:
    with CaptureQueriesContext(connection) as captured:
        run()
    statements = [query["sql"] for query in captured]
    reading = [
        sql for sql in statements if sql.startswith(("SELECT", "UPDATE", "DELETE")) and any(table in sql for table in GROWING)
    ]
    assert reading
    for sql in reading:
        plan = explain(sql)
        for table in GROWING:
            assert f"Seq Scan on {table}" not in plan, (sql, plan)
            assert not re.search(rf"SCAN {table}$", plan, re.MULTILINE), (sql, plan)
