"""A receiver for development: it shows what arrives and whether its signature is right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from djwebhooks import signing
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.words import pretty

#: The largest body, in bytes, that is read.
BODY_LIMIT = 2**20
#: Seconds that a sender may be silent in the middle of a request.
PATIENCE = 30
#: What every webhook has, in the order in which it is shown.
FIRST = ("webhook-id", "webhook-sequence", "webhook-attempt")
#: What is not told of: the framing of the request, and what is verified here.
HIDDEN = {
    *("host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"),
    *("accept", "accept-encoding", "content-length", "webhook-timestamp", "webhook-signature"),
}


@dataclass(frozen=True, slots=True)
class Received:
    """A request that arrived: *headers* with lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class DevelopmentReceiver(ThreadingHTTPServer):
    """Listens on *host* and *port* (0 for any free one), answers with *status*, and calls *show* with each request's text.

    *secrets* are secrets and public keys to verify with. Raises ``OSError`` when the port cannot be had, and ``ValueError`` for a
    malformed secret.
    """

    daemon_threads = True
    allow_reuse_address = True

    @sensitive_variables("secrets", "keys")
    def __init__(
        self,
        show: Callable[[str], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        status: int = 200,
        secrets: Sequence[str] = (),
    ) -> None:
        self.keys = [signing.read_verifier(secret) for secret in secrets]
        self.status = status
        self._show = show
        self._lock = Lock()
        super().__init__((host, port), Handler)

    @property
    def url(self) -> str:
        return f"http://{self.server_address[0]!s}:{self.server_port}/"

    def note(self, received: Received) -> None:
        """Show one request, without another's lines between its own."""
        with self._lock:
            self._show(describe(received, self.keys))


class Handler(BaseHTTPRequestHandler):
    """Reads a request, shows it and answers."""

    server: DevelopmentReceiver
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def do_POST(self) -> None:
        length = self.headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > BODY_LIMIT:
            self.close_connection = True
            self.answer(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.note(Received(self.command, self.path, headers, self.rfile.read(int(length))))
        self.answer(self.server.status)

    def answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """The request is shown; nothing else needs to be."""


@sensitive_variables("keys")
def describe(received: Received, keys: Sequence[signing.Verifier]) -> str:
    """Return a received request as it is shown: its first line, its headers, its body.

    Of headers that are the target's or a sender's own, only the names: they may prove who sends to whoever reads them.
    """
    head = f"{timezone.localtime():%H:%M:%S} {received.method} {received.path}: {judge(received, keys)}"
    shown = {"webhook-id": "missing", **received.headers}
    told = sorted(shown.keys() - HIDDEN - set(FIRST), key=lambda name: (not name.startswith("webhook-"), name))
    names = [name for name in FIRST if name in shown] + [name for name in told if is_open(name)]
    headers = [f"  {name}: {shown[name]}" for name in names]
    if others := [name for name in told if not is_open(name)]:
        headers.append(f"  not shown: {', '.join(others)}")
    return "\n".join([*map(mask_controls, [head, *headers]), describe_body(received.body)])


def is_open(name: str) -> bool:
    """Whether a header says nothing that only sender and receiver may know."""
    return name.startswith(("webhook-", "ce-")) or name in ("content-type", "user-agent")


@sensitive_variables("keys")
def judge(received: Received, keys: Sequence[signing.Verifier]) -> str:
    """Say in words whether the signature is right."""
    if not keys:
        return "not verified, as no --secret was given"
    try:
        index = signing.verify(received.body, received.headers, keys)
    except InvalidSignature as error:
        return f"WRONG SIGNATURE. {error}"
    return "signature verified" + (f" with --secret number {index + 1}" if len(keys) > 1 else "")


def describe_body(body: bytes) -> str:
    """Return a body as text: JSON with indents, anything else, and what is too deep to read, as it is."""
    text = pretty(body.decode(errors="replace")) or "(no body)"
    return "\n".join(f"  {mask_controls(line)}" for line in text.splitlines())


def mask_controls(line: str) -> str:
    """Return *line* without what would do something to a terminal: the request may come from anybody."""
    return "".join(letter if letter.isprintable() else "�" for letter in line)
