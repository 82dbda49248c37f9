"""Sign webhooks, and verify them, as Standard Webhooks 1.0.0 says."""

import base64
import binascii
import hmac
import re
import secrets as randomness
import time
from collections.abc import Iterable, Mapping

from django.views.decorators.debug import sensitive_variables

from djwebhooks.exceptions import InvalidSignature

SECRET_PREFIX = "whsec_"
#: Prefixes of the v1a key pairs. Taken for a v1 secret, the public half would let everyone sign.
KEY_PAIR_PREFIXES = ("whsk_", "whpk_")
#: What a new secret has, and the least and most that the standard allows, in bytes.
NEW_SECRET_BYTES, LEAST_SECRET_BYTES, MOST_SECRET_BYTES = 32, 24, 64
#: How old, or how far ahead, a timestamp may be in seconds. The reference libraries' value; the standard names none.
TOLERANCE = 300

BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
TIMESTAMP = re.compile(r"[0-9]{1,15}")

#: A secret as its text or, cheaper in a loop, as the bytes that ``key`` made of it.
Secret = str | bytes


def new_secret() -> str:
    """Return a new secret for HMAC-SHA256: ``whsec_`` and 32 random bytes in base64."""
    return SECRET_PREFIX + base64.b64encode(randomness.token_bytes(NEW_SECRET_BYTES)).decode()


@sensitive_variables()
def key(secret: str) -> bytes:
    """Return the key that *secret* is the text of, with or without its prefix and its padding.

    Raises ValueError, without showing the secret, if it is not base64 or not of 24 to 64 bytes.
    """
    if secret.startswith(KEY_PAIR_PREFIXES):
        raise ValueError(f"{secret[:5]} marks an Ed25519 key (v1a), which cannot be used for HMAC: use a {SECRET_PREFIX} secret.")
    text = secret.removeprefix(SECRET_PREFIX)
    if not BASE64.fullmatch(text):
        raise ValueError(f"A secret is {SECRET_PREFIX} and standard base64, without spaces; this one has other characters.")
    return check_length(decode_base64(text))


@sensitive_variables()
def decode_base64(text: str) -> bytes:
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        # Not chained: the original error is about padding that was added here.
        raise ValueError("The secret is not base64: a character is missing or too many.") from None


@sensitive_variables()
def check_length(secret: bytes) -> bytes:
    if not LEAST_SECRET_BYTES <= len(secret) <= MOST_SECRET_BYTES:
        raise ValueError(f"A secret has {LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES} bytes; this one has {len(secret)}.")
    return secret


@sensitive_variables()
def sign(secret: Secret, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one entry of the ``webhook-signature`` header: ``v1,`` and the HMAC-SHA256 in base64.

    *timestamp* is the attempt's Unix time in seconds, *body* exactly what is sent.
    Raises ValueError if *message_id* contains a dot, which would make the signed text ambiguous.
    """
    if "." in message_id:
        raise ValueError(f"The message id {message_id!r} contains a dot, which separates the parts that are signed.")
    return sign_content(secret, f"{message_id}.{timestamp:d}.".encode() + body)


@sensitive_variables()
def sign_all(secrets: Iterable[Secret], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the ``webhook-signature`` header with one signature per secret: two of them while a secret is being replaced."""
    return " ".join(sign(secret, message_id, timestamp, body) for secret in secrets)


@sensitive_variables()
def sign_content(secret: Secret, content: bytes) -> str:
    digest = hmac.digest(secret if isinstance(secret, bytes) else key(secret), content, "sha256")
    return "v1," + base64.b64encode(digest).decode()


@sensitive_variables()
def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret_or_secrets: Secret | Iterable[Secret],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> None:
    """Return if a received webhook was signed with the secret, or with one of several; for receivers.

    *body* is the raw request body, before any parsing. *headers* may be in any case. *tolerance* is in seconds, both ways;
    *now* is a Unix time, by default the clock's. Raises InvalidSignature, which says why, and ValueError for a malformed secret.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (read_header(lowered, f"webhook-{part}") for part in ("id", "timestamp", "signature"))
    if "." in message_id:
        raise InvalidSignature("The header webhook-id contains a dot, so it is ambiguous what was signed.")
    check_timestamp(timestamp, tolerance, time.time() if now is None else now)
    check_signatures(f"{message_id}.{timestamp}.".encode(errors="replace") + body, signatures, as_list(secret_or_secrets))


def read_header(lowered: Mapping[str, str], name: str) -> str:
    value = lowered.get(name, "").strip()
    if not value:
        raise InvalidSignature(f"The header {name} is missing.")
    return value


def check_timestamp(timestamp: str, tolerance: float, now: float) -> None:
    if not TIMESTAMP.fullmatch(timestamp):
        raise InvalidSignature(f"The header webhook-timestamp is {timestamp[:40]!r}: malformed, it is a whole number of seconds.")
    age = now - int(timestamp)
    if age > tolerance:
        raise InvalidSignature(f"The timestamp is too old: {age:.0f} s, and {tolerance:g} s are allowed. Is it a repeat?")
    if -age > tolerance:
        raise InvalidSignature(f"The timestamp is too new: {-age:.0f} s ahead, and {tolerance:g} s are allowed. Set the clocks.")


@sensitive_variables()
def check_signatures(content: bytes, signatures: str, secrets: list[Secret]) -> None:
    received = [entry.encode(errors="replace") for entry in signatures.split() if entry.startswith("v1,")]
    if not received:
        raise InvalidSignature("The header webhook-signature is malformed: none of its entries is a v1 signature.")
    expected = [sign_content(secret, content).encode() for secret in secrets]
    # A list, so that the time it takes does not tell which entry was right.
    if True not in [hmac.compare_digest(ours, theirs) for ours in expected for theirs in received]:
        raise InvalidSignature(
            "No signature matches: either the secret is another one, or the body is not byte for byte what was sent."
        )


@sensitive_variables()
def as_list(secret_or_secrets: Secret | Iterable[Secret]) -> list[Secret]:
    secrets = [secret_or_secrets] if isinstance(secret_or_secrets, str | bytes) else list(secret_or_secrets)
    if not secrets or not all(secrets):
        raise ValueError("There is no secret to verify with, or an empty one: give one or more, such as 'whsec_…'.")
    return secrets
