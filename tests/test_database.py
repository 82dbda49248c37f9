"""The database's clock, short transactions that are tried again, locks that wait for nobody, writes in bulk."""

from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.db import DataError, Error, IntegrityError, OperationalError, connection, transaction
from django.db.models import F, Model
from django.test.utils import CaptureQueriesContext

from djwebhooks import database
from djwebhooks.database import DatabaseClock, DatabaseNow, ExactCharField, PartialIndex, read_clock
from djwebhooks.models import Attempt, Body, Delivery, Event, Lane, Subscription, TargetOwner, WebhookTarget
from tests.builders import make_target, make_user
from tests.connections import Thread, second_connection, server_only

DB = "default"

pytestmark = pytest.mark.django_db


def make_lanes(count: int) -> list[Lane]:
    return Lane.objects.bulk_create([Lane(pk=pk) for pk in range(1, count + 1)])


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_clock_is_aware_and_in_utc() -> None:
    """Whatever the project's zone, times are in UTC."""
    before = datetime.now(UTC)

    now = read_clock(DB)

    assert now.utcoffset() == timedelta()
    assert abs(now - before) < timedelta(seconds=10)


def test_stored_times_are_the_clocks() -> None:
    """What the database writes as now is what its clock says, to the second."""
    before = read_clock(DB)
    event = Event.objects.create(name="a.b")
    Event.objects.update(deliver_at=DatabaseNow())
    event.refresh_from_db()

    assert event.deliver_at is not None
    for moment in (event.created_at, event.deliver_at):
        assert before - timedelta(seconds=1) <= moment <= read_clock(DB) + timedelta(milliseconds=1)


@server_only
def test_the_clock_goes_on_inside_a_transaction() -> None:
    """The clock is that of the statement, not of the transaction's beginning."""
    assert read_clock(DB) < read_clock(DB)


def test_a_clock_keeps_up_with_what_the_database_has_told() -> None:
    """What was written a moment ago is due by it, though the database counts in whole milliseconds; it never goes back."""
    clock = DatabaseClock(DB)
    later = clock() + timedelta(minutes=1)

    clock.keep_up(later)
    clock.keep_up(later - timedelta(minutes=2))

    assert later <= clock() < later + timedelta(minutes=1)


def test_a_clock_is_carried_on_without_asking(django_assert_num_queries: Any) -> None:
    """Between two readings the monotonic clock goes on from the database's time, never backwards."""
    clock = DatabaseClock(DB)
    before = read_clock(DB)
    with django_assert_num_queries(0):
        moments = [clock() for _ in range(100)]

    assert moments == sorted(moments)
    assert abs(moments[0] - before) < timedelta(seconds=10)
    with django_assert_num_queries(1):
        clock.read()


@pytest.mark.parametrize(
    "value",
    ["2026-01-02 03:04:05.678000", "2026-01-02T03:04:05.678", datetime(2026, 1, 2, 3, 4, 5, 678000)],
)
def test_times_of_plain_sql_are_utc(value: datetime | str) -> None:
    """A time without a zone is the database's, which is UTC; one with a zone stays as it is."""
    assert database.as_time(value) == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    zoned = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert database.as_time(zoned) is zoned


def test_times_survive_plain_sql() -> None:
    """What to_database writes comes back as the same instant, through SQL and through the ORM; None stays None."""
    moment = datetime(2026, 7, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    event = Event.objects.create(name="a.b")

    database.execute(DB, "UPDATE djw_event SET deliver_at = %s", [database.to_database(DB, moment)])

    event.refresh_from_db()
    assert event.deliver_at == moment
    [(value,)] = database.execute(DB, "SELECT deliver_at FROM djw_event")
    assert database.as_time(value) == moment
    assert database.to_database(DB, None) is None


# -- transactions ------------------------------------------------------------------------------------------------------


class Unlucky:
    """Fails the first so many times with an error."""

    def __init__(self, times: int, error: OperationalError) -> None:
        self.times = times
        self.error = error
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        Event.objects.create(name="a.b")
        if self.calls <= self.times:
            raise self.error
        return self.calls


LOCKED = OperationalError("database is locked")


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_lost_a_race_is_run_again_as_a_whole() -> None:
    """What an unlucky try wrote is undone, and the next one's result counts."""
    assert database.run_transaction(DB, Unlucky(3, LOCKED)) == 4

    assert Event.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_tries_end() -> None:
    """After the last try the error is raised."""
    work = Unlucky(99, LOCKED)

    with pytest.raises(OperationalError):
        database.run_transaction(DB, work, tries=3)

    assert work.calls == 3
    assert not Event.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_other_errors_are_raised_at_once() -> None:
    """What another try would not mend is not tried again."""
    work = Unlucky(99, OperationalError("no such thing"))

    with pytest.raises(OperationalError):
        database.run_transaction(DB, work)

    assert work.calls == 1


def test_nothing_is_tried_again_inside_somebody_elses_transaction() -> None:
    """Their transaction is broken, and only they can run it again."""
    work = Unlucky(1, LOCKED)

    with pytest.raises(OperationalError), transaction.atomic():
        database.run_transaction(DB, work)

    assert work.calls == 1


@server_only
@pytest.mark.django_db(transaction=True)
def test_deadlocks_are_run_again() -> None:
    """Of two transactions that lock each other out, both do their work in the end."""
    make_lanes(2)
    with second_connection() as other:
        block = transaction.atomic(using=other)
        block.__enter__()
        Lane.objects.using(other).filter(pk=2).update(tail=1)

        def work() -> None:
            Lane.objects.filter(pk=1).update(tail=2)
            Lane.objects.filter(pk=2).update(tail=2)

        thread = Thread(lambda: database.run_transaction(DB, work))
        wait_until_blocked()
        with suppress(OperationalError), ExitStack() as stack:
            stack.push(block.__exit__)
            Lane.objects.using(other).filter(pk=1).update(tail=1)
        thread.result()

    assert set(Lane.objects.values_list("tail", flat=True)) == {2}


def wait_until_blocked() -> None:
    sql = {
        "postgresql": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "mysql": (
            "SELECT CAST(variable_value AS INTEGER) FROM information_schema.global_status "
            "WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'"
        ),
    }
    for _ in range(100_000):
        [(count,)] = database.execute(DB, sql[connection.vendor])
        if count:
            return
    raise AssertionError("nobody waits")


#: Names of the limits on a statement, on an idle transaction and on waiting for a lock; and how to set one for the session.
LIMITS = {
    "postgresql": ("SHOW {}", "SET {} = '{}s'", ("statement_timeout", "idle_in_transaction_session_timeout", "lock_timeout")),
    "mysql": (
        "SELECT @@{}",
        "SET SESSION {} = {}",
        ("max_statement_time", "idle_transaction_timeout", "innodb_lock_wait_timeout"),
    ),
}


def show_limits() -> list[object]:
    show, _, names = LIMITS[connection.vendor]
    return [database.execute(DB, show.format(name))[0][0] for name in names]


def limit_idle_transaction(seconds: int) -> None:
    _, assign, names = LIMITS[connection.vendor]
    database.execute(DB, assign.format(names[1], seconds))


@server_only
@pytest.mark.django_db(transaction=True)
def test_an_engines_transaction_is_bounded() -> None:
    """Statements and idle transactions of an engine have a limit, which ends with the transaction, whatever was set before."""
    limit_idle_transaction(77)
    before = show_limits()
    with database.engine_transaction(DB):
        assert show_limits()[:2] in (["30s", "10s"], [30.0, 10])
    assert show_limits() == before

    with suppress(ZeroDivisionError), database.engine_transaction(DB):
        raise ZeroDivisionError
    assert show_limits() == before


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_frozen_engine_loses_its_locks() -> None:
    """Who holds locks and does nothing more is broken off, also if it has written nothing; then it can begin anew."""
    make_lanes(1)

    def wait_for_lock() -> int:
        with transaction.atomic():
            return len(Lane.objects.select_for_update())

    def freeze() -> None:
        with database.engine_transaction(DB):
            list(Lane.objects.select_for_update())
            limit_idle_transaction(1)
            assert Thread(wait_for_lock).result() == 1
            Lane.objects.count()

    with pytest.raises(Error):
        freeze()

    with database.engine_transaction(DB):
        assert Lane.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_nested_engine_transaction_is_part_of_the_outer_one() -> None:
    """Inside somebody else's transaction nothing is set, and their rollback is ours."""
    with CaptureQueriesContext(connection) as captured, transaction.atomic():
        with database.engine_transaction(DB):
            Event.objects.create(name="a.b")
        transaction.set_rollback(True)

    assert not any(query["sql"].startswith("SET ") for query in captured)
    assert not Event.objects.exists()


# -- locks -------------------------------------------------------------------------------------------------------------


def test_rows_are_locked_in_their_order() -> None:
    """Whoever locks several rows does so in one order."""
    make_lanes(3)

    assert [lane.pk for lane in database.lock_rows(Lane.objects.order_by("pk"), DB)] == [1, 2, 3]
    assert [lane.pk for lane in database.lock_free_rows(Lane.objects.order_by("pk"), DB)] == [1, 2, 3]


@server_only
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lock", [database.lock_rows, database.lock_free_rows])
def test_rows_that_others_keep_locked_are_left_out(lock: Any) -> None:
    """A lock that lasts is not waited for; the transaction goes on, and its later waits are not cut short."""
    make_lanes(3)
    before = show_limits()[2]
    with second_connection() as other, transaction.atomic(using=other):
        list(Lane.objects.using(other).select_for_update().filter(pk=2))
        with transaction.atomic():
            found = [lane.pk for lane in lock(Lane.objects.order_by("pk"), DB)]
            assert show_limits()[2] == before

    assert found == [1, 3]


@server_only
@pytest.mark.django_db(transaction=True)
def test_a_short_lock_is_waited_for() -> None:
    """What is free again within a moment is not left out."""
    make_lanes(1)
    with second_connection() as other:
        block = transaction.atomic(using=other)
        block.__enter__()
        list(Lane.objects.using(other).select_for_update())

        def lock() -> int:
            with transaction.atomic():
                return len(database.lock_rows(Lane.objects.order_by("pk"), DB))

        thread = Thread(lock)
        wait_until_blocked()
        block.__exit__(None, None, None)

        assert thread.result() == 1


# -- texts -------------------------------------------------------------------------------------------------------------

#: Every column that is compared with what an application says.
EXACT = [
    (model, field.name)
    for model in (Body, Event, Delivery, Subscription, WebhookTarget)
    for field in model._meta.fields
    if isinstance(field, ExactCharField)
]


@pytest.mark.parametrize(("model", "name"), EXACT)
def test_texts_are_compared_letter_by_letter(model: type[Model], name: str) -> None:
    """Neither case, nor accents, nor spaces at the end are the same to any column that events and targets are matched by."""
    target = make_target(event="order")
    event = Event.objects.create(name="order", idempotency_digest="order")
    Delivery.objects.create(event=event, target=target, sequence=1)
    Body.objects.create(event=event, format="order", content=b"")
    model._base_manager.update(**{name: "order"})

    found = model._base_manager.filter(**{f"{name}__in": ["Order", "order ", "ordér", "order\t"]})

    assert not found.exists()
    assert model._base_manager.filter(**{name: "order"}).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", [Event, Delivery])
def test_a_partial_index_can_be_taken_away_and_made_again(model: type[Model]) -> None:
    """Migrations go both ways on every database, also where an index is made in another way, or not at all."""
    indexes = [index for index in model._meta.indexes if isinstance(index, PartialIndex)]
    before = list_indexes(model)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.remove_index(model, index)
    without = list_indexes(model)
    with connection.schema_editor() as editor:
        for index in indexes:
            editor.add_index(model, index)

    # For a while MariaDB may have been given another one in the place of one that is gone.
    assert before <= list_indexes(model)
    assert before - without == {
        index.name for index in indexes if index.otherwise or connection.features.supports_partial_indexes
    }


def list_indexes(model: type[Model]) -> set[str]:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    return {name for name, constraint in constraints.items() if constraint["index"]}


# -- bulk --------------------------------------------------------------------------------------------------------------


def test_inserting_leaves_what_is_there() -> None:
    """Rows that would break a unique constraint are passed over, the others are written, and nothing is changed."""
    event = Event.objects.create(name="a.b")
    database.insert_many(DB, Body, ("event", "format", "content"), [(event.pk, "flat", b"\0first\xff")])

    database.insert_many(
        DB, Body, ("event", "format", "content"), [(event.pk, "flat", b"second"), (event.pk, "standard", b"other")]
    )

    found = {body.format: bytes(body.content) for body in Body.objects.all()}
    assert found == {"flat": b"\0first\xff", "standard": b"other"}


def test_a_row_is_inserted_as_its_save_would() -> None:
    """Empty, false and missing values, texts with all that quotes and percents can spoil, and what the database adds."""
    owner = make_user()
    at = datetime(2026, 7, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    for values in (
        {},
        {"owner_id": owner.pk, "is_broadcast": True, "dispatch_cursor": 7, "coalesce": 0.0, "deliver_at": at},
        {"payload": "\"'%s\\ %% ; -- ☃ 𝄞", "identifier": "NULL", "ordering_key": "DEFAULT", "call": "0", "coalesce": 1.5},
    ):
        saved, inserted = Event(name="a.b", **values), Event(name="a.b", **values)
        saved.save(force_insert=True)

        database.insert_row(DB, inserted)

        assert not inserted._state.adding
        assert inserted == Event.objects.get(uid=inserted.uid)
        assert abs(inserted.created_at - saved.created_at) < timedelta(seconds=10)
        there = Event.objects.values()
        different = ("id", "uid", "created_at")
        first, second = ({k: v for k, v in there.get(pk=row.pk).items() if k not in different} for row in (saved, inserted))
        assert first == second


def test_a_row_that_cannot_be_inserted_spoils_the_transaction() -> None:
    """As with ``save``: what follows in the transaction must not be committed by somebody who has caught the error."""
    event = Event.objects.create(name="a.b")
    with pytest.raises(transaction.TransactionManagementError), transaction.atomic():  # noqa: PT012 - the end raises
        with suppress(IntegrityError):
            database.insert_row(DB, Event(name="a.b", uid=event.uid))
        Event.objects.count()


def test_nothing_to_write_costs_nothing(django_assert_num_queries: Any) -> None:
    """Empty lists need no statement."""
    with django_assert_num_queries(0):
        database.insert_many(DB, Body, ("event", "format", "content"), [])
        database.execute_many(DB, "UPDATE djw_lane SET tail = %s WHERE target_id = %s", [])
        database.update_many(DB, Lane, ["tail"], [], match=["target"])
        assert database.read_many(DB, Lane, ["tail"], [], match="target") == []
        assert database.union_all(DB, "SELECT 1", []) == []


def test_one_statement_for_many_rows() -> None:
    """Each row's parameters go to its own run of the statement."""
    make_lanes(3)

    database.execute_many(DB, "UPDATE djw_lane SET tail = %s WHERE target_id = %s", [(pk * 10, pk) for pk in (1, 2, 3)])

    assert list(Lane.objects.order_by("pk").values_list("tail", flat=True)) == [10, 20, 30]


def attempt_rows(count: int) -> list[tuple[Any, ...]]:
    moment = datetime(2026, 7, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    headers = {"x-text": "\"a\\b' {ä} 𝄞 %s", "x-empty": ""}
    row = (1, "event", "https://example.com/?a='b'", moment, 0.1 + 0.2, None, headers, "tab\t, line\n, ☃, %(a)s", "", "", "::1")
    return [(number, *row) for number in range(1, count + 1)]


ATTEMPT = (
    "delivery", "number", "trigger", "url", "started_at", "duration", "status_code", "response_headers", "response_body",
    "error", "detail", "address",
)  # fmt: skip


def test_rows_in_bulk_are_what_models_write(django_assert_num_queries: Any) -> None:
    """Whichever way a value goes to the database, the same comes back: texts, times, numbers, JSON and nulls."""
    Attempt.objects.bulk_create(
        Attempt(**dict(zip(ATTEMPT, (None, *row[1:]), strict=True)) | {"delivery_id": row[0]}) for row in attempt_rows(3)
    )
    expected = list(Attempt.objects.order_by("delivery").values(*ATTEMPT))
    Attempt.objects.all().delete()

    with django_assert_num_queries(1):
        database.insert_many(DB, Attempt, ATTEMPT, attempt_rows(3))

    assert list(Attempt.objects.order_by("delivery").values(*ATTEMPT)) == expected


def test_many_rows_are_updated_at_once() -> None:
    """Each row gets its own values, and one that does not match in every column stays as it is."""
    make_lanes(4)
    Lane.objects.update(holder=7, token=F("pk"))
    moment = datetime(2026, 7, 2, 3, 4, 5, 678901, UTC)

    rows = [(None, moment, "ä" * pk, pk, 7, pk if pk < 4 else 99) for pk in (1, 2, 4)]
    database.update_many(DB, Lane, ("holder", "due_at", "failure"), rows, match=("target", "holder", "token"))

    written = [(None, moment, "ä"), (None, moment, "ää"), (7, None, ""), (7, None, "")]
    assert list(Lane.objects.order_by("pk").values_list("holder", "due_at", "failure")) == written


def test_rows_that_are_large_together_are_written_all_the_same() -> None:
    """However much some rows have, they are written; it may take several statements."""
    rows = [(*row[:8], "x" * (database.JSON_LIMIT // 2), *row[9:]) for row in attempt_rows(3)]

    database.insert_many(DB, Attempt, ATTEMPT, rows)

    assert Attempt.objects.filter(response_body__endswith="xx").count() == 3


@server_only
def test_what_is_too_long_is_refused_in_bulk_too() -> None:
    """Nothing is cut off on its way into the database."""
    make_lanes(1)
    row = [*attempt_rows(1)[0]]
    row[ATTEMPT.index("error")] = "x" * 33

    with pytest.raises(DataError), transaction.atomic():
        database.insert_many(DB, Attempt, ATTEMPT, [row])
    with pytest.raises(DataError), transaction.atomic():
        database.update_many(DB, Lane, ["failure"], [("x" * 65, 1)], match=["target"])


def test_rows_are_read_in_bulk_as_models_have_them(django_assert_num_queries: Any) -> None:
    """Ids, times, truths, nulls and bytes are what the ORM makes of them, in the order of the keys."""
    owner = make_user()
    event = Event.objects.create(name="a.b", owner=owner, is_broadcast=True)
    other = Event.objects.create(name="a.c", expires_at=datetime(2026, 7, 2, 3, 4, 5, 678901, UTC))
    columns = ("id", "uid", "name", "owner", "is_broadcast", "created_at", "expires_at", "erased_at")

    with django_assert_num_queries(1):
        rows = database.read_many(DB, Event, columns, {other.pk, event.pk, 0})

    assert rows == list(Event.objects.order_by("pk").values_list(*columns))


@server_only
@pytest.mark.django_db(transaction=True)
def test_rows_that_are_read_can_be_locked() -> None:
    """Those that somebody else has locked are left out, and nobody else gets the others."""
    make_lanes(3)
    with second_connection() as other, transaction.atomic(using=other):
        database.read_many(other, Lane, ["target"], [2], match="target", lock=True)
        with transaction.atomic():
            assert database.read_many(DB, Lane, ["target"], [3, 2, 1], match="target", lock=True) == [(1,), (3,)]


@server_only
@pytest.mark.django_db(transaction=True)
def test_rows_that_are_locked_for_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """``lock_many`` waits a moment for what somebody else has locked, then locks the others; the transaction goes on."""
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 10)
    make_lanes(3)
    with second_connection() as other, transaction.atomic(using=other):
        database.read_many(other, Lane, ["target"], [2], match="target", lock=True)
        with transaction.atomic():
            assert database.lock_many(DB, Lane, ["target", "tail"], [3, 2, 1], match="target") == [(1, 0), (3, 0)]
            with transaction.atomic(using=DB):
                assert database.lock_many(DB, Lane, ["target"], [3, 1], match="target") == [(1,), (3,)]


def test_what_all_rows_have_in_common_is_given_once() -> None:
    """Constants stand in every row that is inserted, as what they are: texts, numbers, nulls, truths, times and JSON."""
    now = read_clock(DB)
    constants = {"tail": 7, "version": 0, "failure": "☃", "due_at": now, "is_ordered": True, "holder": None}
    others = {"token": 0, "failure_count": 0, "cooldown_count": 0, "disabled_reason": "", "access_token": "", "permission": {}}

    database.insert_many(DB, Lane, ["target"], [(1,), (2,)], constants=constants | others | {"key_checks": {"url": "x"}})

    found = list(Lane.objects.order_by("pk").values_list("pk", *constants, "key_checks"))
    assert found == [(pk, *constants.values(), {"url": "x"}) for pk in (1, 2)]


def test_rows_are_copied_from_another_table() -> None:
    """Each key's row gives one with the columns that were named; what is there already stays as it is."""
    ada, bob = make_user("ada"), make_user("bob")
    targets = [make_target(owner, url=f"http://127.0.0.1/{number}") for number, owner in enumerate((ada, bob, bob))]
    TargetOwner.objects.all().delete()
    TargetOwner.objects.create(pk=targets[0].pk, owner=bob)

    for keys in ([], [targets[0].pk, targets[1].pk, 0]):
        database.copy_many(DB, TargetOwner, {"target": "id", "owner": "owner"}, WebhookTarget, keys)

    assert dict(TargetOwner.objects.values_list("pk", "owner")) == {targets[0].pk: bob.pk, targets[1].pk: bob.pk}


def test_a_union_limits_each_part_alone(django_assert_num_queries: Any) -> None:
    """Every set of parameters gets its own limit, and hundreds of them take a few round trips."""
    make_lanes(250)
    select = "SELECT target_id FROM djw_lane WHERE target_id >= %s ORDER BY target_id LIMIT %s"

    with django_assert_num_queries(3):
        rows = database.union_all(DB, select, [(pk, 2) for pk in range(1, 251)])

    assert [pk for (pk,) in rows] == [pk for first in range(1, 250) for pk in (first, first + 1)] + [250]


@pytest.mark.parametrize("limit", [1, 4, 99])
def test_the_first_of_two_sets_of_rows(limit: int) -> None:
    """They come in the order of their ids, whichever set they are of, no more than asked for, with the columns asked for."""
    events = Event.objects.bulk_create([Event(name=name) for name in ("a", "b", "b", "a", "b", "a")])

    found = database.load_first(DB, Event, ("id", "name"), ("name = 'a'", "name = 'b'"), limit)

    assert [(event.pk, event.name) for event in found] == [(event.pk, event.name) for event in events[:limit]]
    assert "payload" in found[0].get_deferred_fields()


def test_rows_are_loaded_as_the_orm_does() -> None:
    """``load_many`` is ``in_bulk``: all columns, as models have them, and nothing of rows that are not there."""
    targets = [make_target(make_user(name), url=f"http://127.0.0.1/{name}", headers={"x": name}) for name in ("ada", "bob")]
    keys = [target.pk for target in targets] + [0]

    loaded = database.load_many(DB, WebhookTarget, keys)

    assert loaded == WebhookTarget.objects.in_bulk(keys)
    assert {pk: vars(row) | {"_state": None} for pk, row in loaded.items()} == {
        pk: vars(row) | {"_state": None} for pk, row in WebhookTarget.objects.in_bulk(keys).items()
    }


def test_many_rows_get_the_same_values() -> None:
    """Those with these ids, and no others."""
    now = read_clock(DB)
    events = Event.objects.bulk_create([Event(name="a.b", call="x") for _ in range(3)])

    database.set_many(DB, Event, {"call": "", "dispatched_at": now}, [event.pk for event in events[:2]])
    database.set_many(DB, Event, {"call": "y"}, [])

    found = Event.objects.order_by("pk").values_list("call", "dispatched_at")
    assert list(found) == [("", now), ("", now), ("x", None)]


def test_rows_are_locked_with_the_time_of_then() -> None:
    """The ids are of those that are there; without any, the time is still told."""
    event = Event.objects.create(name="a.b")
    before = read_clock(DB)

    now, ids = database.lock_at(DB, Event, [event.pk, 0])
    without_rows, nothing = database.lock_at(DB, Event, [0])

    assert (ids, nothing) == ({event.pk}, set())
    assert before <= now <= without_rows


@server_only
@pytest.mark.django_db(transaction=True)
def test_rows_that_others_have_locked_are_left_out_of_a_lock() -> None:
    """Nobody waits for them."""
    events = Event.objects.bulk_create([Event(name="a.b") for _ in range(2)])
    with second_connection() as other, transaction.atomic(using=other):
        list(Event.objects.using(other).select_for_update().filter(pk=events[0].pk))

        with database.engine_transaction(DB):
            assert database.lock_at(DB, Event, [event.pk for event in events])[1] == {events[1].pk}


def test_a_batch_of_statements_is_written() -> None:
    """In its order, and it is there afterwards."""
    event = Event.objects.create(name="a.b")

    with database.engine_transaction(DB), database.batched(DB):
        database.set_many(DB, Event, {"name": "c.d", "identifier": "x"}, [event.pk])
        database.set_many(DB, Event, {"name": "e.f"}, [event.pk])

    event.refresh_from_db()
    assert (event.name, event.identifier) == ("e.f", "x")


def test_nothing_is_read_in_a_batch() -> None:
    """Where statements are sent together, what one finds is not there yet: it would look as if there were no rows."""
    with (
        pytest.raises(RuntimeError, match="In a batch nothing can be read"),
        database.engine_transaction(DB),
        database.batched(DB),
    ):
        database.read_many(DB, Event, ["name"], [1])


def test_a_batch_fails_as_its_statements_do() -> None:
    """One that fails raises Django's own error, at the end of the batch at the latest, and the transaction is undone."""
    event = Event.objects.create(name="a.b")

    def write() -> None:
        with database.batched(DB):
            database.set_many(DB, Event, {"name": "c.d"}, [event.pk])
            database.execute(DB, "UPDATE djw_event SET uid = NULL")

    with pytest.raises(IntegrityError):
        database.run_transaction(DB, write)

    event.refresh_from_db()
    assert event.name == "a.b"


def test_a_statement_without_rows_returns_none() -> None:
    """An UPDATE has no rows to return."""
    assert database.execute(DB, "UPDATE djw_lane SET tail = 1") == []


@pytest.mark.django_db
def test_the_clock_and_its_expression_agree_to_the_digit() -> None:
    """A time that was just read from the database is not in the future of its own ``DatabaseNow``."""
    target = make_target()
    for _ in range(300):
        Lane.objects.update_or_create(pk=target.pk, defaults={"due_at": read_clock(DB)})
        assert Lane.objects.filter(due_at__lte=DatabaseNow()).exists()
