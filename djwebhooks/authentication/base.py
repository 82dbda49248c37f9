"""What all ways to authenticate have in common: they are told as an object of JSON, and end in headers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from datetime import datetime
from typing import Any, Self

from django.views.decorators.debug import sensitive_variables

from djwebhooks.exceptions import InvalidTarget
from djwebhooks.hidden import HiddenText

#: Characters of all parts together: a key of RSA has some 3,200.
SIZE_LIMIT = 32 * 1024
#: Objects and lists in each other at most: only the claims of a JWT have some.
DEPTH_LIMIT = 20


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a token server gave: it is asked for another one at *renew_at*. *origin* tells for which credentials it is."""

    text: str = field(repr=False)
    renew_at: datetime
    origin: str = ""

    @sensitive_variables()
    def headers(self, url: str, now: datetime) -> dict[str, str]:
        """Return the header that a request is sent with."""
        return {"authorization": HiddenText(f"Bearer {self.text}")}

    def suits(self, origin: str, now: datetime) -> bool:
        """Whether it is of these credentials, and may be used at *now*."""
        return self.origin == origin and self.renew_at > now

    @property
    @sensitive_variables()
    def stored(self) -> dict[str, str]:
        """What the database keeps of it; ``restore`` makes it again of that."""
        return asdict(self) | {"renew_at": self.renew_at.isoformat()}

    @classmethod
    @sensitive_variables()
    def restore(cls, stored: Mapping[str, str]) -> Self:
        return cls(stored["text"], datetime.fromisoformat(stored["renew_at"]), stored["origin"])


@dataclass(frozen=True, slots=True)
class Authentication(ABC):
    """One way to authenticate. Its fields are what a person sets; those that ``repr`` leaves out are secret."""

    @classmethod
    @sensitive_variables()
    def read(cls, parts: Mapping[str, Any]) -> Self:
        """Make one of its *parts* by name. Raises ``InvalidTarget``, which never shows what they hold."""
        known = {part.name: part for part in fields(cls)}
        if unknown := [name for name in parts if name not in known]:
            raise InvalidTarget(f"The authentication has no part {unknown[0]!r}; there are {', '.join(known)}.")
        if missing := [name for name, part in known.items() if is_required(part) and not parts.get(name)]:
            raise InvalidTarget(f"The authentication needs a part {missing[0]!r}.")
        for name, value in parts.items():
            kind = str if is_required(known[name]) else type(make_default(known[name]))
            if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
                raise InvalidTarget(f"The part {name!r} of the authentication is {NOUNS[kind]}.")
        return cls(**parts)

    @abstractmethod
    def check(self) -> None:
        """Raise ``InvalidTarget`` for parts that cannot work, without showing those that are secret."""

    @property
    def summary(self) -> dict[str, Any]:
        """The parts that anybody may see who may see the target."""
        shown = {part.name for part in fields(self) if part.repr}
        return {name: value for name, value in asdict(self).items() if name in shown and value not in ("", {})}


@dataclass(frozen=True, slots=True)
class HeaderAuthentication(Authentication):
    """One way that makes the headers by itself."""

    @abstractmethod
    def headers(self, url: str, now: datetime) -> dict[str, str]:
        """Return the headers, with lower-case names, that authenticate a request to *url* at *now*."""


@dataclass(frozen=True, slots=True)
class TokenAuthentication(Authentication):
    """One way for which a server at *token_url* must first be asked for an access token, whose headers are sent then."""

    token_url: str

    @property
    @abstractmethod
    def origin(self) -> str:
        """What tells these credentials from others: a token that was got with others is not theirs."""

    @property
    @abstractmethod
    def token_request(self) -> tuple[dict[str, str], bytes]:
        """The headers and the body that the token server is asked with."""

    @abstractmethod
    def read_token(self, status: int, body: bytes, now: datetime) -> AccessToken | str:
        """Return the token that the server's answer holds, or a sentence that says why there is none."""


#: What every way is one of.
AnyAuthentication = HeaderAuthentication | TokenAuthentication


def is_required(part: Any) -> bool:
    return part.default is MISSING and part.default_factory is MISSING


def make_default(part: Any) -> Any:
    return part.default if part.default_factory is MISSING else part.default_factory()


NOUNS: Mapping[type, str] = {str: "a text", int: "a whole number", dict: "an object"}
