"""Send to many receivers in one run of a worker, beside a healthy one, and tell what came of each."""

import logging
import ssl
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.contrib.auth.models import User
from django.test import override_settings
from django.utils import timezone

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Lane, WebhookTarget
from djwebhooks.testing.receiver import Received, Receiver
from djwebhooks.transports.base import Transport
from djwebhooks.transports.curl import CurlTransport
from djwebhooks.transports.requests import RequestsTransport
from djwebhooks.worker import work
from tests.hostile.receivers import Case
from tests.transports.exchanges import lookup

#: Makes a transport: with its concurrency, and as keywords *ca_bundle* and *getaddrinfo*.
MakeTransport = Callable[..., Transport]
#: Every transport is sent with in turn.
TRANSPORTS: dict[str, MakeTransport] = {"requests": RequestsTransport, "curl": CurlTransport}

#: The name in certificates and URLs, which is 127.0.0.1 for the transports here.
NAME = "receiver.example"
#: Of all together, so that everybody is sent to at once.
CONCURRENCY = 256


@dataclass(frozen=True)
class Result:
    """What came of one receiver: its deliveries and attempts in the order in which they were fired, and what it saw."""

    deliveries: Sequence[Delivery]
    attempts: Sequence[Attempt]
    lane: Lane
    requests: Sequence[Received]
    connections: int


@dataclass(frozen=True)
class Run:
    """What came of all receivers of a run, by name, of the healthy one, and what was logged meanwhile."""

    results: dict[str, Result]
    healthy: Result
    logged: Sequence[str]


def run(cases: Sequence[Case], make: MakeTransport, directory: Path, **settings: object) -> Run:
    """Send two events to each of *cases* in one run of a worker, all of them to a healthy receiver, too."""
    authority = trustme.CA()
    ca_bundle = directory / "ca.pem"
    authority.cert_pem.write_to_path(ca_bundle)
    owner = User.objects.create(username="owner")
    with ExitStack() as stack:
        limit = len(cases) + 1
        stack.enter_context(override_settings(DJWEBHOOKS_RETRY_SCHEDULE=(36000,), DJWEBHOOKS_TARGETS_PER_OWNER=limit, **settings))
        logged = stack.enter_context(log())
        receivers = {
            case.name: stack.enter_context(Receiver(script=case.script, tls=make_tls(case.tls, authority))) for case in cases
        }
        targets = {case.name: register(url_of(case, receivers[case.name]), f"case.{n}", owner) for n, case in enumerate(cases)}
        healthy = stack.enter_context(Receiver())
        healthy_target = register(healthy.url, "*", owner)
        for number, case in enumerate(cases):
            for _ in range(2):
                fire(f"case.{number}", {"x": "x" * (250_000 if case.is_large else 1)}, owner=owner)
        transport = make(CONCURRENCY, ca_bundle=str(ca_bundle), getaddrinfo=lookup(["127.0.0.1"]))
        work(burst=True, transport=transport, threaded=False)
        results = {name: look(targets[name], receiver) for name, receiver in receivers.items()}
        return Run(results, look(healthy_target, healthy), logged)


def register(url: str, event: str, owner: User) -> WebhookTarget:
    """Make a target that is sent to one request at a time, unless it is the healthy one."""
    return WebhookTarget.objects.register(url, [event], owner=owner, concurrency_limit=None if event == "*" else 1)


def look(target: WebhookTarget, receiver: Receiver) -> Result:
    deliveries = list(Delivery.objects.filter(target=target).order_by("sequence"))
    attempts = list(Attempt.objects.filter(delivery__in=deliveries).order_by("delivery__sequence", "number"))
    return Result(deliveries, attempts, Lane.objects.get(pk=target.pk), list(receiver.requests), receiver.connections)


def url_of(case: Case, receiver: Receiver) -> str:
    scheme = case.scheme or ("https" if case.tls else "http")
    return f"{scheme}://{NAME}:{receiver.port}/hook"


def make_tls(kind: str, authority: trustme.CA) -> ssl.SSLContext | None:
    """Return a server's context with a certificate of this *kind*; None without TLS."""
    if not kind:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issue(kind, authority, context)
    if kind == "old":
        # Without the lower security level the server itself would refuse, and prove nothing.
        context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    if kind == "tickets":
        context.num_tickets = 10_000_000
    if kind == "asking":
        # In TLS 1.3 the refusal comes after the handshake, and may overtake itself with a reset.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def issue(kind: str, authority: trustme.CA, context: ssl.SSLContext) -> None:
    now = timezone.now()
    day = timedelta(days=1)
    if kind == "self-signed":
        sign_itself(context)
        return
    name = "somebody-else.example" if kind == "another host" else NAME
    begin, end = {"expired": (now - 2 * day, now - day), "early": (now + day, now + 2 * day)}.get(kind, (None, None))
    issuer = trustme.CA() if kind == "unknown" else authority
    issuer.issue_cert(name, not_before=begin, not_after=end).configure_cert(context)


def sign_itself(context: ssl.SSLContext) -> None:
    """Give *context* a certificate for the right name that nobody but itself vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = timezone.now()
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    private_key = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    trustme.LeafCert(private_key, certificate, []).configure_cert(context)


@contextmanager
def log() -> Iterator[list[str]]:
    """Collect what all loggers say, tracebacks included."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    collector, root = Collector(), logging.getLogger()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(collector)
