"""OAuth 2 with a real token server that counts, ends and revokes tokens, fails and hangs, and a receiver that checks them."""

import base64
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.conf import LazySettings
from django.db import connection, transaction
from django.test import override_settings

from djwebhooks.database import read_clock
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Lane, WebhookTarget
from djwebhooks.models.sealed import TOKEN_START
from djwebhooks.testing import make_due
from djwebhooks.testing.receiver import Answer, Conversation, Receiver, answer, raw
from djwebhooks.transports.requests import RequestsTransport
from djwebhooks.worker import Worker, work
from tests.builders import make_target
from tests.test_secrets import Watch
from tests.transports.exchanges import lookup

SECRET = "hunter2-is-not-shown"

pytestmark = pytest.mark.django_db


class TokenServer(Receiver):
    """Gives ``token-1``, ``token-2`` and so on to the client ada; *lifetime* is what it says of each, *live* what it knows."""

    def __init__(self, lifetime: int = 3600) -> None:
        super().__init__(self.give_token)
        self.lifetime = lifetime
        self.live: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.now = self.most = 0

    def give_token(self, conversation: Conversation) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        self.gate.wait(30)
        self.now -= 1
        form = parse_qs(conversation.request.body.decode())
        password = base64.b64encode(f"ada:{SECRET}".encode()).decode()
        in_body = form.get("client_id") == ["ada"] and form.get("client_secret") == [SECRET]
        if conversation.request.headers.get("authorization") != f"Basic {password}" and not in_body:
            conversation.answer(401, b'{"error": "invalid_client"}')
            return
        token = f"token-{len(self.requests)}"
        self.live.add(f"Bearer {token}")
        given = {"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}
        conversation.answer(200, json.dumps(given).encode(), content_type="application/json")

    def guard(self, conversation: Conversation) -> None:
        """What a receiver does that takes only tokens that are live."""
        conversation.answer(200 if conversation.request.headers.get("authorization") in self.live else 401)


@pytest.fixture
def issuer() -> Iterator[TokenServer]:
    with TokenServer() as server:
        yield server
        server.gate.set()


@pytest.fixture
def receiver(issuer: TokenServer) -> Iterator[Receiver]:
    with Receiver(issuer.guard) as found:
        yield found


def credentials(issuer: Receiver, **changes: Any) -> dict[str, Any]:
    told = {"type": "oauth2", "token_url": issuer.url, "client_id": "ada", "client_secret": SECRET}
    return told | changes


def send(count: int = 0, transport: RequestsTransport | None = None) -> None:
    """Fire events and have a new worker send them."""
    for number in range(count):
        fire("a.b", {"number": number})
    work(burst=True, transport=transport or RequestsTransport(concurrency=8), threaded=False)


def outcomes() -> list[tuple[str, str]]:
    return list(Delivery.objects.order_by("sequence").values_list("status", "reason"))


def attempts() -> list[str | int | None]:
    return [attempt.error or attempt.status_code for attempt in Attempt.objects.order_by("id")]


# -- getting and keeping -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["basic", "body"])
def test_one_token_serves_many_deliveries_and_workers(issuer: TokenServer, receiver: Receiver, way: str) -> None:
    """It is got once, kept encrypted in the lane, and used by whoever has the lane next."""
    make_target(url=receiver.url, authentication=credentials(issuer, client_authentication=way, scope="hooks"))
    send(20)
    with connection.cursor() as cursor:
        cursor.execute("SELECT access_token FROM djw_lane")
        [(kept,)] = cursor.fetchall()
    send(5)

    assert outcomes() == [("succeeded", "")] * 25
    assert len(issuer.requests) == 1
    assert b"scope=hooks" in issuer.requests[0].body
    assert kept.startswith(TOKEN_START)
    assert attempts() == [200] * 25


def test_a_token_is_renewed_before_it_ends(issuer: TokenServer, receiver: Receiver) -> None:
    """One whose time is over is not sent any more."""
    make_target(url=receiver.url, authentication=credentials(issuer))
    send(1)
    lane = Lane.objects.get()
    lane.access_token = lane.access_token | {"renew_at": (read_clock("default") - timedelta(seconds=1)).isoformat()}
    lane.save()
    send(1)

    assert [received.headers["authorization"] for received in receiver.requests] == ["Bearer token-1", "Bearer token-2"]
    assert Lane.objects.get().access_token["text"] == "token-2"


def test_a_token_that_ends_at_once_is_used_all_the_same(issuer: TokenServer, receiver: Receiver) -> None:
    """A server that says 0 seconds is not asked for ever."""
    issuer.lifetime = 0
    make_target(url=receiver.url, authentication=credentials(issuer))
    send(1)

    assert outcomes() == [("succeeded", "")]


@pytest.mark.parametrize("change", [{"scope": "other"}, {"client_authentication": "body"}])
def test_other_credentials_get_another_token(issuer: TokenServer, receiver: Receiver, change: dict[str, str]) -> None:
    """What was got with the old ones is dropped, not sent."""
    target = make_target(url=receiver.url, authentication=credentials(issuer))
    send(1)
    target.authentication = credentials(issuer, **change)
    target.save()
    send(1)

    assert [received.headers["authorization"] for received in receiver.requests] == ["Bearer token-1", "Bearer token-2"]


def test_a_token_is_forgotten_with_its_credentials(issuer: TokenServer, receiver: Receiver) -> None:
    """A target that authenticates in another way, or in none, keeps no token in its lane."""
    target = make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[])
    send(1)
    target.authentication = {}
    target.save()
    send(1)

    assert "authorization" not in receiver.requests[1].headers
    assert Lane.objects.get().access_token == {}
    assert outcomes()[1] == ("failed", "schedule_exhausted")


def test_a_token_that_no_key_opens_is_got_anew(issuer: TokenServer, receiver: Receiver) -> None:
    """It is a cache: nothing waits for a key that is lost."""
    make_target(url=receiver.url, authentication=credentials(issuer))
    send(1)
    with override_settings(SECRET_KEY="a key of another time, long enough that no check complains about it"):
        Lane.objects.update(access_token={"text": "lost"})
    send(1)

    assert outcomes() == [("succeeded", "")] * 2
    assert len(issuer.requests) == 2


def test_order_is_kept(issuer: TokenServer, receiver: Receiver) -> None:
    """Deliveries that waited for the token go in the order they would have gone."""
    make_target(url=receiver.url, authentication=credentials(issuer), is_ordered=True)
    send(6)

    assert [json.loads(received.body)["data"]["number"] for received in receiver.requests] == list(range(6))


# -- a token that is refused -------------------------------------------------------------------------------------------


def test_a_revoked_token_is_replaced_at_once(issuer: TokenServer, receiver: Receiver) -> None:
    """A 401 costs nothing of the schedule: with no retry left, the delivery is sent again with a new token and succeeds."""
    make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[])
    send(1)
    issuer.live.clear()
    send(1)

    assert attempts() == [200, 401, 200]
    assert outcomes() == [("succeeded", "")] * 2
    assert (Delivery.objects.latest("id").attempt_count, Lane.objects.get().failure_count) == (2, 0)


def test_many_refusals_at_once_get_one_new_token(issuer: TokenServer, receiver: Receiver) -> None:
    """Deliveries that were in flight together with the same token share the next one."""
    make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[])
    send(8)
    issuer.live.clear()
    send(8)

    assert outcomes() == [("succeeded", "")] * 16
    assert len(issuer.requests) == 2


def test_a_second_refusal_in_a_row_is_a_failure(issuer: TokenServer) -> None:
    """A receiver that takes no token is tried twice for each place in the schedule, and it counts once."""
    with Receiver(401) as receiver:
        make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[0])
        send(1)

    assert attempts() == [401] * 4
    assert outcomes() == [("failed", "schedule_exhausted")]
    assert Lane.objects.get().failure_count == 2
    assert len(issuer.requests) == 4


# -- a token server that fails -----------------------------------------------------------------------------------------


def endless(conversation: Conversation) -> None:
    conversation.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        conversation.send(b" " * 65536)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (answer(401, b'{"error": "invalid_client"}'), "answered 401: invalid_client"),
        (answer(200, b'{"error": "' + SECRET.encode() + b'"}'), "answered 200."),
        (503, "answered 503"),
        (answer(302, location="http://127.0.0.1:9/"), "answered 302"),
        (answer(200, SECRET.encode()), "answered 200."),
        (raw(b"HTTP/1.1 200 OK\r\nno header " + SECRET.encode()), "could not be asked: connection_reset"),
        (raw(b"HTTP/1.1 200 OK\r\n: " + SECRET.encode() + b"\r\n\r\n"), "could not be asked: invalid_response"),
        (endless, "answered 200"),
    ],
)
def test_no_token_is_a_failed_attempt(given: Answer | int, words: str) -> None:
    """It is recorded in words, retried on the schedule, and counts, as the owner's configuration reaches nobody."""
    with Receiver(given) as issuer, Receiver() as receiver:
        make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[0])
        send(1)
        make_due()
        send()

        assert receiver.requests == []
        assert len(issuer.requests) == 2
    assert outcomes() == [("failed", "schedule_exhausted")]
    assert Lane.objects.get().failure_count == 2
    for attempt in Attempt.objects.all():
        assert (attempt.url, attempt.error, attempt.status_code) == (issuer.url, "authentication_error", None)
        assert words in attempt.detail
        assert SECRET not in str(vars(attempt))


def test_a_key_check_without_a_token_says_nothing_of_the_target() -> None:
    """It is not tried again, as no key check is, and nobody is suspended for it."""
    with Receiver(500) as issuer, Receiver() as receiver:
        target = make_target(url=receiver.url, authentication=credentials(issuer))
        for _ in target.check_keys():
            send()
            make_due()

        assert receiver.requests == []
    assert {status for status, _ in outcomes()} == {"failed"}
    assert Lane.objects.get().failure_count == 0


@pytest.mark.parametrize("limits", [{"rate_limit": 1, "rate_period": "hour"}, {}])
def test_asking_for_a_token_uses_up_nothing_of_a_rate(issuer: TokenServer, receiver: Receiver, limits: dict[str, Any]) -> None:
    """Else a token that lives for a shorter time than the rate's pause would be asked for again and again, and never used."""
    make_target(url=receiver.url, authentication=credentials(issuer), **limits)
    send(1)

    assert outcomes() == [("succeeded", "")]
    assert len(issuer.requests) == 1


def test_a_redirect_of_the_token_server_is_not_followed() -> None:
    """The secret goes to the address that was checked, and nowhere else."""
    with Receiver() as elsewhere, Receiver(answer(307, location=elsewhere.url)) as issuer:
        make_target(authentication=credentials(issuer), retry_schedule=[])
        send(1)

        assert elsewhere.connections == 0


def test_a_token_server_at_a_forbidden_address() -> None:
    """It is refused where the connection is made, as a target's is, and fails at once."""
    with Receiver() as trap:
        make_target(authentication=credentials(trap, token_url=trap.url_for("issuer.example")), retry_schedule=[0, 0])
        with override_settings(DJWEBHOOKS_ALLOWED_NETWORKS=()):
            send(1, RequestsTransport(getaddrinfo=lookup(["127.0.0.1"])))

        assert trap.connections == 0
    assert outcomes() == [("failed", "forbidden_address")]
    assert Attempt.objects.get().url == trap.url_for("issuer.example")


def test_a_token_server_that_we_cannot_look_up() -> None:
    """No DNS server is our own fault: it is tried again soon, and nothing counts."""

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "no server")

    told = {"type": "oauth2", "token_url": "http://issuer.example/", "client_id": "ada", "client_secret": SECRET}
    make_target(authentication=told, retry_schedule=[])
    send(1, RequestsTransport(getaddrinfo=getaddrinfo))

    assert outcomes() == [("pending", "no_dns_server")]
    assert Lane.objects.get().failure_count == 0


def test_a_token_server_that_recovers(issuer: TokenServer, receiver: Receiver) -> None:
    """The next attempt on the schedule gets a token and is sent."""
    issuer.answers = [503]
    make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[3600])
    send(1)
    assert outcomes() == [("pending", "authentication_error")]
    issuer.answers = [issuer.give_token]
    Delivery.objects.get().retry()
    make_due()
    send()

    assert attempts() == ["authentication_error", 200]


@pytest.mark.parametrize(
    "given",
    [503, answer(429, retry_after="3600"), answer(200, b"no token"), raw(b"")],
    ids=["refuses", "wants a pause", "makes no sense", "hangs up"],
)
def test_a_token_server_is_asked_once_for_all_that_waits(given: Answer | int) -> None:
    """The whole lane rests then, even if the schedule says at once; only the delivery that asked has an attempt."""
    with Receiver(given) as issuer, Receiver() as receiver:
        make_target(url=receiver.url, authentication=credentials(issuer), retry_schedule=[0] * 9)
        send(20)
        assert len(issuer.requests) == 1
        make_due()
        send()

        assert len(issuer.requests) == 2
        assert receiver.requests == []
    assert attempts() == ["authentication_error"] * 2
    assert {status for status, _ in outcomes()} == {"pending"}


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_a_token_server_that_hangs_delays_nobody_else(issuer: TokenServer, receiver: Receiver, settings: LazySettings) -> None:
    """While it answers nothing, other targets get all of theirs, and it is asked one thing at a time for each target."""
    settings.DJWEBHOOKS_TIMEOUT = 60
    issuer.gate.clear()
    reached: list[int] = []
    with ExitStack() as stack:
        healthy = [stack.enter_context(Receiver()) for _ in range(3)]
        for other in healthy:
            make_target(url=other.url)
        stuck = make_target(url=receiver.url, authentication=credentials(issuer))

        def watch() -> None:
            reached.extend(len(other.wait_for(10, timeout=30)) for other in healthy)
            issuer.gate.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        send(10)
        watcher.join()

    assert reached == [10] * 3
    assert issuer.most == len(issuer.requests) == 1
    assert Delivery.objects.filter(target=stuck, status="succeeded").count() == 10


def test_a_pause_while_a_token_is_got_is_kept(issuer: TokenServer, receiver: Receiver) -> None:
    """The delivery that waited for the token is not sent, and stays pending."""
    target = make_target(url=receiver.url, authentication=credentials(issuer))
    fire("a.b", 1)
    worker = Worker(transport=RequestsTransport(concurrency=2), threaded=False)
    worker.enlist()
    issuer.gate.clear()
    while not issuer.requests:
        for step in worker.steps:
            step()
    WebhookTarget.objects.get(pk=target.pk).pause()
    for step in worker.steps[:3]:
        worker._next_poll = 0.0
        step()
    issuer.gate.set()
    worker.stop()
    worker.burst = True
    while worker._flights:
        worker._turn()
    worker._end()

    assert receiver.requests == []
    assert outcomes() == [("pending", "")]


def test_what_is_cancelled_while_a_token_is_got_is_not_sent(
    issuer: TokenServer, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in a lane with more due than the worker looks at."""
    monkeypatch.setattr("djwebhooks.work.READY", 2)
    make_target(url=receiver.url, authentication=credentials(issuer))
    for number in range(5):
        fire("a.b", {"number": number})
    worker = Worker(transport=RequestsTransport(concurrency=8), burst=True, threaded=False)
    worker.enlist()
    issuer.gate.clear()
    for step in worker.steps[: worker.steps.index(worker._collect)]:
        step()

    Delivery.objects.get(sequence=1).cancel()
    worker._next_poll = 0.0
    for step in worker.steps[: worker.steps.index(worker._collect)]:
        step()
    issuer.gate.set()
    worker.run()

    assert outcomes() == [("cancelled", "cancelled")] + [("succeeded", "")] * 4


@contextmanager
def lanes_locked_by_an_application() -> Iterator[None]:
    locked, release = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            list(Lane.objects.select_for_update())
            locked.set()
            release.wait(30)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10)
    yield
    release.set()
    holder.join()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_nobody_else_asks_until_the_refusal_is_recorded(receiver: Receiver) -> None:
    """Also while an application keeps the lane locked, so that nothing can be."""
    with Receiver(503) as issuer:
        make_target(url=receiver.url, authentication=credentials(issuer))
        for number in range(5):
            fire("a.b", {"number": number})
        worker = Worker(transport=RequestsTransport(concurrency=8), threaded=False)
        worker.enlist()
        for step in worker.steps[:5]:
            step()
        with lanes_locked_by_an_application():
            turns = 0
            while turns < 10:
                turns += bool(worker._outcomes)
                for step in worker.steps[2:8]:
                    step()
            asked = len(issuer.requests)
        worker.stop()
        while worker._flights or worker._outcomes:
            worker._turn()
        worker._end()

    assert asked == len(issuer.requests) == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_lane_that_an_application_keeps_locked_costs_only_the_cache(issuer: TokenServer, receiver: Receiver) -> None:
    """The token is used, though it cannot be kept for others, and nothing waits for the lock."""
    make_target(url=receiver.url, authentication=credentials(issuer))
    send(1)
    Lane.objects.update(access_token={})
    fire("a.b", 1)
    worker = Worker(transport=RequestsTransport(concurrency=2), threaded=False)
    worker.enlist()
    for step in worker.steps[:5]:
        step()
    with lanes_locked_by_an_application():
        while len(receiver.requests) < 2:
            for step in worker.steps[2:7]:
                step()
    worker.stop()
    while worker._flights or worker._outcomes:
        worker._turn()
    worker._end()

    assert outcomes() == [("succeeded", "")] * 2
    assert Lane.objects.get().access_token == {}


# -- nothing secret is left behind -------------------------------------------------------------------------------------


def test_neither_secret_nor_token_is_shown(issuer: TokenServer, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Not in a log, an attempt, a lane or a flight, while the servers got both."""
    caplog.set_level(logging.DEBUG)
    make_target(url=receiver.url, authentication=credentials(issuer))
    fire("a.b", 1)
    worker = Worker(transport=RequestsTransport(concurrency=2), threaded=False)
    worker.enlist()
    seen: list[str] = []
    while Delivery.objects.filter(status="pending").exists() or not Delivery.objects.exists():
        for step in worker.steps:
            step()
            seen.append(f"{worker._flights} {worker._held}")
    worker._end()
    shown = f"{seen} {caplog.text} {list(Attempt.objects.values())} {list(Lane.objects.values())}"

    assert SECRET.encode() in base64.b64decode(issuer.requests[0].headers["authorization"][6:])
    assert receiver.requests[0].headers["authorization"] == "Bearer token-1"
    assert "Flight" in shown
    assert not [secret for secret in (SECRET, "token-1", issuer.requests[0].headers["authorization"]) if secret in shown]


def test_no_variable_shows_a_secret_or_a_token(issuer: TokenServer, receiver: Receiver) -> None:
    """No tool that shows the variables of a traceback can show one, from the setting of the secret to a token that is refused."""
    target = make_target(url=receiver.url, retry_schedule=[])
    with Watch(SECRET, "token-1", "token-2") as watch:
        target.authentication = credentials(issuer)
        target.full_clean(exclude=["digest"])
        target.save()
        send(1)
        issuer.live.clear()
        send(1)

    assert outcomes() == [("succeeded", "")] * 2
    assert watch.lines > 1000
    assert watch.found == set()
