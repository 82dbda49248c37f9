"""Looks for secrets where they do not belong: in whatever spelling, and after each test in what it has logged and printed."""

import base64
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from djwebhooks import signing
from djwebhooks.exceptions import UndecryptableSecret
from djwebhooks.models import WebhookTarget

#: How secrets look that nobody has saved.
SHAPES = re.compile(r"whsec_[\w+/]{32,}|whsk_[\w+/]{32,}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
#: The parts of an authentication that are secret.
SECRET_PARTS = ("password", "token", "key", "client_secret")
#: Shorter texts may stand anywhere by chance.
LEAST_LENGTH = 12


def spell(value: bytes) -> set[bytes]:
    """A value as it is, in hexadecimal, URL-encoded, as Python and JSON write it, and in base64 wherever in a text it begins."""
    value = bytes(value)  # Hidden ones do not show themselves.
    plain = {
        value,
        value.hex().encode(),
        value.hex().upper().encode(),
        quote(value, safe="").encode(),
        repr(value)[2:-1].encode(),
    }
    for offset in range(3):
        coded = base64.b64encode(b"\0" * offset + value)
        certain = coded[-(-offset * 8 // 6) : (offset + len(value)) * 8 // 6]
        plain |= {certain, certain.translate(bytes.maketrans(b"+/", b"-_")), quote(certain.decode(), safe="").encode()}
    return plain


class Leaks:
    """What is secret of the targets that a test has saved."""

    def __init__(self) -> None:
        self._secrets: set[bytes] = set()

    def learn(self, instance: WebhookTarget, **_: Any) -> None:
        """Remember what is secret of a target: a receiver of ``post_save``."""
        with suppress(UndecryptableSecret):
            self._secrets.update(list_secrets(instance))

    def find(self, texts: Iterable[str]) -> set[str]:
        """Return the secrets that stand in *texts*, and forget them all."""
        secrets, self._secrets = self._secrets, set()
        shown = "\n".join(texts)
        if not shown:
            return set()
        found = {match[0] for match in SHAPES.finditer(shown)}
        plain = shown.encode(errors="surrogateescape")
        return found | {repr(secret) for secret in secrets if any(one in plain for one in spell(secret))}


def list_secrets(target: WebhookTarget) -> Iterator[bytes]:
    """What of *target* nobody may see but its receiver; of a text with several lines, each."""
    for key in target.keyring.keys:
        yield bytes(signing.key(key.secret))
        if key.pair:
            yield bytes(signing.read_pair(key.pair)[:32])
    told = target.authentication
    hidden = [told.get(part) for part in SECRET_PARTS] if isinstance(told, dict) else told
    for text in list_texts([target.headers, hidden, target.client_certificate]):
        yield from (line.encode(errors="surrogatepass") for line in text.splitlines() if len(line) >= LEAST_LENGTH)


def list_texts(value: object) -> Iterator[str]:
    """All texts in *value*, whatever a test has put there."""
    match value:
        case str():
            yield value
        case dict():
            yield from list_texts(list(value.values()))
        case list():
            for item in value:
                yield from list_texts(item)
