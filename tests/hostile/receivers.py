"""The table of receivers that misbehave: what each of them does, and in which word that must end."""

import gzip
import time
from dataclasses import dataclass

from django.utils.http import http_date

from djwebhooks.testing.receiver import Conversation, Script

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
EMPTY = b"content-length: 0\r\n\r\n"
#: What would change a page, a terminal or a log, were it let through.
MARKUP = b"<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\x1b]0;title\x07\x9b31m\x85"
SLOW = 0.02
reset, wait_closed = Conversation.reset, Conversation.wait_closed


# -- scripts -----------------------------------------------------------------------------------------------------------


def repeat(data: bytes) -> Script:
    """Answer each request of a connection with *data*, whatever that means, and leave the connection open."""

    def script(conversation: Conversation) -> None:
        while conversation.read():
            conversation.send(data)

    return script


def answer_with(status: int, body: bytes = b"", **headers: str) -> Script:
    """Answer each request of a connection alike, as HTTP has it."""

    def script(conversation: Conversation) -> None:
        while conversation.read():
            conversation.answer(status, body, **headers)

    return script


def flood(head: bytes, more: bytes) -> Script:
    """Answer with *head*, and then with *more* without end."""

    def script(conversation: Conversation) -> None:
        conversation.read()
        conversation.send(head)
        block = more * (65536 // len(more) + 1)
        while not conversation.receiver.stopping.is_set():
            conversation.send(block)

    return script


def trickle(head: bytes, more: bytes, *, unasked: bool = False) -> Script:
    """Answer with *head*, and then with *more* byte by byte without end; *unasked* before there was a request."""

    def script(conversation: Conversation) -> None:
        if not unasked:
            conversation.read()
        conversation.send(head)
        conversation.trickle(more, SLOW)

    return script


def send_then(end: Script, data: bytes = b"") -> Script:
    """Read a request, send *data*, and end it in the way of *end*."""

    def script(conversation: Conversation) -> None:
        conversation.read()
        conversation.send(data)
        end(conversation)

    return script


def fill(size: int) -> bytes:
    """Return a whole answer of *size* bytes."""
    head = OK + b"content-length: %d\r\n\r\n"
    return head % (size - len(head) - 2) + b"x" * (size - len(head) - 2)


def close(conversation: Conversation) -> None:
    """Read a request, and close instead of answering it."""
    conversation.read()


def read_nothing(conversation: Conversation) -> None:
    conversation.receiver.stopping.wait(60)


def read_slowly(conversation: Conversation) -> None:
    """Read a few bytes at a time, so that an answer would come after minutes."""
    while conversation.receive(64) and not conversation.receiver.stopping.wait(SLOW):
        pass


def answer_unread(conversation: Conversation) -> None:
    """Answer before anything of the request was read, and then close."""
    conversation.answer(413, b"too large", connection="close")
    conversation.read()


def answer_in_an_hour(conversation: Conversation) -> None:
    """Ask for an hour of silence, as a date."""
    while conversation.read():
        conversation.answer(429, retry_after=http_date(time.time() + 3600))


def greet(greeting: bytes) -> Script:
    """Speak first, as servers of other protocols do."""

    def script(conversation: Conversation) -> None:
        conversation.send(greeting)
        conversation.wait_closed()

    return script


# -- the table ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A receiver by its *name*, what it does, and the *word* for it: ``succeeded``, ``http_…`` or an error.

    It gets two requests, one after the other, over as many *connections* as are safe: 2 wherever the end of the first answer is
    in doubt. *tls* is the kind of its certificate, empty without TLS; *scheme* is what the target's URL says, if that is not so.
    *or_else* is another word for it, where a transport is stricter or does not get into the trouble.
    *body* is what must be stored of the answer, if that matters; *hold* is the least and the most seconds of silence that
    it gets for what it asks. *is_large* makes the payload as large as may be.
    """

    name: str
    script: Script
    word: str
    connections: int = 2
    tls: str = ""
    scheme: str = ""
    or_else: str = ""
    body: str | None = None
    hold: tuple[int, int] | None = None
    is_large: bool = False


#: They end by themselves, or by a limit of what is read.
QUICK = [
    # How long the answer is.
    Case("content-length too large", send_then(Conversation.close, OK + b"content-length: 100\r\n\r\nabc"), "connection_reset"),
    Case("content-length too small", repeat(OK + b"content-length: 2\r\n\r\nok" + b"and more" * 9), "succeeded", body="ok"),
    Case("content-length negative", send_then(Conversation.close, OK + b"content-length: -5\r\n\r\nabc"), "invalid_response"),
    Case("content-length in words", send_then(Conversation.close, OK + b"content-length: three\r\n\r\nabc"), "invalid_response"),
    Case("content-length twice", repeat(OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab"), "invalid_response"),
    Case(
        "content-length and chunks",
        repeat(CHUNKED[:-2] + b"content-length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "succeeded",
        body="ok",
    ),
    Case("content-length astronomic", flood(OK + b"content-length: " + b"9" * 400 + b"\r\n\r\n", b"x"), "invalid_response"),
    Case("no content, but some", repeat(b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nbody"), "succeeded", body=""),
    Case(
        "unknown transfer coding",
        repeat(OK + b"transfer-encoding: gzip, chunked\r\ncontent-length: 2\r\n\r\nok"),
        "invalid_response",
    ),
    Case("two answers to one request", repeat((OK + EMPTY) * 2), "succeeded"),
    # It breaks off.
    Case("closes without an answer", close, "connection_reset"),
    Case("closes in the status line", send_then(Conversation.close, b"HTTP/1.1 20"), "connection_reset"),
    Case("closes in a header", send_then(Conversation.close, OK + b"content-type: text/pl"), "connection_reset"),
    Case("closes in a chunk", send_then(Conversation.close, CHUNKED + b"10\r\nabc"), "connection_reset"),
    Case("closes before the last chunk", send_then(Conversation.close, CHUNKED + b"3\r\nabc\r\n"), "connection_reset"),
    Case("resets without an answer", send_then(reset), "connection_reset"),
    Case("resets in the head", send_then(reset, OK + b"x-a: b\r\n"), "connection_reset"),
    Case("resets in the body", send_then(reset, OK + b"content-length: 100\r\n\r\nabc"), "connection_reset"),
    Case("answers before it reads", answer_unread, "http_413", is_large=True),
    # Informational answers.
    Case("100 continue", repeat(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + EMPTY), "succeeded", 1),
    Case("103 early hints", repeat(b"HTTP/1.1 103 Hints\r\nlink: <//x>\r\n\r\n" + OK + EMPTY), "succeeded", 1),
    Case(
        "101 switching protocols",
        send_then(wait_closed, b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\n\r\n"),
        "invalid_response",
    ),
    Case("1xx without end", flood(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), "invalid_response"),
    # Something else than HTTP/1.
    Case("HTTP/0.9", send_then(Conversation.close, b"<html>hello</html>\r\n"), "invalid_response"),
    Case("HTTP/2 preface", send_then(wait_closed, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "invalid_response"),
    Case(
        "HTTP/2 frames",
        send_then(wait_closed, b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\n"),
        "invalid_response",
    ),
    Case("HTTP/2 in words", send_then(wait_closed, b"HTTP/2 200\r\n\r\n"), "invalid_response"),
    Case("an SMTP greeting", greet(b"220 mail.example ESMTP\r\n"), "invalid_response"),
    Case("an SSH greeting", greet(b"SSH-2.0-OpenSSH_9.9\r\n"), "invalid_response"),
    Case("random bytes", flood(b"", bytes(range(256))), "invalid_response"),
    Case("NUL without end", flood(b"", bytes(256)), "invalid_response"),
    Case("status in words", send_then(wait_closed, b"HTTP/1.1 OK\r\n\r\n"), "invalid_response"),
    Case("status 0", send_then(wait_closed, b"HTTP/1.1 000 Zero\r\n\r\n"), "invalid_response"),
    Case("status 1000", send_then(wait_closed, b"HTTP/1.1 1000 Thousand\r\n\r\n"), "invalid_response"),
    Case("status 999", repeat(b"HTTP/1.1 999 Denied\r\n" + EMPTY), "http_999", 1),
    # The head.
    Case("endless headers", flood(OK, b"x-a: b\r\n"), "invalid_response"),
    Case("an endless header", flood(OK + b"x-a: ", b"b"), "invalid_response"),
    Case("an endless status line", flood(b"HTTP/1.1 200 ", b"O"), "invalid_response"),
    Case("thousands of header lines", repeat(OK + b"x-a: b\r\n" * 5000 + EMPTY), "invalid_response"),
    Case("folded headers", repeat(OK + b"x-a: 1\r\n content-length: 5\r\n\t2\r\n" + EMPTY), "succeeded", 1),
    Case("a header without a colon", repeat(OK + b"no colon\r\n" + EMPTY), "invalid_response"),
    Case("a header without a name", repeat(OK + b": nothing\r\n" + EMPTY), "invalid_response"),
    Case("a space before the colon", repeat(OK + b"Set-Cookie : session=stolen\r\n" + EMPTY), "invalid_response"),
    Case("a tab before the colon", repeat(OK + b"Set-Cookie\t: session=stolen\r\n" + EMPTY), "invalid_response"),
    Case("a space in a name", repeat(OK + b"Set Cookie: session=stolen\r\n" + EMPTY), "invalid_response"),
    Case("a length with a space before the colon", repeat(OK + b"Content-Length : 3\r\n" + EMPTY), "invalid_response"),
    Case("a coding with a space before the colon", repeat(OK + b"Transfer-Encoding : chunked\r\n" + EMPTY), "invalid_response"),
    Case("From and a space first", repeat(OK + b"From : nobody\r\n" + EMPTY), "invalid_response"),
    Case("From and a space last", repeat(OK + EMPTY[:-2] + b"From : nobody\r\n\r\n"), "invalid_response"),
    Case("a carriage return in a header", repeat(OK + b"x-a: b\rwebhook-delivery: disable\r\n" + EMPTY), "invalid_response"),
    Case("a carriage return too many", repeat(OK + b"x-a: b\r\r\n" + EMPTY), "invalid_response"),
    Case("multipart without a boundary", answer_with(200, Content_Type="multipart/form-data"), "succeeded", 1),
    Case(
        "multipart in base64",
        answer_with(200, Content_Type="multipart/mixed; boundary=x", Content_Transfer_Encoding="base64"),
        "succeeded",
        1,
    ),
    Case("a folded line first", repeat(OK + b" Content-Length: 3\r\n" + EMPTY), "invalid_response"),
    Case("a name beyond ASCII", repeat(OK + b"x-\xe4: b\r\n" + EMPTY), "invalid_response"),
    # The body.
    Case("endless body", flood(OK + b"\r\n", b"x"), "succeeded"),
    Case("endless chunks", flood(CHUNKED, b"1\r\nx\r\n"), "succeeded"),
    Case("gzip bomb", answer_with(200, gzip.compress(bytes(20_000_000)), Content_Encoding="gzip"), "succeeded"),
    Case("gzip that is none", answer_with(200, b"<b>no gzip</b>", Content_Encoding="gzip, br"), "succeeded", 1),
    Case("200 with a failure", answer_with(200, b'{"error": "failed"}'), "succeeded", 1, body='{"error": "failed"}'),
    # Chunks.
    Case("trailers", repeat(CHUNKED + b"2\r\nok\r\n0\r\nx-a: b\r\nset-cookie: c=d\r\n\r\n"), "succeeded", 1, body="ok"),
    Case("endless trailers", flood(CHUNKED + b"2\r\nok\r\n0\r\n", b"x-a: b\r\n"), "invalid_response"),
    Case("chunk extensions", repeat(CHUNKED + b'2;a="b";c\r\nok\r\n0;d\r\n\r\n'), "succeeded", 1, body="ok"),
    Case("endless chunk extension", flood(CHUNKED + b"2;", b"a"), "invalid_response"),
    Case("huge chunk size", flood(CHUNKED + b"f" * 16 + b"\r\n", b"x"), "succeeded", or_else="invalid_response"),
    Case("endless chunk size", flood(CHUNKED, b"f"), "invalid_response"),
    Case("negative chunk size", send_then(wait_closed, CHUNKED + b"-2\r\nok\r\n0\r\n\r\n"), "invalid_response"),
    Case("chunk size in words", send_then(wait_closed, CHUNKED + b"two\r\nok\r\n0\r\n\r\n"), "invalid_response"),
    Case("chunk longer than its size", repeat(CHUNKED + b"2\r\nokay\r\n0\r\n\r\n"), "invalid_response"),
    # It asks for something.
    Case("401 with challenges", answer_with(401, WWW_Authenticate='Basic realm="x", Digest nonce="y", Negotiate'), "http_401", 1),
    Case("407 with a challenge", answer_with(407, Proxy_Authenticate='Basic realm="x"'), "http_407", 1),
    Case("Set-Cookie", answer_with(200, Set_Cookie="session=stolen; Domain=example"), "succeeded", 1),
    Case("Set-Cookie2", answer_with(200, Set_Cookie2="session=stolen; Version=1"), "succeeded", 1),
    Case(
        "alternative service",
        answer_with(200, Alt_Svc='h3=":1"', Refresh="0; url=http://x/", Connection="upgrade"),
        "succeeded",
        1,
    ),
    # Retry-After.
    Case("Retry-After in seconds", answer_with(503, Retry_After="100"), "http_503", 1, hold=(100, 100)),
    Case("Retry-After as a date", answer_in_an_hour, "http_429", 1, hold=(3000, 3600)),
    Case("Retry-After in the past", answer_with(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), "http_429", 1),
    Case("Retry-After negative", answer_with(503, Retry_After="-100"), "http_503", 1),
    Case("Retry-After absurd", answer_with(503, Retry_After="9" * 200), "http_503", 1, hold=(86400, 86400)),
    Case(
        "Retry-After of a later age",
        answer_with(503, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"),
        "http_503",
        1,
        hold=(86400, 86400),
    ),
    Case("Retry-After in words", answer_with(503, Retry_After="soon\x1b[31m<b>"), "http_503", 1),
    Case("Retry-After NaN", answer_with(503, Retry_After="nan"), "http_503", 1),
    Case("Retry-After twice", repeat(b"HTTP/1.1 503 Busy\r\nretry-after: 5\r\nretry-after: 9999\r\n" + EMPTY), "http_503", 1),
    # What is stored.
    Case("NUL in the body", answer_with(500, b"a\0b"), "http_500", 1, body="a�b"),
    Case("invalid UTF-8 in the body", answer_with(500, b"caf\xe9 \xff\xed\xa0\x80"), "http_500", 1, body="caf� ����"),
    Case("markup in the body", answer_with(500, MARKUP), "http_500", 1, body=MARKUP.decode(errors="replace")),
    Case(
        "markup in headers",
        repeat(b"HTTP/1.1 500 " + MARKUP + b"\r\nx-a: " + MARKUP + b"\r\n<i>x</i>: y\r\n" + EMPTY),
        "http_500",
        1,
    ),
    Case(
        "NUL in headers",
        repeat(b"HTTP/1.1 500 N\0\r\nx-a: a\0b\xff\r\n" + EMPTY),
        "http_500",
        1,
        or_else="invalid_response",
    ),
    Case("markup instead of an answer", send_then(Conversation.close, MARKUP + b"\0\r\n"), "invalid_response"),
    Case("markup as the status", send_then(Conversation.close, b"HTTP/1.1 " + MARKUP + b"\0 OK\r\n\r\n"), "invalid_response"),
    Case("markup as a chunk size", send_then(Conversation.close, CHUNKED + MARKUP + b"\0\r\n"), "invalid_response"),
    # TLS.
    Case("TLS", answer_with(200), "succeeded", 1, tls="good"),
    Case("TLS for another host", answer_with(200), "tls_error", tls="another host"),
    Case("TLS that has expired", answer_with(200), "tls_error", tls="expired"),
    Case("TLS that begins tomorrow", answer_with(200), "tls_error", tls="early"),
    Case("TLS signed by itself", answer_with(200), "tls_error", tls="self-signed"),
    Case("TLS of an unknown authority", answer_with(200), "tls_error", tls="unknown"),
    # The first answer fills the buffer, so that the rest waits inside TLS.
    Case("TLS with more than it said", repeat(fill(8192) + OK + EMPTY), "succeeded", tls="good"),
    Case("TLS of an old version", answer_with(200), "tls_error", tls="old"),
    Case("TLS that asks for a certificate", answer_with(200), "tls_error", tls="asking"),
    Case(
        "TLS that breaks off in the body",
        send_then(Conversation.close, OK + b"content-length: 100\r\n\r\nabc"),
        "connection_reset",
        tls="good",
    ),
    Case("TLS that closes without a goodbye", send_then(Conversation.close, OK + b"\r\nok"), "succeeded", tls="good", body="ok"),
    Case("TLS with an endless body", flood(OK + b"\r\n", b"x"), "succeeded", tls="good"),
    Case("plain HTTP where TLS should be", greet(b"HTTP/1.1 400 No\r\n\r\n"), "tls_error", scheme="https"),
    Case("TLS where plain HTTP should be", answer_with(200), "connection_reset", tls="good", scheme="http"),
]

REDIRECTS = (300, 301, 302, 303, 304, 305, 306, 307, 308)
#: Where redirects lead: to a cloud machine's own credentials, and to others that would do.
METADATA = "http://169.254.169.254/latest/meta-data/"


def make_redirects(trap: str) -> list[Case]:
    """Return receivers that redirect to *trap*, a server that listens, and elsewhere."""
    to_trap = [Case(f"{status} to a trap", answer_with(status, Location=trap), f"http_{status}", 1) for status in REDIRECTS]
    to_metadata = [
        Case(f"{status} to metadata", answer_with(status, Location=METADATA), f"http_{status}", 1) for status in REDIRECTS
    ]
    odd = [
        Case(f"redirect to {location!r}", answer_with(302, Location=location), "http_302", 1)
        for location in ("", "//x", "file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "http://[::1", "\\\\x")
    ]
    return [*to_trap, *to_metadata, *odd]


#: Only the deadline ends them.
ENDLESS = [
    Case("never answers", send_then(wait_closed), "timeout"),
    Case("answers byte by byte", trickle(b"", b"HTTP/1.1 200 O"), "timeout"),
    Case("a status line byte by byte", trickle(b"HTTP/1.1 200 ", b"O"), "timeout"),
    Case("headers byte by byte", trickle(OK, b"x: y\r\n"), "timeout"),
    Case("a body byte by byte", trickle(OK + b"content-length: 100000\r\n\r\n", b"x"), "timeout"),
    Case("a body without length byte by byte", trickle(OK + b"\r\n", b"x"), "timeout"),
    Case("chunks byte by byte", trickle(CHUNKED, b"1\r\nx\r\n"), "timeout"),
    Case("trailers byte by byte", trickle(CHUNKED + b"0\r\n", b"x: y\r\n"), "timeout"),
    Case("1xx byte by byte", trickle(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), "timeout"),
    Case("hangs after 100 continue", send_then(wait_closed, b"HTTP/1.1 100 Continue\r\n\r\n"), "timeout"),
    Case("hangs in the body", send_then(wait_closed, OK + b"content-length: 100\r\n\r\nabc"), "timeout"),
    Case("hangs in a chunk", send_then(wait_closed, CHUNKED + b"10\r\nabc"), "timeout"),
    Case("reads nothing", read_nothing, "timeout", is_large=True),
    Case("reads slowly", read_slowly, "timeout", is_large=True),
    Case("hangs in the handshake", wait_closed, "connect_timeout", scheme="https"),
    Case("a handshake byte by byte", trickle(b"\x16\x03\x03\x40\x00", b"\x02", unasked=True), "connect_timeout", scheme="https"),
    Case("hangs after the handshake", send_then(wait_closed), "timeout", tls="good"),
    Case("reads nothing after the handshake", read_nothing, "timeout", tls="good", is_large=True),
    Case("session tickets without end", answer_with(200), "timeout", tls="tickets", or_else="succeeded"),
]
