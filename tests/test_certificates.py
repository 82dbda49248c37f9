"""Client certificates: what is read, what is refused, and that nothing of a key is shown or left on the disk."""

import ssl
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, load_pem_private_key

from djwebhooks import certificates
from djwebhooks.exceptions import InvalidTarget
from tests.keys import YESTERDAY, lock, make_certificate, make_key

AUTHORITY = trustme.CA()
GOOD = make_certificate(AUTHORITY)
NOW = datetime.now(UTC)


def split(pem: str) -> tuple[str, str]:
    """Return the key and the certificates."""
    end = pem.index("-----BEGIN CERTIFICATE")
    return pem[:end], pem[end:]


KEY, CHAIN = split(GOOD)
LEGACY = lock(make_key("2048"), PrivateFormat.TraditionalOpenSSL)


def misname(pem: str) -> str:
    """Write what is no text into the subject of each certificate, and of who has signed it."""
    key, chain = split(pem)
    changed = [
        certificate.public_bytes(Encoding.DER).replace(b"trustme", b"\xff" * 7)
        for certificate in x509.load_pem_x509_certificates(chain.encode())
    ]
    return key + "".join(ssl.DER_cert_to_PEM_cert(certificate) for certificate in changed)


def test_a_certificate_is_summed_up_without_its_key() -> None:
    """Whose it is and when it ends can be seen; the key cannot."""
    found = certificates.read(GOOD)

    assert found.summary["subject"].endswith("O=trustme v1.2.1")
    assert datetime.fromisoformat(found.summary["expires_at"]) == found.expires_at > NOW
    assert KEY.splitlines()[1] not in repr(found)
    assert "key" not in repr(found).lower()


@pytest.mark.parametrize("pem", [GOOD, CHAIN + KEY, f"# ours\n{CHAIN}\n\n{KEY}", GOOD.replace("\n", "\r\n")])
def test_the_order_and_what_stands_between_do_not_matter(pem: str) -> None:
    """Key first or last, comments, and either kind of line ends."""
    certificates.check(pem, NOW)


@pytest.mark.parametrize(
    ("pem", "message"),
    [
        ("", "0 certificates and 0 keys"),
        (KEY, "0 certificates and 1 keys"),
        (CHAIN, "0 keys"),
        (GOOD + KEY, "2 keys"),
        (CHAIN + LEGACY, "has a password"),
        (CHAIN + lock(KEY), "has a password"),
        (CHAIN + make_key("P-256"), "not the one of the first certificate"),
        (make_certificate(AUTHORITY, expires_at=YESTERDAY), "expired at .* Get another one"),
        (GOOD.replace("M", "N"), "cannot be read"),
        (misname(GOOD), "cannot be read"),
        (GOOD * 99, "at most 65536"),
        (5, "a text of PEM"),
    ],
)
def test_what_no_receiver_would_accept_is_refused(pem: str, message: str) -> None:
    """The message says what is wrong and shows nothing of the key, and neither does a cause of it."""
    with pytest.raises(InvalidTarget, match=message) as caught:
        certificates.check(pem, NOW)

    assert caught.value.__cause__ is None
    assert KEY.splitlines()[1] not in str(caught.value)


def test_a_key_that_is_too_weak_for_tls_is_refused() -> None:
    """What OpenSSL would not load at sending is said when it is set."""
    with pytest.raises(InvalidTarget, match="TLS cannot use the client certificate"):
        certificates.check(make_weak(), NOW)


def make_weak() -> str:
    """A certificate of an RSA key with 1024 bits, signed by itself."""
    key = load_pem_private_key(make_key("1024").encode(), password=None)
    name = x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW - timedelta(1), NOW + timedelta(1))
    return make_key("1024") + builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


class Watched(ssl.SSLContext):
    """Keeps what a file had in it when it was loaded."""

    seen = ""

    def load_cert_chain(self, certfile: str, keyfile: None = None, password: bytes | None = None) -> None:
        self.seen = Path(certfile).read_text()
        self.mode = Path(certfile).stat().st_mode & 0o777
        super().load_cert_chain(certfile, keyfile, password)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory in which all temporary files are made."""
    before, tempfile.tempdir = tempfile.tempdir, str(tmp_path)
    yield tmp_path
    tempfile.tempdir = before


def test_the_key_is_never_on_the_disk(disk: Path) -> None:
    """The file that OpenSSL needs has the key encrypted, can be read by nobody else, and is gone afterwards."""
    context = Watched(ssl.PROTOCOL_TLS_CLIENT)
    certificates.read(GOOD).load_into(context)

    assert "BEGIN ENCRYPTED PRIVATE KEY" in context.seen
    assert not [line for line in KEY.splitlines()[1:-1] if line in context.seen]
    assert context.mode == 0o600
    assert list(disk.iterdir()) == []
