"""A replay says which deliveries it is about, who asked for it and how far it has come."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone

from djwebhooks.database import DatabaseNow
from djwebhooks.events import fire
from djwebhooks.exceptions import AlreadyFinished, InvalidReplay
from djwebhooks.models import Delivery, Event, Replay, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.replays import REPLAYABLE, Criteria, Plan, make_criteria
from djwebhooks.replays import carry_on
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply
from tests.builders import URL, make_deliveries, make_target, make_user

NOW = datetime(2026, 9, 21, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db


def count(**which: Any) -> int:
    which.setdefault("everybody", not {"targets", "owner"}.intersection(which))
    return Delivery.objects.plan(make_criteria(**which)).count


def fail(name: str, target: WebhookTarget | None = None, **fields: Any) -> Event:
    """Fire an event whose deliveries fail."""
    event = fire(name, 1, owner=target.owner if target is not None else None, **fields)
    deliver(500)
    return event


# -- which deliveries --------------------------------------------------------------------------------------------------


def test_criteria_choose_by_event() -> None:
    """A name is that name alone, in the same letters; a pattern is all below it; a uid is one event."""
    make_target(retry_schedule=[])
    events = [fail(name) for name in ("a", "a.b", "a.b.c", "A.b", "ab.c")]

    assert count(event="a.b") == 1
    assert count(event="a.*") == 2
    assert count(event="*") == count() == 5
    assert count(event=events[0].uid) == count(event=str(events[0].uid)) == 1


def test_criteria_choose_by_owner_and_by_target() -> None:
    """An owner's are those to all of their targets, hidden ones too; of everybody it must be said."""
    ada, bob = make_user("ada"), make_user("bob")
    target, other = make_target(ada, retry_schedule=[]), make_target(bob, retry_schedule=[])
    fire("a.b", 1, owner=ada, urls=[f"{URL}/hidden"])
    WebhookTarget.objects.filter(is_hidden=True).update(retry_schedule=[])
    fail("a.b", target)
    fail("a.b", other)

    assert count(owner=ada) == 2
    assert count(targets=[target]) == 1
    assert count(targets=[target, other]) == 2
    assert count(everybody=True) == 3


def test_criteria_choose_by_time_and_status() -> None:
    """*since* is included, *until* is not; several statuses may be named."""
    target = make_target()
    for number, delivery in enumerate(make_deliveries(target, 4, Status.FAILED)):
        status = list(REPLAYABLE)[number]
        Delivery.objects.filter(pk=delivery.pk).update(created_at=NOW + timedelta(hours=number), status=status)

    assert [count(status=status) for status in REPLAYABLE] == [1, 1, 1, 1]
    assert count(status=REPLAYABLE) == 4
    assert count(status=REPLAYABLE, since=NOW + timedelta(hours=1), until=NOW + timedelta(hours=3)) == 2


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ({}, "give one of targets, owner and everybody=True"),
        ({"owner": 1, "everybody": True}, "give one of targets, owner and everybody=True"),
        ({"targets": []}, "There is no target to replay to"),
        ({"targets": [WebhookTarget()] * 1001}, "may name 1000 targets, not 1001"),
        ({"everybody": True, "status": "pending"}, "failed, expired, cancelled, succeeded, not 'pending'"),
        ({"everybody": True, "status": []}, "failed, expired, cancelled, succeeded, not ''"),
        ({"everybody": True, "event": "no name"}, "'no name' is neither the name of an event"),
        ({"everybody": True, "event": "not-a-uid"}, "'not-a-uid' is neither the name of an event"),
        ({"everybody": True, "since": datetime(2026, 1, 1)}, "since must be a time with a time zone"),
        ({"everybody": True, "until": datetime(2026, 1, 1)}, "until must be a time with a time zone"),
        ({"everybody": True, "since": datetime(1, 1, 1, tzinfo=UTC)}, "since is 0001-01-01 .*, which is too far away"),
        ({"everybody": True, "until": datetime(9999, 12, 31, tzinfo=UTC)}, "until is 9999-12-31 .*, which is too far away"),
        ({"everybody": True, "since": NOW, "until": NOW}, "until .* must be later than since"),
    ],
)
def test_criteria_that_cannot_be_are_refused(which: dict[str, Any], message: str) -> None:
    """With the value, and what would do."""
    with pytest.raises(InvalidReplay, match=message):
        make_criteria(**which)


@pytest.mark.parametrize("rate", [0, -1, 1e9, "5", True, float("nan")])
def test_a_rate_that_cannot_be_is_refused(rate: Any) -> None:
    """It is a number of deliveries per second."""
    with pytest.raises(InvalidReplay, match="deliveries per second from"):
        make_target().replay(rate=rate)


def test_criteria_are_kept_as_text() -> None:
    """What is written is read again; what a later version may have added is left out."""
    criteria = Criteria(("failed", "expired"), ("0199",), "5", True, since=NOW, until=NOW, event="a.*")

    assert Criteria.from_text(criteria.as_text()) == criteria
    assert Criteria.from_text('{"status": ["failed"], "colour": "red"}') == Criteria()


def test_a_replay_says_what_it_is() -> None:
    """In the admin, in a shell and in a log."""
    words = [
        Criteria(targets=("0199",), event="a.*", since=NOW),
        Criteria(("failed", "expired"), targets=("1", "2"), until=NOW),
        Criteria(owner="5"),
        Criteria(),
        Criteria(is_owned=True),
        Criteria(delivery="0199"),
    ]

    assert [str(Replay(criteria_text=criteria.as_text())) for criteria in words] == [
        "replay of failed deliveries to target 0199 of a.* since 2026-09-21 12:00:00 UTC",
        "replay of failed or expired deliveries to 2 targets until 2026-09-21 12:00:00 UTC",
        "replay of failed deliveries to the targets of owner 5",
        "replay of failed deliveries to everybody's targets",
        "replay of failed deliveries to everybody's targets but the system's",
        "replay of delivery 0199",
    ]


# -- what is left out --------------------------------------------------------------------------------------------------


def test_events_that_have_expired_are_left_out_unless_said() -> None:
    """An event's ``expires_at`` counts in a replay; who names ``expired`` wants it all the same, and then it is sent."""
    target = make_target(retry_schedule=[])
    fail("a.b", expires_at=timezone.now() + timedelta(hours=1))
    Event.objects.update(expires_at=DatabaseNow())
    Delivery.objects.update(expires_at=DatabaseNow())
    everybody = make_criteria(everybody=True)

    assert Delivery.objects.plan(everybody) == Plan(expired=1)
    assert Delivery.objects.plan(everybody).left_out == {"expired": 1, "erased": 0, "gone": 0}
    assert target.replay(status=["failed", "expired"]) == 1
    assert len(deliver()) == 1


def test_what_is_replayed_expires_as_it_would_have() -> None:
    """A time that has not come yet stays, so that retries do not go on beyond it; one that has passed is dropped."""
    make_target(retry_schedule=[])
    fail("a.b", expires_at=timezone.now() + timedelta(hours=1))
    fail("a.b", expires_at=timezone.now() + timedelta(hours=1))
    first, second = Delivery.objects.order_by("pk")
    Delivery.objects.filter(pk=second.pk).update(expires_at=DatabaseNow())
    first.retry()
    second.retry()

    assert first.expires_at is not None
    assert second.expires_at is None


def test_what_has_no_target_or_event_any_more_is_left_out() -> None:
    """There is nowhere to send it, or nothing to send."""
    target, other = make_target(retry_schedule=[]), make_target(url=f"{URL}/other", retry_schedule=[])
    fail("a.b")
    fail("a.c")
    other.delete()
    Event.objects.filter(name="a.c")._raw_delete("default")

    plan = Delivery.objects.plan(make_criteria(everybody=True))
    assert (plan.count, plan.gone) == (1, 3)
    assert target.replay() == 1


# -- who, and how far --------------------------------------------------------------------------------------------------


def test_who_asked_is_recorded() -> None:
    """A user by name and primary key, anybody else by a text, and by which way."""
    target = make_target(ada := make_user("ada"), retry_schedule=[])
    fail("a.b", target)
    target.replay(by=ada, through="admin")
    target.replay(by="the night shift")
    target.replay()
    Delivery.objects.get().retry(by=ada, through="api")

    rows = Replay.objects.order_by("pk").values_list("requested_by", "requester_pk", "requested_through", "is_retry", "owner")
    assert list(rows) == [
        ("ada", str(ada.pk), "admin", False, ada.pk),
        ("the night shift", "", "python", False, ada.pk),
        ("", "", "python", False, ada.pk),
        ("ada", str(ada.pk), "api", True, ada.pk),
    ]


def test_a_replay_has_an_owner_if_it_is_about_one_alone() -> None:
    """So an owner sees the replays of their own deliveries, and no other's."""
    ada, bob = make_user("ada"), make_user("bob")
    targets = [make_target(ada), make_target(bob), make_target(None)]
    replays = [
        Delivery.objects.replay(make_criteria(**which))
        for which in ({"owner": bob}, {"targets": targets[:2]}, {"targets": targets[2:]}, {"everybody": True})
    ]

    assert [Replay.objects.get(pk=replay.pk).owner for replay in replays] == [bob, None, None, None]
    assert list(Replay.objects.of_owner(bob)) == [replays[0]]


def test_a_replay_of_nothing_is_finished() -> None:
    """It is recorded that somebody asked."""
    replay = Delivery.objects.replay(make_criteria(targets=[make_target()]))

    assert (replay.state, replay.count, replay.progress()) == ("finished", 0, {})
    with pytest.raises(AlreadyFinished, match="all of it was sent already"):
        replay.cancel()


def test_progress_is_what_became_of_the_deliveries(settings: LazySettings) -> None:
    """Those it has not come to wait; the others have the status that they have."""
    settings.DJWEBHOOKS_REPLAY_RATE = 2
    target = make_target()
    make_deliveries(target, 5, Status.FAILED)
    target.replay()
    replay = Replay.objects.get()
    assert replay.progress() == {"waiting": 5}
    carry_on("default")
    Replay.objects.update(next_at=timezone.now() + timedelta(hours=1))
    answers = iter([200, 410])
    deliver(lambda request: Reply(request.key, status=next(answers)))
    replay.refresh_from_db()

    assert replay.progress() == {"waiting": 3, "succeeded": 1, "failed": 1}
    assert replay.state == "running"
    replay.cancel()
    assert replay.state == "cancelled"
    with pytest.raises(AlreadyFinished, match="it was cancelled already"):
        replay.cancel()


def test_a_retry_can_be_cancelled_too() -> None:
    """Until it is sent; then the delivery is as it was."""
    target = make_target(retry_schedule=[])
    fail("a.b", target)
    delivery = Delivery.objects.get()
    delivery.retry()
    delivery.replay.cancel()
    deliver()
    delivery.refresh_from_db()

    assert (delivery.status, delivery.reason) == ("failed", "replay_cancelled")


def test_a_retry_of_what_was_pending_stays_pending() -> None:
    """There is no other state that it could be put back to."""
    make_target()
    fail("a.b")
    delivery = Delivery.objects.get()
    delivery.retry()

    with pytest.raises(AlreadyFinished):
        delivery.replay.cancel()
