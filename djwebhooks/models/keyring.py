"""A target's keys: how they are kept, which of them sign, and how they are replaced."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from djwebhooks import encryption, signing
from djwebhooks.hidden import HiddenText, hide

#: Keys that sign at once, at most; of more, the oldest are dropped.
LIVE_KEYS = 10
#: Stands for the id of a key that no receiver can know.
UNKNOWN_KEY = "unknown"


@dataclass(frozen=True, slots=True)
class Key:
    """A secret for v1 and a key pair for v1a, which are made together and end together."""

    secret: str = field(repr=False)
    #: Empty in rows from before there were pairs.
    pair: str = field(repr=False)
    created_at: datetime | None
    #: When it ends; the newest goes on.
    until: datetime | None = None

    @classmethod
    def new(cls, now: datetime) -> "Key":
        return cls(signing.new_secret(), signing.new_key_pair(), now)

    @property
    def public_key(self) -> str:
        return signing.public_key(self.pair)

    @property
    def id(self) -> str:
        """Its name, which says nothing about the secret."""
        return signing.thumbprint(self.public_key)

    @sensitive_variables()
    def read_signers(self, versions: Iterable[str]) -> list[signing.Signer]:
        texts = {signing.V1: self.secret, signing.V1A: self.pair}
        return [signing.read_signer(texts[version]) for version in versions]


@dataclass(frozen=True, slots=True)
class KeyState:
    """What may be told of a key, and what its target's receiver is known to make of it."""

    id: str
    public_key: str
    created_at: datetime | None
    until: datetime | None
    #: When the receiver last accepted, and last refused, what this key alone had signed.
    last_accepted_at: datetime | None = None
    last_refused_at: datetime | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether it was accepted alone, and not refused since."""
        return is_later(self.last_accepted_at, self.last_refused_at)


def is_later(at: datetime | None, other: datetime | None) -> bool:
    """Whether something happened, and the other thing did not, or before it."""
    return at is not None and (other is None or other < at)


@dataclass(frozen=True, slots=True)
class Keyring:
    """All keys of a target, the newest first."""

    keys: tuple[Key, ...] = ()

    @classmethod
    @sensitive_variables()
    def open(cls, token: str) -> "Keyring":
        """Return the keys that ``seal`` made *token* of. Raises ``UndecryptableSecret``."""
        return cls(tuple(_read_key(**entry) for entry in json.loads(encryption.decrypt(token), object_hook=hide)))

    @sensitive_variables()
    def seal(self) -> str:
        """Return the keys as they are kept in the database: encrypted."""
        entries = [
            {"secret": key.secret, "pair": key.pair, "created_at": _write_time(key.created_at), "until": _write_time(key.until)}
            for key in self.keys
        ]
        return encryption.encrypt(HiddenText(json.dumps(entries)))

    @property
    def newest(self) -> Key:
        return self.keys[0]

    @property
    def is_complete(self) -> bool:
        """Whether every key has its pair."""
        return all(key.pair for key in self.keys)

    def complete(self) -> "Keyring":
        return Keyring(tuple(key if key.pair else replace(key, pair=signing.new_key_pair()) for key in self.keys))

    def live(self, now: datetime) -> tuple[Key, ...]:
        """The keys that sign at *now*: the newest first, then those whose overlap has not ended."""
        return tuple(key for key in self.keys if key.until is None or key.until > now)

    def rotate(self, now: datetime, overlap: timedelta) -> "Keyring":
        """Return a ring with a new key, beside which the others sign until *overlap* is over, or until their own end."""
        old = Keyring(tuple(replace(key, until=key.until or now + overlap) for key in self.keys)).live(now)
        return Keyring((Key.new(now), *old[: LIVE_KEYS - 1]))

    def finish(self) -> "Keyring":
        """Return a ring with the newest key alone."""
        return Keyring(self.keys[:1])


def new_secrets() -> str:
    """Return the encrypted keys of a new target."""
    return Keyring((Key.new(timezone.now()),)).seal()


@sensitive_variables("secret", "pair")
def _read_key(secret: str, pair: str = "", created_at: str | None = None, until: str | None = None) -> Key:
    return Key(secret, pair, _read_time(created_at), _read_time(until))


def _read_time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text is not None else None


def _write_time(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None
