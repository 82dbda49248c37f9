"""Sign webhooks, and verify them, as Standard Webhooks 1.0.0 says: v1 is HMAC-SHA256, v1a is Ed25519."""

import base64
import binascii
import hashlib
import hmac
import json
import re
import secrets as randomness
import time
from collections.abc import Iterable, Mapping

from cryptography.exceptions import InvalidSignature as WrongSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from django.views.decorators.debug import sensitive_variables

from djwebhooks.exceptions import ConfigurationError, InvalidSignature
from djwebhooks.hidden import HiddenBytes, HiddenText

V1, V1A = VERSIONS = ("v1", "v1a")
#: How the texts begin: of a v1 secret, of a v1a key pair, and of its public half.
SECRET_PREFIX, PAIR_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
#: What each text is called where it is refused. Taken for a v1 secret, a public key would let everyone sign.
NAMES = {PAIR_PREFIX: "a key pair for v1a", PUBLIC_PREFIX: "a public key for v1a"}
#: What a new secret has, and the least and most that the standard allows, in bytes.
NEW_SECRET_BYTES, LEAST_SECRET_BYTES, MOST_SECRET_BYTES = 32, 24, 64
#: How old, or how far ahead, a timestamp may be in seconds. The reference libraries' value; the standard names none.
TOLERANCE = 300
#: Entries that a received header may have: each costs a comparison, and no sender needs as many.
MOST_ENTRIES = 100

BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
TIMESTAMP = re.compile(r"[0-9]{1,15}")
#: An Ed25519 signature has 64 bytes.
V1A_ENTRY = re.compile(r"v1a,[A-Za-z0-9+/]{86}==")

#: What signs and what verifies, decoded: bytes for v1, the others for v1a.
Signer = bytes | Ed25519PrivateKey
Verifier = bytes | Ed25519PublicKey


# -- keys --------------------------------------------------------------------------------------------------------------


def new_secret() -> str:
    """Return a new secret for HMAC-SHA256 (v1): ``whsec_`` and 32 random bytes in base64."""
    return HiddenText(SECRET_PREFIX + encode_base64(HiddenBytes(randomness.token_bytes(NEW_SECRET_BYTES))))


@sensitive_variables()
def new_key_pair() -> str:
    """Return a new key pair for Ed25519 (v1a): ``whsk_`` and, in base64, the 32 bytes of the seed and the 32 public ones."""
    private = Ed25519PrivateKey.generate()
    pair = HiddenBytes(private.private_bytes_raw() + private.public_key().public_bytes_raw())
    return HiddenText(PAIR_PREFIX + encode_base64(pair))


@sensitive_variables()
def public_key(pair: str) -> str:
    """Return the public half, ``whpk_…``, of a key pair: what receivers verify v1a with. It is no secret."""
    return PUBLIC_PREFIX + encode_base64(read_pair(pair)[32:])


@sensitive_variables()
def key(secret: str) -> bytes:
    """Return the key that *secret* is the text of, with or without its prefix and its padding.

    Raises ValueError, without showing the secret, if it is not base64 or not of 24 to 64 bytes.
    """
    for prefix, name in NAMES.items():
        if secret.startswith(prefix):
            raise ValueError(f"{prefix} marks {name}, which cannot be used for HMAC: use a {SECRET_PREFIX} secret.")
    decoded = read_base64(HiddenText(secret.removeprefix(SECRET_PREFIX)), f"A secret is {SECRET_PREFIX} and")
    if not LEAST_SECRET_BYTES <= len(decoded) <= MOST_SECRET_BYTES:
        raise ValueError(
            f"A secret is {SECRET_PREFIX} and {LEAST_SECRET_BYTES} to {MOST_SECRET_BYTES} bytes in base64; "
            f"this one has {len(decoded)} bytes: djwebhooks.signing.new_secret() makes one."
        )
    return decoded


@sensitive_variables()
def read_signer(text: str) -> Signer:
    """Return what signs: of a ``whsec_`` secret, or of a ``whsk_`` key pair. Raises ValueError, without showing it."""
    if text.startswith(PUBLIC_PREFIX):
        raise ValueError(f"{PUBLIC_PREFIX} marks {NAMES[PUBLIC_PREFIX]}, which cannot sign: use the pair, {PAIR_PREFIX}….")
    if not text.startswith(PAIR_PREFIX):
        return key(text)
    pair = read_pair(text)
    private = Ed25519PrivateKey.from_private_bytes(pair[:32])
    if private.public_key().public_bytes_raw() != pair[32:]:
        raise ValueError(f"The halves of this key pair ({PAIR_PREFIX}…) do not belong together.")
    return private


@sensitive_variables()
def read_verifier(text: str) -> Verifier:
    """Return what verifies: of a ``whsec_`` secret, or of a ``whpk_`` public key. Raises ValueError, without showing it."""
    if text.startswith(PAIR_PREFIX):
        raise ValueError(f"{PAIR_PREFIX} marks {NAMES[PAIR_PREFIX]}, which only the sender has: verify with {PUBLIC_PREFIX}….")
    return Ed25519PublicKey.from_public_bytes(read_public(text)) if text.startswith(PUBLIC_PREFIX) else key(text)


@sensitive_variables()
def read_pair(text: str) -> bytes:
    return read_exactly(64, HiddenText(text.removeprefix(PAIR_PREFIX)), f"A key pair is {PAIR_PREFIX} and")


def read_public(text: str) -> bytes:
    return read_exactly(32, text.removeprefix(PUBLIC_PREFIX), f"A public key is {PUBLIC_PREFIX} and")


@sensitive_variables("text", "decoded")
def read_exactly(length: int, text: str, what_it_is: str) -> bytes:
    decoded = read_base64(text, what_it_is)
    if len(decoded) != length:
        raise ValueError(f"{what_it_is} {length} bytes in base64; this one has {len(decoded)}.")
    return decoded


@sensitive_variables("text", "bare")
def read_base64(text: str, what_it_is: str) -> bytes:
    if not BASE64.fullmatch(text):
        raise ValueError(f"{what_it_is} standard base64, without spaces; this one has other characters.")
    bare = HiddenText(text.rstrip("="))
    try:
        return HiddenBytes(base64.b64decode(bare + "=" * (-len(bare) % 4)))
    except binascii.Error:
        # Not chained: the original error is about padding that was added here.
        raise ValueError(f"{what_it_is} standard base64; in this one a character is missing or too many.") from None


@sensitive_variables()
def encode_base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def as_jwk(public: str) -> dict[str, str]:
    """Return a public key, ``whpk_…``, as a JSON Web Key (RFC 8037) with nothing but what makes it one."""
    return {"crv": "Ed25519", "kty": "OKP", "x": encode_for_jwk(read_public(public))}


def thumbprint(public: str) -> str:
    """Return the name that a public key, ``whpk_…``, has by its content alone: its JWK Thumbprint (RFC 7638)."""
    canonical = json.dumps(as_jwk(public), separators=(",", ":"), sort_keys=True)
    return encode_for_jwk(hashlib.sha256(canonical.encode()).digest())


def encode_for_jwk(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


# -- signing -----------------------------------------------------------------------------------------------------------


def check_versions(versions: object) -> tuple[str, ...]:
    """Return the versions of signatures that are sent. Raises ConfigurationError for a setting that names none, or others."""
    if isinstance(versions, list | tuple) and versions and all(version in VERSIONS for version in versions):
        return tuple(version for version in VERSIONS if version in versions)
    raise ConfigurationError(f"DJWEBHOOKS_SIGNATURES must be a list of one or more of {', '.join(VERSIONS)}, not {versions!r}.")


@sensitive_variables()
def sign(secret: str | Signer, message_id: str, timestamp: int, body: bytes) -> str:
    """Return one entry of the ``webhook-signature`` header, in base64.

    It is ``v1,`` and an HMAC-SHA256 for a ``whsec_`` secret, ``v1a,`` and an Ed25519 signature for a ``whsk_`` key pair.
    *timestamp* is the attempt's Unix time in seconds, *body* exactly what is sent.
    Raises ValueError if *message_id* contains a dot, which would make the signed text ambiguous.
    """
    return sign_all([secret], message_id, timestamp, body)


@sensitive_variables()
def sign_all(secrets: Iterable[str | Signer], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the ``webhook-signature`` header with one signature per secret: two of them while a secret is being replaced."""
    if "." in message_id:
        raise ValueError(f"The message id {message_id!r} contains a dot, which separates the parts that are signed.")
    content = f"{message_id}.{timestamp:d}.".encode() + body
    signers = [read_signer(HiddenText(secret)) if isinstance(secret, str) else secret for secret in secrets]
    return " ".join([sign_content(signer, content) for signer in signers])


@sensitive_variables()
def sign_content(signer: Signer, content: bytes) -> str:
    if isinstance(signer, bytes):
        return f"{V1},{encode_base64(hmac.digest(signer, content, 'sha256'))}"
    return f"{V1A},{encode_base64(signer.sign(content))}"


# -- verifying ---------------------------------------------------------------------------------------------------------


@sensitive_variables()
def verify(
    body: bytes,
    headers: Mapping[str, str],
    key_or_keys: str | Verifier | Iterable[str | Verifier],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> int:
    """Return if a received webhook was signed with the key, or with one of several; for receivers.

    A key is a secret (``whsec_…``, for v1) or a public key (``whpk_…``, for v1a). The index of the first one that fits is
    returned: a receiver that lists the key it wants to drop first sees by it how long that is still signed with.
    *body* is the raw request body, before any parsing. *headers* may be in any case. *tolerance* is in seconds, both ways;
    *now* is a Unix time, by default the clock's. Raises InvalidSignature, which says why, and ValueError for a malformed key.
    """
    verifiers = [read_verifier(given) if isinstance(given, str) else given for given in as_list(key_or_keys)]
    lowered = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp, signatures = (read_header(lowered, f"webhook-{part}") for part in ("id", "timestamp", "signature"))
    if "." in message_id:
        raise InvalidSignature("The header webhook-id contains a dot, so it is ambiguous what was signed.")
    check_timestamp(timestamp, tolerance, time.time() if now is None else now)
    content = f"{message_id}.{timestamp}.".encode(errors="replace") + body
    return find_match(content, read_signatures(signatures, verifiers), verifiers)


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


@sensitive_variables("verifiers")
def read_signatures(header: str, verifiers: list[Verifier]) -> list[str]:
    """Return the entries of versions that are known. Raises InvalidSignature if none of them is for any of the keys."""
    entries = header.split()
    if len(entries) > MOST_ENTRIES:
        raise InvalidSignature(f"The header webhook-signature is malformed: it has {len(entries)} entries.")
    known = [entry for entry in entries if entry.partition(",")[0] in VERSIONS and "," in entry]
    if not known:
        raise InvalidSignature("The header webhook-signature is malformed: none of its entries is a v1 or v1a signature.")
    present = {entry.partition(",")[0] for entry in known}
    if present.isdisjoint(V1 if isinstance(verifier, bytes) else V1A for verifier in verifiers):
        missing = f"secret ({SECRET_PREFIX}…)" if V1 in present else f"public key ({PUBLIC_PREFIX}…)"
        raise InvalidSignature(f"It is signed with {present.pop()} alone, and there is no {missing} to verify that with.")
    return known


@sensitive_variables("verifiers")
def find_match(content: bytes, entries: list[str], verifiers: list[Verifier]) -> int:
    # Lists, here and below, so that the time it takes does not tell which entry was right.
    matches = [has_signed(verifier, content, entries) for verifier in verifiers]
    if True not in matches:
        raise InvalidSignature(
            "No signature matches: either the key is another one, or the body is not byte for byte what was sent."
        )
    return matches.index(True)


@sensitive_variables("verifier", "expected")
def has_signed(verifier: Verifier, content: bytes, entries: list[str]) -> bool:
    if isinstance(verifier, bytes):
        expected = sign_content(verifier, content).encode()
        return True in [hmac.compare_digest(expected, entry.encode(errors="replace")) for entry in entries]
    return True in [is_valid(verifier, content, entry) for entry in entries]


def is_valid(public: Ed25519PublicKey, content: bytes, entry: str) -> bool:
    if not V1A_ENTRY.fullmatch(entry):
        return False
    try:
        public.verify(base64.b64decode(entry.removeprefix(f"{V1A},")), content)
    except WrongSignature:
        return False
    return True


@sensitive_variables()
def as_list(key_or_keys: str | Verifier | Iterable[str | Verifier]) -> list[str | Verifier]:
    keys = [key_or_keys] if isinstance(key_or_keys, str | Verifier) else list(key_or_keys)
    if not keys or not all(keys):
        raise ValueError("There is no key to verify with, or an empty one: give one or more, such as 'whsec_…' or 'whpk_…'.")
    return keys
