"""Say numbers and durations to people."""


def describe_span(seconds: float) -> str:
    """Say a duration in one unit: ``20 ms``, ``1.5 s``, ``40 s``, ``5 min``, ``3 h``, ``12 days``."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def describe_count(number: int, noun: str, nouns: str = "") -> str:
    """Say how many: ``1 attempt``, ``3 attempts``. *nouns* is the plural, if it takes more than an s."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"
