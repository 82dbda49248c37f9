"""Wake-ups are needed once in a moment, for each database."""

import time

from djwebhooks.wakeups import MOMENT, Spacing


def test_each_moment_needs_one() -> None:
    """However many there are, one is needed as soon as a moment is over, and none before."""
    spacing = Spacing()
    needed = [call(spacing)]
    while len(needed) < 5:
        is_needed, began, ended = call(spacing)
        _, last_began, last_ended = needed[-1]
        if is_needed:
            assert ended - last_began >= MOMENT
            needed.append((is_needed, began, ended))
        else:
            assert began - last_ended < MOMENT


def call(spacing: Spacing) -> tuple[bool, float, float]:
    """Whether a wake-up is needed, and between which times that was asked."""
    began = time.monotonic()
    return spacing.needs("default"), began, time.monotonic()


def test_each_database_has_its_own() -> None:
    """Its workers hear of nothing else."""
    spacing = Spacing()

    assert spacing.needs("default")
    assert spacing.needs("other")
