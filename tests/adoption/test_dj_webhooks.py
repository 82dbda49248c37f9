"""What becomes of dj-webhooks' rows and settings."""

from datetime import UTC, datetime

import pytest
from django.conf import LazySettings

from djwebhooks.adoption import adopt
from djwebhooks.models import WebhookTarget
from tests.adoption.tables import URL, DjWebhooksTarget, ReleasedDjWebhooksTarget, make_row
from tests.builders import make_user

pytestmark = pytest.mark.django_db

SINCE = datetime(2014, 5, 25, 12, tzinfo=UTC)


def test_a_row_becomes_a_target_with_what_it_had() -> None:
    """Its event, its identifier, its owner, its age, and bodies that hold the payload's keys as they did."""
    ada = make_user("ada")
    make_row(DjWebhooksTarget, owner_id=ada.pk, event="project.update", identifier="p", target_url=URL, created=SINCE)
    adopt("dj-webhooks")
    target = WebhookTarget.objects.get()

    assert (target.owner, target.target_url, target.identifier, target.events) == (ada, URL, "p", ["project.update"])
    assert (target.envelope, target.created_at, target.is_active) == ("flat", SINCE, True)
    assert target.secret.startswith("whsec_")


def test_the_last_release_had_no_identifiers() -> None:
    """Its table has a column less, and its targets get all of the owner's events, as they did."""
    ada = make_user("ada")
    make_row(ReleasedDjWebhooksTarget, owner_id=ada.pk, event="project.update", target_url=URL)
    adopt("dj-webhooks", table=ReleasedDjWebhooksTarget._meta.db_table)

    assert WebhookTarget.objects.get().identifier == ""


def test_settings_are_translated(settings: LazySettings) -> None:
    """Those that have a meaning here, under their names here, as long as they are not written yet."""
    settings.WEBHOOK_EVENTS = ("project.update", "project delete")
    settings.WEBHOOK_OWNER_FIELD = "email"
    settings.WEBHOOK_ATTEMPTS = (0, 15, 30, 60)
    suggested = adopt("dj-webhooks", renamed={"project delete": "project.delete"}).settings

    assert suggested == {
        "DJWEBHOOKS_EVENTS": {"project.update": {}, "project.delete": {}},
        "DJWEBHOOKS_OWNER_FIELD": "email",
        "DJWEBHOOKS_RETRY_SCHEDULE": (15, 30, 60),
    }

    settings.DJWEBHOOKS_EVENTS = {"project.update": {}}

    assert set(adopt("dj-webhooks").settings) == {"DJWEBHOOKS_OWNER_FIELD", "DJWEBHOOKS_RETRY_SCHEDULE"}


@pytest.mark.parametrize(("attempts", "schedule"), [([15, 30], (15, 30)), ((0,), ()), ((), None), (5, None), (None, None)])
def test_pauses_are_retries_but_for_the_first(settings: LazySettings, attempts: object, schedule: object) -> None:
    """If that is none; as nobody ever read the setting, it may hold anything."""
    settings.WEBHOOK_ATTEMPTS = attempts

    assert adopt("dj-webhooks").settings == ({} if schedule is None else {"DJWEBHOOKS_RETRY_SCHEDULE": schedule})
