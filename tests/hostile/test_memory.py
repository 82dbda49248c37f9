"""Receivers that send without end take hardly more memory than those that do not."""

import tracemalloc
from collections.abc import Callable, Sequence

import pytest

from tests.hostile.receivers import QUICK, Case, answer_with
from tests.hostile.runs import Run

pytestmark = pytest.mark.django_db

#: Bytes for what one exchange may hold of what it receives, and for what differs from run to run.
ALLOWANCE = 2**19

SIGNS = ("endless", "without end", "bomb", "huge", "astronomic", "thousands", "random")
FLOODS = [case for case in QUICK if any(sign in case.name for sign in SIGNS)]


def measure_peak(run_once: Callable[..., Run], cases: Sequence[Case]) -> int:
    """Return the most bytes that Python had allocated while a worker sent to all of *cases*."""
    tracemalloc.start()
    try:
        run = run_once(cases, DJWEBHOOKS_TIMEOUT=60.0, DJWEBHOOKS_CONNECT_TIMEOUT=60.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(len(result.attempts) == 2 for result in run.results.values())
    return peak


def make_healthy(count: int) -> list[Case]:
    return [Case(f"healthy {number}", answer_with(200), "succeeded") for number in range(count)]


@pytest.fixture(scope="module")
def healthy_peak(run_once: Callable[..., Run]) -> int:
    """The peak of a run with one healthy receiver, after what only the first run needs."""
    measure_peak(run_once, make_healthy(1))
    return measure_peak(run_once, make_healthy(1))


@pytest.mark.parametrize("case", FLOODS, ids=[case.name for case in FLOODS])
def test_a_flood_takes_hardly_more_memory(case: Case, run_once: Callable[..., Run], healthy_peak: int) -> None:
    """However much a receiver sends, what is held of it at any time is about as much as is kept."""
    assert measure_peak(run_once, [case]) < healthy_peak + ALLOWANCE


def test_many_floods_at_once(run_once: Callable[..., Run]) -> None:
    """Of many that flood a worker at the same time, each takes no more than it would alone."""
    healthy_peak = measure_peak(run_once, make_healthy(len(FLOODS)))

    assert measure_peak(run_once, FLOODS) < healthy_peak + len(FLOODS) * ALLOWANCE
