"""Whatever goes wrong is told by its name, and told apart by whose fault it is."""

import contextlib
import errno
import json
import logging
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from djwebhooks.testing.receiver import Conversation, Receiver, raw, reset
from djwebhooks.transports.base import Transport
from tests.keys import make_certificate, make_strict_context
from tests.transports.contract.base import Loopback, Make
from tests.transports.exchanges import post


def fail_lookup(fault: OSError) -> Callable[..., list[tuple[Any, ...]]]:
    def getaddrinfo(host: str, port: int, *args: object, **kwargs: object) -> list[tuple[Any, ...]]:
        raise fault

    return getaddrinfo


class Faults(Loopback):
    """What goes wrong."""

    def test_close_before_the_answer(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A receiver that closes instead of answering has reset the connection."""
        assert post(transport, serve(script=lambda conversation: conversation.read() and None).url).error == "connection_reset"

    @pytest.mark.parametrize(
        "partial",
        [
            b"HTTP/1.1 20",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/pl",
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10\r\nabc",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ],
        ids=["status line", "head", "body", "chunk", "chunks"],
    )
    def test_close_in_the_middle(self, transport: Transport, serve: Callable[..., Receiver], partial: bytes) -> None:
        """An answer that breaks off is none, wherever it does."""
        reply = post(transport, serve(raw(partial)).url)

        assert (reply.status, reply.error) == (None, "connection_reset")

    def test_reset(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A RST instead of an answer is told as such."""

        assert post(transport, serve(reset).url).error == "connection_reset"

    def test_early_answer_is_read(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """An answer that comes before the whole body is sent counts (413), though the receiver then closes."""

        def script(conversation: Conversation) -> None:
            conversation.answer(413, b"too large", connection="close")
            # Read what has come, so that closing does not reset the answer away.
            conversation.read()

        assert post(transport, serve(script=script).url, body=bytes(200_000)).status == 413

    def test_early_answer_and_reset(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """Whoever answers and resets may have lost the answer by it, and the connection is never used again."""

        def script(conversation: Conversation) -> None:
            conversation.answer(413)
            conversation.reset()

        receiver = serve(script=script)
        replies = [post(transport, receiver.url, body=bytes(20_000_000)) for _ in range(3)]

        assert {(reply.status, reply.error) for reply in replies} <= {(413, ""), (None, "connection_reset")}
        assert receiver.connections == 3

    @pytest.mark.parametrize(
        "junk",
        [
            b"hello there\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n",
            b"HTTP/1.1 abc OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nthis is no header\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
        ],
        ids=["HTTP/0.9", "TLS", "status", "header", "lengths", "upgrade"],
    )
    def test_answer_that_is_not_http(
        self, transport: Transport, serve: Callable[..., Receiver], junk: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What is not HTTP/1 is an invalid answer, and no receiver can fill the log with it."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(junk)
            conversation.wait_closed()

        with caplog.at_level(logging.WARNING):
            reply = post(transport, serve(script=script).url, timeout=5.0)

        assert (reply.status, reply.error) == (None, "invalid_response")
        assert caplog.records == []

    def test_junk_chunk_size(self, transport: Transport, serve: Callable[..., Receiver]) -> None:
        """A chunk size that is no number is an invalid answer."""

        def script(conversation: Conversation) -> None:
            conversation.read()
            conversation.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n")
            conversation.wait_closed()

        assert post(transport, serve(script=script).url).error == "invalid_response"

    def test_refused_port(self, transport: Transport) -> None:
        """A port that nothing listens on refuses."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        reply = post(transport, f"http://127.0.0.1:{port}/")

        assert (reply.error, reply.status, reply.address) == ("connection_refused", None, "127.0.0.1")
        assert reply.detail

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (socket.gaierror(socket.EAI_NONAME, "failed"), "dns_error"),
            (socket.gaierror(socket.EAI_FAIL, "failed"), "dns_error"),
            (socket.gaierror(socket.EAI_AGAIN, "failed"), "no_dns_server"),
            (OSError(errno.EMFILE, "too many"), "out_of_sockets"),
            (OSError(errno.EBUSY, "busy"), "out_of_sockets"),
        ],
    )
    def test_failed_lookup(self, make: Make, fault: OSError, error: str) -> None:
        """A name that does not exist is the receiver's fault; a DNS server that does not answer and a lack of files are ours."""
        reply = post(make(getaddrinfo=fail_lookup(fault)), "http://receiver.example/")

        assert (reply.error, reply.address) == (error, "")

    @pytest.mark.parametrize(
        "url",
        [
            "ftp://127.0.0.1/",
            "http://",
            "/path",
            "http://127.0.0.1:99999/",
            "http://me@127.0.0.1/",
            "http://[::1/",
            f"http://{'a' * 64}.example/",
        ],
    )
    def test_unusable_url(self, transport: Transport, url: str) -> None:
        """A URL that cannot be sent to is told as such, should one get this far."""
        assert post(transport, url).error == "invalid_url"

    @pytest.mark.parametrize("value", ["secret\r\nx-b: 1", "secret\u2603"])
    def test_unusable_header(
        self, transport: Transport, serve: Callable[..., Receiver], value: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A header that would smuggle another is not sent, and its value is shown nowhere."""
        receiver = serve()
        # The second time on a connection that is open.
        replies = [post(transport, receiver.url), post(transport, receiver.url, headers={"x-a": value})]

        assert [reply.error for reply in replies] == ["", "invalid_url"]
        assert len(receiver.requests) == 1
        assert "secret" not in replies[1].detail + caplog.text

    def test_out_of_sockets(self, transport: Transport, url: str) -> None:
        """Without a file descriptor for a socket the fault is ours, and it passes."""
        assert post(transport, url).status == 200
        with Receiver() as other, no_more_files():
            failed = post(transport, other.url)

        assert failed.error == "out_of_sockets"
        assert post(transport, url).status == 200

    def test_starving_process(
        self, make: Make, serve: Callable[..., Receiver], authority: trustme.CA, ca_bundle: str, tmp_path: Path
    ) -> None:
        """However few files are left, and wherever the want of them shows, what fails for it is our own fault."""
        receiver = serve(tls=make_strict_context(authority, "localhost"))
        certificate = tmp_path / "certificate.pem"
        certificate.write_text(make_certificate(authority))
        made = type(make())
        path = f"{made.__module__}.{made.__qualname__}"
        arguments = [path, receiver.url_for("localhost"), ca_bundle, str(certificate)]
        command = [sys.executable, "-m", "tests.transports.starving", *arguments]
        printed = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)

        assert printed["lookups"] == ["out_of_sockets"] * 2
        assert (printed["requests"][0], printed["requests"][-1]) == ("out_of_sockets", "")
        assert set(printed["requests"]) == {"out_of_sockets", ""}


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """A process that cannot open another file or socket."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The standard streams have the numbers below, whatever is closed meanwhile.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
