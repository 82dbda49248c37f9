"""Take in what is sent: verify it, store it, answer. Nothing is made of it before a worker comes."""

import ipaddress
import logging
import time
from collections.abc import Callable

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables

from djwebhooks.exceptions import InvalidSignature
from djwebhooks.inbox.arrivals import clean_headers, describe, describe_message
from djwebhooks.inbox.limits import seconds_to_wait
from djwebhooks.inbox.models import Status, inbox_database, insert_message
from djwebhooks.inbox.schemes import Headers
from djwebhooks.inbox.sources import Source, find_source
from djwebhooks.uid import uuid7

logger = logging.getLogger(__name__)

#: How much is read at once.
CHUNK = 64 * 1024


class Refused(Exception):
    """The request is answered with this *status* and *word*, and nothing else happens."""

    def __init__(self, status: int, word: str, **headers: str) -> None:
        super().__init__(word)
        self.response = HttpResponse(word, status=status, content_type="text/plain", headers=headers)


@csrf_exempt
@login_not_required
def accept(request: HttpRequest, name: str) -> HttpResponse:
    """Answer 200 once a message of the source *name* is stored, or was before; 4xx, with a word, if it is not taken."""
    source = find_source(name)
    if source is None:
        return Refused(404, "unknown").response
    if request.method == "OPTIONS":
        return consent(source)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST", "OPTIONS"])
    try:
        take_in(request, source)
    except Refused as refused:
        return refused.response
    return HttpResponse()


def consent(source: Source) -> HttpResponse:
    """Say that webhooks are welcome, and how many (CloudEvents 1.0.2, "HTTP 1.1 Web Hooks", section 4)."""
    rate = "*" if source.rate is None else str(max(1, source.rate.count * 60 // source.rate.seconds))
    return HttpResponse(headers={"Allow": "POST, OPTIONS", "WebHook-Allowed-Origin": "*", "WebHook-Allowed-Rate": rate})


@sensitive_variables("body")
def take_in(request: HttpRequest, source: Source) -> None:
    """Verify and store what was sent. Raises Refused."""
    body = read_body(request, source.body_limit)
    headers = clean_headers(request.headers)
    address = read_address(request.META.get("REMOTE_ADDR", ""))
    try:
        source.scheme.verify(body, headers, source.secrets, time.time())
    except InvalidSignature as error:
        logger.warning("source=%s address=%s refused: %s", source.name, request.META.get("REMOTE_ADDR"), error)
        if source.keep_rejected:
            keep_to_rate(source, "rejected")
            reject(source, headers, body, address, error)
        raise Refused(401, "unauthorized", **{"WWW-Authenticate": "Signature"}) from error
    keep_to_rate(source, "accepted")
    insert_message(inbox_database(), describe_message(source, headers, body, address))


@sensitive_variables("body")
def reject(source: Source, headers: Headers, body: bytes, address: str | None, error: InvalidSignature) -> None:
    """Store what has no valid signature, under an id of ours: it must not pass for a message that is yet to come."""
    known = {"message_id": str(uuid7()), "status": Status.REJECTED, "error": str(error)}
    insert_message(inbox_database(), describe(source, headers, body, address) | known, is_due=False)


def read_body(request: HttpRequest, limit: int) -> bytes:
    """Return the body, of which no more is read than *limit* allows. Raises Refused."""
    told = request.META.get("CONTENT_LENGTH") or ""
    length = int(told[:19]) if told.isascii() and told.isdecimal() else 0
    if length > limit:
        raise Refused(413, "too large")
    read = find_reader(request)
    parts: list[bytes] = []
    left = limit + 1
    try:
        while left and (part := read(min(left, CHUNK))):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise Refused(400, "unreadable") from error
    if not left:
        raise Refused(413, "too large")
    body = b"".join(parts)
    if len(body) < length:
        # Servers do not tell a connection that was cut off from an end; the rest would be taken for a duplicate later.
        raise Refused(400, "unreadable")
    return body


def find_reader(request: HttpRequest) -> Callable[[int], bytes]:
    """Return what reads the body; where its length is not told in advance, Django itself would see none."""
    if not request.META.get("CONTENT_LENGTH") and request.META.get("wsgi.input_terminated"):
        read: Callable[[int], bytes] = request.META["wsgi.input"].read
        return read
    return request.read


def keep_to_rate(source: Source, what: str) -> None:
    """Raise Refused if the source has sent too much lately."""
    wait = seconds_to_wait(f"{source.name}:{what}", source.rate, time.time()) if source.rate is not None else 0
    if wait:
        raise Refused(429, "too many", **{"Retry-After": str(wait)})


def read_address(text: str) -> str | None:
    """Return the address that the request came from; None for one without, as by a socket file."""
    try:
        # Databases know no zones, as in fe80::1%eth0.
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None
