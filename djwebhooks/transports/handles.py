"""libcurl's easy handles, each with the request that it makes: what it is told, what it may do, what it reads."""

import logging
import math
import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from django.views.decorators.debug import sensitive_variables

from djwebhooks import certificates
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.hidden import HiddenBytes
from djwebhooks.network import parse_literal
from djwebhooks.transports import faults
from djwebhooks.transports.answers import CHUNKING_FACTOR, HEAD_LIMIT, check_framing, keep_headers
from djwebhooks.transports.base import IDLE_SECONDS, Reply, Request, Timing, count_ms
from djwebhooks.transports.chunks import join_chunks
from djwebhooks.transports.faults import ExchangeFailed
from djwebhooks.transports.libcurl import pycurl

logger = logging.getLogger(__name__)

#: Lines of a response's head.
MOST_LINES = 100

HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?")
HOST_V6 = re.compile(r"[0-9A-Fa-f:.]+")
#: What the standard library takes for a name, too: no white space, not even before the colon (RFC 9112 section 5.1).
NAME = re.compile(r"[!-9;-~]+")
STATUS_LINE = re.compile(rb"HTTP/(1\.[01]|2) ([1-9][0-9][0-9])(?: .*)?", re.DOTALL)

#: An address that nobody has, for names that have not been looked up: without it libcurl would do that.
NOWHERE = "192.0.2.1"
#: What libcurl would add by itself, if there were no other header of the name.
UNASKED = (b"accept:", b"expect:", b"content-type:", b"user-agent:")

TLS_CODES = frozenset({
    pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CERTPROBLEM, pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CACERT_BADFILE, pycurl.E_SSL_ISSUER_ERROR, pycurl.E_SSL_SHUTDOWN_FAILED, pycurl.E_SSL_ENGINE_INITFAILED,
    pycurl.E_SSL_INVALIDCERTSTATUS, pycurl.E_SSL_PINNEDPUBKEYNOTMATCH,
    98,  # CURLE_SSL_CLIENTCERT, which pycurl has no name for.
})  # fmt: skip
RESET_CODES = frozenset({
    pycurl.E_OK, pycurl.E_COULDNT_CONNECT,
    pycurl.E_GOT_NOTHING, pycurl.E_PARTIAL_FILE, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_SEND_FAIL_REWIND,
    pycurl.E_ABORTED_BY_CALLBACK,
    92,  # CURLE_HTTP2_STREAM, likewise.
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a URL leads. *is_name* is False for an address, which libcurl needs no word about."""

    host: str
    port: int
    is_tls: bool
    is_name: bool

    def lead_to(self, addresses: Sequence[str]) -> list[str]:
        """Return libcurl's word for the *addresses* of the host. It remembers them for a minute, but each is checked again."""
        if not self.is_name:
            return []
        return [f"+{self.host}:{self.port}:{','.join(f'[{a}]' if ':' in a else a for a in addresses)}"]


@lru_cache(maxsize=4096)
def find_origin(url: str) -> Origin:
    """Return where *url* leads. Raises ValueError or InvalidTarget if it is no http(s) URL that everybody reads alike."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or "@" in parts.netloc:
        raise ValueError("no http:// or https:// URL without a user")
    if not (HOST_V6 if "[" in parts.netloc else HOST).fullmatch(host):
        raise ValueError("no URL with a host")
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return Origin(host, port, parts.scheme == "https", parse_literal(host) is None)


@lru_cache(maxsize=4096)
def lead_nowhere(origin: Origin) -> list[str]:
    return origin.lead_to([NOWHERE])


class Connections:
    """What is known of connections, by their address and port on this side: those not to be used again, and those with HTTP/2."""

    def __init__(self) -> None:
        self.spoilt: set[tuple[str, int]] = set()
        self.multiplexed: set[tuple[str, int]] = set()


class LentSocket:
    """A socket of which pycurl takes a duplicate, so that this one is closed without anybody's having done so."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def __del__(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()


class Handle:
    """An easy handle of libcurl and the exchange that it makes; after that it makes another."""

    request: Request
    origin: Origin
    _headers: Sequence[tuple[str, str]]
    _length: int | None
    _end: tuple[str, int]
    _asked_at: float
    _sent_at: float
    _first_byte_ms: int | None

    def __init__(self, ca_bundle: str, connections: Connections) -> None:
        self._connections = connections
        self.curl = make_curl(ca_bundle)
        self.curl.handle = self
        self.curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        self.curl.setopt(pycurl.PREREQFUNCTION, self._see_connection)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._take_line)
        self.curl.setopt(pycurl.WRITEFUNCTION, self._take_body)
        self.is_sending = False
        self._has_certificate = False
        self._lines: list[bytes] = []
        self._parts: list[bytes] = []

    def close(self) -> None:
        self.curl.close()

    # -- before ---------------------------------------------------------------------------------------------------------

    def prepare(self, request: Request, submitted_at: float) -> None:
        """Make it the handle of *request*. Raises ExchangeFailed if that cannot be sent."""
        self.request = request
        self.submitted_at = submitted_at
        self.connect_by = submitted_at + min(request.connect_timeout, request.timeout)
        self.addresses: Sequence[str] = ()
        self.address = ""
        self._lookup_ms: int | None = None
        self.is_connected = False
        self.failure: ExchangeFailed | None = None
        self.status: int | None = None
        self._begin_answer()
        curl = self.curl
        try:
            self.origin = origin = find_origin(request.url)
            curl.setopt(pycurl.URL, request.url)
            curl.setopt(pycurl.HTTPHEADER, write_headers(request))
        except (ValueError, InvalidTarget, pycurl.error) as exc:
            raise faults.unsendable() from exc
        curl.setopt(pycurl.POSTFIELDS, request.body)
        if request.method != "POST":
            curl.setopt(pycurl.HTTPGET, 1)
            curl.setopt(pycurl.CUSTOMREQUEST, request.method)
        if request.client_certificate and origin.is_tls:
            self._show_certificate(request.client_certificate)

    @sensitive_variables()
    def _show_certificate(self, pem: str) -> None:
        self._has_certificate = True
        try:
            chain, key = certificates.read(pem).split()
            self.curl.setopt(pycurl.SSLCERT_BLOB, chain)
            self.curl.setopt(pycurl.SSLKEY_BLOB, key)
        except (InvalidTarget, pycurl.error):
            raise faults.useless_certificate() from None
        # A session that is resumed is the other's who began it.
        self.curl.setopt(pycurl.SSL_SESSIONID_CACHE, 0)

    def end_lookup(self, addresses: Sequence[str]) -> None:
        """Let it connect to *addresses*, which were checked, and to no others."""
        self.addresses = addresses
        self._lookup_ms = count_ms(self._asked_at, time.monotonic())

    def begin(self) -> None:
        """Begin to send in the time that is left. Raises ExchangeFailed if there is none."""
        self.is_new = self.is_stale = self.needs_lookup = False
        now = time.monotonic()
        left = self.submitted_at + self.request.timeout - now
        left_to_connect = self.connect_by - now
        if left_to_connect <= 0:
            raise self.timed_out()
        leading = self.origin.lead_to(self.addresses) if self.addresses else lead_nowhere(self.origin)
        self.curl.setopt(pycurl.RESOLVE, leading)
        self.curl.setopt(pycurl.TIMEOUT_MS, math.ceil(left * 1000))
        self.curl.setopt(pycurl.CONNECTTIMEOUT_MS, math.ceil(left_to_connect * 1000))

    # -- meanwhile, as libcurl calls ------------------------------------------------------------------------------------

    def _open_socket(self, purpose: int, address: Any) -> LentSocket | int:
        """Return a socket to connect to *address* with, if it is one of those that were checked."""
        host = address.addr[0]
        if isinstance(host, bytes):
            host = host.decode()
        if host not in self.addresses:
            self.needs_lookup = not (self.addresses or self.is_connected)
            if self.addresses:
                self.failure = faults.forbidden()
            return int(pycurl.SOCKET_BAD)
        self.address = host
        self.is_new = True
        try:
            return LentSocket(socket.socket(address.family, address.socktype, address.protocol))
        except OSError as exc:
            self.failure = faults.name_os_error(exc)
            return int(pycurl.SOCKET_BAD)

    def _see_connection(self, address: str, local_address: str, port: int, local_port: int) -> int:
        """Know that the request is about to be sent, and have it sent only once: it may have been read even without an answer.

        Whatever came on a connection while it was not used is its end, or no answer of ours.
        """
        self._end = end = (local_address, local_port)
        known = self._connections
        self.is_stale = end in known.spoilt and not self.is_new
        known.spoilt.discard(end)
        if self.is_stale or self.is_connected:
            return int(pycurl.PREREQFUNC_ABORT)
        if self.is_new:
            known.multiplexed.discard(end)
        self.is_connected = True
        self.address = address
        # libcurl's own time is taken after the sending, when the answer may be on its way already.
        self._sent_at = time.monotonic()
        return int(pycurl.PREREQFUNC_OK)

    def _take_line(self, line: bytes) -> int | None:
        """Take a line of a head. Anything but None ends the exchange."""
        if not self._received:
            self._first_byte_ms = count_ms(self._sent_at, time.monotonic())
        self._received += len(line)
        if self._received > self._receive_limit:
            return self._refuse(f"more than {self._receive_limit} bytes")
        if self._has_head:
            return None  # Trailers.
        lines = self._lines
        if line not in (b"\r\n", b"\n"):
            lines.append(line)
            return None
        try:
            self._read_head()
        except ValueError as exc:
            return self._refuse(str(exc))
        return None

    def _read_head(self) -> None:
        lines, self._lines = self._lines, []
        found = STATUS_LINE.fullmatch(lines[0].rstrip(b"\r\n")) if lines else None
        # Over TLS alone it is agreed upon to speak HTTP/2.
        if found is None or (found[1] == b"2" and not self.origin.is_tls):
            raise ValueError("a status line that is none")
        if found[1] == b"2":
            self._connections.multiplexed.add(self._end)
        status = int(found[2])
        if status == 101:
            raise ValueError("a protocol that nobody asked for")
        if status < 200:
            return
        if len(lines) > MOST_LINES:
            raise ValueError(f"got more than {MOST_LINES} headers")
        self._headers = headers = read_lines(lines)
        codings = [value for name, value in headers if name == "transfer-encoding"]
        lengths = [value for name, value in headers if name == "content-length"]
        self._is_spoilt = not check_framing(codings, lengths)
        self._is_chunked = bool(codings)
        self._length = int(lengths[0]) if lengths and not codings else None
        self._ends_with_connection = found[1] != b"2" and not codings and not lengths
        self.status = status
        self._has_head = True
        self._receive_limit = self._received + CHUNKING_FACTOR * self.request.response_limit + HEAD_LIMIT

    def _take_body(self, data: bytes) -> int | None:
        """Take a part of the body as it is on the wire. Anything but None ends the exchange."""
        self._parts.append(data)
        self._received += len(data)
        self._body_size += len(data)
        limit = self.request.response_limit
        if self._body_size < limit or (self._body_size == limit and self._length == limit):
            return None
        if not self._is_chunked:
            self.is_cut = True
            return 0
        try:
            body, has_ended = join_chunks(b"".join(self._parts))
        except ValueError as exc:
            return self._refuse(str(exc))
        if len(body) >= limit and not has_ended:
            self.is_cut = True
            return 0
        if self._received > self._receive_limit:
            return self._refuse(f"more than {self._receive_limit} bytes")
        return None

    def _refuse(self, words: str) -> int:
        self.failure = faults.not_http(words)
        return 0

    def _begin_answer(self) -> None:
        self._lines.clear()
        self._parts.clear()
        self._headers = ()
        self._has_head = False
        self._received = 0
        self._receive_limit = HEAD_LIMIT
        self._first_byte_ms = None
        self._body_size = 0
        self._length = None
        self._ends_with_connection = False
        self._is_chunked = False
        self._is_spoilt = False
        self.is_cut = False

    # -- after ----------------------------------------------------------------------------------------------------------

    def read_result(self, code: int, words: str) -> Reply | None:
        """Return what came of it; None if nothing was sent, as there was no connection."""
        if self._has_head and (self.is_cut or code == 0 or self._is_closed_without_goodbye(code, words)):
            return self._reply()
        if code == 0 and self.is_connected:
            self._spoil()
        if self.failure is not None:
            return self.fail(self.failure)
        if not self.is_connected and (self.needs_lookup or self.is_stale):
            self._asked_at = time.monotonic()
            return None
        return self.fail(self._blame(code, words))

    def _is_closed_without_goodbye(self, code: int, words: str) -> bool:
        """Whether a body that ends with its connection has ended, though TLS was not (RFC 9112 section 9.8).

        Many receivers close so, and their answer's status says what it says.
        """
        return self._ends_with_connection and code == pycurl.E_RECV_ERROR and "unexpected eof" in words

    def _reply(self) -> Reply:
        body = b"".join(self._parts)
        if self._is_chunked:
            try:
                body, _ = join_chunks(body)
            except ValueError as exc:
                self._spoil()
                return self.fail(faults.not_http(str(exc)))
        if self._is_spoilt:
            self._spoil()
        request = self.request
        limit = request.response_limit
        return Reply(
            request.key,
            self.status,
            keep_headers(self._headers, limit),
            HiddenBytes(body[:limit]),
            duration=time.monotonic() - self.submitted_at,
            address=self.address,
            timing=self._see_timing(),
        )

    def _see_timing(self) -> Timing:
        if not self.is_connected:
            return Timing(self._lookup_ms)
        if not self.is_new:
            return Timing(first_byte_ms=self._first_byte_ms)
        # Both from the beginning, in microseconds.
        connected, secured = self.curl.getinfo(pycurl.CONNECT_TIME_T), self.curl.getinfo(pycurl.APPCONNECT_TIME_T)
        tls_ms = round((secured - connected) / 1000) if secured else None
        return Timing(self._lookup_ms, round(connected / 1000), tls_ms, self._first_byte_ms)

    def _spoil(self) -> None:
        """Keep the connection from being used again: what comes next on it may be no answer."""
        self._connections.spoilt.add(self._end)

    def _blame(self, code: int, words: str) -> ExchangeFailed:
        """Return libcurl's *code* and *words* in those of Reply."""
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return self.timed_out()
        lack = None if self.is_connected else faults.find_lack()
        return lack or self._read_code(code, words)

    def _read_code(self, code: int, words: str) -> ExchangeFailed:
        if code == pycurl.E_COULDNT_CONNECT and not self.is_connected:
            number = self.curl.getinfo(pycurl.OS_ERRNO)
            return faults.name_os_error(OSError(number, os.strerror(number)))
        if code in TLS_CODES or "alert" in words:
            return faults.tls_failed(words)
        if code == pycurl.E_SEND_ERROR and self.origin.is_tls and self.is_new and not self.curl.getinfo(pycurl.SIZE_UPLOAD_T):
            return faults.tls_failed("the receiver ended the connection after the handshake, as if for want of a certificate")
        if code in RESET_CODES and "chunk" not in words:
            return faults.closed_early()
        if self.is_connected:
            return faults.not_http(words)
        return faults.unsendable() if code == pycurl.E_URL_MALFORMAT else self._own_up(words)

    def _own_up(self, words: str) -> ExchangeFailed:
        # Nothing was received yet, so that these words are libcurl's own.
        logger.error("The request %r failed unexpectedly: %s", self.request.key, words)
        return faults.unexpected()

    def timed_out(self) -> ExchangeFailed:
        return faults.timed_out(self.request, is_connecting=not self.is_connected)

    def fail(self, failure: ExchangeFailed) -> Reply:
        return Reply(
            self.request.key,
            error=failure.error,
            detail=faults.add_status(failure.detail, self.status),
            duration=time.monotonic() - self.submitted_at,
            address=self.address,
            timing=self._see_timing(),
        )

    def release(self) -> bool:
        """Let go of the request; return whether another can be made."""
        del self.request
        self.curl.setopt(pycurl.POSTFIELDS, b"")
        self.curl.unsetopt(pycurl.CUSTOMREQUEST)
        self._parts.clear()
        self._lines.clear()
        if self._has_certificate:
            self.close()
        return not self._has_certificate


def make_curl(ca_bundle: str) -> Any:
    """Return an easy handle that does only what it is asked for, whatever libcurl or its environment would have it do."""
    curl = pycurl.Curl()
    curl.setopt(pycurl.NOSIGNAL, 1)
    curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.NETRC, 0)
    curl.setopt(pycurl.FOLLOWLOCATION, 0)
    curl.setopt(pycurl.PATH_AS_IS, 1)
    curl.setopt(pycurl.HTTP09_ALLOWED, 0)
    # Bodies are kept as they are on the wire; chunks are joined here, as libcurl does not tell how much surrounds them.
    curl.setopt(pycurl.HTTP_CONTENT_DECODING, 0)
    curl.setopt(pycurl.HTTP_TRANSFER_DECODING, 0)
    curl.setopt(pycurl.MAXAGE_CONN, IDLE_SECONDS)
    curl.setopt(pycurl.CAINFO, ca_bundle)
    curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
    curl.setopt(pycurl.SSL_VERIFYPEER, 1)
    curl.setopt(pycurl.SSL_VERIFYHOST, 2)
    if pycurl.version_info()[4] & pycurl.VERSION_HTTP2:
        # Not to wait whether a connection can be shared (PIPEWAIT): some would wait for the answers of others.
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS)
    curl.setopt(pycurl.POST, 1)
    return curl


@sensitive_variables()
def write_headers(request: Request) -> list[bytes]:
    """Return the header lines of *request*. Raises ValueError for characters that would make more of them, or of no charset."""
    lines = [f"{name}: {value}" if value.strip() else f"{name};" for name, value in request.headers.items()]
    text = "\n".join(lines).encode("latin-1")
    written = text.split(b"\n")
    if len(written) != len(lines) or b"\r" in text or b"\0" in text:
        raise ValueError("a header with a line break")
    return [b"accept-encoding: identity", *written, *UNASKED]


def read_lines(lines: Sequence[bytes]) -> list[tuple[str, str]]:
    """Return the headers below a status line. Raises ValueError for a line that is none (RFC 9112 section 5)."""
    headers: list[tuple[str, str]] = []
    for line in lines[1:]:
        text = line.decode("latin-1").removesuffix("\n").removesuffix("\r")
        if "\r" in text:
            raise ValueError("a carriage return in a line")
        if headers and text.startswith((" ", "\t")):
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {text.strip()}")
            continue
        name, colon, value = text.partition(":")
        if not colon or not NAME.fullmatch(name):
            raise ValueError("a malformed header line")
        headers.append((name.lower(), value.strip(" \t")))
    return headers
