"""What is sent is what was given."""

from collections.abc import Callable
from pathlib import Path

import pytest

from djwebhooks.testing.receiver import Receiver
from djwebhooks.transports.base import Transport
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import post


class Sending(Loopback):
    """What is sent."""

    def test_request_arrives_as_it_was_given(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Method, path, query, headers and body bytes are those of the request."""
        receiver = serve()
        post(transport, receiver.url + "/a%20b?x=1&y=%C3%A9", body=b"\x00\xff body")
        [received] = receiver.requests

        assert (received.method, received.path, received.body) == ("POST", "/hook/a%20b?x=1&y=%C3%A9", b"\x00\xff body")
        assert received.headers["webhook-id"] == "msg_1"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["content-length"] == "7"
        assert received.headers["host"] == f"127.0.0.1:{receiver.port}"

    def test_no_compression_is_asked_for(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """The receiver is asked not to compress, as bodies are kept as they come."""
        receiver = serve()
        post(transport, receiver.url)

        assert receiver.requests[0].headers["accept-encoding"] == "identity"

    def test_empty_body(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A request without a body says so and is answered."""
        receiver = serve()

        assert post(transport, receiver.url, body=b"").status == 200
        assert receiver.requests[0].body == b""

    @pytest.mark.parametrize("method", ["GET", "OPTIONS"])
    def test_some_methods_have_no_body(self, method: str, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """And the next request is a POST again."""
        receiver = serve()

        assert post(transport, receiver.url, method=method, body=b"").status == 200
        assert post(transport, receiver.url).status == 200
        assert [(received.method, received.body) for received in receiver.requests] == [(method, b""), ("POST", b'{"a": 1}')]
        assert "content-length" not in receiver.requests[0].headers

    def test_environment_is_ignored(
        self, make: Make, serve: Callable[..., Receiver], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Neither a proxy nor a netrc of the environment gets a request or adds to it."""
        receiver, proxy = serve(), serve()
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login me password secret\n")
        netrc.chmod(0o600)
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url_for("127.0.0.1"))
        monkeypatch.setenv("NETRC", str(netrc))

        assert post(make(), receiver.url).status == 200
        assert "authorization" not in receiver.requests[0].headers
        assert proxy.connections == 0
