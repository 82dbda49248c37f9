"""What is stored of a message, whether it was sent or asked for."""

import hashlib
import re
from typing import Any

from djwebhooks.database import clean_text
from djwebhooks.inbox.models import NAME_LENGTH
from djwebhooks.inbox.schemes import Headers
from djwebhooks.inbox.sources import Source
from djwebhooks.uid import uuid7

SEQUENCE = re.compile(r"[1-9][0-9]{0,17}")


def describe(source: Source, headers: Headers, body: bytes, address: str | None) -> dict[str, Any]:
    """Return the columns of whatever has come; *headers* have their names in lower case."""
    return {"source": source.name, "headers": source.choose_headers(headers), "body": body, "remote_address": address}


def describe_message(source: Source, headers: Headers, body: bytes, address: str | None) -> dict[str, Any]:
    """Return the columns of a message that was verified."""
    return describe(source, headers, body, address) | {
        "message_id": read_message_id(source, headers, body),
        "event": source.scheme.read_told_event(headers)[:NAME_LENGTH],
        "sequence": read_sequence(headers),
    }


def clean_headers(headers: Headers) -> dict[str, str]:
    """Return headers with names in lower case, and nothing that a database cannot hold."""
    return {name.lower(): clean_text(value) for name, value in headers.items()}


def read_message_id(source: Source, headers: Headers, body: bytes) -> str:
    """Return the sender's id for the message, or one of ours; one that is too long is replaced by its digest."""
    message_id = clean_text(source.scheme.read_id(headers, body)) or str(uuid7())
    return message_id if len(message_id) <= NAME_LENGTH else f"sha256:{hashlib.sha256(message_id.encode()).hexdigest()}"


def read_sequence(headers: Headers) -> int | None:
    """Return the sender's own number for the message; None if it does not count."""
    value = headers.get("webhook-sequence", "").strip()
    return int(value) if SEQUENCE.fullmatch(value) else None
