"""Certificates of ours that a receiver may ask for when a connection is made (mutual TLS)."""

import re
import secrets
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from django.views.decorators.debug import sensitive_variables

from djwebhooks.exceptions import InvalidTarget
from djwebhooks.hidden import HiddenBytes
from djwebhooks.private_keys import MOST_RSA_BITS, load_private_key

#: Characters of all parts together: a chain of a few certificates and a key.
SIZE_LIMIT = 64 * 1024
BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(?:[^-]|-(?!----))+-----END \1-----")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate with those that vouch for it, and its private key."""

    chain: Sequence[x509.Certificate]
    key: Any = field(repr=False)

    @property
    def expires_at(self) -> datetime:
        return self.chain[0].not_valid_after_utc

    @property
    def summary(self) -> dict[str, Any]:
        """What anybody may see who may see the target."""
        return {"subject": self.chain[0].subject.rfc4514_string(), "expires_at": self.expires_at.isoformat()}

    @sensitive_variables()
    def split(self) -> tuple[bytes, bytes]:
        """Return the chain and the key, each in PEM."""
        chain = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)
        return chain, HiddenBytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    @sensitive_variables()
    def load_into(self, context: ssl.SSLContext) -> None:
        """Have *context* show it. Raises ``ssl.SSLError`` when TLS cannot do with it."""
        # Only files can be loaded. The key in this one is encrypted, with a password that nobody ever sees.
        password = secrets.token_hex(16).encode()
        with tempfile.NamedTemporaryFile() as file:
            file.write(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)))
            file.writelines(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)
            file.flush()
            context.load_cert_chain(file.name, password=password)


@sensitive_variables()
def read(pem: str, *, is_new: bool = False) -> ClientCertificate:
    """Return the certificate, its chain and its key out of one text; a key that *is_new* is checked throughout.

    Raises ``InvalidTarget``, which shows none of it.
    """
    if not isinstance(pem, str):
        raise InvalidTarget("The client certificate is a text of PEM.")
    if len(pem) > SIZE_LIMIT:
        raise InvalidTarget(f"The client certificate has {len(pem)} characters; at most {SIZE_LIMIT} are possible.")
    blocks = [(block[1], HiddenBytes(block[0].encode())) for block in BLOCK.finditer(pem)]
    keys = [text for name, text in blocks if name.endswith("PRIVATE KEY")]
    certificates = [text for name, text in blocks if name == "CERTIFICATE"]
    if len(keys) != 1 or not certificates:
        raise InvalidTarget(
            "The client certificate is a text of PEM with the certificate, those that vouch for it, and its private key: "
            f"this one has {len(certificates)} certificates and {len(keys)} keys."
        )
    try:
        found = ClientCertificate([x509.load_pem_x509_certificate(text) for text in certificates], load_key(keys[0], is_new))
        _ = found.summary  # A subject that is wrong in itself is found when it is asked for.
        return found
    except (ValueError, UnsupportedAlgorithm):
        # Not chained: what went wrong may quote what was given.
        raise InvalidTarget(
            "The client certificate or its key cannot be read: is the text complete, and an RSA key of "
            f"{MOST_RSA_BITS} bits at most?"
        ) from None


@sensitive_variables()
def load_key(pem: bytes, is_new: bool) -> Any:
    try:
        return load_private_key(pem, is_new=is_new)
    except TypeError:
        raise InvalidTarget("The key of the client certificate has a password. Give it without one.") from None


@sensitive_variables()
def check(pem: str, now: datetime) -> None:
    """Raise ``InvalidTarget`` for a certificate that no receiver would accept at *now*."""
    found = read(pem, is_new=True)
    if public_bytes(found.chain[0].public_key()) != public_bytes(found.key.public_key()):
        raise InvalidTarget("The key is not the one of the first certificate. Put the certificate of the key first.")
    if found.expires_at <= now:
        raise InvalidTarget(f"The client certificate expired at {found.expires_at:%Y-%m-%d %H:%M} UTC. Get another one.")
    try:
        found.load_into(ssl.create_default_context())
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or "its key is of no use"
        raise InvalidTarget(f"TLS cannot use the client certificate: {reason}.") from None


def public_bytes(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
