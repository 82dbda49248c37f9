"""Read private keys that people give, without the minutes of a processor that a huge one takes."""

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.views.decorators.debug import sensitive_variables

#: The most bits of an RSA key. To check one of 16384 takes half a minute, and to sign with it a quarter of a second.
MOST_RSA_BITS = 4096


@sensitive_variables()
def load_private_key(pem: bytes, *, is_new: bool = False) -> PrivateKeyTypes:
    """Return the key that *pem* is the text of; one that *is_new* is checked to be consistent.

    Raises ``ValueError`` for a text that is none and for an RSA key that is too large, ``TypeError`` for one with a password,
    and ``UnsupportedAlgorithm``.
    """
    key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    if isinstance(key, RSAPrivateKey) and key.key_size > MOST_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key_size} bits")
    return load_pem_private_key(pem, password=None) if is_new else key
