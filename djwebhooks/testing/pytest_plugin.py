"""Fixtures for pytest: ``pytest_plugins = ["djwebhooks.testing.pytest_plugin"]`` in the ``conftest.py`` at the root."""

from collections.abc import Iterator

import pytest
from django.test import override_settings

from djwebhooks.testing.receiver import LOOPBACK, Receiver
from djwebhooks.testing.sending import outbox


@pytest.fixture(autouse=True)
def _empty_outbox() -> None:
    """Let no test see what another one has sent."""
    outbox.clear()


@pytest.fixture
def webhook_receiver() -> Iterator[Receiver]:
    """A receiver on this machine, with settings that let requests through to it."""
    with override_settings(**LOOPBACK), Receiver() as receiver:
        yield receiver
