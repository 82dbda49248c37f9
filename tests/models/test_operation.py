"""What people do with a target's work: pause and resume, test, replay."""

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import LazySettings
from django.utils import timezone

from djwebhooks.database import DatabaseNow
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.models import Delivery, Lane, Replay, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.replays import carry_on
from djwebhooks.testing import deliver, make_due
from tests.builders import URL, make_deliveries, make_target, make_user

NOW = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)


# -- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_targets_state_is_one_word() -> None:
    """People's word first, then the lane's."""
    target = make_target()
    assert target.state == "healthy"
    fire("a.b", 1)
    deliver(500)
    assert target.state == "degraded"
    lane = Lane.objects.filter(pk=target.pk)
    lane.update(held_until=timezone.now() + timedelta(hours=1))
    assert target.state == "suspended"
    lane.update(held_until=timezone.now() - timedelta(hours=1))
    assert target.state == "degraded"
    lane.update(disabled_at=timezone.now())
    assert target.state == "disabled"
    target.pause()
    assert target.state == "paused"
    target.resume()
    assert target.state == "healthy"


@pytest.mark.django_db
def test_resuming_forgets_what_was_known_before() -> None:
    """Also of a target whose lane was loaded with it."""
    make_target()
    fire("a.b", 1)
    deliver(410)
    target = WebhookTarget.objects.select_related("lane").get()
    assert target.state == "disabled"
    target.resume()

    assert target.state == "healthy"


@pytest.mark.django_db
def test_a_paused_target_gets_its_events_later() -> None:
    """They are held in its lane, and sent when it is active again."""
    target = make_target()
    target.pause()
    fire("a.b", 1)
    assert deliver() == []
    assert Delivery.objects.get().status == Status.PENDING
    target.resume()

    assert len(deliver()) == 1


@pytest.mark.django_db
def test_a_target_that_is_gone_is_disabled_until_resumed() -> None:
    """410 disables it; what comes then is held."""
    target = make_target()
    fire("a.b", 1)
    deliver(410)
    fire("a.b", 2)
    assert deliver() == []
    target.resume()

    assert [request.body[-3:] for request in deliver()] == [b":2}"]


@pytest.mark.django_db
def test_a_test_event_goes_to_this_target_alone(settings: LazySettings) -> None:
    """Whatever it is subscribed to, whatever others are, and whatever the catalogue has."""
    settings.DJWEBHOOKS_EVENTS = {"a.b": {}}
    user = make_user()
    target = make_target(user, event="a.b")
    make_target(None, event="*", url=f"{URL}/system")
    make_target(user, event="webhook.test", url=f"{URL}/other")
    event = target.send_test()

    assert [request.url for request in deliver()] == [target.target_url]
    assert (event.name, event.owner) == ("webhook.test", user)


# -- replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_replay_tries_again_what_failed() -> None:
    """Deliveries that failed are due again, with the whole schedule before them; others are left alone."""
    target = make_target(retry_schedule=[])
    other = make_target(url=f"{URL}/other", retry_schedule=[])
    fire("a.b", 1)
    deliver(500)
    fire("a.b", 2)
    deliver(200)

    assert target.replay(dry_run=True) == 1
    assert deliver() == []
    assert target.replay() == 1
    assert [request.url for request in deliver()] == [target.target_url]
    assert target.replay() == 0
    assert other.replay(dry_run=True) == 1


@pytest.mark.django_db
def test_replay_chooses_by_time_and_status() -> None:
    """*since* is included, *until* is not."""
    target = make_target()
    deliveries = make_deliveries(target, 5, Status.FAILED)
    for number, delivery in enumerate(deliveries):
        Delivery.objects.filter(pk=delivery.pk).update(created_at=NOW + timedelta(hours=number))
    Delivery.objects.filter(pk=deliveries[4].pk).update(status=Status.EXPIRED)

    assert target.replay(since=NOW + timedelta(hours=1), until=NOW + timedelta(hours=3), dry_run=True) == 2
    assert target.replay(until=NOW, dry_run=True) == 0
    assert target.replay(status=Status.EXPIRED, dry_run=True) == 1
    assert target.replay(since=NOW + timedelta(hours=3)) == 1
    assert carry_on("default")
    assert list(Delivery.objects.pending()) == [deliveries[3]]


@pytest.mark.django_db
def test_replay_works_in_pages() -> None:
    """Thousands of deliveries are changed a page at a time, and each once."""
    target = make_target()
    make_deliveries(target, 2001, Status.FAILED)
    assert target.replay(rate=10_000) == 2001
    while carry_on("default"):
        Replay.objects.update(next_at=DatabaseNow())

    assert Delivery.objects.pending().filter(due_at__isnull=False).count() == 2001
    assert target.cancel_pending() == 2001


@pytest.mark.django_db
def test_what_succeeded_is_replayed_only_if_it_is_said() -> None:
    """A receiver may have lost it; but nobody gets it twice by accident."""
    target = make_target()
    make_deliveries(target, 2, Status.SUCCEEDED)

    assert target.replay(dry_run=True) == 0
    assert target.replay(status=["failed", Status.SUCCEEDED]) == 2
    assert len(deliver()) == 2


has_shelf = False


@hook("shelf.sought")
def shelf_sought() -> str:
    if not has_shelf:
        raise LookupError("no shelf")
    return "found"


@pytest.mark.django_db
def test_replay_builds_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that could not be built gets its tries again: the hook may have been mended."""
    target = make_target()
    event = shelf_sought()
    for _ in range(6):
        deliver()
        make_due()
    assert list(Delivery.objects.values_list("event", "status", "reason")) == [(event.pk, "failed", "build_error")]
    monkeypatch.setattr(f"{__name__}.has_shelf", True)

    assert target.replay() == 1
    assert len(deliver()) == 1
