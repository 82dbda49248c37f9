"""What senders do: requests as Standard Webhooks, GitHub and Stripe sign them."""

import hashlib
import hmac
import itertools
import json
import time
from typing import Any

from django.test import Client

from djwebhooks import signing
from djwebhooks.inbox.models import Message, Status

#: As in tests/settings.py.
SHOP_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GITHUB_SECRET = "a secret of the tests"
_numbers = itertools.count(1)


def make_body(event: str, data: Any = None) -> bytes:
    return json.dumps({"type": event, "timestamp": "2026-09-21T14:13:20Z", "data": data}).encode()


def sign_standard(body: bytes, message_id: str, secret: str = SHOP_SECRET) -> dict[str, str]:
    now = int(time.time())
    signature = signing.sign(secret, message_id, now, body)
    return {"webhook-id": message_id, "webhook-timestamp": str(now), "webhook-signature": signature}


def sign_github(body: bytes, event: str, message_id: str, secret: str = GITHUB_SECRET) -> dict[str, str]:
    code = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-Hub-Signature-256": f"sha256={code}", "X-GitHub-Event": event, "X-GitHub-Delivery": message_id}


def sign_stripe(body: bytes, secret: str, now: int) -> dict[str, str]:
    """As Stripe's documentation has it: the signed text is the time, a dot and the body."""
    code = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return {"Stripe-Signature": f"t={now},v1={code},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"}


def post(source: str, body: bytes, headers: dict[str, str], **extra: Any) -> Any:
    return Client().post(f"/inbox/{source}/", body, content_type="application/json", headers=headers, **extra)


def send(event: str, data: Any = None, message_id: str = "") -> Any:
    """Send a message to the shop."""
    body = make_body(event, data)
    return post("shop", body, sign_standard(body, message_id or f"numbered_{next(_numbers)}"))


def store(event: str = "order.paid", *, source: str = "shop", body: bytes | None = None, **fields: Any) -> Message:
    """Store a message as the view does, or as handlers have left it."""
    if fields.get("status", Status.NEW) != Status.NEW:
        fields.setdefault("due_at", None)
    message_id = fields.pop("message_id", f"numbered_{next(_numbers)}")
    if source == "github":
        fields.setdefault("headers", {"x-github-event": event})
    content = make_body(event) if body is None else body
    return Message.objects.create(source=source, message_id=message_id, body=content, **fields)
