"""How senders sign, and where they say which message it is: Standard Webhooks, GitHub, Stripe, any plain HMAC, or not at all."""

import base64
import hmac
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from django.views.decorators.debug import sensitive_variables

from djwebhooks import signing
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.hidden import HiddenText

#: What an HMAC may be made with, and how it may be written.
ALGORITHMS = ("sha1", "sha256", "sha384", "sha512")
ENCODINGS: Mapping[str, Callable[[bytes], str]] = {"hex": bytes.hex, "base64": lambda code: base64.b64encode(code).decode()}

#: The names of headers that can be asked for: where a request has ``_``, Django has ``-``.
HEADER = re.compile(r"[!#$%&'*+.^`|~0-9A-Za-z-]+")

#: Received headers, their names in lower case.
Headers = Mapping[str, str]


def read_json(body: bytes) -> Any:
    """Return the JSON value that *body* is. Raises ValueError if it is none, or one that is nested too deeply."""
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("The JSON is nested too deeply.") from error


def read_text(body: bytes, *names: str) -> str:
    """Return the first text that the JSON object *body* has under one of *names*; empty if there is none."""
    try:
        content = read_json(body)
    except ValueError:
        return ""
    values = [content.get(name) for name in names] if isinstance(content, dict) else []
    return next((value for value in values if isinstance(value, str)), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme(ABC):
    """What one kind of sender does.

    *id_header* has the message's id, or *id_field* of the body; without either, no two messages are the same. *event_header*
    names the event, or *event_field* of the body; without either, the body's ``type`` or ``event`` does. *ping* is the event that
    only tries the endpoint out.
    """

    id_header: str = ""
    id_field: str = ""
    event_header: str = ""
    event_field: str = ""
    ping: str = ""

    has_secrets: ClassVar[bool] = True

    def list_faults(self) -> Iterator[str]:
        """Say what cannot work: each is the name of an option, and what is wrong with it."""
        for option in ("id_field", "event_field", "ping"):
            if not isinstance(getattr(self, option), str):
                yield f"{option!r} must be a text, not {getattr(self, option)!r}."
        if self.event_header and self.event_field:
            yield f"'event_field' must be left out: the event is in the header {self.event_header}."
        yield from self.list_header_faults("id_header", "event_header")

    def list_header_faults(self, *options: str) -> Iterator[str]:
        for option in options:
            name = getattr(self, option)
            if not isinstance(name, str) or (name and not HEADER.fullmatch(name)):
                yield f"{option!r} must be the name of a header, with - for each _, not {name!r}."

    def find_secret_fault(self, secret: str) -> str:
        """Say, without showing it, what is wrong with a secret; empty if nothing is."""
        return ""

    @property
    def signed_headers(self) -> tuple[str, ...]:
        """The names of headers that signatures are in, or that they need, in lower case."""
        return ()

    @property
    def telling_headers(self) -> tuple[str, ...]:
        """The names of the headers that mean something, in lower case."""
        return (*self.signed_headers, *(name.lower() for name in (self.id_header, self.event_header) if name))

    @abstractmethod
    def verify(self, body: bytes, headers: Headers, secrets: Sequence[str], now: float) -> None:
        """Raise InvalidSignature unless one of *secrets* has signed *body*; *now* is a Unix time."""

    def read_id(self, headers: Headers, body: bytes) -> str:
        """Return what is the same whenever the sender sends this message again; empty if there is no such thing."""
        if self.id_header:
            return headers.get(self.id_header.lower(), "").strip()
        return read_text(body, self.id_field) if self.id_field else ""

    def read_event(self, headers: Headers, body: bytes) -> str:
        """Return the name of the event; empty if it has none."""
        names = (self.event_field,) if self.event_field else ("type", "event")
        return self.read_told_event(headers) if self.event_header else read_text(body, *names)

    def read_told_event(self, headers: Headers) -> str:
        """Return the event that a header names, for which the body is not looked at; empty if none does."""
        return headers.get(self.event_header.lower(), "").strip() if self.event_header else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard(Scheme):
    """Standard Webhooks 1.0.0: ``v1`` and ``v1a``; *prefix* begins the names of its headers, *tolerance* is in seconds."""

    ping: str = "webhook.test"
    prefix: str = "webhook"
    tolerance: float = signing.TOLERANCE

    def list_faults(self) -> Iterator[str]:
        yield from Scheme.list_faults(self)
        yield from self.list_header_faults("prefix")
        if self.prefix == "":
            yield "'prefix' must be what the names of its headers begin with, such as 'webhook'; it is empty."
        for option in ("id_header", "id_field"):
            if getattr(self, option):
                yield f"{option!r} must be left out: the id is in the header {self.signed_headers[0]}, which is signed."
        yield from list_tolerance_faults(self.tolerance)

    @sensitive_variables()
    def find_secret_fault(self, secret: str) -> str:
        try:
            signing.read_verifier(HiddenText(secret))
        except ValueError as error:
            return str(error)
        return ""

    @property
    def signed_headers(self) -> tuple[str, ...]:
        return tuple(f"{self.prefix}-{part}".lower() for part in ("id", "timestamp", "signature"))

    @sensitive_variables("secrets")
    def verify(self, body: bytes, headers: Headers, secrets: Sequence[str], now: float) -> None:
        parts = {f"webhook-{name.rpartition('-')[2]}": signing.read_header(headers, name) for name in self.signed_headers}
        signing.verify(body, parts, secrets, tolerance=self.tolerance, now=now)

    def read_id(self, headers: Headers, body: bytes) -> str:
        return headers[self.signed_headers[0]].strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stripe(Scheme):
    """Stripe's header: ``t=`` and Unix seconds, ``v1=`` and an HMAC-SHA256 in hex for each live secret."""

    id_field: str = "id"
    header: str = "Stripe-Signature"
    tolerance: float = signing.TOLERANCE

    def list_faults(self) -> Iterator[str]:
        yield from Scheme.list_faults(self)
        yield from list_required_faults(self.header)
        yield from self.list_header_faults("header")
        yield from list_tolerance_faults(self.tolerance)

    @property
    def signed_headers(self) -> tuple[str, ...]:
        return (self.header.lower(),)

    @sensitive_variables("secrets")
    def verify(self, body: bytes, headers: Headers, secrets: Sequence[str], now: float) -> None:
        pairs = [entry.strip().partition("=") for entry in headers.get(self.header.lower(), "").split(",")]
        if len(pairs) > signing.MOST_ENTRIES:
            raise InvalidSignature(f"The header {self.header} is malformed: it has {len(pairs)} entries.")
        times = [value for name, _, value in pairs if name == "t"]
        if len(times) != 1 or not signing.TIMESTAMP.fullmatch(times[0]):
            raise InvalidSignature(f"The header {self.header} is missing, or malformed: it has no t= and Unix seconds.")
        signing.check_timestamp(times[0], self.tolerance, now)
        content = f"{times[0]}.".encode() + body
        check_codes([value for name, _, value in pairs if name == "v1"], make_codes(secrets, content, "sha256", "hex"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hmac(Scheme):
    """An HMAC of the body in *header*, after a *prefix*: GitHub's, Shopify's and many others'."""

    header: str = ""
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""

    def list_faults(self) -> Iterator[str]:
        yield from Scheme.list_faults(self)
        yield from list_required_faults(self.header)
        yield from self.list_header_faults("header")
        if self.algorithm not in ALGORITHMS:
            yield f"'algorithm' must be one of {', '.join(ALGORITHMS)}, not {self.algorithm!r}."
        if self.encoding not in [*ENCODINGS]:
            yield f"'encoding' must be one of {', '.join(ENCODINGS)}, not {self.encoding!r}."
        if not isinstance(self.prefix, str):
            yield f"'prefix' must be a text, not {self.prefix!r}."

    @property
    def signed_headers(self) -> tuple[str, ...]:
        return (self.header.lower(),)

    @sensitive_variables("secrets")
    def verify(self, body: bytes, headers: Headers, secrets: Sequence[str], now: float) -> None:
        value = headers.get(self.header.lower(), "").strip()
        if not value.startswith(self.prefix) or value == self.prefix:
            raise InvalidSignature(f"The header {self.header} is missing, or does not begin with {self.prefix!r}.")
        code = value.removeprefix(self.prefix)
        expected = make_codes(secrets, body, self.algorithm, self.encoding)
        check_codes([code.lower() if self.encoding == "hex" else code], expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned(Scheme):
    """No signature: anybody who knows the address can send anything."""

    has_secrets: ClassVar[bool] = False

    def verify(self, body: bytes, headers: Headers, secrets: Sequence[str], now: float) -> None:
        """Take everything."""


@sensitive_variables("secrets", "secret")
def make_codes(secrets: Sequence[str], content: bytes, algorithm: str, encoding: str) -> list[str]:
    """Return the HMAC of *content* with each of *secrets*."""
    return [ENCODINGS[encoding](hmac.digest(secret.encode(), content, algorithm)) for secret in secrets]


@sensitive_variables("expected")
def check_codes(given: Sequence[str], expected: Sequence[str]) -> None:
    """Raise InvalidSignature unless one of *given* is one of *expected*."""
    # A list, so that the time it takes does not tell which was right.
    pairs = [(one.encode(errors="replace"), other.encode()) for one in given for other in expected]
    if True not in [hmac.compare_digest(*pair) for pair in pairs]:
        raise InvalidSignature(
            "No signature matches: either the secret is another one, or the body is not byte for byte what was sent."
        )


def list_required_faults(header: object) -> Iterator[str]:
    if not header:
        yield "'header' must be the name of the header that the signature is in; it is missing."


def list_tolerance_faults(tolerance: object) -> Iterator[str]:
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool) or not 0 < tolerance < float("inf"):
        yield f"'tolerance' must be seconds above 0, not {tolerance!r}."


#: The schemes by the names that settings give them.
SCHEMES: Mapping[str, Scheme] = {
    "standard": Standard(),
    "github": Hmac(
        header="X-Hub-Signature-256",
        prefix="sha256=",
        id_header="X-GitHub-Delivery",
        event_header="X-GitHub-Event",
        ping="ping",
    ),
    "stripe": Stripe(),
    "hmac": Hmac(),
    "none": Unsigned(),
}
