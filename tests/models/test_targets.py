"""A target is an owner's endpoint: how it is made, what it wants, what people may do with it."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from standardwebhooks import Webhook

from djwebhooks.database import DatabaseNow
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.exceptions import IdempotencyConflict, InvalidEvent, InvalidTarget, TooManyTargets, UndecryptableSecret
from djwebhooks.models import Attempt, Delivery, Event, Lane, Replay, Subscription, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.replays import carry_on
from djwebhooks.testing import deliver, fired, make_due
from tests.authentication.test_kinds import OAUTH2
from tests.builders import URL, live_secrets, make_deliveries, make_target, make_user, rotate_before_save

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
register = WebhookTarget.objects.register


def is_reached(target: WebhookTarget, name: str, **options: Any) -> bool:
    """Whether an event is delivered to *target*."""
    fire(name, 1, **options)
    return target.target_url in [request.url for request in deliver()]


# -- register and deregister ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_registering_makes_a_target() -> None:
    """Address, owner, identifier, events and other fields are what was said."""
    user = make_user()
    target = register("https://example.com/x", ["a.b", "c.*"], owner=user, identifier="i", description="d", is_ordered=True)
    target = WebhookTarget.objects.get(pk=target.pk)

    assert (target.target_url, target.owner, target.identifier) == ("https://example.com/x", user, "i")
    assert (target.events, target.description, target.is_ordered) == (["a.b", "c.*"], "d", True)


@pytest.mark.django_db
@pytest.mark.parametrize("again", ["https://example.com", "https://example.com/", "HTTPS://EXAMPLE.com:443/"])
def test_registering_again_adds_events(again: str) -> None:
    """It is idempotent, whichever way the address is spelled, and touches neither the secret nor anything else."""
    user = make_user()
    first = register("https://example.com", ["a.b"], owner=user, description="mine")
    second = register(again, ["a.c", "a.b"], owner=user, description="other")

    assert (second.pk, second.uid, second.secret) == (first.pk, first.uid, first.secret)
    assert (second.events, second.description) == (["a.b", "a.c"], "mine")
    assert WebhookTarget.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize("field", [{"sender": "none"}, {"filters": {"a.b": 5}}, {"version": "?"}])
def test_registering_again_checks_no_field_that_it_does_not_set(field: dict[str, Any]) -> None:
    """A new target is refused for it. One that is there is told by being cleaned, once the field is assigned."""
    with pytest.raises(InvalidTarget):
        register(URL, ["a.b"], owner=None, **field)
    first = register(URL, ["a.b"], owner=None)
    again = register(URL, ["a.b"], owner=None, **field)
    first.refresh_from_db()
    first.full_clean()
    for name, value in field.items():
        assert getattr(again, name) == getattr(first, name) != value
        setattr(first, name, value)
    with pytest.raises(InvalidTarget):
        first.clean()


@pytest.mark.django_db
def test_registering_finds_a_target_that_was_created() -> None:
    """``create`` keeps the address as it was given, and is found by it."""
    made = WebhookTarget.objects.create(target_url="https://example.com", event="a.b")

    assert register("https://example.com", ["a.c"], owner=None) == made
    assert made.events == ["a.b", "a.c"]
    assert WebhookTarget.objects.deregister("https://example.com", owner=None) == 1


@pytest.mark.django_db
def test_registering_again_leaves_what_others_changed() -> None:
    """A second call writes nothing but subscriptions: a secret or a pause of the meantime stays."""
    target = register(URL, ["a.b"], owner=None)
    target.rotate_secret()
    target.pause()
    with CaptureQueriesContext(connection) as queries:
        register(URL, ["a.c"], owner=None)

    assert not [
        query["sql"] for query in queries if query["sql"].startswith("UPDATE") and "secrets" in query["sql"].split("WHERE")[0]
    ]
    assert not [query["sql"] for query in queries if query["sql"].startswith("DELETE")]


@pytest.mark.django_db
def test_owners_and_identifiers_are_apart() -> None:
    """The same address may be a target of several owners, and of one for several identifiers."""
    ada, bob = make_user("ada"), make_user("bob")
    targets = {register(URL, ["a.b"], owner=owner, identifier=name).pk for owner in (ada, bob, None) for name in ("", "i")}

    assert len(targets) == 6


@pytest.mark.django_db
def test_the_owner_must_be_said() -> None:
    """A target that sees every owner's events never comes about by leaving something out."""
    with pytest.raises(TypeError, match="owner"):
        register(URL, ["a.b"])
    with pytest.raises(TypeError, match="owner"):
        WebhookTarget.objects.deregister(URL)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "owner",
    [AnonymousUser(), User(username="unsaved"), Group(name="g"), 1, "ada"],
    ids=["anonymous", "unsaved", "group", "number", "text"],
)
def test_a_wrong_owner_never_gets_the_systems_target(owner: Any) -> None:
    """Whoever is no owner is refused, although there is a target without owner for this address."""
    system = register(URL, ["a.b"], owner=None)
    for work in (
        lambda: register(URL, ["a.c"], owner=owner),
        lambda: WebhookTarget.objects.deregister(URL, owner=owner),
        lambda: fire("a.b", 1, owner=owner, urls=URL),
    ):
        with pytest.raises(TypeError, match="owner"):
            work()

    assert WebhookTarget.objects.get() == system
    assert WebhookTarget.objects.get().events == ["a.b"]


@pytest.mark.django_db
@pytest.mark.parametrize("events", [["a b"], ["a."], [""], ["*.a"], ["a.*.b"], "a.b", [None]], ids=repr)
def test_registering_refuses_bad_events(events: Any) -> None:
    """Each pattern is checked, for a new target and for one that is there; nothing is saved."""
    with pytest.raises((InvalidTarget, InvalidEvent)):
        register(URL, events, owner=None)
    assert WebhookTarget.objects.count() == 0
    register(URL, ["a.b"], owner=None)
    with pytest.raises((InvalidTarget, InvalidEvent)):
        register(URL, events, owner=None)

    assert WebhookTarget.objects.get().events == ["a.b"]


@pytest.mark.django_db
def test_registering_asks_the_catalogue(settings: LazySettings) -> None:
    """A subscription that can match no event of the catalogue is refused, by its name."""
    settings.DJWEBHOOKS_EVENTS = {"project.update": {}}

    assert register(URL, ["project.update", "project.*", "*"], owner=None).events == ["*", "project.*", "project.update"]
    with pytest.raises(InvalidTarget, match=r"'projekt\.\*' matches no event"):
        register(URL, ["projekt.*"], owner=None)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "is no URL"),
        ("example.com", "is no URL"),
        ("ftp://example.com/", "'ftp'"),
        ("javascript:alert(1)", "'javascript'"),
        ("https://", "host"),
        ("https://me@example.com/", "user name"),
        ("https://10.0.0.1/", "10.0.0.1"),
        ("https://[::1]/", "::1"),
        ("https://169.254.169.254/latest", "169.254"),
        ("https://example.com/\n", "character"),
        ("https://example.com/a b", "character"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com:99999/", "port"),
        (f"https://example.com/{'x' * 9000}", "characters"),
        (None, "None"),
        (5, "5"),
    ],
)
def test_bad_addresses_are_refused(url: Any, message: str) -> None:
    """A target whose address cannot be sent to is refused when it is registered, and by ``full_clean``."""
    with pytest.raises(InvalidTarget, match=message):
        register(url, ["a.b"], owner=None)
    with pytest.raises(ValidationError):
        WebhookTarget(target_url=url).full_clean(exclude=["digest"])

    assert WebhookTarget.objects.count() == 0


@pytest.mark.django_db
def test_http_must_be_allowed(settings: LazySettings) -> None:
    """Unencrypted addresses are for development."""
    settings.DJWEBHOOKS_ALLOW_HTTP = False

    with pytest.raises(InvalidTarget, match="DJWEBHOOKS_ALLOW_HTTP"):
        register("http://example.com/", ["a.b"], owner=None)


def run_together(works: list[Callable[[], Any]]) -> list[Any]:
    """Run *works* in a thread each, all at once, and return their results."""
    barrier, results = Barrier(len(works)), [None] * len(works)

    def run(number: int) -> None:
        try:
            barrier.wait(10)
            results[number] = works[number]()
        finally:
            connections.close_all()

    threads = [Thread(target=run, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.django_db(transaction=True)
def test_registrations_at_once_make_one_target_with_all_events() -> None:
    """Nobody's events are lost, and nobody gets an error."""
    names = [f"a.b{number}" for number in range(5)]
    targets = run_together([lambda name=name: register("https://example.com", [name], owner=None) for name in names])

    assert len(set(targets)) == 1
    assert WebhookTarget.objects.get().events == names


@pytest.mark.django_db
def test_deregistering_ends_what_waits_and_keeps_the_rest() -> None:
    """Subscriptions and pending deliveries end, log and secret stay, and ``register`` brings the target back."""
    user = make_user()
    target = register("http://127.0.0.1:9", ["a.b"], owner=user)
    fire("a.b", 1, owner=user)
    deliver()
    fire("a.b", 2, owner=user)
    deliver(500)

    assert WebhookTarget.objects.deregister("http://127.0.0.1:9", owner=user) == 1
    assert list(Delivery.objects.order_by("id").values_list("status", "reason")) == [
        ("succeeded", ""),
        ("cancelled", "deregistered"),
    ]
    assert not is_reached(target, "a.b", owner=user)
    again = register("http://127.0.0.1:9", ["a.b"], owner=user)
    assert (again.pk, again.secret) == (target.pk, target.secret)
    assert is_reached(again, "a.b", owner=user)


@pytest.mark.django_db
def test_deregistering_keeps_a_secret_that_is_just_made() -> None:
    """It was shown to somebody: a target that is registered again signs with it."""
    target = make_target()
    made = rotate_before_save()
    WebhookTarget.objects.deregister(target.target_url, owner=target.owner)

    assert [WebhookTarget.objects.get().secret] == made


@pytest.mark.django_db
def test_deregistering_is_the_owners_own() -> None:
    """It ends all identifiers of one owner's address, and nobody else's; again it ends nothing."""
    ada, bob = make_user("ada"), make_user("bob")
    for owner in (ada, bob, None):
        for name in ("", "i"):
            register(URL, ["a.b"], owner=owner, identifier=name)

    assert WebhookTarget.objects.deregister(URL, owner=ada) == 2
    assert Subscription.objects.count() == 4
    assert not Subscription.objects.filter(target__owner=ada).exists()
    assert WebhookTarget.objects.deregister("not even an address", owner=ada) == 0


@pytest.mark.django_db
def test_an_owner_has_so_many_targets(settings: LazySettings) -> None:
    """The limit is for each owner, and not for the system."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 2
    ada, bob = make_user("ada"), make_user("bob")
    for number in range(2):
        register(f"{URL}/{number}", ["a.b"], owner=ada)
    with pytest.raises(TooManyTargets, match=r"has 2 targets.*TARGETS_PER_OWNER allows 2"):
        register(f"{URL}/2", ["a.b"], owner=ada)

    register(f"{URL}/1", ["a.c"], owner=ada)
    register(URL, ["a.b"], owner=bob)
    for number in range(3):
        register(f"{URL}/{number}", ["a.b"], owner=None)
    WebhookTarget.objects.filter(owner=ada)[0].full_clean(exclude=["digest"])
    assert WebhookTarget.objects.filter(owner=ada).count() == 2


# -- events -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_create_takes_one_event_or_many() -> None:
    """``event=`` is one name, ``events=`` a list; both are the target's subscriptions."""
    one = WebhookTarget.objects.create(event="a.b", target_url=URL)
    many = WebhookTarget.objects.create(events=["c.*", "a.b", "a.b"], target_url=f"{URL}/2")

    assert (one.event, one.events) == ("a.b", ["a.b"])
    assert (many.event, many.events) == ("a.b, c.*", ["a.b", "c.*"])
    assert WebhookTarget.objects.get(pk=many.pk).events == ["a.b", "c.*"]
    assert Subscription.objects.count() == 3


@pytest.mark.django_db
def test_assigning_events_replaces_them_on_save() -> None:
    """Until ``save`` nothing is written; then what is listed is all that is left, and what stays keeps its row."""
    target = make_target(event="a.b")
    kept = Subscription.objects.get()
    target.events = ["a.b", "a.c"]
    assert target.events == ["a.b", "a.c"]
    assert Subscription.objects.count() == 1
    target.save()
    assert sorted(Subscription.objects.values_list("event", flat=True)) == ["a.b", "a.c"]
    assert Subscription.objects.get(event="a.b") == kept

    target.events = []
    target.save(update_fields=["description"])
    assert Subscription.objects.count() == 0
    assert target.events == []


@pytest.mark.django_db
def test_saving_leaves_events_alone_unless_assigned() -> None:
    """A save of something else neither drops nor queries subscriptions."""
    target = make_target(event="a.b")
    other = WebhookTarget.objects.get(pk=target.pk)
    other.events = ["a.c"]
    other.save()
    target.description = "changed"
    target.save()

    assert target.events == ["a.c"]


@pytest.mark.django_db
def test_prefetched_events_need_no_query_and_are_not_stale() -> None:
    """A list page prefetches them; a save forgets them."""
    make_target(event="a.b")
    [target] = WebhookTarget.objects.prefetch_related("subscriptions")
    with CaptureQueriesContext(connection) as queries:
        assert target.events == ["a.b"]
    assert len(queries) == 0

    target.events = ["a.c"]
    target.save()
    assert target.events == ["a.c"]


def test_an_unsaved_target_has_no_events() -> None:
    """Without a query, as it has no row."""
    assert WebhookTarget(target_url=URL).events == []


def test_a_string_is_no_list_of_events() -> None:
    """``events="a.b"`` would be three one-letter names."""
    with pytest.raises(InvalidEvent, match=r"write \['a.b'\] or use event="):
        WebhookTarget(events="a.b")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("project", ["project"]),
        ("project.update", ["project.update"]),
        ("project.*", ["project.update", "project.update.title"]),
        ("project.update.*", ["project.update.title"]),
        ("*", ["project", "project.update", "project.update.title", "projects.update", "Project.update"]),
        ("projects.*", ["projects.update"]),
        ("Project.*", ["Project.update"]),
    ],
)
def test_wildcards(pattern: str, names: list[str]) -> None:
    """``project.*`` is any depth below project, not project itself; names are compared letter by letter."""
    every = ["project", "project.update", "project.update.title", "projects.update", "Project.update"]
    target = make_target(event=pattern)

    assert [name for name in every if is_reached(target, name)] == names
    assert [name for name in every if WebhookTarget.objects.subscribed_to(name)] == names


@pytest.mark.django_db
def test_subscribed_to_lists_each_target_once() -> None:
    """Several subscriptions that match are one target, which gets the event once."""
    target = WebhookTarget.objects.create(events=["*", "a.*", "a.b"], target_url=URL)
    fire("a.b", 1)

    assert list(WebhookTarget.objects.subscribed_to("a.b")) == [target]
    assert len(deliver()) == 1


# -- who gets what ----------------------------------------------------------------------------------------------------

#: DESIGN's table, by columns: (owner, identifier) of the target.
TARGETS = [("acme", ""), ("acme", "p-42"), ("other", ""), (None, ""), (None, "p-42"), ("other", "p-42")]
MATCHES = [
    # owner, identifier, broadcast -> the targets above that get it
    ("acme", "p-42", False, [0, 1, 3, 4]),
    ("acme", "", False, [0, 3]),
    ("acme", "p-7", False, [0, 3]),
    (None, "", False, [3]),
    (None, "p-42", False, [3, 4]),
    ("acme", "", True, [0, 1, 2, 3, 4, 5]),
    (None, "p-7", True, [0, 1, 2, 3, 4, 5]),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("owner", "identifier", "broadcast", "expected"), MATCHES)
def test_who_gets_an_event(owner: str | None, identifier: str, broadcast: bool, expected: list[int]) -> None:
    """A target gets what it subscribed to, of its owner or of any if it has none, and with its identifier or any."""
    users = {"acme": make_user("acme"), "other": make_user("other"), None: None}
    for number, (of, name) in enumerate(TARGETS):
        make_target(users[of], identifier=name, url=f"{URL}/{number}")
        make_target(users[of], identifier=name, url=f"{URL}/unsubscribed/{number}", event="x.y")
    event = fire("a.b", 1, owner=users[owner], identifier=identifier, broadcast=broadcast)

    matching = WebhookTarget.objects.matching(event).values_list("target_url", flat=True)
    assert sorted(matching) == [f"{URL}/{number}" for number in expected]
    assert sorted(request.url for request in deliver()) == [f"{URL}/{number}" for number in expected]


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


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_secrets_are_kept_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the row, nor what is printed, nor what is logged has the secret in it."""
    caplog.set_level(logging.DEBUG)
    target = make_target()
    fire("a.b", 1)
    deliver(500)
    [row] = WebhookTarget.objects.values()
    shown = [repr(target), str(target), repr(row), repr(vars(target)), caplog.text]

    assert target.secret.startswith("whsec_")
    assert not [text for text in shown if target.secret in text or target.secret.removeprefix("whsec_") in text]
    assert make_target(url=f"{URL}/2").secret != target.secret


@pytest.mark.django_db
def test_after_a_rotation_both_secrets_sign() -> None:
    """Until the overlap ends a receiver may verify with the old secret or the new."""
    target = make_target()
    old = target.secret
    new = target.rotate_secret(overlap=3600)
    fire("a.b", 1)
    [request] = deliver()

    assert target.secret == new != old
    assert live_secrets(target) == [new, old]
    assert live_secrets(target, timezone.now() + timedelta(hours=2)) == [new]
    for secret in (old, new):
        Webhook(secret).verify(request.body, dict(request.headers))
    assert len(request.headers["webhook-signature"].split()) == 2


@pytest.mark.django_db
@pytest.mark.parametrize("overlap", [0, timedelta(0)])
def test_without_overlap_the_old_secret_ends(overlap: Any) -> None:
    """A leaked secret is taken out of use at once."""
    target = make_target()
    new = target.rotate_secret(overlap)

    assert live_secrets(target) == [new]


@pytest.mark.django_db
def test_rotations_of_several_people_all_sign() -> None:
    """Whoever rotates a row that was read before somebody else's rotation does not undo it."""
    target = make_target()
    first = target.secret
    mine, theirs = WebhookTarget.objects.get(), WebhookTarget.objects.get()
    second, third = mine.rotate_secret(), theirs.rotate_secret()

    assert live_secrets(WebhookTarget.objects.get()) == [third, second, first]


@pytest.mark.django_db
def test_saving_a_stale_target_keeps_a_rotation() -> None:
    """Pausing what was read before a rotation writes no secrets."""
    target, stale = make_target(), WebhookTarget.objects.get()
    new = target.rotate_secret()
    stale.pause()
    stale.resume()

    assert WebhookTarget.objects.get().secret == new


@pytest.mark.django_db
def test_a_lost_key_is_said(settings: LazySettings) -> None:
    """A secret that no key opens is an error that says so, and what waits for it is not lost."""
    target = make_target()
    settings.SECRET_KEY = "another key, of which nobody has told anybody anything at all"
    fire("a.b", 1)

    with pytest.raises(UndecryptableSecret):
        _ = target.secret
    assert deliver() == []
    assert Delivery.objects.get().status == Status.PENDING


@pytest.mark.django_db
def test_a_new_secret_is_the_way_out_of_a_lost_key(settings: LazySettings) -> None:
    """A target whose secret no key opens any more can be given another."""
    target = make_target()
    settings.SECRET_KEY = "another key, of which nobody has told anybody anything at all"

    secret = target.rotate_secret()

    assert secret.startswith("whsec_")
    assert live_secrets(target) == [secret]


# -- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_targets_state_is_one_word() -> None:
    """People's word first, then the lane's."""
    target = make_target()
    assert target.state == "healthy"
    fire("a.b", 1)
    deliver(500)
    assert target.state == "degraded"
    lane = Lane.objects.filter(pk=target.pk)
    lane.update(held_until=timezone.now() + timedelta(hours=1))
    assert target.state == "suspended"
    lane.update(held_until=timezone.now() - timedelta(hours=1))
    assert target.state == "degraded"
    lane.update(disabled_at=timezone.now())
    assert target.state == "disabled"
    target.pause()
    assert target.state == "paused"
    target.resume()
    assert target.state == "healthy"


@pytest.mark.django_db
def test_resuming_forgets_what_was_known_before() -> None:
    """Also of a target whose lane was loaded with it."""
    make_target()
    fire("a.b", 1)
    deliver(410)
    target = WebhookTarget.objects.select_related("lane").get()
    assert target.state == "disabled"
    target.resume()

    assert target.state == "healthy"


@pytest.mark.django_db
def test_a_paused_target_gets_its_events_later() -> None:
    """They are held in its lane, and sent when it is active again."""
    target = make_target()
    target.pause()
    fire("a.b", 1)
    assert deliver() == []
    assert Delivery.objects.get().status == Status.PENDING
    target.resume()

    assert len(deliver()) == 1


@pytest.mark.django_db
def test_a_target_that_is_gone_is_disabled_until_resumed() -> None:
    """410 disables it; what comes then is held."""
    target = make_target()
    fire("a.b", 1)
    deliver(410)
    fire("a.b", 2)
    assert deliver() == []
    target.resume()

    assert [request.body[-3:] for request in deliver()] == [b":2}"]


@pytest.mark.django_db
def test_a_test_event_goes_to_this_target_alone(settings: LazySettings) -> None:
    """Whatever it is subscribed to, whatever others are, and whatever the catalogue has."""
    settings.DJWEBHOOKS_EVENTS = {"a.b": {}}
    user = make_user()
    target = make_target(user, event="a.b")
    make_target(None, event="*", url=f"{URL}/system")
    make_target(user, event="webhook.test", url=f"{URL}/other")
    event = target.send_test()

    assert [request.url for request in deliver()] == [target.target_url]
    assert (event.name, event.owner) == ("webhook.test", user)


# -- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_replay_tries_again_what_failed() -> None:
    """Deliveries that failed are due again, with the whole schedule before them; others are left alone."""
    target = make_target(retry_schedule=[])
    other = make_target(url=f"{URL}/other", retry_schedule=[])
    fire("a.b", 1)
    deliver(500)
    fire("a.b", 2)
    deliver(200)

    assert target.replay(dry_run=True) == 1
    assert deliver() == []
    assert target.replay() == 1
    assert [request.url for request in deliver()] == [target.target_url]
    assert target.replay() == 0
    assert other.replay(dry_run=True) == 1


@pytest.mark.django_db
def test_replay_chooses_by_time_and_status() -> None:
    """*since* is included, *until* is not."""
    target = make_target()
    deliveries = make_deliveries(target, 5, Status.FAILED)
    for number, delivery in enumerate(deliveries):
        Delivery.objects.filter(pk=delivery.pk).update(created_at=NOW + timedelta(hours=number))
    Delivery.objects.filter(pk=deliveries[4].pk).update(status=Status.EXPIRED)

    assert target.replay(since=NOW + timedelta(hours=1), until=NOW + timedelta(hours=3), dry_run=True) == 2
    assert target.replay(until=NOW, dry_run=True) == 0
    assert target.replay(status=Status.EXPIRED, dry_run=True) == 1
    assert target.replay(since=NOW + timedelta(hours=3)) == 1
    assert carry_on("default")
    assert list(Delivery.objects.pending()) == [deliveries[3]]


@pytest.mark.django_db
def test_replay_works_in_pages() -> None:
    """Thousands of deliveries are changed a page at a time, and each once."""
    target = make_target()
    make_deliveries(target, 2001, Status.FAILED)
    assert target.replay(rate=10_000) == 2001
    while carry_on("default"):
        Replay.objects.update(next_at=DatabaseNow())

    assert Delivery.objects.pending().filter(due_at__isnull=False).count() == 2001
    assert target.cancel_pending() == 2001


@pytest.mark.django_db
def test_what_succeeded_is_replayed_only_if_it_is_said() -> None:
    """A receiver may have lost it; but nobody gets it twice by accident."""
    target = make_target()
    make_deliveries(target, 2, Status.SUCCEEDED)

    assert target.replay(dry_run=True) == 0
    assert target.replay(status=["failed", Status.SUCCEEDED]) == 2
    assert len(deliver()) == 2


has_shelf = False


@hook("shelf.sought")
def shelf_sought() -> str:
    if not has_shelf:
        raise LookupError("no shelf")
    return "found"


@pytest.mark.django_db
def test_replay_builds_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that could not be built gets its tries again: the hook may have been mended."""
    target = make_target()
    event = shelf_sought()
    for _ in range(6):
        deliver()
        make_due()
    assert list(Delivery.objects.values_list("event", "status", "reason")) == [(event.pk, "failed", "build_error")]
    monkeypatch.setattr(f"{__name__}.has_shelf", True)

    assert target.replay() == 1
    assert len(deliver()) == 1


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


@pytest.mark.django_db
def test_a_subscription_is_checked_too() -> None:
    """Its row in a form is refused like the target's list."""
    with pytest.raises(InvalidTarget, match="'a b'"):
        Subscription(event="a b").clean()

    assert str(Subscription(event="a.*")) == "a.*"


# -- limits and the catalogue ------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_internal_event_is_for_system_targets_only(settings: LazySettings) -> None:
    """What the catalogue calls internal reaches no owner: not by a pattern, not by a broadcast."""
    settings.DJWEBHOOKS_EVENTS = {"audit.entry": {"internal": True}, "a.b": {}}
    owner = make_user()
    owned, system = make_target(owner, url=f"{URL}/owned"), make_target(url=f"{URL}/system")

    for options in ({"owner": owner}, {"broadcast": True}):
        fire("audit.entry", 1, **options)
        assert [request.url for request in deliver()] == [system.target_url]
        assert list(WebhookTarget.objects.matching(Event.objects.latest("id"))) == [system]
    assert is_reached(owned, "a.b", owner=owner)


@pytest.mark.django_db
def test_an_internal_event_cannot_be_subscribed_to_by_name(settings: LazySettings) -> None:
    """Its owner would wait for it in vain; the system's own targets may."""
    settings.DJWEBHOOKS_EVENTS = {"audit.entry": {"internal": True}, "a.b": {}}
    owner = make_user()

    with pytest.raises(InvalidTarget, match=r"'audit\.entry' is an internal event, which only the system's own targets get\."):
        WebhookTarget.objects.register(URL, ["audit.entry"], owner=owner)
    with pytest.raises(InvalidTarget, match="is an internal event"):
        Subscription(target=make_target(owner), event="audit.entry").clean()

    with pytest.raises(InvalidTarget, match=r"'gone' matches no event of the catalogue: a\.b\."):
        WebhookTarget.objects.register(URL, ["gone"], owner=owner)

    assert WebhookTarget.objects.register(f"{URL}/system", ["audit.entry"], owner=None).events == ["audit.entry"]


@pytest.mark.django_db
def test_ten_secrets_sign_at_most() -> None:
    """However often somebody rotates, the header of signatures stays short."""
    target = make_target()
    for _ in range(12):
        target.rotate_secret()

    assert len(live_secrets(target)) == 10
    assert live_secrets(target)[0] == target.secret


@pytest.mark.django_db
def test_a_hidden_target_that_is_registered_counts(settings: LazySettings) -> None:
    """Addresses that were fired at do not get around the limit of an owner's targets."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    owner = make_user()
    fire("a.b", 1, owner=owner, urls=[f"{URL}/1", f"{URL}/2"])
    register(f"{URL}/1", ["a.b"], owner=owner)

    with pytest.raises(TooManyTargets):
        register(f"{URL}/2", ["a.b"], owner=owner)
    assert WebhookTarget.objects.filter(owner=owner, is_hidden=False).count() == 1
    assert not Subscription.objects.filter(target__target_url=f"{URL}/2").exists()


@pytest.mark.django_db(databases=["default", "other"])
@pytest.mark.parametrize("is_hidden", [False, True])
def test_the_limit_counts_where_the_targets_are(settings: LazySettings, is_hidden: bool) -> None:
    """A database's targets are counted in it, whatever is in others."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    owner = make_user()
    User.objects.using("other").bulk_create([owner])
    owner.refresh_from_db(using="default")
    register(URL, ["a.b"], owner=owner)
    others = WebhookTarget.objects.using("other")
    others.register(f"{URL}/1", ["a.b"], owner=owner)
    if is_hidden:
        others.direct(f"{URL}/2", owner)

    with pytest.raises(TooManyTargets):
        others.register(f"{URL}/2", ["a.b"], owner=owner)
    assert others.filter(is_hidden=False).count() == 1


@pytest.mark.django_db
def test_a_target_keeps_its_owner() -> None:
    """Another owner would see its log: ``full_clean`` refuses."""
    target = make_target(make_user())
    target.owner = make_user("bob")

    with pytest.raises(ValidationError, match="keeps its owner"):
        target.full_clean(exclude=["digest"])


@pytest.mark.django_db(transaction=True)
def test_the_limit_is_kept_by_calls_at_once(settings: LazySettings) -> None:
    """Of eight targets that are registered at once, an owner gets as many as may be."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 3
    owner, ready, refused = make_user(), Barrier(8), []

    def try_one(number: int) -> None:
        try:
            ready.wait()
            register(f"{URL}/{number}", ["a.b"], owner=owner)
        except TooManyTargets as error:
            refused.append(error)
        finally:
            connections.close_all()

    threads = [Thread(target=try_one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert WebhookTarget.objects.count() == 3
    assert len(refused) == 5


@pytest.mark.django_db
@pytest.mark.parametrize("field", ["identifier", "description"])
@pytest.mark.parametrize("text", ["a\0", "a\ud800"])
def test_texts_that_no_database_holds_are_refused(field: str, text: str) -> None:
    """The error names the field, and the caller's transaction goes on."""
    with pytest.raises(InvalidTarget, match=f"The {field} .*NUL"):
        register(URL, ["a.b"], owner=None, **{field: text})
    assert WebhookTarget.objects.deregister(f"{URL}{text}", owner=None) == 0
    assert not WebhookTarget.objects.exists()


@pytest.mark.django_db
def test_subscriptions_are_bounded() -> None:
    """A target has so many events at most, however often somebody registers it."""
    target = register(URL, [f"a.b{number}" for number in range(900)], owner=None)

    with pytest.raises(InvalidTarget, match=r"1000 events, not to 1100.*order\.\*"):
        register(URL, [f"c.d{number}" for number in range(200)], owner=None)
    assert len(target.events) == 900


@pytest.mark.django_db
def test_a_hidden_target_that_is_registered_becomes_what_was_asked_for() -> None:
    """It keeps its uid and its secret; a field that cannot be leaves it hidden."""
    owner = make_user()
    fire("a.b", 1, owner=owner, urls=[URL])
    hidden = WebhookTarget.objects.get()

    with pytest.raises(InvalidTarget):
        register(URL, ["a.b"], owner=owner, rate_limit=0)
    hidden.refresh_from_db()
    assert hidden.is_hidden
    target = register(URL, ["a.b"], owner=owner, is_ordered=True, description="ours")

    assert (target.pk, target.uid, target.secret) == (hidden.pk, hidden.uid, hidden.secret)
    target.refresh_from_db()
    assert (target.is_hidden, target.is_ordered, target.description, target.events) == (False, True, "ours", ["a.b"])


@pytest.mark.django_db
def test_of_two_who_register_a_hidden_target_one_comes_first() -> None:
    """The other one adds events to what it has become."""
    owner = make_user()
    fire("a.b", 1, owner=owner, urls=[URL])
    others: list[str] = []

    def come_second(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        found = run(sql, *rest)
        if "digest" in sql and not others:
            others.append(sql)
            register(URL, ["a.b"], owner=owner, description="first")
        return found

    with connection.execute_wrapper(come_second):
        target = register(URL, ["a.c"], owner=owner, description="second")

    assert (target.description, target.events) == ("first", ["a.b", "a.c"])


@pytest.mark.django_db
def test_a_key_that_made_another_target_reveals_none() -> None:
    """A request with a key that was used meanwhile is a conflict, and the target stays hidden."""
    owner = make_user()
    fire("a.b", 1, owner=owner, urls=[URL])
    register(f"{URL}/other", ["a.b"], owner=owner, creation_key="x")

    with pytest.raises(IdempotencyConflict):
        register(URL, ["a.b"], owner=owner, creation_key="x")

    assert WebhookTarget.objects.get(target_url=URL).is_hidden
