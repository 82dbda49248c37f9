"""Private keys that people give: read fast whatever they are, and refused when they are too large."""

from functools import cache

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateNumbers, RSAPublicNumbers, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from djwebhooks import certificates
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.models.validation import check_authentication
from djwebhooks.private_keys import MOST_RSA_BITS, load_private_key

E = 65537


@cache
def make_pem(bits: int, *, is_consistent: bool = True) -> bytes:
    """Return a key of so many bits; one that is not consistent is made in no time, as its factors are no primes."""
    if is_consistent:
        key = generate_private_key(E, bits)
    else:
        p, q = (1 << (bits // 2)) - 1, (1 << (bits // 2)) - 3
        d = pow(E, -1, (p - 1) * (q - 1))
        numbers = RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), RSAPublicNumbers(E, p * q))
        key = numbers.private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_a_key_that_is_too_large_is_refused() -> None:
    """To check it would take a processor half a minute, and every other request would wait for that."""
    with pytest.raises(ValueError, match="16384 bits"):
        load_private_key(make_pem(16384, is_consistent=False))


def test_the_largest_key_is_taken() -> None:
    """It is checked throughout only while it is new."""
    pem = make_pem(MOST_RSA_BITS, is_consistent=False)
    assert load_private_key(pem).key_size == MOST_RSA_BITS  # type: ignore[union-attr]  # it is one of RSA

    with pytest.raises(ValueError):  # noqa: PT011 (the message is the library's)
        load_private_key(pem, is_new=True)


def test_a_good_key_is_taken() -> None:
    """New or not."""
    pem = make_pem(2048)

    for is_new in (True, False):
        assert load_private_key(pem, is_new=is_new).key_size == 2048  # type: ignore[union-attr]  # it is one of RSA


def test_no_target_has_a_key_that_is_too_large() -> None:
    """Neither for tokens nor in a certificate."""
    key = make_pem(16384, is_consistent=False).decode()
    with pytest.raises(InvalidTarget, match="2048 to 4096 bits"):
        check_authentication({"type": "jwt", "algorithm": "RS256", "key": key})

    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    with pytest.raises(InvalidTarget, match="cannot be read"):
        certificates.read(certificate + key)
