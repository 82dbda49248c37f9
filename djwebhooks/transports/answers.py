"""What is read of an answer, and what of it is kept."""

import re
from collections.abc import Iterable, Sequence

from djwebhooks.transports.faults import UNPRINTABLE

#: Bytes of a response's head, informational ones included.
HEAD_LIMIT = 64 * 1024
#: Bytes received for every byte of a body that is kept: a chunk of one byte takes six.
CHUNKING_FACTOR = 8

#: More digits than these are no length of anything.
LENGTH = re.compile(r"[0-9]{1,18}")

#: The headers that are obeyed, so that they are kept however many others there are, if they are no longer than this.
OBEYED = ("retry-after", "webhook-delivery")
OBEYED_LENGTH = 256

#: The headers that are never kept, as they are as good as passwords.
COOKIES = ("set-cookie", "set-cookie2")


def keep_headers(headers: Iterable[tuple[str, str]], limit: int) -> dict[str, str]:
    """Return the headers whose names and values together take no more than *limit* characters, and those that are obeyed."""
    kept: dict[str, str] = {}
    for name, value in headers:
        name = UNPRINTABLE.sub("\ufffd", name.lower())
        value = UNPRINTABLE.sub("\ufffd", value)
        if name in COOKIES:
            continue
        limit -= len(name) + len(value)
        is_needed = name in OBEYED and name not in kept and len(value) <= OBEYED_LENGTH
        if limit >= 0 or is_needed:
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def check_framing(codings: Sequence[str], lengths: Sequence[str]) -> bool:
    """Return whether the head says clearly, and once, where the body ends (RFC 9112 section 6.3).

    *codings* are the values of ``transfer-encoding``, *lengths* those of ``content-length``. Raises ValueError if the body's end
    cannot be known at all.
    """
    if [coding.strip().lower() for coding in codings] not in ([], ["chunked"]):
        raise ValueError("a transfer coding that nobody asked for")
    if not all(LENGTH.fullmatch(length.strip()) for length in lengths):
        raise ValueError("a content-length that is no number")
    if len({length.strip() for length in lengths}) > 1:
        raise ValueError("more than one content-length")
    return not (codings and lengths)
