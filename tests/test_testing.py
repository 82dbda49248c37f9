"""An application's tests see what was fired and deliver it without a network or a worker."""

from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.test import TestCase

from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Worker
from djwebhooks.testing import deliver, fired, outbox
from djwebhooks.transports.base import Reply, Request
from tests.builders import URL, make_target


@pytest.fixture(autouse=True)
def clear_outbox() -> Iterator[None]:
    outbox.clear()
    yield
    outbox.clear()


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
