"""Rows to write, to read and to lock."""

from datetime import datetime, timedelta, timezone
from typing import Any

from djwebhooks.models import Lane

DB = "default"

ATTEMPT = (
    "delivery", "number", "trigger", "url", "started_at", "duration", "status_code", "response_headers", "response_body",
    "error", "detail", "address",
)  # fmt: skip


def make_lanes(count: int) -> list[Lane]:
    return Lane.objects.bulk_create([Lane(pk=pk) for pk in range(1, count + 1)])


def attempt_rows(count: int) -> list[tuple[Any, ...]]:
    moment = datetime(2026, 7, 2, 3, 4, 5, 678901, timezone(timedelta(hours=5)))
    headers = {"x-text": "\"a\\b' {ä} 𝄞 %s", "x-empty": ""}
    row = (1, "event", "https://example.com/?a='b'", moment, 0.1 + 0.2, None, headers, "tab\t, line\n, ☃, %(a)s", "", "", "::1")
    return [(number, *row) for number in range(1, count + 1)]
