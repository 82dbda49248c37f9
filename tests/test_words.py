"""Numbers, durations, times and texts read as people say them."""

from datetime import UTC, datetime, timedelta

import pytest

from djwebhooks.words import describe_count, describe_span, describe_time, make_printable, name_failure, pretty

NOW = datetime(2026, 9, 21, 14, 0, tzinfo=UTC)


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


def test_a_time_is_said_in_the_current_zone_and_from_now() -> None:
    """Past and future, in the project's zone."""
    assert describe_time(NOW - timedelta(minutes=3), NOW) == "2026-09-21 15:57:00 (3 min ago)"
    assert describe_time(NOW + timedelta(minutes=3), NOW) == "2026-09-21 16:03:00 (in 3 min)"


def test_printable_is_one_short_line() -> None:
    """Control characters and line ends become spaces, and length is cut."""
    assert make_printable("a\nb\x9bc") == "a b c"
    assert make_printable("x" * 10, 5) == "xxxx…"


def test_what_is_not_json_is_shown_as_it_is() -> None:
    """A text that cannot be laid out is still worth seeing."""
    assert pretty('{"a":1}') == '{\n  "a": 1\n}'
    assert pretty("{broken") == "{broken"


@pytest.mark.parametrize(("code", "words"), [("http_500", "HTTP 500"), ("connection_refused", "connection refused"), ("", "")])
def test_a_failure_is_named_without_underscores(code: str, words: str) -> None:
    """Programs are told the code, people what it means."""
    assert name_failure(code) == words
