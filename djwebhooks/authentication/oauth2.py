"""OAuth 2 client credentials: a token server gives an access token for an id and a secret (RFC 6749, section 4.4)."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

from django.views.decorators.debug import sensitive_variables
from oauthlib.oauth2 import BackendApplicationClient, OAuth2Error

from djwebhooks.authentication.base import AccessToken, TokenAuthentication
from djwebhooks.authentication.plain import CONTROL, WORD, basic
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.hidden import HiddenBytes, HiddenText, hide

#: How the token server is told who asks: by a header, as it must understand, or in the body.
CLIENT_AUTHENTICATIONS = ("basic", "body")
#: Seconds for which a token is taken to be good if nothing is said, and the most and least whatever is said.
LIFETIME, LONGEST_LIFETIME, SHORTEST_LIFETIME = 3600, 86400, 1
#: A token is renewed so many seconds before it ends, or after nine tenths of its life, whichever is later.
RENEW_EARLY, RENEW_AFTER = 60, 0.9
#: What a token server may say is wrong (RFC 6749, section 5.2). Any other text of its might be a secret that it repeats.
ERRORS = (
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
    "server_error", "temporarily_unavailable",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClientCredentials(TokenAuthentication):
    """A client's id and secret, and the server that gives a token for them."""

    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""
    audience: str = ""
    client_authentication: str = "basic"

    @sensitive_variables()
    def check(self) -> None:
        """Raise ``InvalidTarget`` for parts that cannot work; the address is the network's business."""
        if self.client_authentication not in CLIENT_AUTHENTICATIONS:
            known = " or ".join(CLIENT_AUTHENTICATIONS)
            raise InvalidTarget(f"The client_authentication is {known}, not {self.client_authentication!r}.")
        if CONTROL.search(f"{self.client_id}{self.client_secret}{self.scope}{self.audience}"):
            raise InvalidTarget("A part of the authentication has a control character, which cannot be sent.")

    @property
    @sensitive_variables()
    def origin(self) -> str:
        """A digest of all parts."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    @sensitive_variables()
    def token_request(self) -> tuple[dict[str, str], bytes]:
        """The headers and the body, which name the client as the token server wants it."""
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        extra = {"audience": self.audience} if self.audience else {}
        in_body = self.client_authentication == "body"
        if in_body:
            extra["client_secret"] = self.client_secret
        else:
            # Encoded first, so that a colon in the id ends nothing (section 2.3.1).
            headers["authorization"] = basic(quote_plus(self.client_id), HiddenText(quote_plus(self.client_secret)))
        client = BackendApplicationClient(self.client_id)
        body = HiddenText(client.prepare_request_body(scope=self.scope or None, include_client_id=in_body, **extra))
        return headers, HiddenBytes(body.encode())

    @sensitive_variables()
    def read_token(self, status: int, body: bytes, now: datetime) -> AccessToken | str:
        """Return the token that the server's answer holds, or a sentence that says why there is none."""
        try:
            read = BackendApplicationClient(self.client_id).parse_request_body_response
            answer: Any = hide(dict(read(body.decode(errors="replace"))))
        except OAuth2Error as error:
            said = f": {error.error}" if error.error in ERRORS else ""
            return f"The token server answered {status}{said}."
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            return f"The token server answered {status}, with something that cannot be read."
        text, kind = answer.get("access_token"), answer.get("token_type", "bearer")
        if not 200 <= status < 300:
            return f"The token server answered {status}."
        if str(kind).lower() != "bearer":
            return "The token server gave a token of another type than bearer."
        if not isinstance(text, str) or not WORD.fullmatch(text):
            return "The token server gave a token that a header cannot hold."
        return AccessToken(text, now + timedelta(seconds=renew_in(answer.get("expires_in"))), self.origin)


def renew_in(expires_in: object) -> float:
    """In how many seconds a token is renewed that is said to be good for *expires_in* seconds."""
    said = expires_in if isinstance(expires_in, int | float) and expires_in == expires_in else LIFETIME
    life = min(max(said, SHORTEST_LIFETIME), LONGEST_LIFETIME)
    return max(life - RENEW_EARLY, life * RENEW_AFTER)
