"""A target is one by its owner, address and identifier, is refused what cannot be, and leaves its log when it is deleted."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.models import Attempt, Delivery, Event, Lane, Subscription, WebhookTarget
from djwebhooks.testing import deliver, fired
from tests.authentication.test_kinds import OAUTH2
from tests.builders import URL, make_target, make_user

register = WebhookTarget.objects.register


# -- uniqueness and checks --------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("has_owner", [True, False])
def test_a_target_is_unique_by_owner_address_and_identifier(has_owner: bool) -> None:
    """Also without owner, and also when rows are made in bulk or changed."""
    owner = make_user() if has_owner else None
    target = make_target(owner, identifier="i")
    for work in (
        lambda: make_target(owner, identifier="i"),
        lambda: WebhookTarget.objects.bulk_create([WebhookTarget(owner=owner, target_url=URL, identifier="i")]),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            work()
    other = make_target(owner, identifier="j")
    other.identifier = "i"
    with pytest.raises(IntegrityError), transaction.atomic():
        other.save(update_fields=["identifier"])

    assert list(WebhookTarget.objects.filter(identifier="i")) == [target]


@pytest.mark.django_db
def test_bulk_create_saves_events() -> None:
    """Targets that are made in bulk are subscribed like others."""
    made = WebhookTarget.objects.bulk_create([WebhookTarget(target_url=f"{URL}/{n}", event="a.b") for n in range(3)])

    assert [target.events for target in WebhookTarget.objects.filter(pk__in=[t.pk for t in made])] == [["a.b"]] * 3
    assert len({target.digest for target in made}) == 3


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"headers": []}, "Headers are an object"),
        ({"headers": {"x": 1}}, "Headers are an object"),
        ({"headers": {"": "x"}}, "'' is not the name"),
        ({"headers": {"a b": "x"}}, "'a b' is not the name"),
        ({"headers": {"a\r\nb": "x"}}, "is not the name"),
        ({"headers": {"X-A": "x\r\ny: z"}}, "'X-A' has characters"),
        ({"headers": {"X-A": "☃"}}, "'X-A' has characters"),
        ({"headers": {"Host": "x"}}, "'Host' is set by djwebhooks"),
        ({"headers": {"Content-Type": "x"}}, "'Content-Type'"),
        ({"headers": {"Webhook-Id": "x"}}, "'Webhook-Id'"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "'Transfer-Encoding'"),
        ({"headers": {"Accept-Encoding": "gzip"}}, "'Accept-Encoding'"),
        ({"headers": {"CE-Id": "1"}}, "'CE-Id'"),
        ({"headers": None}, "Headers are an object"),
        ({"authentication": {"type": "digest"}}, "whose type is one of basic"),
        ({"authentication": {"type": "basic", "username": "ada"}}, "needs a part 'password'"),
        ({"authentication": OAUTH2 | {"token_url": "https://10.0.0.1/"}}, "The token_url: The address 10.0.0.1 is forbidden"),
        ({"authentication": OAUTH2, "headers": {"AUTHORIZATION": "x"}}, "remove one of them"),
        ({"client_certificate": "no PEM"}, "0 certificates and 0 keys"),
        ({"retry_schedule": "5"}, "retry schedule"),
        ({"retry_schedule": {"5": 5}}, "retry schedule"),
        ({"retry_schedule": [-1]}, "retry schedule"),
        ({"retry_schedule": ["5"]}, "retry schedule"),
        ({"retry_schedule": [float("nan")]}, "retry schedule"),
        ({"retry_schedule": [1e12]}, "up to a year"),
        ({"retry_schedule": [60] * 101}, "101 pauses; at most 100"),
        ({"retry_schedule": [0] * 100}, "100 pauses of less than a second, such as 0; at most 5"),
        ({"retry_schedule": [60, 0, 0, 0, 0, 0, 60, 0.99]}, "6 pauses of less than a second, such as 0.99; at most 5"),
        ({"rate_limit": 0}, "rate limit"),
        ({"rate_limit": -1.5}, "rate limit"),
        ({"rate_limit": float("nan")}, "rate limit"),
        ({"rate_limit": float("inf")}, "rate limit"),
        ({"rate_limit": 1e-300}, "rate limit"),
        ({"rate_limit": "fast"}, "fast"),
        ({"concurrency_limit": 0}, "concurrency limit"),
        ({"concurrency_limit": -1}, "greater than or equal to 0"),
        ({"envelope": "letter"}, "'letter' is not a valid choice"),
        ({"identifier": "x" * 256}, "255"),
        ({"events": ["a b"]}, "'a b' is no pattern"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    """``full_clean`` names what is wrong, and only refuses what is."""
    with pytest.raises(ValidationError, match=message):
        WebhookTarget(target_url=URL, **fields).full_clean(exclude=["digest"])
    with pytest.raises(ValidationError, match=message):
        register(URL, fields.pop("events", ["a.b"]), owner=None, **fields)


@pytest.mark.django_db
def test_what_can_be_is_accepted() -> None:
    """All of it arrives."""
    target = register(
        URL,
        ["a.b"],
        owner=None,
        headers={"Authorization": "Bearer x", "X-Empty": ""},
        retry_schedule=[0, 0, 0.5, 0, 0, *[1] * 95],
        rate_limit=0.5,
        concurrency_limit=1,
        envelope="flat",
    )
    fire("a.b", {"x": 1})
    [request] = deliver()

    assert request.headers["Authorization"] == "Bearer x"
    assert request.body == b'{"x":1,"event":"a.b","owner":null}'
    assert WebhookTarget.objects.get(pk=target.pk).retry_schedule == [0, 0, 0.5, 0, 0, *[1] * 95]


@pytest.mark.django_db
def test_a_target_keeps_its_owner() -> None:
    """Another owner would see its log: ``full_clean`` refuses."""
    target = make_target(make_user())
    target.owner = make_user("bob")

    with pytest.raises(ValidationError, match="keeps its owner"):
        target.full_clean(exclude=["digest"])


@pytest.mark.django_db
def test_a_subscription_is_checked_too() -> None:
    """Its row in a form is refused like the target's list."""
    with pytest.raises(InvalidTarget, match="'a b'"):
        Subscription(event="a b").clean()

    assert str(Subscription(event="a.*")) == "a.*"


# -- deletion ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("by_owner", [False, True])
@pytest.mark.parametrize("in_bulk", [False, True])
def test_deleting_a_target_cancels_what_waits(by_owner: bool, in_bulk: bool) -> None:
    """Its pending deliveries end, its log stays, and nothing more is sent; the same when its owner is deleted."""
    user = make_user()
    make_target(user)
    fire("a.b", 1, owner=user)
    deliver()
    fire("a.b", 2, owner=user)
    deliver(500)
    chosen = User.objects.all() if by_owner else WebhookTarget.objects.all()
    if in_bulk:
        chosen.delete()
    else:
        chosen.get().delete()
    fire("a.b", 3)

    assert deliver() == []
    assert list(Delivery.objects.order_by("id").values_list("status", "reason")) == [
        ("succeeded", ""),
        ("cancelled", "target_deleted"),
    ]
    assert (Attempt.objects.count(), Event.objects.count()) == (2, 3)
    assert (WebhookTarget.objects.count(), Subscription.objects.count(), Lane.objects.count()) == (0, 0, 0)


@pytest.mark.django_db(transaction=True)
def test_the_last_event_of_a_deleted_owner_is_delivered() -> None:
    """What is fired as somebody is deleted goes to the system's targets, and says who it was."""
    user = make_user()
    make_target(user)
    make_target(None, url=f"{URL}/system")
    with transaction.atomic():
        fire("user.deleted", {"name": user.username}, owner=user)
        pk = user.pk
        user.delete()
    [request] = deliver()

    assert request.url == f"{URL}/system"
    assert f'"owner":"{pk}"'.encode() in request.body
    assert fired("user.deleted")[0].owner_id == pk


@pytest.mark.django_db
def test_an_event_for_a_deleted_direct_target_ends() -> None:
    """Nobody is left to send it to, and dispatch goes on."""
    fire("a.b", 1, urls=URL)
    WebhookTarget.objects.all().delete()
    make_target()
    fire("a.b", 2)

    assert len(deliver()) == 1
    assert not Event.objects.waiting().exists()
