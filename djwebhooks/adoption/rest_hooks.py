"""django-rest-hooks, and drf-hooks, which came of it: a row for each event that a user wants at an address."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from django.conf import settings

from djwebhooks.adoption.packages import Package, Rename
from djwebhooks.adoption.tables import Found, Row, read_rows, read_time
from djwebhooks.model_events import HAPPENINGS, SELF

INACTIVE = "It is inactive, as it was; but what happens meanwhile is held for it."


def read(using: str, table: str) -> Iterator[Found]:
    for row in read_rows(using, table, ["event", "target", "created"], package="django-rest-hooks or drf-hooks"):
        is_active = bool(row.get("is_active", True))  # A model of one's own may have it.
        yield Found(
            row,
            url=row["target"],
            events=(row["event"],),
            headers=read_headers(row),
            is_active=is_active,
            created_at=read_time(row["created"]),
            remark="" if is_active else INACTIVE,
        )


def read_headers(row: Row) -> Any:
    """Return a row's additional headers, where rows have any, without the content type that drf-hooks gives to all."""
    headers = row.get("headers") or {}
    with suppress(ValueError):  # As they are, they are refused with a word.
        headers = json.loads(headers) if isinstance(headers, str) else headers
    if not isinstance(headers, dict):
        return headers
    return {name: value for name, value in headers.items() if (name.lower(), value) != ("content-type", "application/json")}


def suggest(rename: Rename) -> Mapping[str, Any]:
    events: Mapping[str, str | None] = getattr(settings, "HOOK_EVENTS", {})
    entries = {rename(name): read_entry(on) for name, on in events.items() if on}
    suggested = {
        "DJWEBHOOKS_EVENTS": {rename(name): {} for name in events},
        "DJWEBHOOKS_MODEL_EVENTS": {name: entry for name, entry in entries.items() if entry},
    }
    return {name: value for name, value in suggested.items() if value}


def read_entry(told: str) -> Mapping[str, Any]:
    """Return the entry of ``DJWEBHOOKS_MODEL_EVENTS`` for what ``HOOK_EVENTS`` tells, where a plus means all users."""
    on = told.rstrip("+")
    label, _, happening = on.rpartition(".")
    if happening not in HAPPENINGS:
        return {}
    if on != told:
        return {"on": on, "broadcast": True}
    return {"on": on, "owner": SELF if label == settings.AUTH_USER_MODEL else "user"}


def make_package(name: str, table: str) -> Package:
    return Package(
        name=name,
        table=table,
        other_tables=(),
        owner_column="user_id",
        read=read,
        bodies='Bodies are {"type": …, "timestamp": …, "data": …}. Hooks got {"hook": {"id": …, "event": …, …}, "data": …}.',
        suggest=suggest,
        remarks=(
            'Events about models say no more than the primary key, unless "payload" names what else.',
            "Events that came of hook_event, raw_hook_event or a custom action are to be fired: fire(name, payload, owner=user).",
        ),
    )


DJANGO_REST_HOOKS = make_package("django-rest-hooks", "rest_hooks_hook")
DRF_HOOKS = make_package("drf-hooks", "drf_hooks_hook")
