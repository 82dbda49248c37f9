"""What the catalogue says of an event is read also where it is written wrongly."""

import pytest
from django.conf import LazySettings

from djwebhooks.models.validation import is_internal


@pytest.mark.parametrize(
    ("entry", "expected"),
    [({"internal": True}, True), ({"internal": False}, False), ({}, False), (None, False), ("A user changed.", False)],
)
def test_only_what_says_so_is_internal(settings: LazySettings, entry: object, expected: bool) -> None:
    """An entry that is no dictionary is for the system check to complain of: a worker goes on."""
    settings.DJWEBHOOKS_EVENTS = {"user.update": entry}

    assert is_internal("user.update") is expected
    assert not is_internal("another")
