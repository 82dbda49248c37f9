"""Make identifiers that sort by time."""

import os
import time
import uuid


def uuid7() -> uuid.UUID:
    """Return a UUID of version 7: 48 bits of Unix milliseconds, then random ones (RFC 9562, section 5.7)."""
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)
