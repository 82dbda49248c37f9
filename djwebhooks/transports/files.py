"""How many requests may be in flight, by the files that the process may open."""

try:
    import resource
except ImportError:  # Windows has no such limit.
    resource = None  # type: ignore[assignment]

#: Files for whatever else the process does.
OTHER_FILES = 128


def fit_concurrency(most: int, idle: int | None = None) -> int:
    """Return how many requests may be in flight, *most* at most, beside *idle* connections: by default as many as requests."""
    if resource is None:
        return most
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return most
    room = files - OTHER_FILES
    return max(1, min(most, room // 2 if idle is None else room - idle))
