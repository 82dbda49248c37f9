"""The API speaks JSON alone, whatever the project's default parsers and renderers are."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request

from djwebhooks.api.errors import RequestTooLarge
from djwebhooks.conf import conf
from djwebhooks.hidden import HiddenBytes, hide

#: JSON may write a character of one byte with six: backslash, u and four digits.
WORST_ESCAPE = 6
#: Fields of a target that may hold its receiver's passwords.
SECRET_FIELDS = frozenset({"headers", "authentication", "client_certificate"})
#: What a request may have in bytes besides a payload.
REST = 64 * 1024


class BoundedJSONParser(BaseParser):
    """Reads UTF-8 JSON (RFC 8259), and never more bytes than the largest payload can take."""

    media_type = "application/json"

    def parse(self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None) -> Any:
        """Return what is in *stream*. Raises ``ParseError`` and ``RequestTooLarge``."""
        limit = WORST_ESCAPE * conf.PAYLOAD_LIMIT + REST
        body = HiddenBytes(stream.read(limit + 1))
        if len(body) > limit:
            raise RequestTooLarge(f"The request has more than {limit} bytes: DJWEBHOOKS_PAYLOAD_LIMIT is {conf.PAYLOAD_LIMIT}.")
        try:
            return hide_secrets(json.loads(body.decode(), parse_constant=refuse_number, parse_float=read_float))
        except RecursionError as error:
            raise ParseError("The JSON is nested too deeply: flatten it.") from error
        except ValueError as error:
            raise ParseError(f"The body is no JSON in UTF-8: {error}") from error


def hide_secrets(found: Any) -> Any:
    """Return *found* with what may be a receiver's password hidden from reports of errors, which show a request's variables."""
    if not isinstance(found, dict):
        return found
    return found | {name: hide(found[name]) for name in SECRET_FIELDS.intersection(found)}


def read_float(text: str) -> float:
    """Return the number that *text* is. Raises ``ValueError`` for one that only infinity could stand for."""
    value = float(text)
    return value if math.isfinite(value) else refuse_number(text)


def refuse_number(text: str) -> float:
    """Raise ``ValueError``: Python reads NaN, Infinity and 1e999, but no database and no receiver does."""
    raise ValueError(f"{text} is no number that JSON can hold; send null or a string.")


class ASCIIRenderer(JSONRenderer):
    """Writes JSON that can hold whatever a request said, half a surrogate pair included."""

    compact = True
    ensure_ascii = True
    strict = True


class JSONOnly(DefaultContentNegotiation):
    """Answers JSON to whoever accepts whatever, as RFC 9110 section 12.5.1 allows, so that a browser sees something, too."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the first of *renderers* and its media type."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)
