"""Read a body that comes in chunks (RFC 9112 section 7.1)."""

import re

SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?", re.DOTALL)


def join_chunks(raw: bytes) -> tuple[bytes, bool]:
    """Return what *raw* holds of a body so far, and whether the body has ended. Raises ValueError for a size that is none."""
    body = bytearray()
    at = 0
    while (end := raw.find(b"\n", at)) >= 0:
        found = SIZE.fullmatch(raw, at, end)
        if found is None:
            raise ValueError("a chunk without its size")
        size = int(found[1], 16)
        at = end + 1
        if size == 0:
            # Trailers end with an empty line.
            return bytes(body), raw.startswith((b"\r\n", b"\n"), at) or raw.find(b"\n\r\n", at) >= 0
        body += raw[at : at + size]
        at = raw.find(b"\n", at + size) + 1
        if not at:
            break
    return bytes(body), False
