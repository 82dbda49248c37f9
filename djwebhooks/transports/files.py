"""How many requests may be in flight, by the files that the process may open."""

from math import inf

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]  # a module elsewhere

#: Files for whatever else the process does.
OTHER_FILES = 128


def fit_concurrency(most: int, idle: int | None = None, *, files: float | None = None) -> int:
    """Return how many requests may be in flight, *most* at most, beside *idle* connections: by default as many as requests.

    *files* is how many this process may open; without it, as many as its limit says.
    """
    room = (count_files() if files is None else files) - OTHER_FILES
    return int(max(1, min(most, room / 2 if idle is None else room - idle)))


def count_files() -> float:
    """Return how many files this process may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource is not None else -1
    return inf if files < 0 else files
