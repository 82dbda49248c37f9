"""Receivers of CloudEvents are asked whether they may be sent to, and nothing goes to those that do not say so."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone

from djwebhooks.database import DatabaseNow
from djwebhooks.events import fire
from djwebhooks.explain import explain_uid
from djwebhooks.handshake import Handshake, Permission
from djwebhooks.models import Attempt, Delivery, Lane, WebhookTarget
from djwebhooks.senders import Letter, Sender
from djwebhooks.testing import deliver, make_due
from djwebhooks.testing.receiver import Conversation, Receiver
from djwebhooks.transports.base import Reply, Request, Transport
from djwebhooks.transports.curl import CurlTransport
from djwebhooks.transports.requests import RequestsTransport
from djwebhooks.worker import work
from tests.builders import URL, make_target

ORIGIN = "app.example.com"

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def origin(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_CLOUDEVENTS_ORIGIN = ORIGIN


@pytest.fixture(params=[RequestsTransport, CurlTransport])
def transport(request: pytest.FixtureRequest) -> Transport:
    made: Transport = request.param(concurrency=8)
    return made


class Consent:
    """A receiver's script: answers OPTIONS with these headers, and all else with 200."""

    def __init__(self, **headers: str) -> None:
        self.headers = headers

    def __call__(self, conversation: Conversation) -> None:
        while conversation.read():
            asks = conversation.request is not None and conversation.request.method == "OPTIONS"
            conversation.answer(200, b"", **(self.headers if asks else {}))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(script=Consent(webhook_allowed_origin=ORIGIN)) as receiver:
        yield receiver


def send(transport: Transport, count: int = 1) -> None:
    """Fire events and work until nothing is due."""
    for number in range(count):
        fire("a.b", {"number": number})
    work(burst=True, transport=transport, threaded=False)


def methods_of(receiver: Receiver) -> list[str]:
    return [request.method for request in receiver.requests]


def ends() -> list[tuple[str, str]]:
    return list(Delivery.objects.order_by("pk").values_list("status", "reason"))


# -- what is asked, and what answers mean ------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "told"), [(None, None), (2.0, "120"), (1 / 3600, "1")])
def test_the_question(rate: float | None, told: str | None) -> None:
    """Who wants to send and, if that is known, how many requests a minute."""
    headers = Handshake("https://example.com/", ORIGIN, rate).headers

    assert headers.get("webhook-request-rate") == told
    assert headers["webhook-request-origin"] == ORIGIN


@pytest.mark.parametrize(
    ("headers", "rate"),
    [
        ({"webhook-allowed-origin": ORIGIN}, None),
        ({"WebHook-Allowed-Origin": "APP.example.com "}, None),
        ({"webhook-allowed-origin": "*", "webhook-allowed-rate": "*"}, None),
        ({"webhook-allowed-origin": "*", "webhook-allowed-rate": "120"}, 2.0),
        ({"webhook-allowed-origin": "*", "webhook-allowed-rate": "0"}, None),
        ({"webhook-allowed-origin": "*", "webhook-allowed-rate": "9" * 400}, None),
        ({"webhook-allowed-origin": "*", "webhook-allowed-rate": "often"}, None),
    ],
)
def test_permissions(headers: dict[str, str], rate: float | None) -> None:
    """Our own name or an asterisk, whatever the status; a rate is in requests per minute."""
    assert Handshake("https://example.com/", ORIGIN).read(404, headers) == Permission("https://example.com/", ORIGIN, rate)


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"allow": "POST, OPTIONS"}, "its answer to OPTIONS (200) has no header WebHook-Allowed-Origin."),
        ({"webhook-allowed-origin": "other.example.com"}, "its answer to OPTIONS (200) allows 'other.example.com' only."),
    ],
)
def test_other_answers_are_no_consent(headers: dict[str, str], says: str) -> None:
    """Many servers answer OPTIONS and know nothing of this."""
    told = Handshake("https://example.com/", ORIGIN).read(200, headers)

    assert isinstance(told, str)
    assert told.startswith("The receiver did not allow app.example.com to send to it")
    assert told.endswith(says)


# -- on the way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ["cloudevents", "cloudevents-binary"])
def test_a_receiver_is_asked_once(envelope: str, receiver: Receiver, transport: Transport) -> None:
    """Before the first request, with the target's own headers; each one after that says whose it is."""
    make_target(
        url=receiver.url, envelope=envelope, headers={"x-own": "1"}, authentication={"type": "bearer", "token": "t"}, rate_limit=5
    )
    send(transport, 3)
    Lane.objects.update(next_free_at=None, due_at=DatabaseNow())
    Delivery.objects.filter(status="pending").update(due_at=DatabaseNow())
    work(burst=True, transport=type(transport)(), threaded=False)

    asked, *sent = receiver.requests
    assert methods_of(receiver) == ["OPTIONS", *["POST"] * len(sent)]
    assert (asked.headers["webhook-request-origin"], asked.headers["webhook-request-rate"]) == (ORIGIN, "300")
    assert (asked.headers["x-own"], asked.headers["authorization"], asked.body) == ("1", "Bearer t", b"")
    assert {request.headers["origin"] for request in sent} == {ORIGIN}
    assert len(sent) >= 2
    assert Attempt.objects.count() == len(sent)
    assert "webhook-signature" not in asked.headers


def test_nothing_is_sent_to_who_does_not_allow_it(transport: Transport) -> None:
    """The delivery waits, and says why; the receiver is asked again when it is tried again."""
    with Receiver(script=Consent()) as receiver:
        make_target(url=receiver.url, envelope="cloudevents")
        send(transport)
        [delivery] = Delivery.objects.all()
        explained = str(explain_uid(delivery.uid))

        assert methods_of(receiver) == ["OPTIONS"]
        assert ends() == [("pending", "not_permitted")]
        assert Attempt.objects.get().error == "not_permitted"
        assert "has no header WebHook-Allowed-Origin" in Attempt.objects.get().detail
        assert "not_permitted" in explained

        receiver.script = Consent(webhook_allowed_origin="*")
        delivery.retry()
        make_due()
        work(burst=True, transport=type(transport)(), threaded=False)

        assert methods_of(receiver) == ["OPTIONS", "OPTIONS", "POST"]
        assert ends() == [("succeeded", "")]


@pytest.mark.parametrize("limits", [{}, {"rate_limit": 1, "rate_period": "minute"}])
def test_who_refuses_is_asked_once_for_all_that_waits(limits: dict[str, Any], transport: Transport) -> None:
    """The whole lane rests then, even if the schedule says at once; only the delivery that asked has an attempt."""
    with Receiver(script=Consent()) as receiver:
        make_target(url=receiver.url, envelope="cloudevents", retry_schedule=[0] * 9, **limits)
        send(transport, 20)

        assert methods_of(receiver) == ["OPTIONS"]
        make_due()
        work(burst=True, transport=type(transport)(), threaded=False)

        assert methods_of(receiver) == ["OPTIONS"] * 2
    assert Attempt.objects.count() == 2
    assert {status for status, _ in ends()} == {"pending"}


def test_a_receiver_that_wants_a_pause_gets_it() -> None:
    """Also if it says so to the question."""
    make_target(envelope="cloudevents")
    fire("a.b", 1)

    deliver(lambda request: Reply(request.key, status=429, headers={"retry-after": "3600"}))

    until = Lane.objects.get().held_until
    assert until is not None
    assert (until - Attempt.objects.get().started_at).total_seconds() >= 3600
    assert ends() == [("pending", "not_permitted")]


def test_the_question_uses_up_the_rate_of_the_target(receiver: Receiver, transport: Transport) -> None:
    """It is a request to the receiver like any other: the first webhook waits its distance."""
    make_target(url=receiver.url, envelope="cloudevents", rate_limit=1, rate_period="minute")
    send(transport, 2)
    first_free_at = Lane.objects.get().next_free_at

    assert methods_of(receiver) == ["OPTIONS"]
    assert ends() == [("pending", "")] * 2
    assert first_free_at is not None
    assert 30 < (first_free_at - timezone.now()).total_seconds() < 90
    make_due()
    work(burst=True, transport=type(transport)(), threaded=False)
    assert methods_of(receiver) == ["OPTIONS", "POST"]


def test_who_cannot_be_asked_is_no_other_fault(transport: Transport) -> None:
    """A refused connection is what it is, and tried again."""
    make_target(envelope="cloudevents")
    send(transport)

    assert ends() == [("pending", "connection_refused")]


def test_a_new_url_is_asked_anew(receiver: Receiver, transport: Transport) -> None:
    """What one receiver allowed, another one need not; the same is true of another name."""
    target = make_target(url=receiver.url, envelope="cloudevents")
    send(transport)
    target.target_url = f"{receiver.url}/2"
    target.save()
    send(type(transport)())

    assert [(request.method, request.path[-1]) for request in receiver.requests] == [
        ("OPTIONS", "k"),
        ("POST", "k"),
        ("OPTIONS", "2"),
        ("POST", "2"),
    ]


class Each(Sender):
    """Sends to what the payload says."""

    def url(self, letter: Letter) -> str:
        return str(letter.message.data["url"])


@pytest.fixture
def each(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_SENDERS = {"each": f"{__name__}.Each"}
    make_target(sender="each", envelope="cloudevents")


def agree(request: Request) -> Reply:
    return Reply(request.key, status=200, headers={"webhook-allowed-origin": "*"})


def test_a_refusal_by_an_address_that_was_left_holds_nothing() -> None:
    """It speaks for itself alone, also about how long it wants to be left in peace."""
    target = make_target(envelope="cloudevents")
    fire("a.b", {})

    def move_meanwhile(request: Request) -> Reply:
        if request.url == URL:
            target.target_url = f"{URL}/new"
            target.save()
            return Reply(request.key, status=429, headers={"retry-after": "3600"})
        return agree(request)

    sent = [(request.method, request.url) for request in deliver(move_meanwhile)]

    assert sent == [("OPTIONS", URL), ("OPTIONS", f"{URL}/new"), ("POST", f"{URL}/new")]
    assert ends() == [("succeeded", "")]


@pytest.mark.usefixtures("each")
def test_where_a_sender_sends_is_asked() -> None:
    """Not the target's own URL; once, if each event goes to another one."""
    for path in ("a", "b?c"):
        fire("a.b", {"url": f"{URL}/{path}"})

    requests = deliver(agree)

    assert [request.method for request in requests] == ["OPTIONS", "POST", "POST"]
    assert {request.url for request in requests} == {f"{URL}/a", f"{URL}/b?c"}
    assert URL not in {request.url for request in requests}


@pytest.mark.usefixtures("each")
def test_nothing_is_sent_to_a_host_that_is_not_asked(caplog: pytest.LogCaptureFixture) -> None:
    """A lane keeps the permission of one receiver, which is the target's; the log says what to do."""
    fire("a.b", {"url": "http://127.0.0.2:9/"})
    fire("a.b", {"url": URL})

    requests = deliver(agree)

    assert [(request.method, request.url) for request in requests] == [("OPTIONS", URL), ("POST", URL)]
    assert ends() == [("pending", "sender_error"), ("succeeded", "")]
    assert "The sender 'each' sends to another host than the target's" in caplog.text


def test_what_is_no_cloudevent_needs_no_permission(settings: LazySettings) -> None:
    """A sender that writes bodies of its own has no envelope, whatever the target's is."""
    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender"}
    settings.DJWEBHOOKS_ENVELOPE = "cloudevents"
    make_target(sender="form")
    fire("a.b", {"a": 1})

    [request] = deliver(lambda request: Reply(request.key, status=405 if request.method == "OPTIONS" else 200))

    assert request.method == "POST"
    assert "origin" not in request.headers


@pytest.mark.parametrize("limit", [None, 1000.0])
def test_a_rate_that_is_allowed_is_kept_to(limit: float | None, transport: Transport) -> None:
    """Where it is stricter than the target's own."""
    with Receiver(script=Consent(webhook_allowed_origin=ORIGIN, webhook_allowed_rate="1")) as receiver:
        make_target(url=receiver.url, envelope="cloudevents", rate_limit=limit)
        send(transport, 3)

        assert methods_of(receiver) == ["OPTIONS", "POST"]
        assert ends() == [("succeeded", ""), ("pending", ""), ("pending", "")]
        assert "allowed 1 requests a minute" in str(explain_uid(Delivery.objects.latest("pk").uid))
        next_free_at = Lane.objects.get().next_free_at
        assert next_free_at is not None
        assert 30 < (next_free_at - timezone.now()).total_seconds() < 90


def test_a_rate_goes_with_its_permission(settings: LazySettings, transport: Transport) -> None:
    """Once nobody is asked any more, nothing binds but the target's own."""
    with Receiver(script=Consent(webhook_allowed_origin=ORIGIN, webhook_allowed_rate="1")) as receiver:
        make_target(url=receiver.url, envelope="cloudevents")
        send(transport, 3)
        settings.DJWEBHOOKS_CLOUDEVENTS_ORIGIN = ""
        Lane.objects.update(next_free_at=None, due_at=DatabaseNow())
        work(burst=True, transport=type(transport)(), threaded=False)

        assert methods_of(receiver) == ["OPTIONS", *["POST"] * 3]
        assert "origin" not in receiver.requests[-1].headers
        assert Lane.objects.get().permission == {}


@pytest.mark.parametrize(("envelope", "name"), [("standard", ORIGIN), ("", ORIGIN), ("cloudevents", "")])
def test_nobody_else_is_asked(settings: LazySettings, envelope: str, name: str) -> None:
    """It is for CloudEvents, and for who wants it."""
    settings.DJWEBHOOKS_CLOUDEVENTS_ORIGIN = name
    make_target(envelope=envelope)
    fire("a.b", 1)

    [request] = deliver()

    assert request.method == "POST"
    assert "origin" not in request.headers
    assert WebhookTarget.objects.count() == 1
