"""Dispatching, as often as it takes or until it crashes, and what came of it."""

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db import transaction

from djwebhooks.dispatch import dispatch, has_waiting
from djwebhooks.models import Delivery, Event, WebhookTarget
from tests.builders import make_target

DB = "default"


class Crash(Exception):
    """The process dies here."""


def make_targets(owner: User | None, count: int, *, event: str = "*", **fields: object) -> list[WebhookTarget]:
    return [make_target(owner, event=event, url=f"http://127.0.0.1/{event}/{n}", **fields) for n in range(count)]


def sent_to(target: WebhookTarget) -> list[tuple[int, int]]:
    """The target's deliveries as (sequence, event id)."""
    return list(Delivery.objects.filter(target=target).order_by("sequence").values_list("sequence", "event_id"))


def in_order(events: Iterable[Event]) -> list[tuple[int, int]]:
    return [(number, event.pk) for number, event in enumerate(events, start=1)]


def dispatch_all(*, page: int, batch: int = 500) -> int:
    """Dispatch until nothing waits; return how many turns that took."""
    turns = 0
    while has_waiting(DB):
        assert dispatch(DB, page=page, batch=batch), "a turn moves something on"
        turns += 1
        assert turns < 200
    return turns


def dispatch_and_crash(page: int) -> None:
    with transaction.atomic():
        dispatch(DB, page=page)
        raise Crash
