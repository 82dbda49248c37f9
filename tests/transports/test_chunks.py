"""Joining the chunks of a body."""

import pytest

from djwebhooks.transports.chunks import join_chunks


@pytest.mark.parametrize(
    ("raw", "body", "has_ended"),
    [
        (b"", b"", False),
        (b"3", b"", False),
        (b"3\r\nab", b"ab", False),
        (b"3\r\nabc", b"abc", False),
        (b"3\r\nabc\r\n", b"abc", False),
        (b"3\r\nabc\r\n0\r\n", b"abc", False),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc", True),
        (b"3\nabc\n0\n\n", b"abc", True),
        (b"A ; x=y\r\n0123456789\r\n000\r\n\r\n", b"0123456789", True),
        (b"2\r\n\r\n\r\n0\r\nx-a: b\r\n", b"\r\n", False),
        (b"2\r\n\r\n\r\n0\r\nx-a: b\r\n\r\nmore", b"\r\n", True),
        (b"ffffffffffffffff\r\nabc", b"abc", False),
    ],
)
def test_join(raw: bytes, body: bytes, has_ended: bool) -> None:
    """What has come of a body is joined, wherever it stops, and its end is known by the empty line after the last chunk."""
    assert join_chunks(raw) == (body, has_ended)


@pytest.mark.parametrize("size", [b"", b"-1", b"+1", b"0x1", b"1_0", b"two", b"1 2", b"f" * 17, b"1\0"])
def test_size_that_is_none(size: bytes) -> None:
    """What is not a hexadecimal number is refused, also what Python would take for one."""
    with pytest.raises(ValueError, match="a chunk without its size"):
        join_chunks(size + b"\r\nx\r\n")
