"""The address of a source: what it takes, what it refuses, and what it keeps."""

import io
import json
import logging
import os
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import LazySettings
from django.core.cache import cache
from django.core.handlers.wsgi import WSGIHandler
from django.http.request import HttpHeaders
from django.test import AsyncClient, Client, RequestFactory
from django.urls import reverse

from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.testing import signed
from tests.connections import run_together
from tests.inbox.senders import make_body, post, send

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> None:
    """What is refused is logged, by Django too."""
    caplog.set_level(logging.INFO)


def configure(settings: LazySettings, name: str, **options: Any) -> None:
    settings.DJWEBHOOKS_INBOX = {**settings.DJWEBHOOKS_INBOX, name: {**settings.DJWEBHOOKS_INBOX.get(name, {}), **options}}


def test_a_message_is_stored_as_it_came() -> None:
    """Its bytes, its id, the headers that matter, where it came from and when; nothing is made of it yet."""
    body = b'{ "type":"order.paid",\n"data":"Zo\xc3\xab" }'
    headers = {"Cookie": "session=1", "Authorization": "Bearer x", "webhook-sequence": "17"}

    answer = Client(REMOTE_ADDR="203.0.113.9").post(**signed("shop", body, message_id="msg_1", headers=headers))

    assert (answer.status_code, answer.content) == (200, b"")
    message = Message.objects.get()
    assert (message.source, message.message_id, message.status) == ("shop", "msg_1", Status.NEW)
    assert bytes(message.body) == body
    assert (message.event, message.attempt_count, message.remote_address, message.sequence) == ("", 0, "203.0.113.9", 17)
    assert message.received_at == message.due_at
    assert set(message.headers) == {"content-type", "webhook-id", "webhook-timestamp", "webhook-signature", "webhook-sequence"}


def test_the_body_is_not_looked_at() -> None:
    """What is signed is stored, be it JSON or not."""
    body = b"\xff\x00 not JSON"

    assert Client().post(**signed("shop", body, message_id="msg_1")).status_code == 200
    assert bytes(Message.objects.get().body) == body


def test_github_is_understood() -> None:
    """Its event and its id are known at once."""
    body = b'{"ref": "refs/heads/main"}'

    assert Client().post(**signed("github", body, event="push", message_id="72d3162e")).status_code == 200

    message = Message.objects.get()
    assert (message.event, message.message_id) == ("push", "72d3162e")
    assert message.headers["x-github-event"] == "push"


def test_stripe_is_understood(settings: LazySettings) -> None:
    """Its id is in the body."""
    configure(settings, "stripe", scheme="stripe", secrets=["whsec_old", "whsec_new"])
    body = b'{"id": "evt_1", "type": "invoice.paid"}'

    for _ in range(2):
        assert Client().post(**signed("stripe", body, secret="whsec_new")).status_code == 200

    assert Message.objects.get().message_id == "evt_1"


def test_a_duplicate_is_acknowledged_and_stored_once() -> None:
    """Its sender has lost the first answer, and is to be content now."""
    for data in (1, 2):
        assert send("order.paid", data, "msg_1").status_code == 200

    assert Message.objects.get().json()["data"] == 1


def test_ids_are_each_sources_own(settings: LazySettings) -> None:
    """Two senders may use the same one."""
    configure(settings, "other", scheme="none", id_header="webhook-id")

    send("order.paid", message_id="msg_1")
    post("other", b"", {"webhook-id": "msg_1"})
    post("other", b"", {"webhook-id": "MSG_1"})

    assert Message.objects.count() == 3


def test_without_an_id_no_two_messages_are_the_same(settings: LazySettings) -> None:
    """The same bytes may mean that the same thing has happened twice."""
    configure(settings, "other", scheme="none")

    for _ in range(2):
        assert post("other", b"tick", {}).status_code == 200

    assert Message.objects.count() == 2


def test_an_id_may_be_longer_than_its_column(settings: LazySettings) -> None:
    """Its digest stands for it: two of them are not cut down to one."""
    configure(settings, "other", scheme="none", id_header="x-id", event_header="x-event")

    for end in ("a", "b", "a"):
        post("other", b"", {"x-id": "i" * 300 + end, "x-event": "e" * 300})

    assert Message.objects.count() == 2
    assert all(message.message_id.startswith("sha256:") for message in Message.objects.all())


@pytest.mark.parametrize("change", ["nothing", "id", "body", "signature", "time"])
def test_a_bad_signature_stores_nothing_and_learns_nothing(change: str, caplog: pytest.LogCaptureFixture) -> None:
    """The answer is the same whatever was wrong; the log says what, and has neither body nor secret."""
    body = make_body("order.paid", "a private matter")
    headers = signed("shop", body, message_id="msg_1")["headers"]
    match change:
        case "nothing":
            headers = {}
        case "id":
            headers["webhook-id"] = "msg_2"
        case "body":
            body += b" "
        case "signature":
            headers["webhook-signature"] = "v1,bm8="
        case "time":
            headers["webhook-timestamp"] = "1600000000"

    answer = post("shop", body, headers)

    assert (answer.status_code, answer.content) == (401, b"unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Signature"
    assert not Message.objects.exists()
    assert "source=shop address=127.0.0.1 refused: " in caplog.text
    assert "private" not in caplog.text
    assert "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" not in caplog.text


def test_what_is_rejected_can_be_kept(settings: LazySettings) -> None:
    """It is under an id of ours, so that it cannot pass for a message that is yet to come."""
    configure(settings, "shop", keep_rejected=True)
    body = make_body("order.paid")

    assert Client().post(**signed("shop", body, message_id="msg_1", headers={"webhook-signature": "v1,bm8="})).status_code == 401
    assert send("order.paid", message_id="msg_1").status_code == 200

    new, rejected = Message.objects.all()
    assert (new.status, new.message_id) == (Status.NEW, "msg_1")
    assert (rejected.status, rejected.due_at, rejected.sequence) == (Status.REJECTED, None, None)
    assert bytes(rejected.body) == body
    assert "No signature matches" in rejected.error


def test_several_secrets_live(settings: LazySettings) -> None:
    """While one is being replaced, both are good."""
    new = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"
    configure(settings, "shop", secrets=[*settings.DJWEBHOOKS_INBOX["shop"]["secrets"], new])
    body = make_body("order.paid")

    assert send("order.paid").status_code == 200
    assert Client().post(**signed("shop", body, secret=new)).status_code == 200


def test_an_unknown_source_is_not_found() -> None:
    """Only sources of the settings have an address."""
    assert post("nobody", b"", {}).status_code == 404


@pytest.mark.parametrize("method", ["get", "head", "put", "delete", "patch"])
def test_only_post_brings_messages(method: str) -> None:
    """Browsers and crawlers learn that much."""
    answer = getattr(Client(), method)("/inbox/shop/")

    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST, OPTIONS")


def test_the_slash_at_the_end_may_be_missing() -> None:
    """Senders follow no redirects."""
    body = make_body("order.paid")

    answer = Client().post(**signed("shop", body) | {"path": "/inbox/shop"})

    assert answer.status_code == 200
    assert reverse("djwebhooks_inbox:source", args=["shop"]) == "/inbox/shop/"


def test_cloudevents_may_ask_first(settings: LazySettings) -> None:
    """The answer to OPTIONS is consent, with a rate per minute if there is one."""
    asked = {"WebHook-Request-Origin": "events.example.com"}
    free = Client().options("/inbox/shop/", headers=asked)
    configure(settings, "shop", rate_limit="5/second")
    limited = Client().options("/inbox/shop/", headers=asked)

    assert (free.status_code, free.headers["WebHook-Allowed-Origin"], free.headers["WebHook-Allowed-Rate"]) == (200, "*", "*")
    assert limited.headers["WebHook-Allowed-Rate"] == "300"


def test_neither_a_token_nor_a_login_is_needed() -> None:
    """Senders have neither: their signature is what counts."""
    body = make_body("order.paid")
    client = Client(enforce_csrf_checks=True)

    assert client.post(**signed("shop", body)).status_code == 200

    view = client.get("/inbox/shop/").resolver_match.func
    assert (view.csrf_exempt, view.login_required) == (True, False)


# -- size --------------------------------------------------------------------------------------------------------------


#: A server's call closes connections, and so would end the test's own transaction.
served = pytest.mark.django_db(transaction=True)


def call(environ: dict[str, Any], stream: io.RawIOBase) -> tuple[str, bytes]:
    """Call the application as a WSGI server does; return its status and answer."""
    statuses: list[str] = []
    base = RequestFactory().post("/inbox/shop/").environ
    del base["CONTENT_LENGTH"]
    chunks = WSGIHandler()({**base, **environ, "wsgi.input": stream}, lambda status, headers: statuses.append(status))
    return statuses[0], b"".join(chunks)


class Endless(io.RawIOBase):
    """A body without an end; counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.count += size
        return b" " * size


@served
def test_a_body_that_says_it_is_too_large_is_not_read(settings: LazySettings) -> None:
    """Its length is enough."""
    configure(settings, "shop", body_limit=1000)
    stream = Endless()

    assert call({"CONTENT_LENGTH": "1001"}, stream) == (f"413 {HTTPStatus(413).phrase}", b"too large")
    assert call({"CONTENT_LENGTH": "9" * 5000}, stream)[0].startswith("413")
    assert stream.count == 0


@served
def test_a_body_of_unknown_length_is_read_up_to_the_limit(settings: LazySettings) -> None:
    """A server that takes apart chunks says so; nobody is made to read without an end."""
    configure(settings, "shop", body_limit=1000)
    stream = Endless()

    assert call({"wsgi.input_terminated": True}, stream)[0].startswith("413")
    assert stream.count == 1001


@served
@pytest.mark.parametrize("size", [-1, 0])
def test_a_chunked_body_is_taken(settings: LazySettings, size: int) -> None:
    """It comes in pieces of any size, and may have just as many bytes as are allowed."""
    body = make_body("order.paid", "x" * 200_000)
    configure(settings, "shop", body_limit=len(body) + size)
    headers = HttpHeaders.to_wsgi_names(signed("shop", body)["headers"])

    status, _ = call({"wsgi.input_terminated": True, **headers}, io.BufferedReader(io.BytesIO(body), 7))  # type: ignore[arg-type]

    assert status.partition(" ")[0] == ("200" if size == 0 else "413")
    assert [bytes(message.body) for message in Message.objects.all()] == ([body] if size == 0 else [])


@served
def test_a_length_that_is_none_is_not_believed() -> None:
    """There is no body then, and so no signature that fits."""
    assert call({"CONTENT_LENGTH": "many"}, io.BytesIO(b"x"))[0].startswith("401")  # type: ignore[arg-type]


@served
def test_a_sender_that_hangs_up_gets_no_message_stored() -> None:
    """The body has no end."""

    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError("gone")

    assert call({"CONTENT_LENGTH": "10"}, Broken()) == ("400 Bad Request", b"unreadable")


@served
def test_a_body_that_was_cut_off_is_not_stored(settings: LazySettings) -> None:
    """Its sender tries again, and the whole of it must not be taken for a duplicate."""
    configure(settings, "other", scheme="none", id_header="x-id")
    body = b'{"type": "order.paid", "amount": 1000000}'
    environ = {"PATH_INFO": "/inbox/other/", "CONTENT_LENGTH": str(len(body)), "HTTP_X_ID": "1"}

    assert call(environ, io.BytesIO(body[:20])) == ("400 Bad Request", b"unreadable")  # type: ignore[arg-type]
    assert call(environ, io.BytesIO(body))[0] == "200 OK"  # type: ignore[arg-type]
    assert bytes(Message.objects.get().body) == body


def test_asynchronous_servers_are_served(settings: LazySettings) -> None:
    """They have read the body already; the limit counts all the same."""
    body = make_body("order.paid")
    configure(settings, "shop", body_limit=len(body))
    post_it = async_to_sync(AsyncClient().post)

    taken = post_it(**signed("shop", body))
    refused = post_it(**signed("shop", body + b" "))

    assert (taken.status_code, refused.status_code) == (200, 413)
    assert bytes(Message.objects.get().body) == body


# -- rate --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def counting(settings: LazySettings) -> None:
    """Count in memory, from nothing."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": os.urandom(8).hex()}}
    cache.clear()


@pytest.mark.usefixtures("counting")
def test_too_much_is_put_off(settings: LazySettings) -> None:
    """Beyond its rate a source is asked to wait; another one is not."""
    configure(settings, "shop", rate_limit="2/day")
    body = b"{}"

    assert [send("order.paid").status_code for _ in range(3)] == [200, 200, 429]
    answer = send("order.paid")
    assert 1 <= int(answer.headers["Retry-After"]) <= 86400
    assert Message.objects.count() == 2
    assert Client().post(**signed("github", body, event="push", message_id="1")).status_code == 200


@pytest.mark.usefixtures("counting")
def test_strangers_do_not_use_up_the_rate(settings: LazySettings) -> None:
    """What is not signed is counted by itself, and not stored beyond the rate either."""
    configure(settings, "shop", rate_limit="2/day", keep_rejected=True)

    assert [post("shop", b"{}", {}).status_code for _ in range(3)] == [401, 401, 429]
    assert send("order.paid").status_code == 200
    assert Message.objects.filter(status=Status.REJECTED).count() == 2


# -- at once -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_two_that_arrive_at_once_one_is_stored() -> None:
    """Each of eight senders is acknowledged, and there is one message."""
    answers = run_together(*[partial(send, "order.paid", message_id="msg_1")] * 8)

    assert [answer.status_code for answer in answers] == [200] * 8
    assert Message.objects.count() == 1


def test_an_id_may_hold_what_a_database_cannot(settings: LazySettings) -> None:
    """It is replaced, and the message is taken."""
    configure(settings, "other", scheme="none", id_field="id")

    assert post("other", b'{"id": "a\\u0000\\ud800"}', {}).status_code == 200
    assert Message.objects.get().message_id == "a\ufffd?"


@pytest.mark.parametrize(
    ("address", "kept"), [("2001:db8::1", "2001:db8::1"), ("fe80::1%eth0", "fe80::1"), ("", None), ("unix:", None)]
)
def test_any_address_can_be_kept(address: str, kept: str | None) -> None:
    """Or none, where the server listens on a file."""
    body = make_body("order.paid")

    assert Client(REMOTE_ADDR=address).post(**signed("shop", body, message_id="msg_1")).status_code == 200
    assert Message.objects.get().remote_address == kept


def test_headers_are_json() -> None:
    """Whatever a header holds, the database takes it."""
    body = make_body("order.paid")

    assert Client().post(**signed("shop", body, message_id="msg_1", headers={"User-Agent": "caf\xe9 \x00"})).status_code == 200
    assert json.dumps(Message.objects.get().headers)
