"""What is missing is asked for, and then it is as if it had been delivered."""

import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.inbox import feed
from djwebhooks.inbox.feed import Fetched, fetch_missing, list_feeds
from djwebhooks.inbox.gaps import find_gaps
from djwebhooks.inbox.models import FeedPosition, Message, Status
from djwebhooks.inbox.prune import prune
from djwebhooks.inbox.testing import signed
from djwebhooks.inbox.worker import InboxWorker
from djwebhooks.models import WebhookTarget
from djwebhooks.testing import Receiver, answer, deliver
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from tests.inbox.senders import make_body

pytestmark = pytest.mark.django_db

FEED = "http://127.0.0.1:9/api/feed/"


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is logged, by Django too."""
    caplog.set_level(logging.INFO)


def configure(settings: LazySettings, url: str, **options: Any) -> None:
    shop = {**settings.DJWEBHOOKS_INBOX["shop"], "feed_url": url, **options}
    settings.DJWEBHOOKS_INBOX = {**settings.DJWEBHOOKS_INBOX, "shop": shop}


@pytest.fixture
def target(settings: LazySettings) -> WebhookTarget:
    """A target whose events the source ``shop`` can ask this very application for."""
    owner = User.objects.create(username="owner")
    made = WebhookTarget.objects.register("https://example.com/", ["order.*"], owner=owner)
    configure(settings, f"{FEED}?target={made.uid}", secrets=[*settings.DJWEBHOOKS_INBOX["shop"]["secrets"], made.secret])
    return made


@hook("order.paid")
def order_paid(owner: User) -> str:
    return owner.username


def send(target: WebhookTarget, count: int, *, lost: tuple[int, ...] = ()) -> None:
    """Fire, and deliver to the inbox; what is *lost* never got there, although somebody on the way has said so."""
    for number in range(count):
        fire("order.paid", {"number": number}, owner=target.owner)
    deliver(lambda request: Reply(1, status=200) if int(request.headers["webhook-sequence"]) in lost else to_inbox(request))


def to_inbox(request: Request) -> Reply:
    answer = Client().post("/inbox/shop/", request.body, "application/json", headers=dict(request.headers))
    return Reply(request.key, status=answer.status_code)


def ask_api(request: Request) -> Reply:
    """Ask the API of this application."""
    answer = Client().get(request.url.removeprefix("http://127.0.0.1:9"), headers=dict(request.headers))
    return Reply(request.key, status=answer.status_code, body=answer.content, address="127.0.0.1")


def numbers() -> list[int | None]:
    return list(Message.objects.order_by("sequence").values_list("sequence", flat=True))


def fetch(transport: MemoryTransport | None = None, **options: Any) -> Fetched:
    return fetch_missing("shop", transport=transport or MemoryTransport(ask_api), **options)


def answering(**page: Any) -> MemoryTransport:
    """A feed that answers with one page, and then with an empty one."""
    content = {"after": 9, "has_more": False, "waiting_for": None, "results": [], **page}
    return MemoryTransport(lambda request: Reply(1, status=200, body=json.dumps(content).encode()))


def item(number: int, body: bytes, secret: str = "") -> dict[str, Any]:
    request = signed("shop", body, message_id=f"msg_{number}", secret=secret, headers={"webhook-sequence": str(number)})
    return {"sequence": number, "headers": request["headers"], "body": body.decode()}


@pytest.fixture
def first(settings: LazySettings) -> Message:
    """The source has a feed, and one message has come."""
    configure(settings, f"{FEED}?target=1")
    return Message.objects.create(source="shop", message_id="msg_1", sequence=1, body=b"{}")


def test_what_is_missing_is_stored_as_if_it_had_come(target: WebhookTarget) -> None:
    """In between and after the last; its handlers run, and to ask again changes nothing."""
    send(target, 5, lost=(2, 5))
    assert numbers() == [1, 3, 4]

    fetched = fetch()

    assert fetched == Fetched("shop", stored=2)
    assert numbers() == [1, 2, 3, 4, 5]
    message = Message.objects.get(sequence=2)
    assert (message.json()["data"], message.remote_address, message.status) == ({"number": 1}, "127.0.0.1", Status.NEW)
    assert {"webhook-id", "webhook-signature", "content-type"} <= set(message.headers)
    InboxWorker(burst=True).run()
    assert set(Message.objects.values_list("status", flat=True)) == {Status.PROCESSED}
    assert fetch() == Fetched("shop")


def test_a_page_covers_all_gaps_on_it(target: WebhookTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request for each gap would be many; with pages of two, the last one here is that after the end."""
    send(target, 9)
    Message.objects.filter(sequence__in=[2, 4, 6, 8]).delete()
    transport = MemoryTransport(ask_api)

    assert fetch(transport).stored == 4
    assert len(transport.requests) == 1

    monkeypatch.setattr("djwebhooks.feed.PAGE", 2)
    Message.objects.filter(sequence__in=[2, 8]).delete()
    FeedPosition.objects.all().delete()
    transport.requests.clear()
    assert fetch(transport).stored == 2
    assert [request.url.rpartition("=")[2] for request in transport.requests] == ["1", "7"]


def test_what_the_sender_does_not_have_is_not_asked_for_again(target: WebhookTarget, settings: LazySettings) -> None:
    """A cancelled delivery has a number, and no feed has it; so it is no gap any more, unless another feed is to be asked."""
    send(target, 3)
    Message.objects.filter(sequence=2).delete()
    target.deliveries.filter(sequence=2).update(status="cancelled")
    assert [str(gap) for gap in find_gaps()] == ["2"]
    transport = MemoryTransport(ask_api)

    assert fetch(transport) == Fetched("shop")
    assert find_gaps() == []
    send(target, 3)
    Message.objects.filter(sequence=5).delete()
    assert [str(gap) for gap in find_gaps()] == ["5"]
    assert fetch(transport) == Fetched("shop", stored=1)
    assert [request.url.rpartition("=")[2] for request in transport.requests] == ["1", "4"]

    configure(settings, f"{FEED}?target=2")
    assert [str(gap) for gap in find_gaps()] == ["2"]


def test_a_feed_that_was_read_goes_on_where_it_ended(target: WebhookTarget) -> None:
    """Also when all messages were deleted meanwhile: what was handled is not handled again."""
    send(target, 2)
    fetch()
    Message.objects.all().delete()
    send(target, 1, lost=(3,))

    assert fetch() == Fetched("shop", stored=1)
    assert numbers() == [3]


def test_what_is_before_the_first_one_is_missing_if_the_feed_was_read(target: WebhookTarget) -> None:
    """What was deleted after it was handled is not: to prune closes what is before."""
    send(target, 2)
    fetch()
    Message.objects.all().delete()
    send(target, 3, lost=(3, 4))
    assert [str(gap) for gap in find_gaps()] == ["3 to 4"]
    Message.objects.update(status="processed", due_at=None, received_at=timezone.now() - timedelta(days=3))
    prune(older_than=timedelta(days=9))
    assert [str(gap) for gap in find_gaps()] == ["3 to 4"]

    prune(older_than=timedelta(days=1))
    assert fetch() == Fetched("shop")
    assert FeedPosition.objects.get().read_to == 5


def test_what_was_pruned_before_the_feed_was_ever_read_is_not_missing(target: WebhookTarget) -> None:
    """It was handled once, and would be again."""
    send(target, 6)
    Message.objects.update(status="processed", due_at=None)
    Message.objects.exclude(sequence__in=[2, 6]).update(received_at=timezone.now() - timedelta(days=31))
    prune()

    fetched = fetch()

    assert (fetched.stored, numbers()) == (0, [2, 6])


def test_what_was_refused_stays_missing(first: Message) -> None:
    """The sender has it, and will perhaps sign it otherwise."""
    Message.objects.create(source="shop", message_id="msg_3", sequence=3, body=b"{}")
    fetched = fetch(answering(after=3, results=[item(2, b"{}", "whsec_" + "B" * 32)]))

    assert [str(gap) for gap in fetched.missing] == ["2"]


def test_a_later_beginning_notes_nothing(target: WebhookTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is before it may well be there; and one call closes so many gaps, from the first one on."""
    send(target, 7)
    Message.objects.filter(sequence__in=[2, 4, 6]).delete()
    target.deliveries.filter(sequence__in=[2, 4, 6]).update(status="cancelled")
    assert fetch(after=3).stored == 0
    assert [str(gap) for gap in find_gaps()] == ["2", "4", "6"]

    monkeypatch.setattr("djwebhooks.inbox.feed.MOST_GAPS", 1)
    monkeypatch.setattr("djwebhooks.feed.PAGE", 2)
    assert [str(gap) for gap in fetch().missing] == ["6"]
    assert fetch(after=0).missing == ()


def test_without_a_message_nobody_knows_where_to_begin(target: WebhookTarget) -> None:
    """What was deleted after it was handled must not be handled again; who says from where gets it."""
    send(target, 3)
    Message.objects.all().delete()

    assert "0 for all that the sender has" in fetch().error
    assert numbers() == []
    assert fetch(after=1) == Fetched("shop", stored=2)
    assert numbers() == [2, 3]


def test_a_feed_that_was_empty_was_read(target: WebhookTarget) -> None:
    """Whoever has read that there is nothing need not say again from where: all that comes later is missing."""
    assert fetch(after=0) == Fetched("shop")
    assert fetch() == Fetched("shop")
    send(target, 2, lost=(1, 2))

    assert fetch() == Fetched("shop", stored=2)
    assert numbers() == [1, 2]


def test_a_paused_target_can_be_read(target: WebhookTarget) -> None:
    """Whoever cannot be reached polls."""
    target.pause()
    send(target, 2)
    assert numbers() == []

    assert fetch(after=0).stored == 2
    send(target, 1)
    assert fetch() == Fetched("shop", stored=1)


def test_what_hooks_say_comes_from_a_paused_target(target: WebhookTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker builds it there; however many there are, one call gets all."""
    monkeypatch.setattr("djwebhooks.feed.BUILD_SECONDS", 1e-9)
    target.pause()
    for _ in range(3):
        order_paid(target.owner)
    deliver()

    assert fetch(after=0) == Fetched("shop", stored=3)

    assert [message.json()["data"] for message in Message.objects.all()] == ["owner"] * 3
    assert fetch() == Fetched("shop")


def test_one_call_asks_for_so_much(target: WebhookTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says where to go on."""
    monkeypatch.setattr("djwebhooks.feed.PAGE", 2)
    send(target, 7)
    Message.objects.filter(sequence__gt=1).delete()

    fetched = fetch(pages=2)

    assert (fetched.stored, fetched.go_on_after) == (4, 5)
    assert list(fetched.describe()) == ["4 stored.", "There may be more after number 5."]
    assert fetch(after=5) == Fetched("shop", stored=2)


def test_what_is_forged_or_too_large_is_not_stored(first: Message, settings: LazySettings) -> None:
    """As if somebody had sent it; the others on the page are."""
    settings.DJWEBHOOKS_INBOX["shop"]["body_limit"] = 100
    configure(settings, f"{FEED}?target=1")
    other = "whsec_" + "B" * 32
    results = [item(2, b"{}", other), item(3, make_body("order.paid", "x" * 100)), item(4, b"{}"), item(4, b"{}")]

    fetched = fetch(answering(results=results, waiting_for=5))

    assert (fetched.stored, fetched.refused, fetched.waiting_for) == (1, 2, 5)
    assert numbers() == [1, 4]
    assert "yet to be built" in " ".join(fetched.describe())


#: What a feed may say to ask for next, and what is wrong with it.
WRONG_NUMBERS = {
    "1e999": "none of a feed",
    "Infinity": "none of a feed",
    "2.0": "none of a feed",
    "-1": "none of a feed",
    str(2**63): "none of a feed",
    str(10**30): "none of a feed",
    str(2**61): "nothing to go on with",
}


def page_after(number: str) -> bytes:
    return b'{"after": %s, "has_more": false, "waiting_for": null, "results": []}' % number.encode()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Reply(1, error="timeout", detail="It took too long."), "could not be asked: timeout. It took too long."),
        (Reply(1, status=401), "answered 401. It knows another secret"),
        (Reply(1, status=404), "There is no feed"),
        (Reply(1, status=429), "ask again later"),
        (Reply(1, status=302), "The feed answered 302."),
        (Reply(1, status=200, body=b"<html>"), "none of a feed"),
        (Reply(1, status=200, body=b"[]"), "none of a feed"),
        *((Reply(1, status=200, body=page_after(number)), words) for number, words in WRONG_NUMBERS.items()),
        (Reply(1, status=200, body=b'{"after": null, "has_more": true, "waiting_for": null, "results": []}'), "none of a feed"),
        (
            Reply(1, status=200, body=b'{"after": 1, "has_more": true, "waiting_for": null, "results": []}'),
            "nothing to go on with",
        ),
        (Reply(1, status=200, body=b"x" * feed.PAGE_LIMIT), "more than 8,388,608 bytes"),
    ],
)
def test_what_went_wrong_is_said(first: Message, answer: Reply, words: str) -> None:
    """It is no exception: other sources are asked all the same."""
    fetched = fetch(MemoryTransport(lambda request: answer))

    assert words in fetched.error
    assert fetched.stored == 0


def test_a_source_without_a_feed_is_named(settings: LazySettings) -> None:
    """With those that have one."""
    with pytest.raises(ConfigurationError, match=r"no source 'github' with a 'feed_url'.*there are none"):
        fetch_missing("github")
    configure(settings, f"{FEED}?target=1")
    with pytest.raises(ConfigurationError, match=r"no source 'shp' .*there are shop"):
        fetch_missing("shp")
    assert list_feeds() == ["shop"]


def test_the_request_goes_through_the_guarded_transport(first: Message, settings: LazySettings, receiver: Receiver) -> None:
    """A signed GET without a body; and to no address that is forbidden."""
    page = {"after": 2, "has_more": False, "waiting_for": None, "results": [item(2, b"{}")]}
    receiver.answers = [answer(200, json.dumps(page).encode())]
    configure(settings, f"{receiver.url}?target=1")

    assert fetch_missing("shop") == Fetched("shop", stored=1)

    [request] = receiver.requests
    assert (request.method, request.path, request.body) == ("GET", "/hook?target=1&after=1", b"")
    assert request.headers["webhook-signature"].startswith("v1,")
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
    assert "127.0.0.1 is forbidden" in fetch_missing("shop").error
    assert len(receiver.requests) == 1


def test_a_transport_that_was_given_stays_open(first: Message) -> None:
    """It is its owner's to close."""

    class ClosableTransport(MemoryTransport):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True

    transport = ClosableTransport(503)
    fetch(transport)

    assert len(transport.requests) == 1
    assert not transport.is_closed
