"""Senders that are too fast are asked to wait for the next window."""

import os

import pytest
from django.conf import LazySettings

from djwebhooks.inbox.limits import seconds_to_wait
from djwebhooks.inbox.sources import Rate

RATE = Rate(2, 60)


@pytest.fixture
def name(settings: LazySettings) -> str:
    """A name that nobody has counted yet, in a cache that counts."""
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    return os.urandom(8).hex()


def test_the_next_window_begins_anew(name: str) -> None:
    """Until then one waits for as many whole seconds as are left."""
    assert [seconds_to_wait(name, RATE, 600.5 + second) for second in range(4)] == [0, 0, 58, 57]
    assert seconds_to_wait(name, RATE, 659.999) == 1
    assert seconds_to_wait(name, RATE, 660.0) == 0


def test_names_are_counted_apart(name: str) -> None:
    """And so are rates: one that is changed begins anew."""
    for _ in range(3):
        seconds_to_wait(name, RATE, 600.0)

    assert seconds_to_wait(name, RATE, 600.0) == 60
    assert seconds_to_wait(f"{name}2", RATE, 600.0) == 0
    assert seconds_to_wait(name, Rate(2, 3600), 600.0) == 0


def test_a_cache_that_keeps_nothing_limits_nothing() -> None:
    """As the tests' own one."""
    assert [seconds_to_wait("x", Rate(1, 60), 600.0) for _ in range(3)] == [0, 0, 0]
