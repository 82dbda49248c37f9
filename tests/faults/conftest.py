"""The receiver and the owner of these tests."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from tests.faults.ledger import Ledger
from tests.faults.world import make_world


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger() as running:
        yield running


@pytest.fixture
def owner(ledger: Ledger) -> User:
    """Somebody whose targets want every event."""
    return make_world(ledger)
