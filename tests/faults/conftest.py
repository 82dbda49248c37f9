"""What these tests share: a receiver and its owner, workers, and what they send."""

from collections.abc import Iterator

import pytest
from django.contrib.auth.models import User

from tests.faults.ledger import Ledger
from tests.faults.processes import Child, Launcher
from tests.faults.recovery import Work
from tests.faults.traps import NO_TRAP, Trap
from tests.faults.workers import Sent
from tests.faults.world import make_world


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger() as running:
        yield running


@pytest.fixture
def owner(ledger: Ledger) -> User:
    """Somebody whose targets want every event."""
    return make_world(ledger)


@pytest.fixture
def work(launcher: Launcher) -> Work:
    """A function that runs a worker until nothing is due, or it falls into a trap."""

    def run_worker(trap: Trap = NO_TRAP) -> Child:
        return launcher.command("webhooks", "work", "--burst", trap=trap)

    return run_worker


@pytest.fixture
def sent() -> Sent:
    return Sent()
