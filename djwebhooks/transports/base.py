"""The contract between the worker and whatever sends its requests."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from djwebhooks import __version__

#: Who makes the requests, as receivers are told.
USER_AGENT = f"djwebhooks/{__version__}"
#: Seconds that an unused connection is kept. Receivers close idle ones after 5 s and more; a request that crosses with
#: the closing is lost, and cannot be sent again as it may have been read.
IDLE_SECONDS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """One request to make: a POST, unless *method* is ``GET`` or ``OPTIONS``, which have no body.

    *key* is the caller's own name for it and comes back on the reply. *timeout* is one deadline in seconds for the whole
    exchange, from the first DNS query to the last byte kept; *connect_timeout* bounds its beginning. *client_certificate* is
    shown to a receiver that asks for one: certificates and key in PEM. No other request uses a connection that was made with it.
    """

    key: Hashable
    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout: float
    connect_timeout: float
    response_limit: int
    client_certificate: str = field(default="", repr=False)
    method: str = "POST"


class Timing(NamedTuple):
    """How long the parts of an exchange took, in whole milliseconds; None for what did not take place, or was not seen.

    The first three are of a new connection: to look the name up, to connect, to agree on TLS. The last is from the beginning of
    the request to the first byte of an answer.
    """

    lookup_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None


UNTIMED = Timing()


def count_ms(begun: float, ended: float) -> int:
    """Return the whole milliseconds between two readings of the monotonic clock."""
    return round((ended - begun) * 1000)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of a request: an answer with a *status*, or an *error* in words.

    *error* is one of: ``dns_error``, ``connection_refused``, ``connection_reset``, ``connect_timeout``, ``timeout``,
    ``tls_error``, ``forbidden_address``, ``invalid_url``, ``invalid_response``, ``network_unreachable``, ``no_dns_server``,
    ``out_of_sockets``, ``aborted``, ``internal_error``. *detail* is a sentence about it. *duration* is in seconds, *address* the
    IP address that was connected to. *headers* have lower-case names; ``set-cookie`` and ``set-cookie2`` are dropped.
    *timing* is as much as the transport has seen.
    """

    key: Hashable
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    #: A token server's answers hold secrets.
    body: bytes = field(default=b"", repr=False)
    error: str = ""
    detail: str = ""
    duration: float = 0.0
    address: str = ""
    timing: Timing = UNTIMED


class Transport(Protocol):
    """Sends many requests at once. It never touches the ORM. Only ``wake`` may be called in another thread than the rest."""

    #: How many requests may be in flight.
    concurrency: int

    def submit(self, request: Request) -> None:
        """Start a request, which may go on only while ``wait`` is called. The caller keeps to *concurrency*."""

    def wait(self, timeout: float) -> list[Reply]:
        """Return what has come back; wait up to *timeout* seconds for the first."""

    def wake(self) -> None:
        """Make a ``wait`` in another thread, or the next one, return at once."""

    def abort(self) -> None:
        """Break off whatever is in flight; each comes back as ``aborted``, unless it was just done."""

    def close(self) -> None:
        """Abort, and give back threads and connections."""
