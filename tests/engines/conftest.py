"""A moment in which a machine that is busy can do something, too."""

from collections.abc import Iterator

import pytest

from djwebhooks import engines


@pytest.fixture
def long_moment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One wake-up stands for all of this test, and for none of another one."""
    engines._make.cache_clear()
    monkeypatch.setattr("djwebhooks.wakeups.MOMENT", 3600.0)
    yield
    engines._make.cache_clear()
