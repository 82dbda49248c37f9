"""Which rows of a list can be asked for."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event
from djwebhooks.testing import deliver
from tests.api.world import URL, Api, make_owner, make_target, make_webhooks

pytestmark = pytest.mark.django_db


def test_targets_by_what_they_are() -> None:
    """By ``is_active``, by ``identifier`` (the empty one too), and by an event that they get, wildcards understood."""
    owner = make_owner()
    one = str(make_target(owner, "project.*").uid)
    two = str(make_target(owner, "project.done", "a", identifier="p-42", is_active=False).uid)
    api = Api(owner)

    assert api.ids("targets/") == [two, one]
    assert api.ids("targets/?is_active=true") == [one]
    assert api.ids("targets/?is_active=false") == [two]
    assert api.ids("targets/?identifier=p-42") == [two]
    assert api.ids("targets/?identifier=") == [one]
    assert api.ids("targets/?event=project.done") == [two, one]
    assert api.ids("targets/?event=project.update") == [one]
    assert api.ids("targets/?event=project.done&is_active=0") == [two]


def test_deliveries_by_status_target_and_event() -> None:
    """By ``status``, ``target``, ``event`` and ``event_name``."""
    webhooks = make_webhooks(owner := make_owner())
    other = make_target(owner, "other", url=URL + "/other")
    fire("other", {}, owner=owner)
    deliver()
    api, mine = Api(owner), str(webhooks.delivery.uid)
    done = str(Delivery.objects.get(target=other).uid)

    assert len(api.ids("deliveries/")) == 3
    assert api.ids("deliveries/?status=succeeded") == [done]
    assert api.ids(f"deliveries/?target={other.uid}") == [done]
    assert api.ids(f"deliveries/?event={webhooks.event.uid}") == [mine]
    assert api.ids("deliveries/?event_name=project.update") == [mine]
    assert api.ids("deliveries/?event_name=project.update&status=succeeded") == []


def test_attempts_by_delivery_and_error() -> None:
    """By ``delivery``, and by ``error``, which is empty for an answer."""
    webhooks = make_webhooks(owner := make_owner())
    Attempt.objects.exclude(delivery=webhooks.delivery).update(error="timeout")
    api, mine = Api(owner), f"{webhooks.delivery.uid}-1"

    assert api.ids(f"attempts/?delivery={webhooks.delivery.uid}") == [mine]
    assert api.ids("attempts/?error=") == [mine]
    assert len(api.ids("attempts/?error=timeout")) == 1


@pytest.mark.parametrize(("kind", "model"), [("events", Event), ("deliveries", Delivery)])
def test_rows_by_time(kind: str, model: Any) -> None:
    """From ``since`` on, until before ``until``."""
    webhooks = make_webhooks(owner := make_owner())
    row = webhooks.event if kind == "events" else webhooks.delivery
    model.objects.exclude(pk=row.pk).delete()
    model.objects.update(created_at=datetime(2026, 1, 2, 3, 4, 5, 500_000, UTC))
    local, later = quote("2026-01-02T04:04:05.5+01:00"), "2026-01-02T03:04:05.500001Z"
    api = Api(owner)

    assert api.ids(f"{kind}/?since={local}") == [str(row.uid)]
    assert api.ids(f"{kind}/?until={local}") == []
    assert api.ids(f"{kind}/?until={later}") == [str(row.uid)]
    assert api.ids(f"{kind}/?since={later}") == []


def test_events_by_name() -> None:
    """By ``name``, exactly."""
    webhooks = make_webhooks(owner := make_owner())

    assert Api(owner).ids("events/?name=project.update") == [str(webhooks.event.uid)]
    assert Api(owner).ids("events/?name=project") == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("targets/?is_active=perhaps", "is_active"),
        ("targets/?is_active=", "is_active"),
        ("targets/?event=%00", "event"),
        ("targets/?identifier=%00", "identifier"),
        ("targets/?is_hidden=true", "is_hidden"),
        ("targets/?owner=1", "owner"),
        ("deliveries/?status=odd", "status"),
        ("deliveries/?status=", "status"),
        ("deliveries/?target=7", "target"),
        ("deliveries/?event=%ff", "event"),
        ("deliveries/?since=yesterday", "since"),
        ("deliveries/?since=2026-01-01T00:00:00", "since"),
        ("deliveries/?since=2026-01-01T00:00:00+02:00", "since"),
        ("deliveries/?until=0001-01-01T00:00:00%2B23:00", "until"),
        ("deliveries/?status=failed&status=pending", "status"),
        ("targets/?event=no+name", "event"),
        ("deliveries/?target__owner=1", "target__owner"),
        ("attempts/?delivery=x", "delivery"),
        ("attempts/?error=" + "x" * 33, "error"),
        ("events/?name=%00", "name"),
        ("events/?name=project update", "name"),
        ("deliveries/?event_name=%C3%A9", "event_name"),
        ("events/?name=" + 300 * "%1e", "name"),
        ("deliveries/?event_name=x" + 300 * "+", "event_name"),
        ("hooks/?event=x" + 300 * "%1e", "event"),
        ("hooks/samples/?event=x" + 300 * "+", "event"),
        ("events/?is_broadcast=1", "is_broadcast"),
        ("event-types/?name=x", "name"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(path: str, name: str) -> None:
    """An unknown parameter, or a value that cannot be, is 400 under its name, so that nobody takes all rows for some."""
    answer = Api(make_owner()).get(path)

    assert (answer.status, answer.wrong_fields) == (400, [name])


def test_a_refusal_names_what_there_is() -> None:
    """Whoever mistypes a filter is told its name."""
    answer = Api(make_owner()).get("attempts/?deliverie=x")

    assert answer.mistakes == {"deliverie": ["There is no filter with this name; there are: delivery, error."]}


def test_a_refusal_names_the_words_there_are() -> None:
    """Whoever mistypes one of a few words is told them."""
    answer = Api(make_owner()).get("deliveries/?status=foo")

    assert answer.mistakes == {"status": ['"foo" is none of: pending, succeeded, failed, expired, cancelled.']}


def test_filters_do_not_touch_single_rows() -> None:
    """A row is found by its id alone."""
    webhooks = make_webhooks(owner := make_owner())

    assert Api(owner).get(f"deliveries/{webhooks.delivery.uid}/?status=failed&format=api").status == 200


@pytest.mark.parametrize("kind", ["targets", "events", "deliveries", "attempts"])
def test_a_list_costs_the_same_however_long_it_is(kind: str) -> None:
    """3 rows and 30 rows take equally many queries."""
    owner = make_owner()
    api = Api(owner)

    def count_queries(rows: int) -> int:
        for number in range(Delivery.objects.count(), rows):
            make_target(owner, "new", url=f"{URL}/{number}", identifier=str(number))
            fire("new", {"number": number}, owner=owner, identifier=str(number))
        deliver()
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert len(api.ids(f"{kind}/")) == rows
        return len(queries)

    assert count_queries(3) == count_queries(30)
