"""Numbers and durations read as people say them."""

import pytest

from djwebhooks.words import describe_count, describe_span


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.003, "3 ms"),
        (0.9996, "1.0 s"),
        (3.14, "3.1 s"),
        (42.4, "42 s"),
        (119, "119 s"),
        (180, "3 min"),
        (7200, "2 h"),
        (86400 * 12, "12 days"),
    ],
)
def test_a_span_has_one_unit(seconds: float, words: str) -> None:
    """Short enough to be read at a glance, exact enough to act on."""
    assert describe_span(seconds) == words


def test_one_is_not_many() -> None:
    """A plural takes an s, unless it is given."""
    assert [describe_count(1, "body", "bodies"), describe_count(2, "body", "bodies"), describe_count(0, "event")] == [
        "1 body",
        "2 bodies",
        "0 events",
    ]
