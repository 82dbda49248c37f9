"""The header ``Idempotency-Key``: a request that is made again does nothing again (draft-ietf-httpapi-idempotency-key-header)."""

import re

from rest_framework.request import Request

from djwebhooks.api.errors import KeyUnused, refuse

#: A text in quotes, in which a backslash stands before quotes and backslashes (RFC 9651, section 3.3.3).
QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')


def read_key(request: Request) -> str:
    """Return the key in the header, which may be quoted or bare; empty without one.

    Raises ``ValidationError`` for an empty one, which would let the request be done again, and for one that is too long.
    """
    if "Idempotency-Key" not in request.headers:
        return ""
    header = request.headers["Idempotency-Key"]
    quoted = QUOTED.fullmatch(header)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    if not key:
        raise refuse("The header Idempotency-Key is empty, so this request would be done again: give a key, or leave it out.")
    if len(key) > 255:
        raise refuse(f"The header Idempotency-Key has {len(key)} characters; at most 255 are possible.")
    return key


def refuse_key(request: Request) -> None:
    """Raise ``KeyUnused`` if there is such a header, as whoever sends it believes that nothing is done twice."""
    if "Idempotency-Key" in request.headers:
        raise KeyUnused(
            "Only POST targets/ and POST events/ obey the header Idempotency-Key. This request would be done again: leave it out."
        )
