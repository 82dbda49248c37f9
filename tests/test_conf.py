"""Settings are typed, have defaults, and are read at each use."""

from datetime import timedelta
from typing import get_type_hints

import pytest
from django.conf import LazySettings

from djwebhooks.conf import Settings, as_seconds, conf


def test_a_setting_has_its_default(settings: LazySettings) -> None:
    """What is not set is what ``conf.py`` says."""
    del settings.DJWEBHOOKS_ALLOW_HTTP

    assert conf.ALLOW_HTTP is False
    assert conf.TIMEOUT == 15


def test_a_setting_is_read_at_each_use(settings: LazySettings) -> None:
    """A test, or a running process, may change it."""
    settings.DJWEBHOOKS_TIMEOUT = 3
    assert conf.TIMEOUT == 3
    settings.DJWEBHOOKS_TIMEOUT = 4
    assert conf.TIMEOUT == 4


def test_names_are_the_full_names() -> None:
    """Every annotated setting, with the prefix that it has in Django's settings."""
    assert "DJWEBHOOKS_ENGINE" in conf.names()
    assert len(conf.names()) == len(set(conf.names())) == len(get_type_hints(Settings))
    assert all(name.startswith("DJWEBHOOKS_") and name.isupper() for name in conf.names())


@pytest.mark.parametrize(("value", "seconds"), [(15, 15.0), (0.5, 0.5), (timedelta(minutes=2), 120.0)])
def test_a_duration_is_seconds_or_a_timedelta(settings: LazySettings, value: object, seconds: float) -> None:
    """Both are read as seconds."""
    settings.DJWEBHOOKS_TIMEOUT = value

    assert conf.seconds("TIMEOUT") == as_seconds(value) == seconds
    assert isinstance(conf.seconds("TIMEOUT"), float)


def test_an_unknown_setting_is_an_attribute_error() -> None:
    """A typing mistake in the code is not ``None``."""
    with pytest.raises(AttributeError, match="TIMEOUTS"):
        _ = conf.TIMEOUTS
