"""Only receivers whose certificates are good get anything, and those that ask for one are shown the sender's."""

import ssl
from collections.abc import Callable

import pytest
import trustme

from djwebhooks.testing.receiver import Conversation, Receiver
from djwebhooks.transports.base import Transport
from tests.keys import YESTERDAY, make_certificate, make_server_context, make_strict_context
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import lookup, post


class Tls(Loopback):
    """Who is spoken to, and as whom."""

    def test_tls(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str) -> None:
        """A certificate of a trusted authority for the URL's host is accepted, and the connection kept."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        replies = [post(transport, receiver.url_for("receiver.example")) for _ in range(3)]

        assert [(reply.status, reply.address) for reply in replies] == [(200, "127.0.0.1")] * 3
        assert receiver.connections == 1

    def test_tls_of_another_host(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str) -> None:
        """A certificate for another name is refused, and nothing is sent."""
        receiver = serve(tls=make_server_context(authority, "somebody-else.example"))
        reply = post(make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle), receiver.url_for("receiver.example"))

        assert (reply.status, reply.error) == (None, "tls_error")
        assert receiver.requests == []

    def test_tls_of_an_unknown_authority(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA) -> None:
        """A certificate that no known authority signed is refused."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        reply = post(make(getaddrinfo=lookup(["127.0.0.1"])), receiver.url_for("receiver.example"))

        assert (reply.status, reply.error) == (None, "tls_error")
        assert receiver.requests == []

    def test_old_tls(self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str) -> None:
        """Nothing older than TLS 1.2 is spoken."""
        context = make_server_context(authority, "receiver.example")
        # Without the lower security level the server itself would refuse, and prove nothing.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
            context.minimum_version = ssl.TLSVersion.TLSv1
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        reply = post(make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle), serve(tls=context).url_for("receiver.example"))

        assert reply.error == "tls_error"

    def test_receiver_without_tls(self, make: Make, serve: Callable[..., Receiver]) -> None:
        """https:// to a receiver that does not speak TLS fails as such."""

        def script(conversation: Conversation) -> None:
            conversation.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            conversation.wait_closed()

        receiver = serve(script=script)

        assert post(make(), f"https://127.0.0.1:{receiver.port}/").error == "tls_error"

    def test_certificate_is_shown(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """A receiver that asks for a certificate gets the request's, whatever kind of key it has."""
        receiver = serve(tls=make_strict_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        url = receiver.url_for("receiver.example")

        for pem in (make_certificate(authority), make_certificate(authority, kind=trustme.KeyType.RSA)):
            assert post(transport, url, client_certificate=pem).status == 200

    def test_wrong_or_no_certificate(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """A receiver that refuses the certificate, or the lack of one, is a TLS error, and it gets nothing of the request."""
        receiver = serve(tls=make_strict_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        url = receiver.url_for("receiver.example")
        stranger, expired = make_certificate(trustme.CA()), make_certificate(authority, expires_at=YESTERDAY)
        replies = [post(transport, url, client_certificate=pem) for pem in ("", stranger, expired, "no certificate")]

        assert [(reply.status, reply.error) for reply in replies] == [(None, "tls_error")] * 4
        assert receiver.requests == []

    def test_connections_are_not_shared_between_certificates(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str
    ) -> None:
        """Two senders at one host are told apart: each request uses a connection that was made with its own certificate."""
        receiver = serve(tls=make_server_context(authority, "receiver.example"))
        transport = make(getaddrinfo=lookup(["127.0.0.1"]), ca_bundle=ca_bundle)
        url = receiver.url_for("receiver.example")
        ada, bob = make_certificate(authority), make_certificate(authority)
        for pem in (ada, bob, "", ada, bob, ""):
            assert post(transport, url, client_certificate=pem).status == 200

        connections = [received.connection for received in receiver.requests]
        assert connections[:3] == connections[3:] == [1, 2, 3]

    def test_certificate_over_plain_http(self, transport: Transport, url: str) -> None:
        """Without TLS there is nobody to show it to."""
        assert post(transport, url, client_certificate="no certificate").status == 200
