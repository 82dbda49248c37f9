"""One wake-up for all that is committed within a moment: each of them would cost the application a round trip."""

import time

#: Seconds for which a wake-up stands for those after it: whoever is woken looks once more when they are over.
MOMENT = 0.01


class Spacing:
    """Says which wake-ups of this process are needed."""

    def __init__(self) -> None:
        self._covered_until: dict[str, float] = {}

    def needs(self, using: str) -> bool:
        """Whether the workers of the database *using* are to be woken, as they were not just now. If so, the caller does it."""
        now = time.monotonic()
        if now < self._covered_until.get(using, 0.0):
            return False
        # Before it is done: whoever hears of it counts the moment from then.
        self._covered_until[using] = now + MOMENT
        return True
