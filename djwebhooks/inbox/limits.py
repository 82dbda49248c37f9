"""Count what comes, in Django's cache, and say for how long a sender that is too fast has to wait."""

import math

from django.core.cache import cache

from djwebhooks.inbox.sources import Rate


def seconds_to_wait(name: str, rate: Rate, now: float) -> int:
    """Count one more under *name* and return 0, or in how many whole seconds there is room again. *now* is a Unix time."""
    window, passed = divmod(now, rate.seconds)
    key = f"djwebhooks:inbox:{name}:{rate.seconds}:{window:.0f}"
    cache.add(key, 0, timeout=2 * rate.seconds)
    try:
        count = cache.incr(key)
    except ValueError:
        return 0  # The cache has dropped it, or keeps nothing at all.
    return max(1, math.ceil(rate.seconds - passed)) if count > rate.count else 0
