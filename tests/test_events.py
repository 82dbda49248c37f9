"""An event is one row in the caller's transaction: sent if that commits, and without harm if it is refused."""

import json
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import LazySettings
from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone as django_timezone
from django.utils.functional import SimpleLazyObject

from djwebhooks.engines.base import Engine
from djwebhooks.events import afire, fire, insert_once
from djwebhooks.exceptions import (
    IdempotencyConflict,
    InvalidEvent,
    InvalidPayload,
    InvalidTarget,
    PayloadTooLarge,
    UnknownEvent,
    WrongTransaction,
)
from djwebhooks.models import Delivery, Event, WebhookTarget
from djwebhooks.testing import deliver, fired
from tests.builders import URL, make_target, make_user
from tests.connections import run_together

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)


class CountingEngine(Engine):
    """Remembers that it was woken."""

    woken: list[str] = []

    def wake(self, using: str, at: datetime | None = None) -> None:
        self.woken.append(using)


class BrokenEngine(Engine):
    """Cannot reach its broker."""

    def wake(self, using: str, at: datetime | None = None) -> None:
        raise ConnectionError("no broker")


@pytest.fixture
def woken(settings: LazySettings) -> Iterator[list[str]]:
    """The databases that the engine was woken for."""
    settings.DJWEBHOOKS_ENGINE = f"{__name__}.CountingEngine"
    CountingEngine.woken.clear()
    yield CountingEngine.woken
    CountingEngine.woken.clear()


class RollBack(Exception):
    """Ends a transaction without a commit."""


def fire_in_vain(*args: Any, **options: Any) -> None:
    """Fire in a transaction, or a savepoint, that is rolled back."""
    with suppress(RollBack), transaction.atomic():
        fire(*args, **options)
        raise RollBack


# -- one row ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("count", [0, 1, 100])
def test_firing_is_one_insert_whatever_the_number_of_targets(count: int) -> None:
    """The caller pays for one row, and for nothing else."""
    user = make_user()
    for number in range(count):
        make_target(user, url=f"{URL}/{number}")
    with CaptureQueriesContext(connection) as queries:
        event = fire("project.update", {"title": "x"}, owner=user, identifier="p-42", deliver_at=NOW)

    assert [query["sql"].split()[0] for query in queries] == ["INSERT"]
    assert fired() == [event]


@pytest.mark.django_db
def test_an_event_is_what_was_fired() -> None:
    """Every argument arrives in its column; the identifier is the ordering key unless one is given."""
    user = make_user()
    later = NOW + timedelta(days=1)
    event = fire("a.b", [1], owner=user, identifier="i", broadcast=True, idempotency_key="k", deliver_at=NOW, expires_at=later)
    event.refresh_from_db()

    assert (event.name, event.payload, event.owner, event.identifier, event.ordering_key) == ("a.b", "[1]", user, "i", "i")
    assert (event.is_broadcast, event.idempotency_key, event.deliver_at, event.expires_at) == (True, "k", NOW, later)
    assert (event.dispatched_at, event.hook, event.call) == (None, "", "")
    assert fire("a.b", 1, identifier="i", ordering_key="").ordering_key == ""
    assert fire("a.b", 1, ordering_key="o").ordering_key == "o"


@pytest.mark.django_db
@pytest.mark.parametrize("payload", [None, 0, "", [], {}, False, {"text": "ä\u2028🎉", "n": 1.5}])
def test_whatever_json_can_hold_is_delivered(payload: object) -> None:
    """Empty values are payloads like others."""
    make_target()
    fire("a.b", payload)

    assert [json.loads(request.body)["data"] for request in deliver()] == [payload]


# -- in the caller's transaction --------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_what_commits_is_delivered() -> None:
    """A committed event goes out."""
    make_target()
    with transaction.atomic():
        fire("a.b", 1)

    assert len(deliver()) == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_never_happened(woken: list[str]) -> None:
    """Neither a row nor a wake-up is left of it."""
    make_target()
    woken.clear()
    fire_in_vain("a.b", 1)

    assert (fired(), deliver(), woken) == ([], [], [])


@pytest.mark.django_db(transaction=True)
def test_a_savepoint_takes_its_events_along(woken: list[str]) -> None:
    """What was fired in a rolled back savepoint never happened; what was fired around it did."""
    make_target()
    woken.clear()
    with transaction.atomic():
        fire_in_vain("a.inner", 1)
        fire("a.outer", 2)
        fire_in_vain("a.inner", 3)

    assert woken == ["default"]
    assert [json.loads(request.body)["type"] for request in deliver()] == ["a.outer"]


@pytest.mark.django_db(transaction=True)
def test_a_released_savepoint_keeps_its_events(woken: list[str]) -> None:
    """The first event of a transaction may be fired in a savepoint that is kept."""
    with transaction.atomic():
        with transaction.atomic():
            fire("a.inner", 1)
        fire_in_vain("a.lost", 2)

    assert woken == ["default"]
    assert [event.name for event in fired()] == ["a.inner"]


@pytest.mark.django_db(transaction=True)
def test_a_transaction_wakes_once(woken: list[str]) -> None:
    """However many events it fires, a transaction rings once, and after its commit."""
    with transaction.atomic():
        for number in range(5):
            fire("a.b", number)
        assert woken == []
    assert woken == ["default"]

    with transaction.atomic():
        fire("a.b", 5)
    assert woken == ["default", "default"]


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_firing_wakes_at_once(woken: list[str]) -> None:
    """In autocommit mode the event is committed when ``fire`` returns."""
    fire("a.b", 1)

    assert woken == ["default"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", [f"{__name__}.BrokenEngine", "djwebhooks.engines.none.Engine"])
def test_a_broken_engine_harms_nobody(settings: LazySettings, path: str) -> None:
    """A wake-up that fails neither raises after the commit nor skips the application's own callbacks."""
    settings.DJWEBHOOKS_ENGINE = path
    called: list[str] = []
    with transaction.atomic():
        transaction.on_commit(lambda: called.append("before"))
        fire("a.b", 1)
        transaction.on_commit(lambda: called.append("after"))
    fire("a.b", 2)

    assert called == ["before", "after"]
    assert len(fired()) == 2


@pytest.mark.django_db
def test_in_a_test_case_the_wake_is_an_on_commit_callback(woken: list[str]) -> None:
    """Inside a test's own transaction nothing is rung, unless the test runs its callbacks."""
    with TestCase.captureOnCommitCallbacks() as callbacks:
        fire("a.b", 1)
        fire("a.b", 2)

    assert woken == []
    assert len(callbacks) == 1


@pytest.mark.django_db
def test_a_test_may_run_the_callbacks_again_and_again(woken: list[str]) -> None:
    """Each time that it does, the engine is woken for what was fired since."""
    for number in range(3):
        with TestCase.captureOnCommitCallbacks(execute=True):
            fire("a.b", number)

    assert woken == ["default"] * 3


# -- which database ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_another_databases_transaction_is_the_wrong_one() -> None:
    """An event cannot depend on a commit of another database, and says so."""
    with transaction.atomic(using="other"), pytest.raises(WrongTransaction, match="'other'"):
        fire("a.b", 1)
    assert fired() == []


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_both_transactions_say_that_it_is_meant() -> None:
    """Inside a transaction of the events' own database it is clear what the event depends on."""
    with transaction.atomic(using="other"), transaction.atomic():
        fire("a.b", 1)

    assert len(fired()) == 1


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_using_chooses_the_database(woken: list[str]) -> None:
    """``using=`` writes to that alias, in that alias's transaction."""
    with transaction.atomic(using="other"):
        event = fire("a.b", 1, using="other")
        assert woken == []

    assert event._state.db == "other"
    assert woken == ["other"]
    assert fired(using="other") == [event]
    assert fired() == []
    with transaction.atomic(), pytest.raises(WrongTransaction, match="'default'"):
        fire("a.b", 1, using="other")


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_direct_targets_are_made_in_the_same_database() -> None:
    """``urls=`` with ``using=`` leaves the other database alone, and delivers."""
    fire("a.b", 1, urls=URL, using="other")

    assert [request.url for request in deliver(using="other")] == [URL]
    assert WebhookTarget.objects.using("default").count() == 0


# -- refused ----------------------------------------------------------------------------------------------------------

CYCLE: list[object] = []
CYCLE.append(CYCLE)

REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("unknown", {"name": "project.deleted"}, UnknownEvent, "'project.deleted' is not in the catalogue"),
    ("name with a space", {"name": "project update"}, InvalidEvent, "'project update'"),
    ("empty name", {"name": ""}, InvalidEvent, "''"),
    ("trailing dot", {"name": "project."}, InvalidEvent, r"'project\.'"),
    ("trailing newline", {"name": "project.update\n"}, InvalidEvent, r"project\.update\\n"),
    ("wildcard", {"name": "project.*"}, InvalidEvent, r"'project\.\*'"),
    ("letters beyond ASCII", {"name": "projet.créé"}, InvalidEvent, "créé"),
    ("long name", {"name": "a" * 256}, InvalidEvent, "256"),
    ("no name", {"name": None}, InvalidEvent, "None"),
    ("NaN", {"payload": {"a": [float("nan")]}}, InvalidPayload, r'payload\["a"\]\[0\]'),
    ("infinity", {"payload": float("inf")}, InvalidPayload, "inf"),
    ("bytes", {"payload": {"a": b"x"}}, InvalidPayload, r'payload\["a"\].*bytes'),
    ("cycle", {"payload": CYCLE}, InvalidPayload, "contains itself"),
    ("NUL", {"payload": {"a": "x\0"}}, InvalidPayload, "NUL"),
    ("NUL in a key", {"payload": {"x\0": 1}}, InvalidPayload, "NUL"),
    ("surrogate", {"payload": ["\ud83d"]}, InvalidPayload, "surrogate"),
    ("object", {"payload": object()}, InvalidPayload, "object"),
    ("key that is no text", {"payload": {1: 2}}, InvalidPayload, "int"),
    ("too large", {"payload": "x" * 300_000}, PayloadTooLarge, "DJWEBHOOKS_PAYLOAD_LIMIT"),
    ("number as identifier", {"identifier": 42}, InvalidEvent, "identifier must be a string, not int"),
    ("no identifier", {"identifier": None}, InvalidEvent, "identifier"),
    ("NUL in identifier", {"identifier": "a\0"}, InvalidEvent, "identifier"),
    ("surrogate in identifier", {"identifier": "\udc00"}, InvalidEvent, "identifier"),
    ("long identifier", {"identifier": "x" * 256}, InvalidEvent, "identifier has 256"),
    ("number as ordering key", {"ordering_key": 1}, InvalidEvent, "ordering_key"),
    ("long ordering key", {"ordering_key": "x" * 256}, InvalidEvent, "ordering_key has 256"),
    ("number as idempotency key", {"idempotency_key": 1}, InvalidEvent, "idempotency_key"),
    ("long idempotency key", {"idempotency_key": "x" * 256}, InvalidEvent, "idempotency_key has 256"),
    ("broadcast to nobody knows", {"broadcast": None}, InvalidEvent, "broadcast must be True or False, not None"),
    ("naive time", {"expires_at": datetime(2026, 1, 1)}, InvalidEvent, "expires_at must be an aware datetime"),
    ("naive deliver_at", {"deliver_at": datetime(2026, 1, 1)}, InvalidEvent, "deliver_at must be an aware datetime"),
    ("seconds as time", {"deliver_at": 60}, InvalidEvent, "deliver_at must be an aware datetime, not 60"),
    ("delay as time", {"deliver_at": timedelta(1)}, InvalidEvent, "deliver_at must be an aware datetime"),
    (
        "last moment of all",
        {"expires_at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))},
        InvalidEvent,
        "expires_at",
    ),
    (
        "first moment of all",
        {"deliver_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))},
        InvalidEvent,
        "deliver_at",
    ),
    ("expires before", {"deliver_at": NOW, "expires_at": NOW}, InvalidEvent, "expires_at .* must be later than deliver_at"),
    ("number as URLs", {"urls": 5}, InvalidEvent, "urls .* not 5"),
    ("bytes as URLs", {"urls": b"https://x"}, InvalidEvent, "urls"),
    ("callable without URLs", {"urls": lambda: None}, InvalidEvent, "urls .* not None"),
    ("no URLs", {"urls": []}, InvalidEvent, "urls names no address"),
    ("number among URLs", {"urls": [5]}, InvalidTarget, "5"),
    ("no scheme", {"urls": "example.com/x"}, InvalidTarget, "is no URL: write all of it"),
    ("empty URL", {"urls": ""}, InvalidTarget, "is no URL: write all of it"),
    ("other scheme", {"urls": "ftp://example.com/"}, InvalidTarget, "'ftp'"),
    ("credentials", {"urls": "https://me:pw@example.com/"}, InvalidTarget, "user name or password"),
    ("private address", {"urls": [URL, "https://10.0.0.1/"]}, InvalidTarget, "10.0.0.1"),
    ("owner of another model", {"owner": Group()}, TypeError, "Group"),
    ("number as owner", {"owner": 1}, TypeError, "owner must be auth.User .*not int"),
    ("nobody", {"owner": AnonymousUser()}, TypeError, "AnonymousUser"),
    ("lazy nobody", {"owner": SimpleLazyObject(AnonymousUser)}, TypeError, "AnonymousUser"),
    ("unsaved owner", {"owner": User(username="new")}, TypeError, "saved"),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("_", "arguments", "error", "message"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_refused_event_is_said_and_harms_nothing(
    settings: LazySettings, _: str, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """The error names what is wrong, and the caller's transaction goes on as if nothing had been fired."""
    settings.DJWEBHOOKS_EVENTS = {"project.update": {}}
    with transaction.atomic(), pytest.raises(error, match=message):
        fire(**{"name": "project.update", "payload": {}, **arguments})
    make_user("still-working")

    assert fired() == []


@pytest.mark.django_db
def test_a_refused_url_shows_no_password() -> None:
    """An error may end in a log, so it shows no more than was wrong."""
    with pytest.raises(InvalidTarget) as caught:
        fire("a.b", 1, urls="https://me:hunter2@example.com/")

    assert "hunter2" not in str(caught.value)


# -- idempotency ------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_second_call_returns_the_first_event() -> None:
    """One key, one event, also where the owner is nobody."""
    make_target()
    user = make_user()
    for owner in (user, None):
        first = fire("order.paid", {"n": 1}, owner=owner, idempotency_key="order-abc")
        second = fire("order.paid", {"n": 1}, owner=owner, idempotency_key="order-abc")
        assert (second.pk, second.uid) == (first.pk, first.uid)

    assert len(fired()) == 2
    assert len(deliver()) == 2
    assert fire("order.paid", {"n": 1}, idempotency_key="order-abc").dispatched_at is not None
    assert deliver() == []


@pytest.mark.django_db
def test_another_payload_is_a_conflict() -> None:
    """A key that is used for something else is a mistake, and harms nothing."""
    first = fire("order.paid", {"n": 1}, idempotency_key="order-abc")
    with transaction.atomic(), pytest.raises(IdempotencyConflict, match=f"'order-abc'.*{first.uid}"):
        fire("order.paid", {"n": 2}, idempotency_key="order-abc")
    make_user()

    assert fired() == [first]


@pytest.mark.django_db
@pytest.mark.parametrize("key", ["order-abc ", " order-abc", "ORDER-ABC", "order-äbc", "órder-abc"])
def test_keys_are_compared_exactly(key: str) -> None:
    """Neither case nor spaces nor accents make keys equal."""
    first = fire("order.paid", 1, idempotency_key="order-abc")

    assert fire("order.paid", 2, idempotency_key=key).pk != first.pk


@pytest.mark.django_db
def test_a_key_is_its_owners_and_its_names() -> None:
    """Another owner, or another event, may use the same key."""
    ada, bob = make_user("ada"), make_user("bob")
    events = [fire(name, 1, owner=owner, idempotency_key="k") for name in ("a.b", "a.c") for owner in (ada, bob, None)]

    assert len({event.pk for event in events}) == 6


@pytest.mark.django_db(transaction=True)
def test_a_rolled_back_key_is_free() -> None:
    """What never happened has used no key."""
    fire_in_vain("a.b", 1, idempotency_key="k")

    assert fire("a.b", 2, idempotency_key="k").payload == "2"


@pytest.mark.django_db
def test_what_no_key_explains_is_not_tried_for_ever() -> None:
    """An event that the database refuses for another reason, or for a key that nobody can read, raises what the database says."""
    first = fire("a.b", 1, idempotency_key="k")
    twin = Event(uid=first.uid, name="a.b", payload="1", idempotency_key="another")
    with transaction.atomic(), pytest.raises(IntegrityError):
        insert_once(twin, "default")

    assert fired() == [first]


@pytest.mark.django_db(transaction=True)
def test_calls_at_once_make_one_event() -> None:
    """Of several callers with one key, each in a transaction of its own, all get the one event."""

    def work() -> int:
        with transaction.atomic():
            return fire("order.paid", 1, idempotency_key="k").pk

    assert run_together(*[work] * 4) == [fired()[0].pk] * 4
    assert len(fired()) == 1


@pytest.mark.django_db(transaction=True)
def test_calls_at_once_with_other_payloads_conflict() -> None:
    """Of two callers with one key and two payloads one is told."""
    results = run_together(
        lambda: fire("order.paid", 1, idempotency_key="k"),
        lambda: fire("order.paid", 2, idempotency_key="k"),
    )

    assert sorted(type(result).__name__ for result in results) == ["Event", "IdempotencyConflict"]
    assert len(fired()) == 1


# -- asynchronous -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_afire_fires_from_a_coroutine() -> None:
    """``afire`` takes what ``fire`` takes and raises what it raises."""
    user = make_user()

    async def view() -> Event:
        with pytest.raises(InvalidPayload):
            await afire("a.b", float("nan"))
        return await afire("a.b", 1, owner=user)

    event = async_to_sync(view)()

    assert fired() == [event]
    assert event.owner == user


# -- when and where ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_event_is_not_delivered_before_its_time() -> None:
    """``deliver_at`` holds it back before dispatch: who subscribes until then gets it too."""
    target = make_target()
    event = fire("a.b", 1, deliver_at=django_timezone.now() + timedelta(hours=1))
    assert deliver() == []
    assert Delivery.objects.count() == 0

    make_target(url=f"{URL}/later")
    Event.objects.filter(pk=event.pk).update(deliver_at=django_timezone.now() - timedelta(seconds=1))

    assert sorted(request.url for request in deliver()) == [target.target_url, f"{URL}/later"]


@pytest.mark.django_db
def test_a_past_deliver_at_is_now() -> None:
    """A time that has passed delays nothing."""
    make_target()
    fire("a.b", 1, deliver_at=NOW - timedelta(days=365))

    assert len(deliver()) == 1


@pytest.mark.django_db
def test_an_expired_event_is_not_sent() -> None:
    """After ``expires_at`` its deliveries end as expired, and the event is still explained."""
    make_target()
    event = fire("a.b", 1, expires_at=datetime(2025, 1, 1, tzinfo=UTC))

    assert deliver() == []
    assert list(Delivery.objects.values_list("event", "status", "reason")) == [(event.pk, "expired", "expired")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "urls",
    [URL, [URL], (URL,), {URL}, iter([URL]), lambda: URL, lambda: [URL], [URL, URL], "HTTP://127.0.0.1:9/hook"],
    ids=["string", "list", "tuple", "set", "iterator", "callable string", "callable list", "twice", "another spelling"],
)
def test_an_event_goes_straight_to_urls(urls: Any) -> None:
    """``urls=`` is a string, a list or a callable; subscribers are not asked."""
    make_target(url=f"{URL}/subscribed")
    user = make_user()
    fire("a.b", 1, owner=user, urls=urls)

    assert [request.url for request in deliver()] == [URL]
    target = WebhookTarget.objects.get(owner=user)
    assert (target.is_hidden, target.events) == (True, [])


@pytest.mark.django_db
def test_hidden_targets_are_used_again() -> None:
    """An address has one hidden target of its owner, however often it is named, and whoever else has it."""
    ada, bob = make_user("ada"), make_user("bob")
    for owner in (ada, ada, bob, None):
        fire("a.b", 1, owner=owner, urls="http://127.0.0.1:9")
    fire("a.c", 1, owner=ada)

    assert WebhookTarget.objects.filter(owner=ada).count() == 1
    assert WebhookTarget.objects.count() == 3
    assert len(deliver()) == 4


@pytest.mark.django_db
def test_a_subscribed_target_is_used_for_its_url() -> None:
    """An address that has a visible target needs no hidden one, and that one stays as it is."""
    user = make_user()
    target = WebhookTarget.objects.register("http://127.0.0.1:9", ["x.y"], owner=user)
    fire("a.b", 1, owner=user, urls="http://127.0.0.1:9")

    assert len(deliver()) == 1
    target.refresh_from_db()
    assert (WebhookTarget.objects.count(), target.is_hidden, target.events) == (1, False, ["x.y"])


@pytest.mark.django_db
def test_hidden_targets_do_not_count(settings: LazySettings) -> None:
    """The limit of targets per owner is for those that people make."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1
    user = make_user()
    fire("a.b", 1, owner=user, urls=[f"{URL}/{number}" for number in range(3)])
    WebhookTarget.objects.register(URL, ["a.b"], owner=user)

    assert WebhookTarget.objects.filter(owner=user).count() == 4


@pytest.mark.django_db
def test_validation_errors_are_djangos_own() -> None:
    """A refused address is a ``ValidationError``, which forms and serializers know."""
    with pytest.raises(ValidationError):
        fire("a.b", 1, urls="https://10.0.0.1/")
