"""Suspended targets from end to end: held, probed, sent to again at a rising rate; and limits over several workers."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from djwebhooks.database import DatabaseNow
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.health import FAILURES
from djwebhooks.models import Attempt, Delivery, Event, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import work
from tests.builders import make_target, make_user

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
NOW = datetime.fromisoformat("2026-09-21T14:13:20Z")


class Receiver:
    """What answers in the place of a receiver: with *status*, which a test changes as it goes."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.transport = MemoryTransport(self.answer)

    def answer(self, request: Request) -> Reply:
        return Reply(request.key, status=self.status, address="203.0.113.1")

    def work(self) -> list[str]:
        """Send what is due; return the ids of the events that were sent, in their order."""
        before = len(self.transport.requests)
        work(burst=True, transport=self.transport, threaded=False)
        return [request.headers["webhook-id"] for request in self.transport.requests[before:]]


@pytest.fixture
def owner() -> User:
    return make_user()


def fire_many(count: int, owner: User, **fields: Any) -> list[str]:
    return [str(fire("a.b", number, owner=owner, **fields).uid) for number in range(count)]


def suspend(target: WebhookTarget, *, next_probe: timedelta) -> None:
    """Make *target* one whose receiver was down for some time, with its next probe after *next_probe*."""
    times = {"failing_since": DatabaseNow() - MINUTE, "suspended_at": DatabaseNow() - MINUTE}
    facts = {"failure_count": 9, "failure": "http_503", "cooldown_count": 1}
    until = {"held_until": DatabaseNow() + next_probe}
    Lane.objects.update_or_create({**times, **facts, **until}, target_id=target.pk)


def lane_of(target: WebhookTarget) -> Lane:
    return Lane.objects.get(target=target)


def end_cool_down(target: WebhookTarget) -> None:
    Lane.objects.filter(target=target).update(held_until=DatabaseNow(), due_at=DatabaseNow())


# -- suspended ---------------------------------------------------------------------------------------------------------


def test_nothing_but_failures_suspends_a_target(owner: User, settings: LazySettings) -> None:
    """It gets some attempts, and then its events are held: none of them fails."""
    settings.DJWEBHOOKS_SUSPEND_AFTER = 0.000001
    target = make_target(owner)
    fire_many(60, owner)
    receiver = Receiver(503)

    sent = receiver.work()

    assert FAILURES <= len(sent) < 60
    assert target.state == "suspended"
    assert target.health.failure == "http_503"
    assert set(Delivery.objects.values_list("status", flat=True)) == {Status.PENDING}


def test_a_suspended_target_gets_nothing_before_its_cool_down_is_over(owner: User) -> None:
    """What is fired meanwhile is held, and its lane sleeps until then."""
    target = make_target(owner)
    suspend(target, next_probe=MINUTE)
    fire_many(3, owner)

    assert Receiver().work() == []
    lane = lane_of(target)
    assert (lane.holder, lane.due_at) == (None, lane.held_until)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_a_suspended_target_gets_one_probe(owner: User, is_ordered: bool) -> None:
    """It is the delivery that is due first; when it fails, nothing else is sent, and the next cool-down is longer."""
    target = make_target(owner, is_ordered=is_ordered)
    suspend(target, next_probe=timedelta())
    first, *_ = fire_many(5, owner)

    assert Receiver(503).work() == [first]

    assert target.state == "suspended"
    assert lane_of(target).cooldown_count == 2
    assert list(Attempt.objects.values_list("delivery__event__uid", "number")) == [(Event.objects.earliest("id").uid, 1)]


def test_the_next_probe_is_another_delivery(owner: User) -> None:
    """One that the receiver cannot bear does not keep it suspended for ever."""
    target = make_target(owner)
    suspend(target, next_probe=timedelta())
    poison, *others = fire_many(3, owner)

    class Fussy(Receiver):
        def answer(self, request: Request) -> Reply:
            return Reply(request.key, status=500 if request.headers["webhook-id"] == poison else 200)

    receiver = Fussy()
    assert receiver.work() == [poison]
    end_cool_down(target)

    assert receiver.work() == others
    assert lane_of(target).suspended_at is None


@pytest.mark.parametrize("is_ordered", [True, False])
def test_what_was_held_goes_out_in_order_once_a_probe_succeeds(owner: User, is_ordered: bool) -> None:
    """All of it, each once."""
    target = make_target(owner, is_ordered=is_ordered)
    suspend(target, next_probe=timedelta())
    fired = fire_many(12, owner)

    assert Receiver().work() == fired
    assert target.health.recovering_since is not None
    assert not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()


def test_what_was_held_goes_out_at_a_rising_rate(owner: User) -> None:
    """The instants are reserved in the lane, so that no number of workers is a flood together."""
    target = make_target(owner)
    suspend(target, next_probe=timedelta())
    fire_many(14, owner)
    Receiver().work()

    lane = lane_of(target)
    starts = list(Attempt.objects.order_by("started_at").values_list("started_at", flat=True))[1:]
    assert lane.recovering_since is not None
    for start, later in pairwise(starts):
        rate = lane.health.rate(later)
        assert rate is not None
        assert (later - start).total_seconds() > 0.5 / rate


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("limits", "sent"), [({}, 40), ({"rate_limit": 20}, 40), ({"rate_limit": 1, "rate_period": "hour"}, 1)])
def test_a_burst_waits_for_what_a_rate_lets_out_shortly(owner: User, limits: dict[str, Any], sent: int) -> None:
    """It drains a target that recovers, or has a limit, instead of leaving most of it to the next one; but not for hours."""
    target = make_target(owner, **limits)
    target.pause()
    fire_many(40, owner)
    Receiver().work()
    target.resume()
    receiver = Receiver()
    work(burst=True, transport=receiver.transport)

    assert len(receiver.transport.requests) == sent


def test_our_own_faults_leave_it_as_it_is(owner: User) -> None:
    """A probe that never left this machine says nothing of the receiver."""
    target = make_target(owner)
    suspend(target, next_probe=timedelta())
    fire_many(2, owner)
    before = target.health
    transport = MemoryTransport(lambda request: Reply(request.key, error="no_dns_server"))
    work(burst=True, transport=transport, threaded=False)

    assert target.health == before


def test_what_has_its_own_time_expires_while_it_is_held(owner: User) -> None:
    """Its successor on an ordered target is the next probe."""
    target = make_target(owner, is_ordered=True)
    suspend(target, next_probe=MINUTE)
    fire("a.b", 1, owner=owner, expires_at=NOW + timedelta(days=365000))
    Receiver().work()
    Delivery.objects.update(expires_at=DatabaseNow())
    [later] = fire_many(1, owner)
    Lane.objects.update(due_at=DatabaseNow())
    Receiver().work()
    end_cool_down(target)

    assert Receiver().work() == [later]
    assert list(Delivery.objects.order_by("sequence").values_list("status", flat=True)) == [Status.EXPIRED, Status.SUCCEEDED]


# -- people ------------------------------------------------------------------------------------------------------------


def test_people_may_force_a_probe(owner: User) -> None:
    """The first delivery goes now, though its cool-down and its own retry are hours away."""
    target = make_target(owner)
    suspend(target, next_probe=timedelta(hours=4))
    [first] = fire_many(1, owner)
    Receiver().work()
    Delivery.objects.update(due_at=DatabaseNow() + timedelta(hours=2))

    target.probe()

    assert Receiver().work() == [first]
    assert target.state == "degraded"


def test_a_probe_is_a_test_if_nothing_waits(owner: User) -> None:
    """So that people can see whether the receiver works again."""
    target = make_target(owner, event="other.event")
    suspend(target, next_probe=timedelta(hours=4))

    target.probe()
    Receiver().work()

    assert Event.objects.get().name == "webhook.test"
    assert target.health.suspended_at is None


def test_a_probe_of_a_disabled_target_is_a_careful_way_to_resume_it(owner: User) -> None:
    """One request; the rest follows only if it succeeds."""
    target = make_target(owner)
    fire_many(1, owner)
    Receiver(410).work()
    assert target.state == "disabled"
    fired = fire_many(3, owner)
    target.probe()

    assert Receiver(500).work() == fired[:1]
    assert target.state == "suspended"


def test_a_paused_target_is_not_probed(owner: User) -> None:
    """People have said that nothing is to be sent."""
    target = make_target(owner)
    target.pause()

    with pytest.raises(InvalidTarget, match="resume it"):
        target.probe()


@pytest.mark.parametrize("how", ["paused", "disabled", "suspended"])
def test_a_resumed_target_is_not_flooded(owner: User, how: str) -> None:
    """Whatever held it: what waits goes out at a rising rate. It is healthy, as people say so."""
    target = make_target(owner)
    suspend(target, next_probe=MINUTE)
    if how == "paused":
        Lane.objects.all().delete()
        Lane.objects.create(target=target)
        target.pause()
    elif how == "disabled":
        Lane.objects.update(disabled_at=DatabaseNow(), disabled_reason="gone")

    target.resume()

    assert target.state == "healthy"
    assert target.health.recovering_since is not None


def test_resuming_a_healthy_target_slows_nothing_down(owner: User) -> None:
    """Nothing was held."""
    target = make_target(owner)
    Lane.objects.create(target=target)
    target.resume()

    assert target.health.recovering_since is None


@pytest.mark.parametrize("word", ["healthy", "degraded", "suspended", "disabled", "paused"])
def test_targets_are_found_by_their_state(owner: User, word: str) -> None:
    """What the database finds is what the property says, whatever is known of the lane."""
    later, earlier = DatabaseNow() + MINUTE, DatabaseNow() - timedelta(seconds=5)
    long_ago = DatabaseNow() - timedelta(hours=1)
    lanes: list[dict[str, Any]] = [
        {}, {"failure_count": 1}, {"held_until": later}, {"held_until": earlier}, {"suspended_at": earlier},
        {"recovering_since": earlier}, {"recovering_since": earlier, "cooldown_count": 1},
        {"recovering_since": long_ago, "cooldown_count": 1}, {"disabled_at": earlier, "held_until": later},
    ]  # fmt: skip
    make_target(owner, url="http://127.0.0.1/without-lane")
    for number, fields in enumerate(lanes):
        for is_active in (True, False):
            target = make_target(owner, url=f"http://127.0.0.1/{number}/{is_active}", is_active=is_active)
            Lane.objects.create(target=target, **fields)

    found = set(WebhookTarget.objects.in_state(word))

    assert found == {target for target in WebhookTarget.objects.all() if target.state == word}
    assert found


# -- telling -----------------------------------------------------------------------------------------------------------


def test_an_event_tells_the_owners_other_targets(owner: User) -> None:
    """It is fired in the transaction that disables, for who asks for it by name: not for ``*``, nor for other owners."""
    make_target(owner, event="a.b")
    wanted = make_target(owner, url="http://127.0.0.1:9/ops", event="webhook.target.disabled")
    below = make_target(owner, url="http://127.0.0.1:9/below", event="webhook.*")
    make_target(owner, url="http://127.0.0.1:9/all", event="*", identifier="none of the events above")
    make_target(make_user("other"), url="http://127.0.0.1:9/other", event="webhook.*")
    system = make_target(url="http://127.0.0.1:9/system", event="webhook.target.disabled")
    fire("a.b", 1, owner=owner)

    class Gone(Receiver):
        def answer(self, request: Request) -> Reply:
            return Reply(request.key, status=410 if request.url.endswith("/hook") else 200)

    Gone().work()

    event = Event.objects.get(name="webhook.target.disabled")
    assert event.owner == owner
    assert '"reason":"gone"' in event.payload
    assert {delivery.target for delivery in event.deliveries.all()} == {wanted, below, system}


def test_a_burst_sends_the_event_that_tells_of_it(owner: User) -> None:
    """Also when nothing else is left to do once a target is disabled: it may be long until somebody else comes by."""
    make_target(owner, event="a.b")
    make_target(owner, url="http://127.0.0.1:9/ops", event="webhook.target.disabled")
    make_target(url="http://127.0.0.1:9/system", event="webhook.target.disabled")
    fire("a.b", 1, owner=owner)

    class Gone(Receiver):
        def answer(self, request: Request) -> Reply:
            return Reply(request.key, status=200 if request.url.endswith("/system") else 410)

    Gone().work()

    assert Event.objects.filter(name="webhook.target.disabled").count() == 2
    assert not Event.objects.waiting().exists()


def test_the_event_can_be_subscribed_to_whatever_the_catalogue_has(owner: User, settings: LazySettings) -> None:
    """It is the library's own, and in nobody's catalogue."""
    settings.DJWEBHOOKS_EVENTS = {"a.b": {}}
    WebhookTarget.objects.register("http://127.0.0.1:9/", ["webhook.target.disabled"], owner=owner)

    with pytest.raises(InvalidTarget, match="matches no event"):
        WebhookTarget.objects.register("http://127.0.0.1:9/", ["webhook.nonsense"], owner=owner)
