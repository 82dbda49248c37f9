"""Machines whose clocks are wrong, and nights when the clocks are changed: the database's time decides."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User

from djwebhooks import dispatch
from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidEvent
from djwebhooks.lanes import lease_seconds
from djwebhooks.models import Attempt, Delivery, Event, Lane, WebhookTarget, Worker
from djwebhooks.retry import parse_retry_after
from djwebhooks.signing import key, sign_all
from djwebhooks.worker import work
from tests.engines.processes import wait_until
from tests.faults.books import check_books
from tests.faults.clocks import database_clock_at
from tests.faults.ledger import Answer, Ledger
from tests.faults.processes import Launcher
from tests.faults.world import LOOSE, ON_RQ, PATHS, fire_some

pytestmark = pytest.mark.django_db(transaction=True)

HOUR = 3600.0
#: What a slow answer to the question for the database's time may make of it.
SLACK = timedelta(minutes=5)
hours = pytest.mark.parametrize("clock", [HOUR, -HOUR], ids=["ahead", "behind"])
#: In the night to Sunday the hour from two to three comes twice.
AMSTERDAM = ZoneInfo("Europe/Amsterdam")


def all_is_sent() -> bool:
    return not Delivery.objects.pending().exists() and not Event.objects.waiting().exists()


# -- a worker's machine ------------------------------------------------------------------------------------------------


@hours
@pytest.mark.parametrize("wrong_one", ["holds", "looks"])
def test_a_wrong_clock_steals_no_lease_and_loses_none(
    launcher: Launcher, ledger: Ledger, owner: User, clock: float, wrong_one: str
) -> None:
    """While one worker waits for answers, another one looks for dead workers; whichever is wrong, both keep what they have."""
    holding, looking = (clock, 0.0) if wrong_one == "holds" else (0.0, clock)
    ledger.decide = lambda arrival: Answer(None)
    fire_some(owner)
    holder = launcher.command("webhooks", "work", clock=holding)
    wait_until(lambda: len(ledger.entries) == len(PATHS), "one request is on its way to each target")
    latest = DatabaseNow() + timedelta(seconds=lease_seconds())
    assert Worker.objects.filter(expires_at__gt=DatabaseNow(), expires_at__lte=latest).count() == 1

    other = launcher.command("webhooks", "work", "--burst", clock=looking)
    assert other.wait() == 0, other.output

    assert any("lanes.reap" in statement for statement in other.statements)
    assert Lane.objects.filter(holder__isnull=False).count() == len(PATHS)
    ledger.decide = lambda arrival: Answer()
    ledger.answer_waiting()
    wait_until(all_is_sent, "the holder sends the rest")
    holder.stop()
    assert holder.wait() == 0, holder.output
    assert launcher.command("webhooks", "work", "--burst").wait() == 0  # Who stops leaves its lanes to be looked at.
    assert not check_books(ledger).repeated


@hours
def test_all_times_are_the_databases(launcher: Launcher, ledger: Ledger, owner: User, clock: float) -> None:
    """Signatures, attempts, retries and what a receiver asks for: nothing that is sent or kept has the machine's time."""
    until = read_clock("default").replace(microsecond=0) + timedelta(minutes=30)
    wait = Answer(503, retry_after=format_datetime(until, usegmt=True))
    ledger.decide = lambda arrival: wait if arrival.path == LOOSE else Answer()
    before = read_clock("default") - SLACK
    event = fire("thing.happened", {}, owner=owner)

    worker = launcher.command("webhooks", "work", "--burst", clock=clock)
    assert worker.wait() == 0, worker.output

    after = read_clock("default") + SLACK
    [target] = WebhookTarget.objects.filter(is_ordered=False)
    for entry in ledger.entries:
        timestamp = int(entry.arrival.headers["webhook-timestamp"])
        assert int(before.timestamp()) <= timestamp <= after.timestamp()
        secret = WebhookTarget.objects.get(target_url=ledger.url_for(entry.arrival.path)).secret
        assert entry.arrival.headers["webhook-signature"] == sign_all(
            [key(secret)], str(event.uid), timestamp, entry.arrival.body
        )
    for started_at in Attempt.objects.values_list("started_at", flat=True):
        assert before <= started_at <= after
    for finished_at in Delivery.objects.exclude(target=target).values_list("finished_at", flat=True):
        assert before <= finished_at <= after
    assert abs(target.lane.held_until - until) < timedelta(seconds=1)
    assert Delivery.objects.pending().get().due_at >= until - timedelta(seconds=1)


@hours
def test_a_wrong_clock_is_neither_early_nor_late(launcher: Launcher, ledger: Ledger, owner: User, clock: float) -> None:
    """What is due by the database's clock is sent, and what is not due yet waits."""
    now = read_clock("default")
    due = fire("thing.happened", {"n": 1}, owner=owner, deliver_at=now - timedelta(minutes=30))
    planned = fire("thing.happened", {"n": 2}, owner=owner, deliver_at=now + timedelta(minutes=30))
    expired = fire("thing.happened", {"n": 3}, owner=owner, expires_at=now - timedelta(minutes=30))
    lasting = fire("thing.happened", {"n": 4}, owner=owner, expires_at=now + timedelta(minutes=30))

    worker = launcher.command("webhooks", "work", "--burst", clock=clock)
    assert worker.wait() == 0, worker.output

    assert {entry.arrival.id for entry in ledger.entries} == {str(due.uid), str(lasting.uid)}
    assert list(Event.objects.waiting()) == [planned]
    assert set(Delivery.objects.filter(event=expired).values_list("status", flat=True)) == {"expired"}


@hours
def test_keys_end_by_the_databases_clock(launcher: Launcher, ledger: Ledger, owner: User, clock: float) -> None:
    """An application whose clock is wrong rotates a secret: the old one signs beside the new one for as long as it said."""
    application = launcher.call("tests.faults.world.rotate_secrets", HOUR / 2, clock=clock)
    assert application.wait() == 0, application.output
    event = fire("thing.happened", {}, owner=owner)

    work(burst=True, threaded=False)

    signatures = [e.arrival.headers["webhook-signature"] for e in ledger.entries if e.arrival.id == str(event.uid)]
    assert [len(signature.split()) for signature in signatures] == [2] * len(PATHS)
    assert not Delivery.objects.filter(status="expired").exists()
    with database_clock_at(read_clock("default") + timedelta(hours=0.75)):
        now = read_clock("default")
    assert [len(target.keyring.live(now)) for target in WebhookTarget.objects.all()] == [1] * len(PATHS)


@hours
def test_a_wrong_clock_retries_in_time_on_rq(launcher: Launcher, ledger: Ledger, owner: User, redis: str, clock: float) -> None:
    """A job plans the next one by the clock that the scheduler beside it reads, for the time that the database means."""
    WebhookTarget.objects.update(retry_schedule=[3])
    ledger.decide = lambda arrival: Answer(500 if arrival.attempt == 1 else 200)
    assert launcher.call("tests.faults.world.add_authors", 1, **ON_RQ).wait() == 0

    launcher.command("rqworker", "default", "--with-scheduler", clock=clock, **ON_RQ)

    wait_until(lambda: Delivery.objects.filter(status="succeeded").count() == len(PATHS), "the retries are made")
    for delivery in Delivery.objects.all():
        first, second = delivery.attempts.values_list("started_at", flat=True)
        assert second - first >= timedelta(seconds=2.4)  # Of the delay, a fifth is chance.


# -- nights ------------------------------------------------------------------------------------------------------------


def in_amsterdam(day: int, hour: int, minute: int, fold: int = 0) -> datetime:
    return datetime(2026, 10, day, hour, minute, fold=fold, tzinfo=AMSTERDAM)


def names_sent() -> set[str]:
    dispatch.dispatch("default")
    return set(Event.objects.filter(dispatched_at__isnull=False).values_list("name", flat=True))


def test_the_hour_that_comes_twice_is_two_hours(owner: User) -> None:
    """Of two events for half past two in the night when the clocks go back, each is sent at its own."""
    first, second = in_amsterdam(25, 2, 30), in_amsterdam(25, 2, 30, fold=1)
    fire("night.first", {}, owner=owner, deliver_at=first)
    fire("night.second", {}, owner=owner, deliver_at=second)

    for moment, sent in [
        (in_amsterdam(25, 2, 15), set()),
        (in_amsterdam(25, 2, 45), {"night.first"}),
        (in_amsterdam(25, 2, 15, fold=1), {"night.first"}),
        (in_amsterdam(25, 2, 45, fold=1), {"night.first", "night.second"}),
    ]:
        with database_clock_at(moment.astimezone(UTC)):
            assert names_sent() == sent
    saved = dict(Event.objects.values_list("name", "deliver_at"))
    assert saved == {"night.first": first.astimezone(UTC), "night.second": second.astimezone(UTC)}


def test_an_event_may_expire_in_the_hour_that_comes_twice(owner: User) -> None:
    """Which of two times is the later one is not what the clocks on the walls show."""
    first, second = in_amsterdam(25, 2, 45), in_amsterdam(25, 2, 15, fold=1)

    fire("night.fell", {}, owner=owner, deliver_at=first, expires_at=second)

    with pytest.raises(InvalidEvent, match="must be later than"):
        fire("night.fell", {}, owner=owner, deliver_at=second, expires_at=first)


def test_the_hour_that_is_left_out_does_not_lose_what_was_planned_in_it(owner: User) -> None:
    """Half past two in the night when the clocks go forward is half past three."""
    fire("night.planned", {}, owner=owner, deliver_at=datetime(2027, 3, 28, 2, 30, tzinfo=AMSTERDAM))

    with database_clock_at(datetime(2027, 3, 28, 1, 15, tzinfo=UTC)):
        assert names_sent() == set()
    with database_clock_at(datetime(2027, 3, 28, 1, 45, tzinfo=UTC)):
        assert names_sent() == {"night.planned"}


def test_a_retry_across_the_change_is_not_an_hour_off(ledger: Ledger, owner: User) -> None:
    """An hour after half past two is an hour later, whatever the clocks on the walls say."""
    WebhookTarget.objects.update(retry_schedule=[HOUR])
    ledger.decide = lambda arrival: Answer(500 if arrival.attempt == 1 else 200)
    fire("night.fell", {}, owner=owner)

    with database_clock_at(in_amsterdam(25, 2, 30).astimezone(UTC)):
        work(burst=True, threaded=False)
    assert len(ledger.entries) == len(PATHS)
    # The delay has a fifth of chance either way.
    with database_clock_at(in_amsterdam(25, 2, 15, fold=1).astimezone(UTC)):
        work(burst=True, threaded=False)
    assert len(ledger.entries) == len(PATHS)
    with database_clock_at(in_amsterdam(25, 2, 45, fold=1).astimezone(UTC)):
        work(burst=True, threaded=False)

    assert len(ledger.entries) == 2 * len(PATHS)
    assert all_is_sent()


def test_a_leap_second_is_no_error() -> None:
    """A receiver that names the sixty-first second of a minute is as good as one that names none."""
    assert parse_retry_after("Sat, 31 Dec 2016 23:59:60 GMT", datetime(2016, 12, 31, 23, 59, tzinfo=UTC)) is None
