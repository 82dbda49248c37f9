"""What waits for a target when the target changes: the rules of docs/explanation/changes.rst."""

from collections.abc import Callable

import pytest
from django.core.exceptions import ValidationError

from djwebhooks import signing
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply, Request
from tests.builders import URL, make_target, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def target() -> WebhookTarget:
    """A target with two deliveries that were tried once and wait for their retries."""
    target = make_target(make_user(), event="a.*", retry_schedule=[3600], headers={"x-key": "old"})
    for name in ("a.b", "a.c"):
        fire(name, {"n": 1}, owner=target.owner)
    deliver(500)
    assert Delivery.objects.pending().count() == 2
    return target


def send_all(answer: int = 200) -> list[Request]:
    """Send whatever waits, as when its time has come."""
    for delivery in Delivery.objects.pending():
        delivery.retry()
    return deliver(answer)


def change(target: WebhookTarget, **fields: object) -> None:
    for name, value in fields.items():
        setattr(target, name, value)
    target.full_clean(exclude=["digest"])
    target.save()


def test_a_new_url_gets_what_waits(target: WebhookTarget) -> None:
    """Whoever has moved finds it at the new address, with the ids that it had."""
    ids = {str(uid) for uid in Delivery.objects.values_list("event__uid", flat=True)}
    change(target, target_url=f"{URL}/new")
    requests = send_all()

    assert [request.url for request in requests] == [f"{URL}/new"] * 2
    assert {request.headers["webhook-id"] for request in requests} == ids


def test_a_new_secret_signs_what_waits(target: WebhookTarget) -> None:
    """With no overlap the old secret, which others may know, signs nothing more."""
    old = target.secret
    target.rotate_secret(overlap=0)

    for request in send_all():
        signing.verify(request.body, request.headers, target.secret)
        with pytest.raises(signing.InvalidSignature):
            signing.verify(request.body, request.headers, old)


def test_new_headers_go_with_what_waits(target: WebhookTarget) -> None:
    """They are read when it is sent."""
    change(target, headers={"x-key": "new"})

    assert [request.headers["x-key"] for request in send_all()] == ["new"] * 2


def test_the_owner_cannot_change(target: WebhookTarget) -> None:
    """The new one would see what was sent for the old one."""
    with pytest.raises(ValidationError, match="keeps its owner"):
        change(target, owner=make_user("bob"))


@pytest.mark.parametrize("fields", [{"events": ["b.*"]}, {"events": []}, {"identifier": "p-42"}], ids=str)
def test_what_it_wants_counts_at_dispatch(target: WebhookTarget, fields: dict[str, object]) -> None:
    """What was dispatched while it was wanted is sent; what is dispatched afterwards goes by the new wish."""
    change(target, **fields)
    fire("a.b", 3, owner=target.owner)

    assert len(send_all()) == 2
    assert Delivery.objects.count() == 2


def test_another_envelope_writes_the_same_event_anew(target: WebhookTarget) -> None:
    """It keeps its id; the bytes of the first format stay as they were."""
    event = Event.objects.earliest("pk")
    before = [(body.format, bytes(body.content)) for body in event.bodies.all()]
    change(target, envelope="flat")
    bodies = [request.body for request in send_all()]

    assert [b'"type"' not in body and b'"event"' in body for body in bodies] == [True, True]
    assert event.bodies.count() == 2
    assert [(body.format, bytes(body.content)) for body in event.bodies.exclude(format="flat")] == before


def test_what_waits_is_lined_up_when_the_target_becomes_ordered() -> None:
    """One at a time, in the order of their sequence, and all at once again when it is not ordered any more."""
    target = make_target(retry_schedule=[3600])
    for number in range(3):
        fire("a.b", number)
    deliver(500)
    change(target, is_ordered=True)
    for delivery in Delivery.objects.all():
        delivery.retry()
    assert [request.headers["webhook-sequence"] for request in deliver(500)] == ["1"]
    change(target, is_ordered=False)

    assert [request.headers["webhook-sequence"] for request in deliver()] == ["2", "3"]


def test_a_new_schedule_counts_from_the_next_failure_on(target: WebhookTarget) -> None:
    """What would have been tried again is given up then, if the new one has no more."""
    change(target, retry_schedule=[])
    assert Delivery.objects.pending().count() == 2
    send_all(500)

    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.FAILED}


def test_a_new_rate_limit_counts_from_the_next_request_on(target: WebhookTarget) -> None:
    """One in an hour is one in an hour, however many wait."""
    change(target, rate_limit=1 / 3600)

    assert len(send_all()) == 1


def test_a_paused_target_keeps_what_waits(target: WebhookTarget) -> None:
    """It is held, new events too, and goes when the target is resumed."""
    target.pause()
    fire("a.b", 3, owner=target.owner)
    assert send_all() == []
    target.resume()

    assert len(send_all()) == 3


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda target: target.delete(), "target_deleted"),
        (lambda target: target.owner.delete(), "target_deleted"),
        (lambda target: WebhookTarget.objects.deregister(target.target_url, owner=target.owner), "deregistered"),
    ],
    ids=["deleted", "owner deleted", "deregistered"],
)
def test_a_target_that_ends_cancels_what_waits(
    target: WebhookTarget, end: Callable[[WebhookTarget], object], reason: str
) -> None:
    """It has its reason, and nothing more is sent."""
    delivery_ids = list(Delivery.objects.values_list("pk", flat=True))
    end(target)
    fire("a.b", 3)

    assert deliver() == []
    rows = Delivery.objects.filter(pk__in=delivery_ids).values_list("status", "reason")
    assert list(rows) == [(Status.CANCELLED, reason)] * 2


def test_what_is_in_flight_goes_on_as_it_was_made(target: WebhookTarget) -> None:
    """A change reaches the next request; what has arrived has arrived."""
    Delivery.objects.latest("pk").cancel()
    delivery = Delivery.objects.earliest("pk")
    delivery.retry()

    def move_meanwhile(request: Request) -> Reply:
        change(target, target_url=f"{URL}/new")
        return Reply(request.key, status=200)

    assert [request.url for request in deliver(move_meanwhile)] == [URL]
    assert delivery.attempts.latest("number").url == URL
    delivery.refresh_from_db()
    assert delivery.status == Status.SUCCEEDED


def test_nothing_more_is_recorded_of_a_target_that_is_deleted_meanwhile(target: WebhookTarget) -> None:
    """Its log has come to an end: what was cancelled stays so, and has no further attempt."""

    def delete_meanwhile(request: Request) -> Reply:
        WebhookTarget.objects.filter(pk=target.pk).delete()
        return Reply(request.key, status=200)

    Delivery.objects.latest("pk").cancel()
    delivery = Delivery.objects.earliest("pk")
    delivery.retry()

    assert len(deliver(delete_meanwhile)) == 1
    delivery.refresh_from_db()
    assert (delivery.status, delivery.reason, delivery.attempts.count()) == (Status.CANCELLED, "target_deleted", 1)


@pytest.mark.parametrize(
    ("status", "headers"),
    [(410, {}), (500, {"webhook-delivery": "disable"}), (503, {"retry-after": "3600"})],
    ids=["gone", "disable", "silence"],
)
def test_an_address_that_was_left_speaks_for_itself_alone(target: WebhookTarget, status: int, headers: dict[str, str]) -> None:
    """What it says about the whole target, while that has moved, is not the new receiver's word: that one gets the event now."""
    Delivery.objects.latest("pk").cancel()
    delivery = Delivery.objects.earliest("pk")
    delivery.retry()

    def move_meanwhile(request: Request) -> Reply:
        if request.url != URL:
            return Reply(request.key, status=200)
        change(target, target_url=f"{URL}/new")
        return Reply(request.key, status=status, headers=headers)

    assert [request.url for request in deliver(move_meanwhile)] == [URL, f"{URL}/new"]
    target = WebhookTarget.objects.get()
    assert (target.health.disabled_at, target.health.held_until) == (None, None)
    delivery.refresh_from_db()
    assert (delivery.status, delivery.attempts.get(number=2).status_code) == (Status.SUCCEEDED, status)


def test_a_success_at_an_address_that_was_left_is_one(target: WebhookTarget) -> None:
    """It has arrived; that the old receiver wants no more is another matter."""
    Delivery.objects.latest("pk").cancel()
    delivery = Delivery.objects.earliest("pk")
    delivery.retry()

    def move_meanwhile(request: Request) -> Reply:
        change(target, target_url=f"{URL}/new")
        return Reply(request.key, status=200, headers={"webhook-delivery": "disable"})

    assert [request.url for request in deliver(move_meanwhile)] == [URL]
    assert WebhookTarget.objects.get().state == "healthy"
    delivery.refresh_from_db()
    assert delivery.status == Status.SUCCEEDED


def test_a_retry_goes_to_the_target_as_it_is_then(target: WebhookTarget) -> None:
    """Long after the delivery has ended, too."""
    send_all()
    change(target, target_url=f"{URL}/new", headers={"x-key": "new"})
    target.replay(status="succeeded")

    assert {(request.url, request.headers["x-key"]) for request in deliver()} == {(f"{URL}/new", "new")}
