"""An application's tests see what was fired and deliver it without a network or a worker."""

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.test import TestCase
from django.utils import timezone

from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.health import FAILURES
from djwebhooks.models import Attempt, Delivery, Worker
from djwebhooks.testing import Receiver, deliver, fired, make_due, outbox, payload_of, reset, targets_of
from djwebhooks.transports.base import Reply, Request
from tests.builders import URL, make_target


@hook("note.written")
def note_written(text: str) -> dict[str, str]:
    return {"text": text}


class ApplicationTest(TestCase):
    """A test as applications write it, in a transaction that is rolled back."""

    def test_in_a_test_case(self) -> None:
        """Fired, built, dispatched, sent and recorded, all inside the test's transaction."""
        make_target()
        note_written("x")
        assert [event.name for event in fired("note.written")] == ["note.written"]
        [request] = deliver()

        assert request.body.endswith(b'"data":{"text":"x"}}')
        assert Delivery.objects.get().status == "succeeded"
        assert Worker.objects.count() == 0


@pytest.mark.django_db
def test_fired_lists_by_name_oldest_first() -> None:
    """All events, or those of one name."""
    first, second, third = fire("a.b", 1), fire("a.c", 2), fire("a.b", 3)

    assert fired() == [first, second, third]
    assert fired("a.b") == [first, third]
    assert fired("a.d") == []


@pytest.mark.django_db
def test_deliver_sends_what_is_due_once_and_in_order() -> None:
    """A second call finds nothing left; the outbox keeps it all."""
    make_target()
    for number in range(3):
        note_written(str(number))
    requests = deliver()

    assert [request.body[-4:] for request in requests] == [b'0"}}', b'1"}}', b'2"}}']
    assert deliver() == []
    fire("a.b", 1)
    assert outbox == requests + deliver()


@pytest.mark.django_db
def test_deliver_answers_what_the_test_says() -> None:
    """A status for all, or a function of the request."""
    make_target(url=f"{URL}/good")
    make_target(url=f"{URL}/bad", retry_schedule=[])
    fire("a.b", 1)

    def answer(request: Request) -> Reply:
        if request.url.endswith("bad"):
            return Reply(request.key, error="timeout")
        return Reply(request.key, status=201, body=b"thanks")

    deliver(answer)

    statuses = dict(Delivery.objects.values_list("target__target_url", "status"))
    assert statuses == {f"{URL}/good": "succeeded", f"{URL}/bad": "failed"}
    assert sorted(Attempt.objects.values_list("status_code", "response_body", "error"), key=str) == [
        (201, "thanks", ""),
        (None, "", "timeout"),
    ]


@pytest.mark.django_db
def test_deliver_does_not_wait_for_retries() -> None:
    """What has failed is due later; the test goes on."""
    make_target()
    fire("a.b", 1)

    assert len(deliver(503)) == 1
    assert deliver() == []
    assert Delivery.objects.get().status == "pending"


@pytest.mark.django_db
def test_deliver_needs_no_settings(settings: LazySettings) -> None:
    """Whatever engine and transport the project has, nothing leaves the process."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.rq.RQEngine"
    settings.DJWEBHOOKS_TRANSPORT = "not.there"
    make_target(url="https://example.com/")
    fire("a.b", 1)

    assert len(deliver()) == 1


@pytest.mark.django_db(databases=["default", "other"])
def test_another_database_has_events_of_its_own() -> None:
    """``using=`` chooses it."""
    fire("a.b", 1, using="other", urls=URL)

    assert fired() == deliver() == []
    assert len(fired(using="other")) == len(deliver(using="other")) == 1


# -- what an event tells, and whom -------------------------------------------------------------------------------------


@hook("note.counted")
def note_counted() -> int:
    fire("note.written", "from inside")
    return 7


@pytest.mark.django_db
def test_a_payload_is_seen_before_it_is_built() -> None:
    """It is what the function returns for the captured arguments; nothing is kept, and what the function fires is undone."""
    event = note_counted()

    assert payload_of(event) == 7
    assert fired() == [event]
    event.refresh_from_db()
    assert event.payload == ""
    assert payload_of(fire("a.b", {"x": (2, "é")})) == {"x": [2, "é"]}


@pytest.mark.django_db
def test_a_payload_that_nobody_wanted_is_none() -> None:
    """It was never built, and its call is gone."""
    event = note_counted()
    deliver()
    event.refresh_from_db()

    with pytest.raises(ValueError, match="has no payload: it was erased, or nobody wanted it"):
        payload_of(event)


@pytest.mark.django_db
def test_targets_are_those_that_get_it() -> None:
    """Before the dispatch as things are then, and afterwards as they were."""
    target = make_target()
    make_target(url=f"{URL}/other", event="c.d")
    event = fire("a.b", 1)

    assert targets_of(event) == [target]
    deliver()
    later = make_target(url=f"{URL}/later")
    assert targets_of(event) == [target]
    assert targets_of(fire("a.b", 1)) == [target, later]


@hook("order.placed", version="2")
def order_placed(number: int) -> dict[str, int]:
    return {"number": number}


@order_placed.version("1")
def order_placed_1(number: int) -> dict[str, str]:
    return {"number": str(number)}


@pytest.mark.django_db
def test_a_payload_is_seen_in_each_version() -> None:
    """Before it is built and afterwards; of a version that there is not, targets get the current one."""
    target = make_target(version="1")
    event = order_placed(7)
    assert [payload_of(event, version)["number"] for version in ("", "1", "3")] == [7, "7", 7]

    [request] = deliver()
    event.refresh_from_db()

    assert targets_of(event) == [target]
    assert b'"number":"7"' in request.body
    assert [payload_of(event, version)["number"] for version in ("", "1", "3")] == [7, "7", 7]


@pytest.mark.django_db
def test_targets_are_those_whose_filters_let_it_through() -> None:
    """Judged by what would be sent to each of them, before the dispatch and after it."""
    current = make_target(event="order.placed", url=f"{URL}/2", filters={"order.placed": {"number": [7]}})
    old = make_target(event="order.placed", url=f"{URL}/1", version="1", filters={"order.placed": {"number": ["7"]}})
    make_target(event="order.placed", url=f"{URL}/other", filters={"order.placed": {"number": [8]}})
    event = order_placed(7)

    assert targets_of(event) == [current, old]
    assert len(deliver()) == 2
    assert targets_of(event) == [current, old]


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_retries_are_due_when_time_passes() -> None:
    """Every pause of the schedule is over at once."""
    make_target(retry_schedule=[3600, 86400])
    fire("a.b", 1)

    for number in (1, 2, 3):
        assert len(deliver(503)) == 1
        make_due()
        assert Delivery.objects.get().attempt_count == number
    assert deliver(503) == []
    assert Delivery.objects.get().reason == "schedule_exhausted"


@pytest.mark.django_db
def test_what_was_planned_is_due_when_time_passes() -> None:
    """Events for later, and what a target's rate holds back."""
    make_target(rate_limit=1, rate_period="hour")
    for _ in range(2):
        fire("a.b", 1, deliver_at=timezone.now() + timedelta(days=1))
    assert deliver() == []

    make_due()
    assert len(deliver()) == 1
    assert deliver() == []
    make_due()
    assert len(deliver()) == 1


@pytest.mark.django_db
def test_a_function_that_raised_is_tried_again_when_time_passes() -> None:
    """So a test can see it mended."""
    make_target()
    event = note_failing()
    assert deliver() == []
    event.refresh_from_db()
    assert event.build_attempts == 1

    make_due()
    deliver()

    event.refresh_from_db()
    assert event.build_attempts == 2


@hook("note.failing")
def note_failing() -> None:
    raise RuntimeError


@pytest.mark.django_db
def test_a_cool_down_is_over_when_time_passes(settings: LazySettings) -> None:
    """A target that is suspended gets its probe; what people have paused stays so."""
    settings.DJWEBHOOKS_SUSPEND_AFTER = 0
    target = make_target()
    fire("a.b", 1)
    for _ in range(FAILURES):
        deliver(503)
        make_due()
    assert target.state == "suspended"
    assert len(deliver(503)) == 1
    assert deliver() == []
    make_due()
    assert len(deliver()) == 1

    target.pause()
    fire("a.b", 1)
    make_due()
    assert deliver() == []


# -- over the network --------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_deliver_can_use_the_network(webhook_receiver: Receiver) -> None:
    """A real receiver answers, in the test's own transaction; the outbox has it as well."""
    target = make_target(url=webhook_receiver.url)
    webhook_receiver.keys = target.secret
    webhook_receiver.answers = [503, reset, 204]
    event = fire("a.b", {"x": 1})
    for _ in range(3):
        [request] = deliver(network=True)
        make_due()

    assert request.url == webhook_receiver.url
    assert outbox[-1] == request
    assert [each.content["data"] for each in webhook_receiver.requests] == [{"x": 1}] * 3
    assert {each.headers["webhook-id"] for each in webhook_receiver.requests} == {str(event.uid)}
    attempts = Attempt.objects.order_by("number").values_list("status_code", "error")
    assert list(attempts) == [(503, ""), (None, "connection_reset"), (204, "")]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.django_db
def test_the_plugin_empties_the_outbox(number: int) -> None:
    """Each test begins with an empty one."""
    assert outbox == []
    make_target()
    fire("a.b", 1)
    deliver()
    assert len(outbox) == 1
