"""Encrypt the secrets that are kept in the database."""

import base64
from functools import lru_cache

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.utils.encoding import force_bytes
from django.views.decorators.debug import sensitive_variables

from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError, UndecryptableSecret
from djwebhooks.hidden import HiddenText, hide

#: Sets our keys apart from whatever else is derived from the same SECRET_KEY. Changing it makes every secret unreadable.
CONTEXT = b"djwebhooks: secrets in the database, 1"


@sensitive_variables()
def encrypt(text: str) -> str:
    """Return *text* encrypted with the newest key: ASCII, and another token each time."""
    return cipher(current_keys()).encrypt(text.encode()).decode()


@sensitive_variables()
def decrypt(token: str) -> str:
    """Return the text that ``encrypt`` made *token* of, with whichever key it was. Raises UndecryptableSecret."""
    try:
        return HiddenText(cipher(current_keys()).decrypt(token.encode()).decode())
    except (InvalidToken, UnicodeError):
        # Not chained: a UnicodeError would carry the value.
        raise UndecryptableSecret from None


@sensitive_variables()
def reencrypt(token: str) -> str:
    """Return a token for the same text with the newest key. Raises UndecryptableSecret."""
    return encrypt(decrypt(token))


@sensitive_variables()
def current_keys() -> tuple[str | bytes, ...]:
    """The keys, newest first. Raises ConfigurationError if the setting is no list of strings with content."""
    keys: list[str | bytes] = hide(conf.ENCRYPTION_KEYS)
    if isinstance(keys, str | bytes) or not all(keys):
        raise ConfigurationError("DJWEBHOOKS_ENCRYPTION_KEYS is a list of keys, newest first, none of them empty.")
    return tuple(keys or hide([settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]))


@lru_cache(maxsize=8)
@sensitive_variables()
def cipher(keys: tuple[str | bytes, ...]) -> MultiFernet:
    """Encrypts with the first of *keys* and decrypts with all."""
    return MultiFernet([Fernet(derive(key)) for key in keys])


@sensitive_variables()
def derive(key: str | bytes) -> bytes:
    """Make a Fernet key out of a key of any length: HKDF-SHA256 (RFC 5869)."""
    kdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=CONTEXT)
    return base64.urlsafe_b64encode(kdf.derive(force_bytes(key)))
