"""Registering makes a target or adds events to the one that is there; an owner has so many, and deregisters only theirs."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djwebhooks.events import fire
from djwebhooks.exceptions import IdempotencyConflict, InvalidEvent, InvalidTarget, TooManyTargets
from djwebhooks.models import Delivery, Subscription, WebhookTarget
from djwebhooks.testing import deliver
from tests.builders import URL, is_reached, make_target, make_user, rotate_before_save
from tests.connections import run_together

register = WebhookTarget.objects.register


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


@pytest.mark.django_db(transaction=True)
def test_registrations_at_once_make_one_target_with_all_events() -> None:
    """Nobody's events are lost, and nobody gets an error."""
    names = [f"a.b{number}" for number in range(5)]
    targets = run_together(*[partial(register, "https://example.com", [name], owner=None) for name in names])

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


# -- how many ---------------------------------------------------------------------------------------------------------


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


@pytest.mark.django_db(transaction=True)
def test_the_limit_is_kept_by_calls_at_once(settings: LazySettings) -> None:
    """Of eight targets that are registered at once, an owner gets as many as may be."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 3
    owner = make_user()
    results = run_together(*[partial(register, f"{URL}/{number}", ["a.b"], owner=owner) for number in range(8)])

    assert WebhookTarget.objects.count() == 3
    assert [type(result) for result in results].count(TooManyTargets) == 5


# -- hidden targets ---------------------------------------------------------------------------------------------------


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
