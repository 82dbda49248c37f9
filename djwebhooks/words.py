"""Say numbers, durations, times and texts to people."""

import json
from datetime import datetime

from django.utils import timezone


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


def describe_time(at: datetime, now: datetime) -> str:
    """Say when something was, or will be: ``2026-09-21 16:13:20 (3 min ago)``, in the current time zone."""
    seconds = (at - now).total_seconds()
    relation = f"in {describe_span(seconds)}" if seconds > 0 else f"{describe_span(-seconds)} ago"
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S} ({relation})"


def name_failure(code: str) -> str:
    """Say the word that a failure is kept as: ``HTTP 500`` for ``http_500``, ``connection refused``."""
    words = code.replace("_", " ")
    return f"HTTP{words[4:]}" if words.startswith("http ") else words


def make_printable(text: str, length: int = 200) -> str:
    """Return the beginning of *text* as one line that does nothing to a terminal."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    return clean if len(clean) <= length else clean[: length - 1] + "…"


def pretty(text: str) -> str:
    """Return JSON with a line for each part; what is not JSON, or too deep to read, stays as it is."""
    try:
        shown = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    # JSON can name lone surrogates, which no page can hold.
    return shown.encode(errors="backslashreplace").decode()
