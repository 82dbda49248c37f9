"""The rules of djwebhooks.names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djwebhooks.exceptions import InvalidEvent
from djwebhooks.names import check_name, check_pattern, matches, patterns_for

names = st.lists(st.from_regex(r"[a-zA-Z0-9_]{1,5}", fullmatch=True), min_size=1, max_size=5).map(".".join)


@given(names)
def test_words_joined_by_dots_are_names(name: str) -> None:
    """A name is words of letters, digits and underscores, joined by dots."""
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "a b", "a-b", "é", "a\n", "a.*", "*", "a" * 256])
def test_other_names_are_refused(name: str) -> None:
    """What the standard does not allow as an event type is refused."""
    with pytest.raises(InvalidEvent):
        check_name(name)


@pytest.mark.parametrize("name", ["a" * 255, "_", "0", "A.b_1.C"])
def test_names_at_the_edge_are_allowed(name: str) -> None:
    """255 characters, digits, capitals and underscores are fine."""
    assert check_name(name) == name


@pytest.mark.parametrize("pattern", ["*", "project.update", "project.*", "a.b.*"])
def test_patterns(pattern: str) -> None:
    """A pattern is a name, everything below a name, or everything."""
    assert check_pattern(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", ".*", "**", "*.update", "project*", "project.*.*", "project.*.x", "a" * 254 + ".*"])
def test_other_patterns_are_refused(pattern: str) -> None:
    """A star stands alone at the end, and a pattern fits its column."""
    with pytest.raises(InvalidEvent):
        check_pattern(pattern)


def test_patterns_for_a_name() -> None:
    """A name is matched by itself and by every wildcard above it."""
    assert patterns_for("a.b.c") == ["a.b.c", "a.b.*", "a.*", "*"]
    assert patterns_for("a") == ["a", "*"]


def test_a_wildcard_matches_any_depth_below_but_not_its_own_name() -> None:
    """``project.*`` wants ``project.update`` and deeper ones, neither ``project`` nor ``projects.update``."""
    assert matches("project.*", "project.update")
    assert matches("project.*", "project.member.add")
    assert not matches("project.*", "project")
    assert not matches("project.*", "projects.update")


@given(names, names)
def test_matching_and_listing_agree(name: str, other: str) -> None:
    """A pattern matches a name exactly if it is among the name's patterns."""
    for pattern in {other, f"{other}.*", "*", *patterns_for(other)}:
        assert matches(pattern, name) == (pattern in patterns_for(name))
    assert all(check_pattern(pattern) for pattern in patterns_for(name))
