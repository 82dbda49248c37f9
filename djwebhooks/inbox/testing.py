"""For the tests of applications: requests as each kind of sender signs them, and handlers without a worker."""

import json
import time
from typing import Any

from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from djwebhooks import signing
from djwebhooks.inbox.models import Message, inbox_database
from djwebhooks.inbox.schemes import Hmac, Scheme, Standard, Stripe, make_codes
from djwebhooks.inbox.sources import Source, find_source, list_sources
from djwebhooks.inbox.worker import InboxWorker, find_due
from djwebhooks.uid import uuid7


@sensitive_variables("secret", "signed_with")
def signed(
    source: str,
    content: Any = None,
    *,
    event: str = "",
    message_id: str = "",
    secret: str = "",
    headers: dict[str, str] | None = None,
    now: float | None = None,
) -> dict[str, Any]:
    """Return the arguments of a test client's ``post`` that make a request as the sender of *source* does.

    .. code-block:: python

        client.post(**signed("github", {"ref": "refs/heads/main"}, event="push"))

    *content* is the whole body: bytes as they are, anything else as JSON. *event* and *message_id* are for senders that tell
    them in headers; the id is a new one unless it is given. It is signed with the source's first secret, or with *secret*:
    another one makes a request that is refused. *headers* are further ones. *now* is the Unix time of the signature.

    Raises ConfigurationError for a source whose settings cannot work, and ValueError for one that there is not, for what its
    sender does not tell in headers, and for a key that cannot sign, such as a ``whpk_`` public key.
    """
    found = get_source(source)
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    signed_with = secret or next(iter(found.secrets), "")
    named = name_in_headers(found, event, message_id)
    signatures = sign(found.scheme, body, named, signed_with, int(time.time() if now is None else now))
    return {
        "path": reverse("djwebhooks_inbox:source", args=[source]),
        "data": body,
        "content_type": "application/json",
        "headers": named | signatures | (headers or {}),
    }


def handle(*, using: str | None = None) -> list[Message]:
    """Run the handlers of the messages that are due; return those messages as they are now, oldest first.

    A handler that raises makes its message fail, or wait for its next attempt: ``message.status`` and ``message.error`` say so.
    """
    alias = using or inbox_database()
    due = list(find_due(alias, ()).values_list("pk", flat=True))
    InboxWorker(using=alias, burst=True).run()
    return list(Message.objects.using(alias).filter(pk__in=due).order_by("pk"))


def get_source(name: str) -> Source:
    source = find_source(name)
    if source is None:
        known = ", ".join(map(repr, list_sources().good)) or "none at all"
        raise ValueError(f"DJWEBHOOKS_INBOX has no source {name!r}: it has {known}.")
    return source


def name_in_headers(source: Source, event: str, message_id: str) -> dict[str, str]:
    """Return the headers that tell the event and the message's id, where the sender has such."""
    scheme = source.scheme
    id_header = scheme.signed_headers[0] if isinstance(scheme, Standard) else scheme.id_header
    for what, value, header in (("event", event, scheme.event_header), ("message_id", message_id, id_header)):
        if value and not header:
            raise ValueError(f"The sender of {source.name!r} has no header for {what}: put it where the body has it.")
    told = {id_header: message_id or f"msg_{uuid7().hex}", scheme.event_header: event}
    return {header: value for header, value in told.items() if header and value}


@sensitive_variables("secret")
def sign(scheme: Scheme, body: bytes, named: dict[str, str], secret: str, now: int) -> dict[str, str]:
    """Return the headers that *scheme* verifies, for a *body* that is sent with the headers *named*."""
    match scheme:
        case Standard():
            id_header, time_header, signature_header = scheme.signed_headers
            return {time_header: str(now), signature_header: signing.sign(secret, named[id_header], now, body)}
        case Stripe():
            [code] = make_codes([secret], f"{now}.".encode() + body, "sha256", "hex")
            return {scheme.header: f"t={now},v1={code}"}
        case Hmac():
            [code] = make_codes([secret], body, scheme.algorithm, scheme.encoding)
            return {scheme.header: scheme.prefix + code}
        case _:
            return {}
