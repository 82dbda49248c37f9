"""People may retry and cancel a delivery, and each does exactly that."""

import pytest
from django.conf import LazySettings

from djwebhooks.events import fire
from djwebhooks.exceptions import AlreadyFinished, InvalidTarget
from djwebhooks.models import Attempt, Delivery, Event, Lane
from djwebhooks.models.deliveries import Status
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.builders import make_target, make_user


def make_delivery(answer: int, **fields: object) -> Delivery:
    """Return a delivery that was answered with *answer*."""
    make_target(**fields)
    fire("a.b", 1)
    deliver(answer)
    return Delivery.objects.get()


@pytest.mark.django_db
def test_a_failed_delivery_is_retried() -> None:
    """It is sent once more with the same id and the same bytes, and the attempt says that a person wanted it."""
    delivery = make_delivery(500, retry_schedule=[])
    assert (delivery.status, delivery.is_finished) == (Status.FAILED, True)
    delivery.retry()
    assert (delivery.status, delivery.reason, delivery.finished_at) == (Status.PENDING, "", None)
    [request] = deliver()
    delivery.refresh_from_db()

    assert request.headers["webhook-attempt"] == "2"
    assert (delivery.status, delivery.attempt_count) == (Status.SUCCEEDED, 2)
    assert list(delivery.attempts.values_list("number", "trigger", "status_code")) == [(1, "event", 500), (2, "manual", 200)]


@pytest.mark.django_db
def test_a_retry_has_the_whole_schedule_before_it() -> None:
    """After a person's retry the pauses begin anew."""
    delivery = make_delivery(500, retry_schedule=[])
    delivery.target.retry_schedule = [3600]
    delivery.target.save()
    delivery.retry()
    deliver(500)
    delivery.refresh_from_db()

    assert (delivery.status, delivery.attempt_count) == (Status.PENDING, 2)


@pytest.mark.django_db
@pytest.mark.parametrize("status", [500, 400])
def test_each_retry_is_heard_while_an_attempt_is_on_its_way(status: int, settings: LazySettings) -> None:
    """Whatever comes of that one, be it a retry itself, another follows, with the whole schedule before it."""
    settings.DJWEBHOOKS_GIVE_UP_ON = (400,)
    delivery = make_delivery(500, retry_schedule=[0, 0])
    seen: list[str] = []

    def answer(request: Request) -> Reply:
        seen.append(request.headers["webhook-attempt"])
        if len(seen) < 3:
            delivery.retry()
            return Reply(request.key, status=status)
        return Reply(request.key, status=500)

    delivery.retry()
    deliver(answer)
    delivery.refresh_from_db()

    assert (seen, delivery.status) == (["4", "5", "6", "7", "8"], "failed")
    assert set(delivery.attempts.filter(number__in=[4, 5, 6]).values_list("trigger", flat=True)) == {"manual"}


@pytest.mark.django_db
def test_a_waiting_retry_is_made_now() -> None:
    """Of a delivery that waits for its next attempt, that attempt is made at once."""
    delivery = make_delivery(500)
    assert deliver() == []
    delivery.retry()

    assert len(deliver()) == 1


@pytest.mark.django_db
def test_what_succeeded_can_be_sent_again() -> None:
    """A receiver may have lost it."""
    delivery = make_delivery(200)
    delivery.retry()

    assert len(deliver()) == 1


@pytest.mark.django_db
def test_a_cancelled_delivery_is_not_sent_until_retried() -> None:
    """Cancelling ends it, and a retry brings it back."""
    delivery = make_delivery(500)
    delivery.cancel()
    assert (delivery.status, delivery.reason) == (Status.CANCELLED, "cancelled")
    assert delivery.finished_at is not None
    Lane.objects.get().save()
    assert deliver() == []
    delivery.retry()

    assert len(deliver()) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("answer", [200, 410])
def test_what_has_ended_cannot_be_cancelled(answer: int) -> None:
    """Its end stays what it was."""
    delivery = make_delivery(answer)
    before = (delivery.status, delivery.reason, delivery.finished_at)
    with pytest.raises(AlreadyFinished, match=str(delivery.uid)):
        delivery.cancel()
    delivery.refresh_from_db()

    assert (delivery.status, delivery.reason, delivery.finished_at) == before


@pytest.mark.django_db
def test_a_stale_delivery_is_judged_by_its_row() -> None:
    """Whoever looked before it ended cannot cancel it after."""
    delivery = make_delivery(500)
    Delivery.objects.get().retry()
    deliver()

    with pytest.raises(AlreadyFinished):
        delivery.cancel()
    assert Delivery.objects.get().status == Status.SUCCEEDED


@pytest.mark.django_db
def test_a_deleted_targets_delivery_cannot_be_retried() -> None:
    """There is nowhere to send it to."""
    delivery = make_delivery(500)
    delivery.target.delete()

    with pytest.raises(InvalidTarget, match="its target was deleted"):
        Delivery.objects.get().retry()
    with pytest.raises(AlreadyFinished):
        Delivery.objects.get().cancel()
    assert deliver() == []


@pytest.mark.django_db
def test_a_cancelled_head_lets_the_next_of_its_line_go() -> None:
    """On an ordered target a delivery that is cancelled steps aside."""
    make_target(is_ordered=True)
    for number in range(3):
        fire("a.b", number, ordering_key="k")
    assert len(deliver(500)) == 1
    first = Delivery.objects.get(sequence=1)
    first.cancel()

    assert [request.body[-3:] for request in deliver()] == [b":1}", b":2}"]


@pytest.mark.django_db
def test_deliveries_of_an_owner() -> None:
    """An owner's deliveries are those to their targets, whoever's the event is."""
    ada, bob = make_user("ada"), make_user("bob")
    make_target(ada)
    make_target(None, url="http://127.0.0.1:9/system")
    fire("a.b", 1, owner=ada)
    deliver()

    assert Delivery.objects.of_owner(ada).count() == 1
    assert Delivery.objects.of_owner(bob).count() == 0
    assert Delivery.objects.count() == 2


@pytest.mark.django_db
def test_rows_say_what_they_are() -> None:
    """In the admin, in a shell and in a log."""
    delivery = make_delivery(200)

    assert str(delivery) == f"succeeded delivery {delivery.uid}"
    assert str(Attempt(number=2, error="timeout")) == "attempt 2: timeout"
    assert str(Attempt(number=1, status_code=200)) == "attempt 1: 200"
    assert str(Event.objects.get().bodies.get()) == f"standard+owner of {delivery.event_id}"
    assert [Attempt(status_code=code, error=error).is_success for code, error in [(204, ""), (300, ""), (None, "timeout")]] == [
        True,
        False,
        False,
    ]


@pytest.mark.django_db
def test_a_retry_overtakes_nothing_of_its_key() -> None:
    """On an ordered target, a delivery that waits behind another of its key goes on waiting when somebody retries it."""
    make_target(is_ordered=True, retry_schedule=[3600])
    first, second = (fire("a.b", number, ordering_key="k") for number in range(2))
    deliver(500)

    Delivery.objects.get(event=second).retry()

    assert deliver() == []
    Delivery.objects.get(event=first).retry()
    assert [request.headers["webhook-id"] for request in deliver()] == [str(first.uid), str(second.uid)]


@pytest.mark.django_db
def test_a_retry_of_what_stepped_aside_is_due_at_once() -> None:
    """A delivery that failed for good is tried again now, though a later one of its key waits for its own retry."""
    target = make_target(is_ordered=True, retry_schedule=[])
    first, second = (fire("a.b", number, ordering_key="k") for number in range(2))
    deliver(lambda request: Reply(request.key, status=500 if request.headers["webhook-id"] == str(first.uid) else 429))
    target.retry_schedule = [3600]
    target.save()
    Delivery.objects.get(event=second).retry()
    deliver(500)

    Delivery.objects.get(event=first).retry()

    assert [request.headers["webhook-id"] for request in deliver()] == [str(first.uid)]
    assert Delivery.objects.get(event=second).status == Status.PENDING
