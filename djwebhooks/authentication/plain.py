"""Passwords and tokens that are sent as they are: Basic (RFC 7617) and Bearer (RFC 6750)."""

import base64
import re
from dataclasses import dataclass, field
from datetime import datetime

from django.views.decorators.debug import sensitive_variables

from djwebhooks.authentication.base import HeaderAuthentication
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.hidden import HiddenText

CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
#: More than RFC 6750 allows, as receivers do: whatever is one word.
WORD = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Basic(HeaderAuthentication):
    """A user name and a password."""

    username: str
    password: str = field(repr=False)

    @sensitive_variables()
    def check(self) -> None:
        """Raise ``InvalidTarget`` for what the header cannot hold."""
        if ":" in self.username:
            raise InvalidTarget(f"The username {self.username!r} has a colon, which would end it (RFC 7617).")
        if CONTROL.search(self.username + self.password):
            raise InvalidTarget("The username or the password has a control character, which Basic cannot send.")

    @sensitive_variables()
    def headers(self, url: str, now: datetime) -> dict[str, str]:
        """Return the header, in UTF-8."""
        return {"authorization": basic(self.username, self.password)}


@dataclass(frozen=True, slots=True)
class Bearer(HeaderAuthentication):
    """A token that does not change by itself."""

    token: str = field(repr=False)

    @sensitive_variables()
    def check(self) -> None:
        """Raise ``InvalidTarget`` for a token that is not one word."""
        if not WORD.fullmatch(self.token):
            raise InvalidTarget(
                "The token is one word of ASCII, without spaces; leave out what stands before it, such as Bearer."
            )

    @sensitive_variables()
    def headers(self, url: str, now: datetime) -> dict[str, str]:
        """Return the header."""
        return {"authorization": HiddenText(f"Bearer {self.token}")}


@sensitive_variables()
def basic(username: str, password: str) -> str:
    """Return the value of a header ``Authorization`` for the Basic scheme."""
    return HiddenText("Basic " + base64.b64encode(f"{username}:{password}".encode()).decode())
