"""Keys and certificates for tests, and the TLS of receivers."""

import ssl
from datetime import UTC, datetime, timedelta
from functools import cache

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@cache
def make_key(kind: str) -> str:
    """Return a private key in PEM: of the curve ``P-256`` or ``P-384``, of ``Ed25519``, or of RSA by its bits."""
    match kind:
        case "P-256":
            key = ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            key = ec.generate_private_key(ec.SECP384R1())
        case "Ed25519":
            key = ed25519.Ed25519PrivateKey.generate()
        case bits:
            key = rsa.generate_private_key(65537, int(bits))
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_half(pem: str) -> str:
    """Return the public key of a private one."""
    key = load_pem_private_key(pem.encode(), password=None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def lock(pem: str, form: PrivateFormat = PrivateFormat.PKCS8) -> str:
    """Return a private key with a password."""
    key = load_pem_private_key(pem.encode(), password=None)
    return key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"password")).decode()


def make_certificate(
    authority: trustme.CA, *, expires_at: datetime | None = None, kind: trustme.KeyType = trustme.KeyType.ECDSA
) -> str:
    """Return a certificate with its chain and key in one text."""
    made = authority.issue_cert("sender.example", not_after=expires_at, key_type=kind)
    return made.private_key_and_cert_chain_pem.bytes().decode()


def make_server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def make_strict_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    """The context of a receiver that talks only to those with a certificate of the same authority."""
    context = make_server_context(authority, name)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context
