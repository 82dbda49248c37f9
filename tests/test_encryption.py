"""The rules of djwebhooks.encryption."""

import pytest
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.encryption import decrypt, encrypt, reencrypt
from djwebhooks.exceptions import ConfigurationError, UndecryptableSecret

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#: Made with the key "pinned": what is in databases must stay readable.
PINNED = (
    "gAAAAABrAuvfvWUS1dUkE6hotQQQE1-7mJjHsb7VnnuEmLyXnNFOLEoAPOEIICoToCreCF92y0TcYWUu"
    "8I93P2YpL5H34CMMVn_LiwzMjeK2ehht7g_wFYS8AWa6F6TbsVT4VITtG9Te"
)

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_what_is_encrypted_comes_back(text: str) -> None:
    """Any text survives, and the token is ASCII without the text in it."""
    token = encrypt(text)
    assert token.isascii()
    assert decrypt(token) == text


def test_equal_texts_have_different_tokens() -> None:
    """A table of tokens does not show which targets share a secret."""
    assert encrypt(SECRET) != encrypt(SECRET)


def test_a_token_of_an_earlier_release_is_readable(settings: LazySettings) -> None:
    """How keys are derived never changes."""
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["pinned"]
    assert decrypt(PINNED) == SECRET


def test_the_newest_key_encrypts_and_all_decrypt(settings: LazySettings) -> None:
    """A key is replaced by putting another before it; reencrypt makes the old one superfluous."""
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ("old",)
    token = encrypt(SECRET)
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ("new", "old")
    assert decrypt(token) == SECRET
    renewed = reencrypt(token)
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ("new",)
    assert decrypt(renewed) == SECRET
    with pytest.raises(UndecryptableSecret):
        decrypt(token)


def test_the_secret_key_serves_where_there_are_no_keys(settings: LazySettings) -> None:
    """SECRET_KEY encrypts, and SECRET_KEY_FALLBACKS still decrypt after it changed."""
    settings.SECRET_KEY = "first"
    token = encrypt(SECRET)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "second", ["first"]
    assert decrypt(token) == SECRET
    settings.SECRET_KEY_FALLBACKS = []
    with pytest.raises(UndecryptableSecret):
        decrypt(token)


def test_own_keys_can_take_over_from_the_secret_key(settings: LazySettings) -> None:
    """SECRET_KEY is listed last for as long as tokens of it are left."""
    settings.SECRET_KEY = "first"
    token = encrypt(SECRET)
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["own", "first"]
    assert decrypt(token) == SECRET


def test_keys_may_be_bytes(settings: LazySettings) -> None:
    """Django allows SECRET_KEY to be bytes."""
    settings.SECRET_KEY = b"\xff\xfe"
    assert decrypt(encrypt(SECRET)) == SECRET


@given(st.text())
def test_what_is_no_token_is_undecryptable(token: str) -> None:
    """Whatever is in the column, the error is ours."""
    with pytest.raises(UndecryptableSecret):
        decrypt(token)
    with pytest.raises(UndecryptableSecret):
        reencrypt(token)


def test_a_changed_token_is_undecryptable_and_not_shown() -> None:
    """Tokens are authenticated, and the error has neither token nor text, nor a cause that has."""
    token = encrypt(SECRET)
    changed = token[:-10] + ("A" if token[-10] != "A" else "B") + token[-9:]
    with pytest.raises(UndecryptableSecret) as caught:
        decrypt(changed)
    assert str(caught.value) == UndecryptableSecret.__doc__
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("keys", ["one string", b"bytes", [""], ["good", ""], [None]])
def test_keys_that_would_be_weak_are_refused(settings: LazySettings, keys: object) -> None:
    """A lone string would be taken for a list of letters, and an empty key is no key."""
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = keys
    with pytest.raises(ConfigurationError, match="DJWEBHOOKS_ENCRYPTION_KEYS"):
        encrypt(SECRET)
