"""A server that must never be reached, all the ways to it, and the names that change under the guard's eyes."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.test import Client

from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.models import Attempt, Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.network import MOST_ADDRESSES
from djwebhooks.testing.receiver import Receiver
from djwebhooks.transports.base import Reply
from djwebhooks.worker import work
from tests.admin.builders import add_target
from tests.api.world import Api
from tests.hostile.names import SILENCE, NameServer
from tests.hostile.runs import MakeTransport
from tests.transports.exchanges import post

pytestmark = pytest.mark.django_db

SendPastValidation = Callable[[list[str]], dict[str, Attempt]]
SendTo = Callable[..., Reply]

#: What leads to a server on 127.0.0.1, unless the guard stands in the way.
SPELLINGS = [
    *["127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0X7F.1", "0x7f.0x0.0x0.0x1", "017700000001", "0177.0.0.1"],
    *["0177.0x0.0.01", "127.000.000.001", "0", "0.0.0.0", "0x0", "localhost", "LOCALHOST", "localhost.", "trap.localhost"],
    *["[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]", "[::FFFF:127.0.0.1]", "[::ffff:0.0.0.0]"],
]
#: What might lead there: for one parser the host is another than for the next, or a resolver could read it as an address.
TRICKS = [
    *["127.0.0.1.", "127.0.0.1..", "１２７.０.０.１", "127。0。0。1", "127．0．0．1", "①②⑦.⓪.⓪.①"],
    *["ｌｏｃａｌｈｏｓｔ", "localhost。", "ℓocalhost", "local\u00adhost", "local\u200bhost", "local\ufeffhost"],
    *["%31%32%37.0.0.1", "127.0.0.1%00.example", "127.0.0.1%2f.example", "0x7f.1.0x", "{127.0.0.1}", "[127.0.0.1]"],
    *["[localhost]", "[::1]", "[::]", "[::1%lo]", "[::1%25lo]", "[::ffff:127.0.0.1%1]", "[fe80::5efe:127.0.0.1]"],
    *["[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::127.0.0.1]"],
    *["[2002:7f00:1::]", "[2001::80ff:fffe]", "127.0.0.1 ", " 127.0.0.1", "127.0.0.1\t", "127.0.0.1\n", "127.0.0.1\r\nx: y"],
    *["127.0.0.1\u3000", "x.example@127.0.0.1", "x:y@127.0.0.1", "127.0.0.1\\@x.example", "x.example\\@127.0.0.1"],
    *["127.0.0.1#@x.example", "127.0.0.1/@x.example", "127.0.0.1?@x.example", "127.0.0.1;x.example", "127.0.0.1,x.example"],
]  # fmt: skip


def look_up_here(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
    """Look up what this machine knows by itself: every notation that its resolver takes for an address, and localhost."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        if not host.lower().removesuffix(".").endswith("localhost"):
            raise
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@pytest.fixture
def trap() -> Iterator[Receiver]:
    """A server that a webhook reaches only if the guard fails."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def strict(settings: LazySettings) -> None:
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 1000


@pytest.fixture
def owner(db: None) -> User:
    return User.objects.create(username="owner")


@pytest.fixture
def send_past_validation(make_transport: MakeTransport, trap: Receiver, owner: User) -> SendPastValidation:
    """A function that sends an event to a target for each host, whose URL nobody has checked; it returns attempts by host."""

    def send(hosts: list[str]) -> dict[str, Attempt]:
        targets = {host: WebhookTarget.objects.create(owner=owner, event="*", target_url=trap.url_for(host)) for host in hosts}
        fire("a.b", {}, owner=owner)
        work(burst=True, transport=make_transport(getaddrinfo=look_up_here), threaded=False)
        return {host: Attempt.objects.get(delivery__target=target) for host, target in targets.items()}

    return send


# -- the trap ----------------------------------------------------------------------------------------------------------


def test_the_trap_can_be_reached(trap: Receiver, send_past_validation: SendPastValidation, settings: LazySettings) -> None:
    """Without the guard every spelling leads to the trap, so that it proves something if nothing comes."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("0.0.0.0/0",)
    attempts = send_past_validation(SPELLINGS)

    assert {host: attempt.status_code for host, attempt in attempts.items()} == dict.fromkeys(SPELLINGS, 200)
    assert len(trap.requests) == len(SPELLINGS)


def test_the_trap_is_not_reached_past_validation(trap: Receiver, send_past_validation: SendPastValidation) -> None:
    """Targets that nobody has checked are refused where the socket is made, and fail at once."""
    attempts = send_past_validation(SPELLINGS + TRICKS)

    assert trap.connections == 0
    assert {attempts[host].error for host in SPELLINGS} == {"forbidden_address"}
    assert {attempt.error for attempt in attempts.values()} <= {"forbidden_address", "invalid_url", "dns_error"}
    assert set(Delivery.objects.filter(target__in=WebhookTarget.objects.all()).values_list("attempt_count", flat=True)) == {1}


def by_register(url: str, owner: User) -> None:
    with pytest.raises(InvalidTarget):
        WebhookTarget.objects.register(url, ["*"], owner=owner)


def by_fire(url: str, owner: User) -> None:
    with pytest.raises(InvalidTarget):
        fire("a.b", {}, owner=owner, urls=[url])


def by_api(url: str, owner: User) -> None:
    answer = Api(owner).post("targets/", {"target_url": url, "events": ["*"]})

    assert answer.status == 400
    assert "target_url" in answer.data["errors"]


def by_change_in_api(url: str, owner: User) -> None:
    target = WebhookTarget.objects.register("https://receiver.example/", ["*"], owner=owner)

    assert Api(owner).patch(f"targets/{target.uid}/", {"target_url": url}).status == 400
    target.refresh_from_db()
    assert target.target_url == "https://receiver.example/"
    target.delete()


def by_admin(url: str, owner: User) -> None:
    client = Client()
    client.force_login(User.objects.get_or_create(username="staff", is_staff=True, is_superuser=True)[0])
    response = add_target(client, target_url=url, owner=owner.pk)

    assert response.status_code == 200
    assert response.context["adminform"].form.errors


@pytest.mark.parametrize("door", [by_register, by_fire, by_api, by_change_in_api, by_admin])
def test_no_door_lets_the_trap_in(door: Callable[[str, User], None], trap: Receiver, owner: User) -> None:
    """Whoever makes or changes a target is told that its URL cannot be, however the address is written."""
    # Forms strip what stands around a host. A page of the admin takes its time.
    hosts = SPELLINGS if door is by_admin else SPELLINGS + [host for host in TRICKS if host.strip() == host]
    for host in hosts:
        door(trap.url_for(host), owner)

    assert not WebhookTarget.objects.exists()
    assert trap.connections == 0


def test_a_port_that_is_not_allowed_any_more(
    trap: Receiver, send_past_validation: SendPastValidation, settings: LazySettings
) -> None:
    """A target whose port was allowed when it was made is not connected to."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    settings.DJWEBHOOKS_ALLOWED_PORTS = [443]
    attempts = send_past_validation(["127.0.0.1"])

    assert (attempts["127.0.0.1"].error, trap.connections) == ("forbidden_address", 0)


def test_a_host_that_has_become_our_own(trap: Receiver, send_past_validation: SendPastValidation, settings: LazySettings) -> None:
    """A target whose host was somebody else's when it was made is not connected to, and the attempt says as much as it may."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = [".localhost"]
    [attempt] = send_past_validation(["app.LOCALHOST."]).values()

    assert (attempt.error, attempt.detail) == ("forbidden_address", "The URL's host, its address or its port is forbidden.")
    assert Delivery.objects.get().status == Status.FAILED
    assert trap.connections == 0


def test_a_forbidden_address_in_an_allowed_network(
    trap: Receiver, send_past_validation: SendPastValidation, settings: LazySettings
) -> None:
    """An address that is a forbidden host is not connected to, whatever notation or name leads to it."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    settings.DJWEBHOOKS_FORBIDDEN_HOSTS = ["127.0.0.1"]
    attempts = send_past_validation(SPELLINGS)

    assert {attempt.error for attempt in attempts.values()} == {"forbidden_address"}
    assert trap.connections == 0


# -- names -------------------------------------------------------------------------------------------------------------

GOOD, FORBIDDEN = "127.0.0.1", "127.0.0.2"


@pytest.fixture
def servers(settings: LazySettings) -> Iterator[tuple[Receiver, Receiver]]:
    """A receiver on the good address, and a trap on the same port of the forbidden one."""
    settings.DJWEBHOOKS_ALLOWED_NETWORKS = (f"{GOOD}/32", "127.1.0.0/16")
    with Receiver() as receiver, Receiver(host=FORBIDDEN, port=receiver.port) as trap:
        yield receiver, trap


@pytest.fixture
def send_to(make_transport: MakeTransport) -> SendTo:
    """A function that makes a request to a name, with a transport of its own that asks a DNS server of the test."""

    def send(name: str, receiver: Receiver, names: NameServer, **changes: Any) -> Reply:
        transport = make_transport(getaddrinfo=names.getaddrinfo)
        try:
            return post(transport, receiver.url_for(name), **changes)
        finally:
            transport.close()

    return send


@pytest.mark.parametrize(
    ("answer", "aliases", "error"),
    [
        ([GOOD], {}, ""),
        ([FORBIDDEN], {}, "forbidden_address"),
        ([GOOD, FORBIDDEN], {}, "forbidden_address"),
        ([FORBIDDEN, GOOD], {}, "forbidden_address"),
        (["a.example"], {"a.example": ["b.example"], "b.example": [GOOD]}, ""),
        (["a.example"], {"a.example": ["b.example"], "b.example": [FORBIDDEN]}, "forbidden_address"),
        (["a.example"], {"a.example": ["b.example"], "b.example": [GOOD, FORBIDDEN]}, "forbidden_address"),
        ([f"127.1.0.{number}" for number in range(200)] + [FORBIDDEN], {}, "forbidden_address"),
        ([*(f"127.1.0.{number}" for number in range(1, MOST_ADDRESSES)), GOOD], {}, ""),
        ([*(f"127.1.0.{number}" for number in range(1, 200)), GOOD], {}, "connection_refused"),
    ],
)
def test_names(
    servers: tuple[Receiver, Receiver], send_to: SendTo, answer: list[str], aliases: dict[str, list[str]], error: str
) -> None:
    """All addresses of a name count, at the end of whatever aliases; of very many a few are tried, and no more."""
    receiver, trap = servers
    with NameServer({"x.example": [answer], **{name: [values] for name, values in aliases.items()}}) as names:
        reply = send_to("x.example", receiver, names)

    assert reply.error == error
    assert (receiver.connections, trap.connections) == (0 if error else 1, 0)
    assert names.asked == {"x.example": 1}


def test_a_name_that_changes_between_two_lookups(servers: tuple[Receiver, Receiver], send_to: SendTo) -> None:
    """A name that is good when it is checked, and forbidden when it is looked up next, is looked up once for a connection."""
    receiver, trap = servers
    with NameServer({"x.example": [[GOOD], [FORBIDDEN]]}) as names:
        replies = [send_to("x.example", receiver, names) for _ in range(3)]

    assert [reply.error for reply in replies] == ["", "forbidden_address", "forbidden_address"]
    assert (receiver.connections, trap.connections) == (1, 0)
    assert names.asked == {"x.example": 3}


def test_a_name_that_nobody_answers_for(servers: tuple[Receiver, Receiver], send_to: SendTo) -> None:
    """A DNS server that is silent costs the request its time to connect, and no more."""
    receiver, trap = servers
    with NameServer({"x.example": [SILENCE], "y.example": [[GOOD]]}) as names:
        silent = send_to("x.example", receiver, names, connect_timeout=0.2)
        other = send_to("y.example", receiver, names)

    assert (silent.error, other.status) == ("connect_timeout", 200)
    for thread in threading.enumerate():
        if thread.name in ("djwebhooks-post", "djwebhooks-lookup"):
            thread.join(10)
    assert (receiver.connections, trap.connections) == (1, 0)
