"""A JSON Web Token for each request: short-lived, and good for one URL only (RFC 7519, RFC 7523)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import uuid4

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from django.views.decorators.debug import sensitive_variables

from djwebhooks.authentication.base import HeaderAuthentication
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.hidden import HiddenBytes, HiddenText
from djwebhooks.private_keys import MOST_RSA_BITS, load_private_key

#: What each algorithm signs with, in words.
ALGORITHMS: Mapping[str, str] = {
    "ES256": "a private key of the curve P-256, in PEM",
    "EdDSA": "a private key of Ed25519, in PEM",
    "RS256": f"a private key of RSA with 2048 to {MOST_RSA_BITS} bits, in PEM",
    "HS256": "a text of 32 bytes or more",
}
#: Claims that are ours to make.
OUR_CLAIMS = ("aud", "iss", "iat", "nbf", "exp", "jti")
#: The most seconds that a token may be good for.
LONGEST_LIFETIME = 3600


@dataclass(frozen=True, slots=True)
class SignedToken(HeaderAuthentication):
    """A key that signs a token for each request. *claims* are added to ours, *lifetime* is in seconds."""

    key: str = field(repr=False)
    algorithm: str
    key_id: str = ""
    issuer: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    lifetime: int = 60

    @sensitive_variables()
    def check(self) -> None:
        """Raise ``InvalidTarget`` for a key that does not suit the algorithm, and for claims or a lifetime that cannot be."""
        if self.algorithm not in ALGORITHMS:
            raise InvalidTarget(f"The algorithm {self.algorithm!r} is not one of {', '.join(ALGORITHMS)}.")
        if not suits(load_key(self.key, self.algorithm, is_new=True), self.algorithm):
            raise InvalidTarget(f"The key does not suit {self.algorithm}, which signs with {ALGORITHMS[self.algorithm]}.")
        if ours := [name for name in self.claims if name in OUR_CLAIMS]:
            raise InvalidTarget(f"The claim {ours[0]!r} is set by djwebhooks; the issuer has a part of its own.")
        if not 1 <= self.lifetime <= LONGEST_LIFETIME:
            raise InvalidTarget(f"The lifetime is 1 to {LONGEST_LIFETIME} seconds, not {self.lifetime}.")

    @sensitive_variables()
    def headers(self, url: str, now: datetime) -> dict[str, str]:
        """Return a header with a new token for *url*."""
        claims = {
            **self.claims,
            **({"iss": self.issuer} if self.issuer else {}),
            "aud": url,
            "iat": int(now.timestamp()),
            "exp": int((now + timedelta(seconds=self.lifetime)).timestamp()),
            "jti": str(uuid4()),
        }
        names = {"kid": self.key_id} if self.key_id else None
        token = HiddenText(jwt.encode(claims, load_key(self.key, self.algorithm), algorithm=self.algorithm, headers=names))
        return {"authorization": HiddenText(f"Bearer {token}")}


@lru_cache(maxsize=256)
@sensitive_variables()
def load_key(text: str, algorithm: str, *, is_new: bool = False) -> Any:
    """Return the key that PyJWT wants, parsed once; None for a text that is none. One that *is_new* is checked throughout."""
    if algorithm == "HS256":
        return HiddenBytes(text.encode(errors="replace"))
    try:
        return load_private_key(HiddenBytes(text.encode(errors="replace")), is_new=is_new)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None


@sensitive_variables()
def suits(key: Any, algorithm: str) -> bool:
    """Whether *key* can sign with *algorithm*."""
    match algorithm:
        case "ES256":
            return isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
        case "EdDSA":
            return isinstance(key, Ed25519PrivateKey)
        case "RS256":
            return isinstance(key, RSAPrivateKey) and key.key_size >= 2048
        case _:
            return len(key) >= 32 and b"-----BEGIN" not in key
