"""Nothing is sent to a forbidden address, however it is written or found."""

import socket
from collections.abc import Callable

import pytest
from django.conf import LazySettings

from djwebhooks.testing.receiver import Receiver, answer
from djwebhooks.transports.base import Transport
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import lookup, post


class Addresses(Loopback):
    """Where is sent to."""

    def test_forbidden_address(self, transport: Transport, settings: LazySettings, url: str) -> None:
        """Nothing is sent to a forbidden address, though it is written in the URL."""
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
        reply = post(transport, url)

        assert (reply.error, reply.status) == ("forbidden_address", None)

    @pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]"])
    def test_forbidden_address_in_other_words(
        self, transport: Transport, serve: Callable[..., Receiver], settings: LazySettings, host: str
    ) -> None:
        """It is the address that counts, however it is written."""
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ()
        receiver = serve()

        assert post(transport, receiver.url_for(host)).error == "forbidden_address"
        assert receiver.connections == 0

    @pytest.mark.parametrize("addresses", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"]])
    def test_one_forbidden_address_is_enough(self, make: Make, serve: Callable[..., Receiver], addresses: list[str]) -> None:
        """A name that has a forbidden address beside a good one is refused, and what it means is not told to tenants."""
        receiver = serve()
        reply = post(make(getaddrinfo=lookup(addresses)), receiver.url_for("mixed.example"))

        assert reply.error == "forbidden_address"
        assert not any(address in reply.detail for address in addresses)
        assert receiver.connections == 0

    def test_rebinding(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """The address that is connected to is the one that was checked: one lookup for each connection, each checked."""
        receiver = serve(answer(200, connection="close"))
        # Where a second lookup for the same connection would lead.
        trap = socket.create_server(("127.0.0.2", receiver.port))
        with trap:
            transport = make(getaddrinfo=lookup(["127.0.0.1"], ["127.0.0.2"]))
            replies = [post(transport, receiver.url_for("rebinding.example")) for _ in range(2)]
            trap.setblocking(False)
            with pytest.raises(BlockingIOError):
                trap.accept()

        assert [(reply.status, reply.error, reply.address) for reply in replies] == [
            (200, "", "127.0.0.1"),
            (None, "forbidden_address", ""),
        ]
        assert receiver.requests[0].headers["host"] == f"rebinding.example:{receiver.port}"

    def test_next_address_is_tried(self, make: Make, serve: Callable[..., Receiver], settings: LazySettings) -> None:
        """A name with an address that refuses and one that answers is delivered to."""
        settings.DJWEBHOOKS_ALLOWED_NETWORKS = ("127.0.0.0/8",)
        reply = post(make(getaddrinfo=lookup(["127.0.0.3", "127.0.0.1"])), serve().url_for("two.example"))

        assert (reply.status, reply.address) == (200, "127.0.0.1")
