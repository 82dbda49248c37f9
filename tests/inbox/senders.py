"""What senders do, and what there is of it afterwards."""

import itertools
import json
from typing import Any

from django.test import Client

from djwebhooks.inbox.models import Message, Status
from djwebhooks.inbox.testing import signed

_numbers = itertools.count(1)


def make_body(event: str, data: Any = None) -> bytes:
    return json.dumps({"type": event, "timestamp": "2026-09-21T14:13:20Z", "data": data}).encode()


def post(source: str, body: bytes, headers: dict[str, str]) -> Any:
    return Client().post(f"/inbox/{source}/", body, content_type="application/json", headers=headers)


def send(event: str, data: Any = None, message_id: str = "") -> Any:
    """Send a message to the shop."""
    return Client().post(**signed("shop", make_body(event, data), message_id=message_id))


def store(event: str = "order.paid", *, source: str = "shop", body: bytes | None = None, **fields: Any) -> Message:
    """Store a message as the view does, or as handlers have left it."""
    if fields.get("status", Status.NEW) != Status.NEW:
        fields.setdefault("due_at", None)
    message_id = fields.pop("message_id", f"numbered_{next(_numbers)}")
    if source == "github":
        fields.setdefault("headers", {"x-github-event": event})
    content = make_body(event) if body is None else body
    return Message.objects.create(source=source, message_id=message_id, body=content, **fields)
