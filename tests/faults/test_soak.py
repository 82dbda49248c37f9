"""Random kills for a while; ``make soak`` does it for longer."""

import os
import random

import pytest

from tests.faults.chaos import soak
from tests.faults.processes import Launcher

#: How long, and how many events at most.
SECONDS = 60 * float(os.environ.get("DJWEBHOOKS_TEST_MINUTES", "0.2"))
EVENTS = int(50 * SECONDS)


@pytest.mark.django_db(transaction=True)
def test_random_kills_lose_nothing(launcher: Launcher, redis: str) -> None:
    """Whoever is killed, and whatever people say meanwhile: all is sent, in order, and only what was in flight is repeated."""
    seed = int(os.environ.get("DJWEBHOOKS_TEST_SEED", random.randrange(10**6)))

    report = soak(launcher, seconds=SECONDS, events=EVENTS, seed=seed)

    print(report)  # noqa: T201 (make soak shows it)
    assert report.kills > 0
