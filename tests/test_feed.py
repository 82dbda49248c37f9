"""What a page of the feed has, and where it ends."""

import json
import threading
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.utils import timezone, translation

from djwebhooks import feed, signing
from djwebhooks.build import LEASE
from djwebhooks.decorators import hook
from djwebhooks.dispatch import dispatch
from djwebhooks.erasure import erase_events
from djwebhooks.events import fire
from djwebhooks.feed import Page, read_page
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.testing import deliver, outbox
from tests.builders import make_target
from tests.engines.processes import PATIENCE, wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def target() -> WebhookTarget:
    owner = User.objects.create_user("owner")
    return WebhookTarget.objects.register("https://example.com/", ["*"], owner=owner)


@hook("a.hooked", live=True)
def hooked(owner: User) -> str:
    return User.objects.get(pk=owner.pk).first_name or str(1 / 0)


@hook("a.told")
def told(owner: User) -> dict[str, str]:
    return {"name": owner.username}


@hook("a.spoken")
def spoken() -> str:
    return translation.get_language()


#: Open once a slow function may end.
gate = threading.Event()


@hook("a.slow")
def slow() -> str:
    gate.wait(PATIENCE)
    return "at last"


@hook("a.versions", live=True)
def several(owner: User) -> str:
    return "first"


@several.version("2")
def second(owner: User) -> str:
    raise ValueError("not yet")


def close(target: WebhookTarget, state: str) -> None:
    now = timezone.now()
    if state == "paused":
        target.pause()
    elif state == "suspended":
        Lane.objects.update(suspended_at=now, held_until=now + timedelta(hours=1))
    else:
        Lane.objects.update(disabled_at=now, disabled_reason="gone")
    assert WebhookTarget.objects.get().state == state


def fire_some(target: WebhookTarget, count: int = 3) -> None:
    for number in range(count):
        fire("a.b", {"number": number}, owner=target.owner)


def read(target: WebhookTarget, after: int = 0) -> Page:
    return read_page(target, after, "default")


def sequences(page: Page) -> list[int]:
    return [item.sequence for item in page.items]


def test_an_item_is_what_was_sent(target: WebhookTarget) -> None:
    """Same id, same bytes, same sequence; the signature is new, and good."""
    outbox.clear()
    fire_some(target)
    deliver()

    page = read(target)

    assert sequences(page) == [1, 2, 3]
    assert (page.after, page.has_more) == (3, False)
    for item, request in zip(page.items, outbox, strict=True):
        assert item.body.encode() == request.body
        unchanging = ("content-type", "webhook-id", "webhook-sequence")
        assert {name: item.headers[name] for name in unchanging} == {name: request.headers[name] for name in unchanging}
        signing.verify(item.body.encode(), item.headers, target.secret)


def test_a_cloudevent_in_binary_mode_has_its_headers(target: WebhookTarget) -> None:
    """Without them, nobody would know what it is."""
    WebhookTarget.objects.update(envelope="cloudevents-binary")
    target.refresh_from_db()
    outbox.clear()
    fire_some(target, 1)
    deliver()

    [item] = read(target).items

    [request] = outbox
    told = {name: value for name, value in request.headers.items() if name.startswith("ce-")}
    assert len(told) == 5
    assert {name: value for name, value in item.headers.items() if name.startswith("ce-")} == told
    assert item.body == '{"number":0}'


def test_it_goes_on_after_a_sequence(target: WebhookTarget) -> None:
    """Nothing is given twice, and nothing is left out."""
    fire_some(target)
    deliver(500)

    assert sequences(read(target, after=1)) == [2, 3]
    assert read(target, after=3) == Page([], 3, has_more=False)
    assert read(target, after=99) == Page([], 99, has_more=False)


def test_what_waits_is_there_and_goes_on_waiting(target: WebhookTarget) -> None:
    """To read is no delivery: also what is paused, pending or failed can be read."""
    target.pause()
    fire_some(target)
    deliver()

    assert sequences(read(target)) == [1, 2, 3]
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.PENDING}


def test_what_must_not_be_sent_is_left_out(target: WebhookTarget) -> None:
    """Cancelled, erased, a test of one key alone, or of no use: the page goes on behind it."""
    fire_some(target, 4)
    target.check_keys()
    fire("a.b", "last", owner=target.owner)
    target.pause()
    deliver()
    first, second, *_ = Delivery.objects.order_by("sequence")
    first.cancel()
    erase_events(Event.objects.filter(pk=second.event_id))

    page = read(target)

    assert sequences(page) == [3, 4, 7]
    assert page.after == 7


@pytest.mark.parametrize("state", ["paused", "suspended", "disabled"])
def test_what_no_worker_builds_is_built_by_who_reads_it(target: WebhookTarget, state: str) -> None:
    """Nothing is sent to such a target, so no worker would; once it is resumed, it is sent what was read."""
    told(target.owner)
    fire_some(target, 1)
    dispatch("default")
    close(target, state)
    deliver()
    assert not Event.objects.get(name="a.told").payload

    page = read(target)

    assert (sequences(page), page.waiting_for) == ([1, 2], None)
    assert '"data":{"name":"owner"}' in page.items[0].body
    assert read(target).items[0].body == page.items[0].body
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.PENDING}
    target.resume()
    outbox.clear()
    deliver()
    assert [request.body.decode() for request in outbox] == [item.body for item in page.items]
    assert Event.objects.get(name="a.told").build_attempts == 1


def test_what_a_worker_is_about_to_build_is_left_to_it(target: WebhookTarget) -> None:
    """A request need not do the work of a worker."""
    told(target.owner)
    dispatch("default")

    assert read(target) == Page([], 0, has_more=False, waiting_for=1)
    assert Event.objects.get().build_attempts == 0


def test_what_waits_behind_an_earlier_event_is_built(target: WebhookTarget) -> None:
    """On an ordered target, a worker builds it only once the earlier one has ended: after days, if that fails."""
    WebhookTarget.objects.update(is_ordered=True)
    fire("a.b", 1, owner=target.owner)
    deliver(500)
    told(target.owner)
    dispatch("default")

    assert sequences(read(target)) == [1, 2]


def test_what_somebody_else_builds_ends_the_page(target: WebhookTarget) -> None:
    """A function runs once at a time, whoever wants it."""
    target.pause()
    event = told(target.owner)
    dispatch("default")
    assert Event.objects.start_build(event.pk, LEASE)

    assert read(target) == Page([], 0, has_more=False, waiting_for=1)


def test_what_is_built_may_be_filtered(target: WebhookTarget) -> None:
    """Whether it is wanted is known only then."""
    target.filters = {"a.told": {"name": ["somebody"]}}
    target.events = ["a.told"]
    target.pause()
    target.save()
    told(target.owner)
    dispatch("default")

    assert read(target) == Page([], 1, has_more=False)


def test_a_page_ends_before_what_cannot_be_built_yet(target: WebhookTarget) -> None:
    """Whoever asks for what is next would never get it otherwise; one that can never be built is passed over."""
    target.pause()
    fire_some(target, 1)
    hooked(target.owner)
    fire_some(target, 1)
    deliver()
    events = Event.objects.filter(name="a.hooked")

    page = read(target)
    assert (sequences(page), page.after, page.has_more, page.waiting_for) == ([1], 1, False, 2)
    assert sequences(read(target)) == [1]
    assert events.get().build_attempts == 1  # There are pauses between its runs, however often somebody asks.

    events.update(build_attempts=4, build_due_at=None)
    assert sequences(read(target)) == [1, 3]
    assert events.get().build_attempts == 5


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.FAILED])
def test_what_ended_before_it_was_built_is_left_out(target: WebhookTarget, status: Status) -> None:
    """Nobody builds it any more, so nothing need wait for it."""
    told(target.owner)
    fire_some(target, 1)
    dispatch("default")
    Delivery.objects.filter(sequence=1).update(status=status, due_at=None, finished_at=timezone.now())

    page = read(target)

    assert (sequences(page), page.after, page.waiting_for) == ([2], 2, None)
    assert Event.objects.get(name="a.told").build_attempts == 0


@pytest.mark.django_db(transaction=True)
def test_who_asks_has_no_say_in_what_is_built() -> None:
    """All targets get what is built then: it is in the language of a worker, not of the request."""
    target = make_target()
    target.pause()
    spoken()
    deliver()

    with translation.override("fr"):
        [item] = read(target).items

    assert json.loads(item.body)["data"] == translation.get_language() != "fr"


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_a_slow_function_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page ends before its event; the function goes on, and what it says is there for the next request."""
    monkeypatch.setattr(feed, "BUILD_SECONDS", 0.05)
    gate.clear()
    target = make_target()
    target.pause()
    slow()
    deliver()
    try:
        first, second = read(target), read(target)
    finally:
        gate.set()
    wait_until(lambda: Event.objects.exclude(payload="").exists(), "the function has said it")

    assert (sequences(first), first.has_more, first.waiting_for) == ([], False, 1)
    assert second == first
    assert sequences(read(target)) == [1]
    assert Event.objects.get().build_attempts == 1


def test_what_was_sent_in_another_version_is_awaited(target: WebhookTarget) -> None:
    """It is not passed over for good because the target wants a version now that has yet to be built."""
    several(target.owner)
    deliver()
    WebhookTarget.objects.update(version="2")
    target.refresh_from_db()

    assert read(target).waiting_for == 1


def test_what_a_page_builds_is_bounded(target: WebhookTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request must not take any time that it likes: what is left is for the next one, at once."""
    monkeypatch.setattr(feed, "BUILD_SECONDS", 1e-9)
    target.pause()
    for _ in range(3):
        told(target.owner)
    deliver()

    page = read(target)

    assert (sequences(page), page.after, page.has_more, page.waiting_for) == ([1], 1, True, None)
    assert list(Event.objects.order_by("pk").values_list("build_attempts", flat=True)) == [1, 0, 0]
    assert sequences(read(target, after=1)) == [2]


def test_pages_are_bounded(target: WebhookTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """By their number of deliveries and by their bytes; what is left comes with the next, also when all of a page is left out."""
    fire_some(target, 7)
    deliver()
    monkeypatch.setattr(feed, "PAGE", 3)
    monkeypatch.setattr(feed, "CHUNK", 2)

    page = read(target)
    assert (sequences(page), page.after, page.has_more) == ([1, 2, 3], 3, True)
    Delivery.objects.filter(sequence__gt=3, sequence__lt=7).update(status=Status.FAILED)
    Event.objects.filter(deliveries__sequence__gt=3, deliveries__sequence__lt=7).update(erased_at=timezone.now())
    page = read(target, after=3)
    assert (sequences(page), page.after, page.has_more) == ([], 6, True)
    assert sequences(read(target, after=6)) == [7]

    monkeypatch.setattr(feed, "PAGE_BYTES", 1)
    page = read(target)
    assert (sequences(page), page.after, page.has_more) == ([1], 1, True)


def test_it_is_written_as_the_target_wants_it(target: WebhookTarget, settings: LazySettings) -> None:
    """Envelope and kinds of signatures are the target's own; bodies that nobody was sent yet are kept."""
    settings.DJWEBHOOKS_SIGNATURES = ["v1", "v1a"]
    WebhookTarget.objects.update(envelope="cloudevents", is_active=False)
    target.refresh_from_db()
    fire_some(target, 1)
    deliver()

    [item] = read(target).items

    assert item.headers["content-type"] == "application/cloudevents+json"
    assert signing.verify(item.body.encode(), item.headers, [target.public_key]) == 0
    assert bytes(Event.objects.get().bodies.get().content).decode() == item.body
