"""Identifiers sort by the time they were made at."""

import time
from datetime import UTC, datetime

from djwebhooks.uid import uuid7


def test_an_identifier_is_of_version_7() -> None:
    """Version and variant are where RFC 9562 has them."""
    made = [uuid7() for _ in range(1000)]

    assert {(uid.version, uid.variant) for uid in made} == {(7, "specified in RFC 4122")}
    assert len(set(made)) == 1000


def test_an_identifier_begins_with_its_time() -> None:
    """Its first 48 bits are milliseconds since 1970."""
    before = time.time_ns() // 1_000_000
    made = uuid7()
    after = time.time_ns() // 1_000_000

    assert before <= made.int >> 80 <= after
    assert datetime.fromtimestamp((made.int >> 80) / 1000, UTC).year >= 2025


def test_identifiers_of_later_milliseconds_are_greater() -> None:
    """As numbers, as texts and as bytes."""
    first = second = uuid7()
    while second.int >> 80 == first.int >> 80:
        second = uuid7()

    assert first < second
    assert str(first) < str(second)
    assert first.bytes < second.bytes
