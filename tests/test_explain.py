"""What is said of events and deliveries is what happens to them."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db.models import F
from django.utils import timezone

from djwebhooks.erasure import erase
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidEvent, UnknownEvent
from djwebhooks.explain import Explanation, explain_name, explain_uid
from djwebhooks.explain.sections import LIMIT
from djwebhooks.models import Delivery, Event, Lane, Replay, Subscription, WebhookTarget, Worker
from djwebhooks.testing import deliver

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 9, 21, 14, 0, tzinfo=UTC)


@pytest.fixture
def acme() -> User:
    return User.objects.create(username="acme")


@pytest.fixture
def other() -> User:
    return User.objects.create(username="other")


def make_target(owner: User | None, path: str, *events: str, identifier: str = "", **fields: object) -> WebhookTarget:
    url = f"http://127.0.0.1:9/{path}"
    return WebhookTarget.objects.register(url, list(events), owner=owner, identifier=identifier, **fields)


def text_of(explanation: Explanation | None, heading: str = "") -> str:
    """What an explanation says, or one section of it."""
    assert explanation is not None
    sections = [section for section in explanation.sections if section.heading.startswith(heading)]
    return "\n".join([*(section.heading + "\n" + "\n".join(section.lines) for section in sections)])


def explain_delivery(delivery: Delivery, heading: str = "") -> str:
    return text_of(explain_uid(delivery.uid), heading)


def say_nothing_of(text: str, *paths: str) -> bool:
    return not any(f"/{path} " in text for path in paths)


# -- a name ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_owner", "identifier", "receivers"),
    [(True, "p-42", {"all", "p-42", "system"}), (True, "", {"all", "system"}), (False, "", {"system"})],
)
def test_the_receivers_of_a_name_are_those_of_the_matching_table(
    acme: User, other: User, has_owner: bool, identifier: str, receivers: set[str]
) -> None:
    """Every row of the table of matches, and everybody else is named with a reason."""
    make_target(acme, "all", "a.*")
    make_target(acme, "p-42", "a.b", identifier="p-42")
    make_target(other, "other", "*")
    make_target(None, "system", "a.b")
    explanation = explain_name("a.b", owner_pk=acme.pk if has_owner else None, identifier=identifier)

    got, missed = text_of(explanation, "Would get it"), text_of(explanation, "Would not")

    for path in ("all", "p-42", "other", "system"):
        assert (f"/{path} " in got) == (path in receivers)
        assert (f"/{path} " in missed) == (path not in receivers)


def test_near_misses_say_why(acme: User, other: User) -> None:
    """Another owner, another identifier, both of them, or no subscription."""
    make_target(acme, "identifier", "a", identifier="x")
    make_target(other, "owner", "a")
    make_target(other, "both", "a", identifier="x")
    make_target(acme, "unsubscribed", "b", "c.*")
    make_target(acme, "empty")

    missed = text_of(explain_name("a", owner_pk=acme.pk, identifier="y"), "Would not").splitlines()
    belongs = f"it belongs to owner {other.pk}, and the event has owner {acme.pk}"
    reasons = {missed[number].split("/")[3].split(" ")[0]: missed[number + 1].split(": ")[1] for number in range(1, 11, 2)}

    assert reasons == {
        "identifier": "its identifier is 'x', and the event's is 'y'",
        "owner": belongs,
        "both": f"{belongs}; its identifier is 'x', and the event's is 'y'",
        "unsubscribed": "it is not subscribed; it wants b, c.*",
        "empty": "it is not subscribed; it wants nothing",
    }


def test_without_an_owner_every_subscriber_is_listed_with_its_condition(acme: User) -> None:
    """Who knows no primary key yet sees whose events go where."""
    make_target(acme, "one", "a.b", identifier="x")
    make_target(None, "two", "*")
    make_target(acme, "three", "c")

    text = text_of(explain_name("a.b"))

    assert f"subscribed to a.b; gets events of owner {acme.pk} with identifier 'x', and broadcasts" in text
    assert "subscribed to *; gets events of every owner, and broadcasts" in text
    assert say_nothing_of(text, "three")


def test_a_name_that_nothing_speaks_for_may_be_misspelt(acme: User, settings: LazySettings) -> None:
    """Without a catalogue, a subscriber or an event of this name shows that it is meant; with one, it is in it."""
    doubt = "No event of this name was ever fired; without a catalogue any name will do, so check its spelling."
    assert text_of(explain_name("user.updat")) == f"Subscribed\nNobody.\n{doubt}"
    assert doubt in text_of(explain_name("user.updat", owner_pk=acme.pk), "Would get it")
    assert text_of(explain_name("17")).endswith(f"{doubt}\nIf it is a row's primary key, ask by its uid instead.")

    make_target(acme, "one", "wanted")
    fire("fired", {}, owner=acme)
    known = [text_of(explain_name("wanted")), text_of(explain_name("fired"))]
    settings.DJWEBHOOKS_EVENTS = {"listed": {}}

    assert not any(doubt in text for text in [*known, text_of(explain_name("listed"))])


def test_a_receiver_that_is_held_says_so(acme: User) -> None:
    """Paused, disabled and suspended targets would get it, but later."""
    make_target(acme, "paused", "a").pause()
    later = timezone.now() + timedelta(hours=5)
    for target, state in [("disabled", {"disabled_at": NOW, "disabled_reason": "gone"}), ("suspended", {"held_until": later})]:
        Lane.objects.create(target=make_target(acme, target, "a"), **state)

    text = text_of(explain_name("a", owner_pk=acme.pk), "Would get it")

    assert "HELD: it is paused; resume it" in text
    assert "HELD: it was disabled" in text
    assert "answered 410 Gone; resume it once it is fixed" in text
    assert "HELD: it is suspended until" in text
    assert "in 5 h" in text


def test_a_receiver_that_is_probed_says_why(acme: User) -> None:
    """Attempts that failed are told of, and one that is probed because people want to know has none."""
    failed = {"failure_count": 3, "failure": "http_503"}
    for target, state in [("failing", failed), ("asked", {})]:
        Lane.objects.create(target=make_target(acme, target, "a"), suspended_at=NOW, **state)

    text = text_of(explain_name("a", owner_pk=acme.pk), "Would get it")

    assert text.count("HELD: it has been suspended since ") == 2
    assert text.count("the last 3 attempts failed, the latest with HTTP 503; the next probe goes now") == 1
    assert "the last 0 attempts" not in text


def test_lists_are_bounded(acme: User) -> None:
    """A name with many subscribers is explained at the price of a few."""
    for number in range(LIMIT + 3):
        make_target(acme, str(number), "a")

    lines = explain_name("a", owner_pk=acme.pk).sections[0].lines

    assert len(lines) == LIMIT + 1
    assert lines[-1] == "… and 3 more."


def test_nobody_is_said_too(acme: User) -> None:
    """An empty list explains itself."""
    fire("a", {}, owner=acme)
    explanation = explain_name("a", owner_pk=acme.pk)

    assert [section.lines for section in explanation.sections] == [["Nobody."], ["No other target comes near."]]


def test_a_name_that_cannot_be_is_an_error(settings: LazySettings) -> None:
    """As in fire(): what is no name, or not in the catalogue."""
    with pytest.raises(InvalidEvent, match="is no event name"):
        explain_name("no name")
    settings.DJWEBHOOKS_EVENTS = {"a.b": {}}
    with pytest.raises(UnknownEvent, match=r"has a\.b"):
        explain_name("a.c")


# -- an event ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"owner_pk": None}])
def test_a_name_whose_payloads_cannot_be_built_says_so(options: dict[str, None]) -> None:
    """How many, by which hook, and what that raised last."""
    assert "Payloads" not in text_of(explain_name("a", **options))
    for number in range(2):
        event = Event.objects.create(name="a", hook="app.hooks:a", build_error=f"Traceback\n  File x\nValueError: {number}\n")
    Event.objects.create(name="b", hook="app.hooks:b", build_error="KeyError: 1")

    text = text_of(explain_name("a", **options), "Payloads")

    assert f"2 events of this name could not be built the last time, the latest being {event.uid}, by app.hooks:a" in text
    assert "Last error: ValueError: 1" in text
    assert "KeyError" not in text


@pytest.mark.parametrize(
    ("engine", "advice"),
    [
        ("database.DatabaseEngine", "run manage.py webhooks work"),
        ("immediate.ImmediateEngine", "the next event takes it along"),
        ("rq.RQEngine", "one begins with the next job, if an rqworker runs"),
    ],
)
def test_what_to_do_without_a_worker_depends_on_the_engine(engine: str, advice: str, settings: LazySettings) -> None:
    """Nobody is told of RQ who does not use it."""
    settings.DJWEBHOOKS_ENGINE = f"djwebhooks.engines.{engine}"
    event = Event.objects.create(name="a")

    assert f"no worker is at work: {advice}" in text_of(explain_uid(event.uid))
    assert ("rqworker" in text_of(explain_uid(event.uid))) == engine.startswith("rq.")


def test_an_event_that_waits_for_dispatch_says_so(acme: User) -> None:
    """It is committed, has others ahead of it, and nobody is at work."""
    make_target(acme, "one", "a")
    fire("a", {}, owner=acme)
    event = fire("a", {}, owner=acme, identifier="i", ordering_key="k", idempotency_key="once", expires_at=timezone.now())

    text = text_of(explain_uid(event.uid))

    assert "Committed: fired" in text
    assert f"For: owner {acme.pk}, identifier 'i'" in text
    assert "Ordering key: 'k'" in text
    assert "Idempotency key: 'once'" in text
    assert "Expires: " in text
    assert "Not dispatched yet, with 1 event ahead of it: no worker is at work: run manage.py webhooks work" in text
    assert "/one " in text_of(explain_uid(event.uid), "Will get it")


def test_a_live_worker_is_counted(acme: User) -> None:
    """Who waits for dispatch with workers alive has to wait only."""
    Worker.objects.create(name="worker", place="here", expires_at=timezone.now() + timedelta(hours=1))

    assert "ahead of it: 1 worker at work" in text_of(explain_uid(fire("a", {}, owner=acme).uid))


def test_a_planned_event_says_when(acme: User) -> None:
    """An event with deliver_at waits for its time."""
    event = fire("a", {}, owner=acme, deliver_at=timezone.now() + timedelta(days=10, minutes=1))

    assert "Not dispatched yet: it is planned for" in text_of(explain_uid(event.uid))
    assert "(in 10 days)" in text_of(explain_uid(event.uid))


def test_a_partly_dispatched_event_says_so(acme: User) -> None:
    """Those whose turn has not come yet are told from those who came too late."""
    make_target(acme, "one", "a")
    event = fire("a", {}, owner=acme)
    Event.objects.update(dispatch_cursor=1)

    text = text_of(explain_uid(event.uid))

    assert "Partly dispatched" in text
    assert "its turn has not come yet" in text


def test_the_deliveries_of_an_event_are_listed_with_trouble_first(acme: User) -> None:
    """What succeeded is behind what did not, and every delivery names its target."""
    for path in ("one", "two", "three"):
        make_target(acme, path, "a")
    event = fire("a", {}, owner=acme)
    deliver()
    last = Delivery.objects.order_by("-pk")[0]
    Delivery.objects.filter(pk=last.pk).update(status="failed", reason="gone")

    text = text_of(explain_uid(event.uid), "Deliveries")

    assert text.startswith("Deliveries: 1 failed, 2 succeeded\nfailed (gone), 1 attempt\n")
    assert text.count("succeeded, 1 attempt") == 2
    assert all(str(delivery.uid) in text for delivery in Delivery.objects.all())
    assert "Built, 2 bytes" in text_of(explain_uid(event.uid), "Payload")
    assert "Its bytes are fixed in standard." in text_of(explain_uid(event.uid), "Payload")


def test_an_event_says_who_came_too_late(acme: User) -> None:
    """A target that matches now, but was made or subscribed after the dispatch, is told from one that never matched."""
    early = make_target(acme, "early", "b")
    event = fire("a", {}, owner=acme)
    deliver()
    Event.objects.update(dispatched_at=timezone.now() - timedelta(hours=1))
    WebhookTarget.objects.filter(pk=early.pk).update(created_at=timezone.now() - timedelta(hours=2))
    Subscription.objects.create(target=early, event="a")
    make_target(acme, "late", "a")

    text = text_of(explain_uid(event.uid))

    assert "None: nobody wanted it, or they were pruned." in text
    assert "/late (owner" in text
    assert "it was made after the event was dispatched" in text
    assert "it was subscribed, or changed, after the event was dispatched" in text


def test_a_broadcast_and_urls_say_so(acme: User) -> None:
    """Matching is another matter for both."""
    make_target(acme, "subscribed", "a")
    broadcast = fire("a", {}, broadcast=True)
    direct = fire("a", {}, owner=acme, urls="http://127.0.0.1:9/direct")

    assert "For: everybody who is subscribed (broadcast)" in text_of(explain_uid(broadcast.uid))
    text = text_of(explain_uid(direct.uid))
    assert "named by urls=" in text
    assert "It goes straight to the addresses in urls=" in text
    assert say_nothing_of(text, "subscribed")


def test_a_build_tells_its_state(acme: User) -> None:
    """Not yet, failing with its last line, given up, and never because nobody wanted it."""
    event = Event.objects.create(name="a", owner=acme, hook="shop.paid", call="{}")

    def payload() -> str:
        return text_of(explain_uid(event.uid), "Payload")

    assert "Not built yet: shop.paid runs when the first delivery is sent." in payload()
    error = "Traceback:\n  secret stuff\nKeyError: 'x\x1b[31m'\n"
    Event.objects.update(build_attempts=2, build_error=error, build_due_at=timezone.now() + timedelta(hours=3))
    assert "Not built yet after 2 of 5 runs of shop.paid; it runs again" in payload()
    assert "Last error: KeyError: 'x [31m'" in payload()
    assert "secret stuff" not in payload()
    Event.objects.update(build_attempts=5, build_due_at=None)
    assert "Given up after 5 of 5 runs of shop.paid" in payload()
    Event.objects.update(build_attempts=0, build_error="", call="", dispatched_at=NOW)
    assert "Never built: nobody wanted the event" in payload()
    Event.objects.update(payload="{}")
    assert "Built, 2 bytes, by shop.paid" in payload()


def test_an_unknown_uid_is_none() -> None:
    """Neither an event nor a delivery."""
    assert explain_uid(uuid.uuid4()) is None


def test_an_erased_event_says_so(acme: User) -> None:
    """What is left is told, and nothing is guessed of what was erased."""
    make_target(acme, "1", "a.b")
    event = fire("a.b", {"name": "Crusoe"}, owner=acme, identifier="Crusoe")
    deliver(500)
    erase(acme)

    text = text_of(explain_uid(event.uid))

    assert "Erased 2" in text
    assert "cancelled (erased), 1 attempt" in text
    assert "Crusoe" not in text
    assert "not get it" not in text


# -- a delivery --------------------------------------------------------------------------------------------------------


def test_a_retry_says_when_and_why(acme: User) -> None:
    """The next time, what the last attempt brought, and each attempt with its answer."""
    make_target(acme, "one", "a")
    fire("a", {}, owner=acme)
    deliver(503)
    delivery = Delivery.objects.get()

    assert "Tried again after HTTP 503: " in explain_delivery(delivery, "Why it waits")
    assert "#1 (event)" in explain_delivery(delivery, "1 attempt")
    assert ": 503" in explain_delivery(delivery, "1 attempt")


def test_what_ended_says_how_and_waits_for_nothing(acme: User) -> None:
    """A finished delivery shows its end and its target even when that is gone."""
    target = make_target(acme, "one", "a")
    event = fire("a", {}, owner=acme, ordering_key="k")
    deliver()
    delivery = Delivery.objects.get()

    assert "Ended: succeeded, " in explain_delivery(delivery)
    assert "Sequence: 1 of its target, ordering key 'k'" in explain_delivery(delivery)
    assert explain_delivery(delivery, "Why it waits") == ""
    target.delete()
    Event.objects.all().delete()
    assert "Event: deleted\nTarget: deleted" in explain_delivery(delivery)
    assert event.uid != delivery.uid


@pytest.mark.parametrize(("key", "line"), [("k", "of its ordering key 'k'"), ("", "without an ordering key")])
def test_an_ordered_delivery_says_behind_which_one_it_is(acme: User, key: str, line: str) -> None:
    """The first of its key is named, and that it can be cancelled."""
    make_target(acme, "one", "a", is_ordered=True)
    for _ in range(3):
        fire("a", {}, owner=acme, ordering_key=key)
    deliver(503)
    first, second, third = Delivery.objects.order_by("sequence")

    assert f"Behind 1 delivery {line}. First is delivery {first.uid} (sequence 1, 1 attempt, due" in explain_delivery(second)
    assert f"Behind 2 deliveries {line}. First is delivery {first.uid}" in explain_delivery(third)


def test_the_first_of_its_key_without_a_time_waits_for_a_look(acme: User) -> None:
    """A target that was just put out of order is lined up anew by a worker."""
    make_target(acme, "one", "a", is_ordered=True)
    fire("a", {}, owner=acme)
    deliver(503)
    Delivery.objects.update(due_at=None)

    assert "It is first of its ordering key" in explain_delivery(Delivery.objects.get())


def test_what_is_held_says_until_when(acme: User) -> None:
    """Each reason for the target, and the end of patience."""
    target = make_target(acme, "one", "a")
    target.pause()
    fire("a", {}, owner=acme, expires_at=timezone.now() + timedelta(days=50))
    deliver()
    delivery = Delivery.objects.get()
    text = explain_delivery(delivery)

    assert "Held: it is paused; resume it." in text
    assert "What is held expires" in text
    assert "(in 30 days)" in text
    assert "Expires: " in text

    Delivery.objects.update(created_at=F("created_at") - timedelta(days=20))
    assert "(in 10 days)" in explain_delivery(Delivery.objects.get())
    delivery.retry()
    assert "(in 30 days)" in explain_delivery(Delivery.objects.get())
    Delivery.objects.update(expires_at=timezone.now() + timedelta(days=5, hours=1))
    assert "(in 30 days)" not in explain_delivery(Delivery.objects.get())


def test_what_is_due_says_who_should_send_it(acme: User) -> None:
    """Nobody, a live worker, a dead one, or the rate limit."""
    target = make_target(acme, "one", "a")
    target.pause()
    fire("a", {}, owner=acme)
    deliver()
    WebhookTarget.objects.update(is_active=True, rate_limit=0.01)
    delivery = Delivery.objects.get()

    def waits() -> str:
        return explain_delivery(delivery, "Why it waits")

    assert "It is due, and waits for a worker: no worker is at work" in waits()
    worker = Worker.objects.create(name="worker", place="host:1", expires_at=timezone.now() + timedelta(hours=1))
    assert "It is due, and waits for a worker: 1 worker at work" in waits()
    Lane.objects.update(holder=worker.pk)
    assert f"Worker {worker.pk} (host:1) holds its target" in waits()
    Worker.objects.update(expires_at=NOW - timedelta(days=900))
    assert f"Worker {worker.pk}, which holds its target, stopped beating" in waits()
    Worker.objects.all().delete()
    assert "stopped beating" in waits()
    Lane.objects.update(next_free_at=timezone.now() + timedelta(minutes=10))
    assert "The rate limit of 0.01 a second is used up until" in waits()
    Lane.objects.all().delete()
    assert "Its target has no lane yet." in waits()
    Event.objects.update(payload="", hook="shop.paid", call="{}")
    assert "Payload: Not built yet: shop.paid runs" in waits()
    Event.objects.all().delete()
    assert "What it was for is deleted" in waits()


def test_attempts_show_errors_and_the_last_answer_harmlessly(acme: User) -> None:
    """An answer may hold anything; a terminal gets one printable line of it."""
    make_target(acme, "one", "a")
    fire("a", {}, owner=acme)
    deliver(500)
    delivery = Delivery.objects.get()
    delivery.attempts.create(
        number=2, trigger="retry", url="-", started_at=NOW, duration=15, error="timeout", detail="15 s\nare over",
        address="127.0.0.1", response_body="\x1b[2J" + "x" * 500,
    )  # fmt: skip
    delivery.attempts.model.objects.filter(number=1).update(address="127.0.0.1")

    text = explain_delivery(delivery, "1 attempt")

    assert ": timeout from 127.0.0.1 after 15 s: 15 s are over" in text
    assert f"Last answer: ' [2J{'x' * 195}…'" in text
    delivery.attempts.all().delete()
    assert "None is recorded." in explain_delivery(delivery)


def test_nothing_secret_is_said(acme: User) -> None:
    """Neither secrets nor headers nor payloads are in an explanation."""
    target = make_target(acme, "one", "a", headers={"authorization": "Bearer topsecret"})
    event = fire("a", {"card": "4111 1111"}, owner=acme)
    deliver(503)
    text = text_of(explain_uid(event.uid)) + explain_delivery(Delivery.objects.get()) + text_of(explain_name("a"))

    assert not any(word in text for word in (target.secret, target.secrets, "topsecret", "4111 1111"))


# -- words -------------------------------------------------------------------------------------------------------------


def test_what_was_sent_again_says_who_wanted_it(acme: User) -> None:
    """And by which way, and what became of the replay."""
    target = make_target(acme, "a", "a.b", retry_schedule=[])
    fire("a.b", 1, owner=acme)
    deliver(500)
    delivery = Delivery.objects.get()
    assert "Re" not in explain_delivery(delivery, "What it is")
    target.replay(by="ada\x1b", through="command")
    replay = Replay.objects.get()
    deliver(500)
    delivery.refresh_from_db()

    assert f"Replayed (replay {replay.uid}, finished) by ada  through the command, " in explain_delivery(delivery, "What it is")
    delivery.retry(through="api")
    assert "Retried through the API, " in explain_delivery(delivery, "What it is")
    delivery.replay.cancel(by="bob")
    assert "; cancelled by bob 20" in explain_delivery(delivery, "What it is")
    Replay.objects.all().delete()
    assert "Replayed: longer ago than anything is known of it" in explain_delivery(delivery, "What it is")
