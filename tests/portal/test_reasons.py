"""Owners are told why nothing comes, in their words."""

from datetime import UTC, datetime, timedelta

import pytest

from djwebhooks.models import Delivery, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.portal.reasons import explain_delivery, explain_target

NOW = datetime(2026, 9, 21, 14, 0, tzinfo=UTC)
SOON = NOW + timedelta(minutes=3)
LONG_AGO = NOW - timedelta(days=6)


def make(is_active: bool = True, **health: object) -> WebhookTarget:
    """An unsaved target whose receiver fares so."""
    target = WebhookTarget(target_url="https://example.com/", is_active=is_active)
    target._state.fields_cache["lane"] = Lane(**health)
    return target


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (make(), ""),
        (make(is_active=False), "It is paused: events wait until you resume it."),
        (make(disabled_at=NOW, disabled_reason="gone"), "its receiver answered 410 Gone. Events wait until you resume it."),
        (make(disabled_at=NOW, disabled_reason="receiver"), "its receiver asked for it."),
        (make(disabled_at=NOW, disabled_reason="failing"), "nothing but failures for 5 days."),
        (make(suspended_at=LONG_AGO, held_until=SOON), "It has been suspended since 2026-09-15 16:00:00 (6 days ago)"),
        (make(held_until=SOON), "Nothing is sent until 2026-09-21 16:03:00 (in 3 min)"),
        (make(failing_since=LONG_AGO, failure_count=4, failure="http_502"), "the latest with HTTP 502."),
    ],
)
def test_a_target_says_what_is_wrong(target: WebhookTarget, words: str) -> None:
    """Everything that holds it, and nothing about a healthy one."""
    said = " ".join(explain_target(target, NOW))

    assert words in said
    assert bool(words) == bool(said)
    assert "DJWEBHOOKS" not in said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": Status.SUCCEEDED}, ""),
        ({"status": Status.FAILED, "reason": "schedule_exhausted"}, "The last retry failed, too."),
        ({"status": Status.FAILED, "reason": "http_500"}, "HTTP 500."),
        ({"status": Status.CANCELLED, "reason": "cancelled"}, "Somebody cancelled it."),
        ({"status": Status.CANCELLED, "reason": "coalesced"}, "A newer event has taken its place."),
        ({"due_at": None}, "It waits for an earlier event, as this webhook gets them in their order."),
        ({"due_at": NOW}, "It is sent as soon as possible."),
        ({"due_at": SOON, "reason": "timeout"}, "It is tried again after timeout: 2026-09-21 16:03:00 (in 3 min)."),
        ({"due_at": SOON, "coalesce_until": SOON}, "It waits for newer events, which take its place, until 2026-09-21 16:03:00"),
    ],
)
def test_a_delivery_says_why_it_waits_or_has_ended(fields: dict[str, object], words: str) -> None:
    """In a sentence."""
    said = explain_delivery(Delivery(target=make(), **fields), NOW)

    assert said.startswith(words)
    assert bool(words) == bool(said)


def test_a_delivery_of_a_target_that_is_closed_says_so() -> None:
    """Whenever it would be due."""
    said = explain_delivery(Delivery(target=make(is_active=False), due_at=NOW), NOW)

    assert said == "It waits, as its webhook is paused."
