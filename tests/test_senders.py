"""Senders write and send in their own way, and keep every promise while they do; a faulty one harms nobody else."""

import hmac
import json
import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from operator import attrgetter
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

import pytest
import trustme
from django.conf import LazySettings
from django.utils import timezone
from rq.timeouts import JobTimeoutException

from djwebhooks import signing
from djwebhooks.checks import check_chosen_senders
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidEvent, InvalidPayload, InvalidTarget, UnknownSender
from djwebhooks.explain import explain_uid
from djwebhooks.feed import read_page
from djwebhooks.models import Attempt, Body, Delivery, Event, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.payload import ENVELOPES, Message
from djwebhooks.senders import FormSender, Letter, Sender, find
from djwebhooks.testing import deliver, make_due
from djwebhooks.transports.base import Reply, Request
from tests.builders import URL, make_target, make_user
from tests.keys import make_certificate
from tests.test_docs import DOCS, read_blocks

pytestmark = pytest.mark.django_db

HERE = __name__
#: What a sender's error says, and nobody else may.
SECRET_WORD = "swordfish"


class Slack(Sender):
    """Says something else."""

    def payload(self, message: Message) -> object:
        return {"text": f"{message.data['title']} of {message.owner}"}


class Signing(Sender):
    """Signs in another way."""

    def sign(self, letter: Letter) -> Mapping[str, str]:
        return {"x-signature": signing.sign(letter.secrets[0], "id", letter.timestamp, letter.body)}


class Elsewhere(Signing):
    """Sends to where the payload says."""

    def url(self, letter: Letter) -> str:
        return str(letter.message.data["url"])

    def headers(self, letter: Letter) -> Mapping[str, str]:
        return {"X-Event": letter.message.name, "X-Attempt": str(letter.attempt), "X-Key": "the sender's"}


class Faulty(Sender):
    """Does in one step what the payload says: raises, or returns what is none."""

    def _do(self, step: str, message: Message, right: Any) -> Any:
        data = message.data
        if data["step"] != step:
            return right
        if data["fault"] in ("raise", "exit"):
            raise {"raise": ValueError, "exit": SystemExit}[data["fault"]](SECRET_WORD)
        if data["fault"] == "unfit":
            raise InvalidPayload(SECRET_WORD)
        wrong = {
            "number": 5,
            "half": "\ud800",
            "framing": {"content-length": "1"},
            "coding": {"Accept-Encoding": "gzip"},
            "header": {"x": "a\nb"},
            "empty": "",
        }
        return wrong[data["fault"]]

    def body(self, message: Message) -> Any:
        return self._do("body", message, b"\xff not text")

    def url(self, letter: Letter) -> Any:
        return self._do("url", letter.message, super().url(letter))

    def headers(self, letter: Letter) -> Any:
        return self._do("headers", letter.message, super().headers(letter))

    def sign(self, letter: Letter) -> Any:
        return self._do("sign", letter.message, super().sign(letter))


class Careless(Sender):
    """Has forgotten what its step is asked about."""

    def url(self) -> str:  # type: ignore[override]
        return URL


class Unfit(Sender):
    """Cannot write some payloads."""

    def body(self, message: Message) -> bytes:
        if message.data == "huge":
            return b"x" * 1_048_577
        raise InvalidPayload("Not this one.")


class Following(Sender):
    """Remembers the attempts; one of them is too much for it."""

    seen: list[tuple[int, str, int | None]] = []

    def after(self, delivery: Delivery, attempt: Attempt) -> None:
        self.seen.append((attempt.number, delivery.status, attempt.status_code))
        if attempt.status_code == 500:
            raise InvalidPayload(SECRET_WORD)


class Late(Sender):
    """Is still at work when its job's time is over."""

    def url(self, letter: Letter) -> str:
        raise JobTimeoutException


class Needy(Sender):
    def __init__(self, argument: object) -> None:
        """Cannot be made like this."""


def __getattr__(name: str) -> object:
    """What is looked up here, but not there; one of the names takes too long to be found, another one ends the process."""
    raise {"Slow": JobTimeoutException, "Gone": SystemExit}.get(name, AttributeError)(name)


@pytest.fixture(autouse=True)
def senders(settings: LazySettings) -> None:
    names = ("Slack", "Elsewhere", "Faulty", "Unfit", "Following", "Late", "Needy", "Slow", "Gone", "Signing", "Careless")
    settings.DJWEBHOOKS_SENDERS = {name.lower(): f"{HERE}.{name}" for name in names} | {
        "standard": "djwebhooks.senders.Sender",
        "form": "djwebhooks.senders.FormSender",
        "none": f"{HERE}.HERE",
        "nowhere": "tests.nowhere.Sender",
    }


def bodies_of(requests: list[Request]) -> list[Any]:
    return [json.loads(request.body) for request in requests]


def ends() -> list[tuple[str, str]]:
    return list(Delivery.objects.order_by("pk").values_list("status", "reason"))


# -- choosing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_sender_that_overrides_nothing_changes_nothing(envelope: str) -> None:
    """The base class is what is sent without any, in whichever envelope."""
    plain, changed = make_target(url=f"{URL}/1", envelope=envelope), make_target(url=f"{URL}/2", envelope=envelope)
    WebhookTarget.objects.filter(pk=changed.pk).update(sender="standard", secrets=plain.secrets)
    for target in (plain, changed):
        target.headers = {"X-Own": "1"}
        target.save(update_fields=["headers"])
    fire("a.b", {"title": "x"}, owner=make_user())

    one, other = sorted(deliver(), key=attrgetter("url"))

    assert one.url == plain.target_url
    assert other.url == changed.target_url
    assert one.body == other.body
    assert one.headers == other.headers
    assert Body.objects.count() == 1


def test_a_targets_own_goes_first_then_the_events_then_the_settings(settings: LazySettings) -> None:
    """Whoever is closer to the receiver knows better; ``standard`` undoes what the others say."""
    settings.DJWEBHOOKS_SENDER = "slack"
    make_target(url=f"{URL}/1", sender="standard")
    make_target(url=f"{URL}/2")
    fire("a.b", {"title": "x"}, sender="form")
    fire("a.b", {"title": "y"})

    sent = {(request.url[-1], request.headers["content-type"]) for request in deliver()}

    form = "application/x-www-form-urlencoded"
    assert sent == {("1", "application/json"), ("2", form), ("2", "application/json")}
    assert sorted(Body.objects.values_list("format", flat=True)) == [
        "sender:form+owner",
        "sender:slack+owner",
        "standard+owner",
        "standard+owner",
    ]


@hook("a.hooked", sender=lambda title: "form" if title == "f" else "slack")
def hooked(title: str) -> dict[str, str]:
    return {"title": title}


def test_a_hook_says_who_sends() -> None:
    """A constant, or a function of the arguments, also by ``partial``."""
    make_target()
    slack_hook = partial(hook, build="now", sender="slack")

    @slack_hook("a.slack")
    def tell(title: str) -> dict[str, str]:
        return {"title": title}

    assert [event.sender for event in (hooked("f"), hooked("g"), tell("h"))] == ["form", "slack", "slack"]
    assert [request.body[:5] for request in deliver()] == [b"title", b'{"tex', b'{"tex']


def test_unknown_names_are_refused_at_once() -> None:
    """Where one is set, not when something is to be sent."""
    with pytest.raises(InvalidEvent, match=r"There is no sender 'slak'. In DJWEBHOOKS_SENDERS there are: 'slack', "):
        fire("a.b", 1, sender="slak")
    with pytest.raises(InvalidEvent, match="There is no sender"):
        fire("a.b", 1, sender=Slack)  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(InvalidTarget, match="There is no sender 'slak'"):
        WebhookTarget.objects.register(URL, ["*"], owner=None, sender="slak")


@pytest.mark.parametrize(
    ("name", "why"),
    [("none", "it is not a subclass"), ("nowhere", "No module"), ("needy", "argument"), ("gone", "which cannot be used")],
)
def test_what_leads_to_no_sender_is_said(name: str, why: str) -> None:
    """A path that cannot be used is as good as none."""
    with pytest.raises(UnknownSender, match=why):
        find(name)


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_a_body_is_written_once_for_all_targets_and_attempts() -> None:
    """The owner is told to the system's targets alone; what a sender would write later changes nothing."""
    ada = make_user("ada")
    targets = [make_target(owner, url=f"{URL}/{number}", sender="slack") for number, owner in enumerate([ada, ada, None])]
    fire("a.b", {"title": "x"}, owner=ada)
    sent = sorted(request.body for request in deliver(503))
    Body.objects.filter(format="sender:slack").update(content=b"as it was")
    make_due()

    again = sorted(request.body for request in deliver())

    assert sent == [b'{"text":"x of None"}', b'{"text":"x of None"}', b'{"text":"x of ada"}']
    assert again == [b"as it was", b"as it was", b'{"text":"x of ada"}']
    assert sorted(Body.objects.values_list("format", flat=True)) == ["sender:slack", "sender:slack+owner"]
    assert len(targets) == 3


def test_the_default_payload_is_the_standard_envelope() -> None:
    """To add to it is one line."""
    message = Message(Event().uid, "a.b", timezone.now(), '{"x":1}', "ada")

    said = Sender().payload(message)

    assert said == json.loads(Sender().body(message))
    assert isinstance(said, dict)
    assert list(said) == ["type", "timestamp", "owner", "data"]


@pytest.mark.parametrize("payload", ["huge", "small"])
def test_what_a_sender_cannot_write_fails(payload: str) -> None:
    """As with an envelope that the payload does not fit."""
    make_target(sender="unfit")
    fire("a.b", payload)

    assert deliver() == []
    assert ends() == [(Status.FAILED, "invalid_payload")]


def test_a_form_is_what_dj_webhooks_sent() -> None:
    """Byte for byte what ``requests.post(url, payload)`` made of its payload, but for ``url``."""
    ada = make_user("ada")
    make_target(ada, sender="form")
    payload = {"title": "é & b", "tags": ["x", "y"], "count": 3, "price": 1.5, "paid": True, "gone": None, "nested": {"a": 1}}
    event = fire("order.paid", payload, owner=ada)

    [request] = deliver()

    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.body == (
        b"title=%C3%A9+%26+b&tags=x&tags=y&count=3&price=1.5&paid=True&nested=a"
        b"&hash=" + event.uid.hex.encode() + b"&owner=ada&event=order.paid&attempt=1"
    )
    assert dict(parse_qsl(request.body.decode()))["title"] == "é & b"


def test_a_form_needs_an_object() -> None:
    """What has no fields is no form."""
    make_target(sender="form")
    fire("a.b", [1])

    assert deliver() == []
    assert ends() == [(Status.FAILED, "invalid_payload")]
    with pytest.raises(InvalidPayload, match=r"A form needs a payload that is an object, and that of 'a\.b' is none"):
        FormSender().payload(Message(Event().uid, "a.b", timezone.now(), "1", None))


# -- requests ----------------------------------------------------------------------------------------------------------


def test_url_headers_and_signature_are_the_senders() -> None:
    """They know the target, its secrets and the attempt; what the target adds itself gives way where both say something."""
    target = make_target(sender="elsewhere", headers={"x-KEY": "the target's", "x-own": "1"})
    fire("a.b", {"url": "HTTP://127.0.0.1:9/else where".replace(" ", "%20")})

    [request] = deliver()

    assert request.url == "http://127.0.0.1:9/else%20where"
    assert dict(request.headers) == {
        "x-own": "1",
        "x-event": "a.b",
        "x-attempt": "1",
        "x-key": "the sender's",
        "x-signature": request.headers["x-signature"],
    }
    assert request.headers["x-signature"].startswith("v1,")
    assert Attempt.objects.get().url == request.url
    assert target.secret not in str(request.headers)


@pytest.mark.parametrize(
    ("url", "is_shown"),
    [
        (f"{URL}/elsewhere?x=1", True),
        ("HTTP://127.0.0.1:9/", True),
        ("http://127.0.0.1:10/", False),
        ("http://127.0.0.2:9/", False),
        ("https://127.0.0.1:9/", False),
    ],
)
@pytest.mark.parametrize(
    "authentication",
    [
        {"type": "basic", "username": "u", "password": "pw"},
        {"type": "oauth2", "token_url": f"{URL}/token", "client_id": "c", "client_secret": "s"},
        {"type": "none"},
    ],
)
def test_what_opens_the_receivers_door_goes_to_no_other(url: str, is_shown: bool, authentication: dict[str, str]) -> None:
    """Authentication, additional headers and the client certificate are for the target's scheme, host and port alone."""
    certificate = make_certificate(trustme.CA())
    kind = {} if authentication["type"] == "none" else authentication
    make_target(sender="elsewhere", authentication=kind, headers={"x-own": "1"}, client_certificate=certificate)
    fire("a.b", {"url": url})

    def answer(request: Request) -> Reply:
        return Reply(request.key, status=200, body=b'{"access_token": "t", "token_type": "bearer"}')

    *asked, request = deliver(answer)

    assert "x-signature" in request.headers
    assert bool(request.client_certificate) is is_shown
    assert ("x-own" in request.headers) is is_shown
    assert ("authorization" in request.headers) is (is_shown and bool(kind))
    assert bool(asked) is (is_shown and kind.get("type") == "oauth2")


def test_another_host_refuses_no_token_that_it_was_not_shown() -> None:
    """Its 401 is an answer like any other: the target's token stays, and the delivery is tried again on its schedule."""
    oauth = {"type": "oauth2", "token_url": f"{URL}/token", "client_id": "c", "client_secret": "s"}
    make_target(sender="elsewhere", authentication=oauth, retry_schedule=[3600])

    def answer(request: Request) -> Reply:
        status = 401 if request.url == "http://127.0.0.2:9/" else 200
        return Reply(request.key, status=status, body=b'{"access_token": "t", "token_type": "bearer", "expires_in": 3600}')

    fire("a.b", {"url": URL})
    assert [request.url for request in deliver(answer)] == [f"{URL}/token", URL]
    fire("a.b", {"url": "http://127.0.0.2:9/"})
    assert [request.url for request in deliver(answer)] == ["http://127.0.0.2:9/"]
    assert ends() == [(Status.SUCCEEDED, ""), (Status.PENDING, "http_401")]
    fire("a.b", {"url": URL})
    assert [request.url for request in deliver(answer)] == [URL]


def test_a_check_of_a_key_that_is_gone_ends_before_it_is_written() -> None:
    """A sender that signs by itself finds no secret then."""
    target = make_target(sender="signing")
    target.check_keys()
    target.rotate_secret(overlap=timedelta(0))
    WebhookTarget.objects.get().finish_rotation(force=True)

    deliver()

    assert Delivery.objects.filter(reason="key_retired", status=Status.CANCELLED).exists()
    assert not Delivery.objects.filter(reason="sender_error").exists()


def test_authentication_goes_along_and_no_step_sees_it() -> None:
    """A sender writes a webhook; how the receiver knows who sends stays the target's business."""
    make_target(sender="slack", authentication={"type": "bearer", "token": "t0ken"})
    fire("a.b", {"title": "x"})

    [request] = deliver()

    assert request.headers["authorization"] == "Bearer t0ken"
    assert "webhook-signature" in request.headers


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://user:pass@example.com/", "ftp://example.com/", "no url"])
def test_the_rules_for_urls_hold_for_a_senders(url: str) -> None:
    """A payload must not lead webhooks into our own network."""
    make_target(sender="elsewhere")
    fire("a.b", {"url": url})

    assert deliver() == []
    assert ends() == [(Status.FAILED, "invalid_url")]


def test_unencrypted_urls_need_their_setting(settings: LazySettings) -> None:
    """Also where the target's own is https."""
    make_target(url="https://example.com/", sender="elsewhere")
    settings.DJWEBHOOKS_ALLOW_HTTP = False
    fire("a.b", {"url": "http://example.com/"})

    assert deliver() == []
    assert ends() == [(Status.FAILED, "invalid_url")]


def test_a_letter_shows_no_secret_and_no_payload() -> None:
    """In whatever log it ends up."""
    target = make_target()
    letter = Letter(
        target, Message(Event().uid, "a.b", timezone.now(), '"words"', None), b"words", "", {}, 1, 1, 1, [target.secret], []
    )

    assert target.secret not in repr(letter)
    assert "words" not in repr(letter)


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "fault", "says"),
    [
        ("body", "exit", "Faulty.body() raised SystemExit in "),
        ("sign", "exit", "Faulty.sign() raised SystemExit in "),
        ("body", "raise", "Faulty.body() raised ValueError in "),
        ("body", "number", "Faulty.body() must return bytes or a string, not an empty one, and not int."),
        ("body", "empty", "and not str."),
        ("body", "half", "Faulty.body() returned a string that UTF-8 cannot hold."),
        ("url", "raise", "Faulty.url() raised ValueError in "),
        ("url", "unfit", "Faulty.url() raised InvalidPayload in "),
        ("url", "number", "Faulty.url() must return a string, not int."),
        ("headers", "raise", "Faulty.headers() raised ValueError in "),
        ("headers", "number", "Faulty.headers() returned what cannot be sent. Headers are an object of names and strings."),
        ("headers", "framing", "The header 'content-length' is the connection's own."),
        ("headers", "coding", "The header 'Accept-Encoding' is the connection's own."),
        ("headers", "header", "The value of the header 'x' has characters that a header cannot hold."),
        ("sign", "raise", "Faulty.sign() raised ValueError in "),
        ("sign", "number", "Faulty.sign() returned what cannot be sent."),
    ],
)
def test_a_faulty_step_puts_its_delivery_off_and_no_other(
    step: str, fault: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is our own fault: nothing is counted, and the log says where it comes from, but not what it said."""
    target = make_target(sender="faulty")
    fire("a.b", {"step": step, "fault": fault})
    fire("a.b", {"step": "", "fault": ""})

    with caplog.at_level(logging.WARNING):
        sent = deliver()

    first, second = Delivery.objects.order_by("pk")
    assert [request.body for request in sent] == [b"\xff not text"]
    assert (first.status, first.reason, first.attempt_count) == (Status.PENDING, "sender_error", 0)
    assert first.due_at is not None
    assert timedelta(seconds=30) < first.due_at - timezone.now() < timedelta(seconds=90)
    assert second.status == Status.SUCCEEDED
    assert target.state == "healthy"
    assert says in caplog.text
    assert SECRET_WORD not in caplog.text


def test_the_log_names_the_applications_own_line(caplog: pytest.LogCaptureFixture) -> None:
    """Its payload is asked for by the library's body: neither that step nor a line of the library is what has to be mended."""
    make_target(sender="slack")
    fire("a.b", {"heading": SECRET_WORD})

    with caplog.at_level(logging.WARNING):
        assert deliver() == []

    line = Slack.payload.__code__.co_firstlineno + 1
    assert f"Slack.payload() raised KeyError in {__file__}, line {line}." in caplog.text
    assert SECRET_WORD not in caplog.text


def test_a_step_that_cannot_be_asked_is_named(caplog: pytest.LogCaptureFixture) -> None:
    """There is no line of the application in it then."""
    make_target(sender="careless")
    fire("a.b", 1)

    with caplog.at_level(logging.WARNING):
        assert deliver() == []

    assert "Careless.url() raised TypeError in " in caplog.text


@pytest.mark.parametrize("name", ["late", "slow"])
def test_the_end_of_a_jobs_time_is_no_fault_of_a_sender(name: str) -> None:
    """RQ ends the job by an exception, which nobody may take for another one."""
    make_target(sender=name)
    fire("a.b", 1)

    with pytest.raises(JobTimeoutException):
        deliver()


@pytest.mark.parametrize("lost", ["faulty", "none"])
def test_what_is_mended_is_sent(settings: LazySettings, lost: str) -> None:
    """Whatever waited for its sender goes, as if nothing had been."""
    make_target(sender="faulty")
    fire("a.b", {"step": "url", "fault": "raise"})
    settings.DJWEBHOOKS_SENDERS |= {"faulty": f"{HERE}.Faulty" if lost == "faulty" else f"{HERE}.HERE"}

    assert deliver() == []

    settings.DJWEBHOOKS_SENDERS |= {"faulty": "djwebhooks.senders.Sender"}
    make_due()

    assert len(deliver()) == 1
    assert ends() == [(Status.SUCCEEDED, "")]
    assert Delivery.objects.get().attempt_count == 1


def test_what_nobody_mends_ends(settings: LazySettings) -> None:
    """After the time that anything is kept, the delivery failed."""
    make_target(sender="faulty")
    fire("a.b", {"step": "url", "fault": "raise"})
    Event.objects.update(created_at=timezone.now() - timedelta(days=31))

    assert deliver() == []
    assert ends() == [(Status.FAILED, "sender_error")]


def test_a_targets_sender_that_is_gone_holds_the_target(settings: LazySettings) -> None:
    """The setting was changed under it: nothing is lost, and everybody is told why it waits."""
    target, other = make_target(url=f"{URL}/1", sender="slack"), make_target(url=f"{URL}/2")
    event = fire("a.b", {"title": "x"})
    del settings.DJWEBHOOKS_SENDERS["slack"]

    assert [request.url for request in deliver()] == [other.target_url]
    held = Delivery.objects.get(target=target)
    explained = str(explain_uid(held.uid))
    assert (held.status, held.reason) == (Status.PENDING, "unknown_sender")
    assert target.state == "suspended"
    assert "nobody can send to it: There is no sender 'slack'" in explained
    [warning] = check_chosen_senders(databases=["default"])
    assert warning.msg.startswith("Nothing is sent to 1 of the targets. There is no sender 'slack'.")
    assert "Sender" not in str(explain_uid(event.uid))


def test_an_events_sender_that_is_gone_holds_no_other_event(settings: LazySettings) -> None:
    """Other events for the same target are sent."""
    make_target()
    event = fire("a.b", {"title": "x"}, sender="slack")
    fire("a.b", {"title": "y"})
    del settings.DJWEBHOOKS_SENDERS["slack"]

    assert [body["data"] for body in bodies_of(deliver())] == [{"title": "y"}]
    assert ends() == [(Status.PENDING, "unknown_sender"), (Status.SUCCEEDED, "")]
    assert "Sender: 'slack'" in str(explain_uid(event.uid))
    assert "Nobody can send it: There is no sender 'slack'" in str(explain_uid(Delivery.objects.earliest("pk").uid))
    assert list(check_chosen_senders(databases=["default"])) == list(check_chosen_senders()) == []


def test_an_owner_without_a_name_puts_its_deliveries_off(settings: LazySettings) -> None:
    """The body is there, but what a sender is to know of the event cannot be said any more."""
    make_target(sender="elsewhere")
    fire("a.b", {"url": URL}, owner=make_user())
    deliver(503)
    settings.DJWEBHOOKS_OWNER_FIELD = "nonsense"
    make_due()

    assert deliver() == []
    assert ends() == [(Status.PENDING, "internal_error")]


# -- afterwards --------------------------------------------------------------------------------------------------------


def test_a_sender_follows_up_on_every_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """It is told once an attempt is recorded. If it raises, that is logged, and nothing else is different."""
    Following.seen.clear()
    make_target(sender="following")
    make_target(url=f"{URL}/2", sender="slack")
    fire("a.b", {"title": "x"})

    with caplog.at_level(logging.ERROR):
        deliver(500)
    make_due()
    deliver()

    assert Following.seen == [(1, "pending", 500), (2, "succeeded", 200)]
    assert caplog.text.count("Following.after() raised InvalidPayload in") == 1
    assert SECRET_WORD not in caplog.text
    assert set(ends()) == {(Status.SUCCEEDED, "")}


# -- the feed ----------------------------------------------------------------------------------------------------------


def test_the_feed_gives_what_senders_write(settings: LazySettings) -> None:
    """But nothing that is no text, that nobody can write, or whose sender is not known."""
    target = make_target()
    fire("a.b", {"title": "x"}, sender="slack")
    fire("a.b", {"step": "", "fault": ""}, sender="faulty")
    fire("a.b", {"step": "body", "fault": "raise"}, sender="faulty")
    fire("a.b", {"title": "x"}, sender="unfit")
    fire("a.b", {"title": "x"}, sender="form")
    fire("a.b", "last")
    del settings.DJWEBHOOKS_SENDERS["form"]
    deliver()

    items = read_page(target, 0, "default").items

    assert [item.sequence for item in items] == [1, 6]
    assert json.loads(items[0].body) == {"text": "x of None"}
    signing.verify(items[0].body.encode(), items[0].headers, target.secret)


# -- the page ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the code and the first setting of the page."""
    blocks = read_blocks(DOCS / "how-to" / "senders.rst")
    [code] = [block.text for block in blocks if block.caption == "shop/webhooks.py"]
    setting, _ = (block.text for block in blocks if block.caption == "settings.py")
    module, names = ModuleType("shop.webhooks"), dict[str, Any]()
    exec(code, module.__dict__)
    exec(setting, names)
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    monkeypatch.setitem(sys.modules, "shop.webhooks", module)
    settings.DJWEBHOOKS_SENDERS = names["DJWEBHOOKS_SENDERS"]


@pytest.mark.usefixtures("page")
def test_the_senders_of_the_page_send_what_it_says() -> None:
    """A chat message, a form with a signature of its own, and a thin event."""
    targets = {name: make_target(url=f"{URL}/{name}", sender=name) for name in ("slack", "partner", "thin")}
    fire("order.paid", {"id": 7, "total": "9.50"})

    sent = {request.url.rpartition("/")[2]: request for request in deliver()}

    partner, thin = sent["partner"], sent["thin"]
    assert sent["slack"].body == b'{"text":"Order 7 was paid: 9.50"}'
    assert partner.body == b"event=order.paid&id=7&total=9.50"
    assert partner.headers["content-type"] == "application/x-www-form-urlencoded"
    digest = hmac.new(targets["partner"].secret.encode(), partner.body, "sha256").hexdigest()
    assert partner.headers["x-signature"] == f"sha256={digest}"
    assert thin.body == b'{"type":"order.paid","order":7}'
    assert thin.headers["x-event"] == "order.paid"
    assert signing.verify(thin.body, thin.headers, targets["thin"].secret) == 0
