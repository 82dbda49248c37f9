"""Prometheus gets the numbers of the tables at each scrape, and what this process sent; no label can grow without bound."""

import re
import runpy
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connections, transaction
from django.utils import timezone
from django.utils.connection import ConnectionDoesNotExist
from prometheus_client import CollectorRegistry, generate_latest

from djwebhooks import metrics
from djwebhooks.events import fire
from djwebhooks.metrics import GAUGES, WebhookCollector, count_outcomes, outcome_of
from djwebhooks.models import Attempt, Delivery, Event, Worker
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded
from djwebhooks.testing import deliver, make_due
from djwebhooks.transports.base import Reply
from tests.builders import make_target, make_user
from tests.test_docs import DOCS


@pytest.fixture
def registry() -> CollectorRegistry:
    """A registry that asks for the numbers when something is registered, unless it need not: as the library's own does."""
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def counted(registry: CollectorRegistry) -> Iterator[CollectorRegistry]:
    """The registry, with what this process sends counted in it until the test ends."""
    signals = attempt_made, delivery_succeeded, delivery_failed
    before = [list(signal.receivers) for signal in signals]
    count_outcomes(registry)
    yield registry
    for signal, receivers in zip(signals, before, strict=True):
        signal.receivers = receivers


@pytest.fixture
def owner() -> User:
    return make_user()


def read(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"djwebhooks_{name}", {"database": "default", **labels})


# -- what is there -----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_scrape_has_the_numbers_of_now(registry: CollectorRegistry, owner: User) -> None:
    """What waits, what is due and since when, and who works."""
    registry.register(WebhookCollector())
    make_target(owner, url="http://127.0.0.1:9/paused").pause()
    open_target = make_target(owner)
    assert [read(registry, name) for name in ("up", *GAUGES)] == [1.0] + [0.0] * len(GAUGES)

    fire("a", {}, owner=owner)
    deliver(503)
    open_target.deliveries.update(due_at=timezone.now() - timedelta(seconds=300))
    fire("a", {}, owner=owner)
    Event.objects.filter(dispatched_at=None).update(created_at=timezone.now() - timedelta(seconds=500))
    now = timezone.now()
    Worker.objects.create(name="worker", place="host:1", expires_at=now + timedelta(hours=1))
    Worker.objects.create(name="worker", place="host:2", expires_at=now - timedelta(hours=1))

    numbers = {name: read(registry, name) for name in GAUGES}
    assert numbers.pop("oldest_due_age_seconds") == pytest.approx(300, abs=60)
    assert numbers.pop("oldest_waiting_age_seconds") == pytest.approx(500, abs=60)
    assert {name: number for name, number in numbers.items() if number} == {
        "events_waiting": 1,
        "deliveries_pending": 2,
        "deliveries_due": 1,
        "deliveries_held": 1,
        "workers": 1,
    }
    states = {
        state: read(registry, "targets", state=state) for state in ("healthy", "degraded", "suspended", "disabled", "paused")
    }
    assert states == {"healthy": 0, "degraded": 1, "suspended": 0, "disabled": 0, "paused": 1}


def test_every_gauge_is_documented() -> None:
    """The page's table has those that there are, and no others."""
    text = (DOCS / "how-to" / "metrics.rst").read_text()

    assert set(re.findall(r"^``(\w+)``  ", text, re.MULTILINE)) == {family.name for family in WebhookCollector().describe()}


@pytest.mark.django_db
def test_no_number_counts_beyond_the_limit(registry: CollectorRegistry, owner: User) -> None:
    """A scrape costs no more in a backlog of millions."""
    for _ in range(4):
        fire("a", {}, owner=owner)

    registry.register(WebhookCollector(limit=3))

    assert read(registry, "events_waiting") == 3


def test_registering_asks_no_database(registry: CollectorRegistry) -> None:
    """An application registers it as it starts, maybe to migrate; here a test that may not use a database would fail."""
    registry.register(WebhookCollector())

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(WebhookCollector())


def test_what_cannot_be_is_refused_at_once() -> None:
    """Not at the first scrape."""
    with pytest.raises(ConnectionDoesNotExist, match="nowhere"):
        WebhookCollector("nowhere")
    with pytest.raises(ValueError, match="limit=0 counts nothing"):
        WebhookCollector(limit=0)


@pytest.mark.django_db(databases=["default", "other"])
def test_each_database_has_its_own_numbers(registry: CollectorRegistry, owner: User) -> None:
    """They are told apart by a label."""
    registry.register(WebhookCollector("default", "other"))
    fire("a", {}, owner=owner)

    assert [read(registry, "events_waiting", database=alias) for alias in ("default", "other")] == [1, 0]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_down_fails_no_scrape(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The application's other metrics are shown all the same, and the numbers are back as soon as the database is."""
    registry.register(WebhookCollector())
    connection = connections["default"]
    connection.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "NAME", "/nowhere/at/all")
        text = generate_latest(registry).decode()

    assert 'djwebhooks_up{database="default"} 0.0' in text
    assert read(registry, "up") == 1.0
    assert [line for line in text.splitlines() if "database=" in line] == ['djwebhooks_up{database="default"} 0.0']
    assert "The database 'default' shows no metrics" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_scrape_leaves_the_connection_as_it_was() -> None:
    """A thread that does nothing but answer scrapes keeps none open, and one that is in use stays."""
    connection = connections["default"]
    connection.close()
    WebhookCollector().collect()
    assert connection.connection is None

    connection.ensure_connection()
    WebhookCollector().collect()
    assert connection.connection is not None


@pytest.mark.django_db
def test_the_transaction_of_a_request_goes_on(owner: User) -> None:
    """A request may have been refused a statement in it, and have caught that: this is no reason to close the connection."""
    connection = connections["default"]
    with pytest.raises(DatabaseError), transaction.atomic():
        connection.cursor().execute("SELECT nothing_there")

    WebhookCollector().collect()

    assert User.objects.get() == owner


@pytest.mark.server
@pytest.mark.django_db(transaction=True)
def test_a_connection_that_broke_is_replaced(registry: CollectorRegistry) -> None:
    """Outside of a request nobody else would do it, and the numbers would be gone until a restart."""
    registry.register(WebhookCollector())
    connection = connections["default"]
    connection.ensure_connection()
    connection.connection.close()

    found = [read(registry, "up"), read(registry, "up")]

    assert found[-1] == 1.0


# -- what comes of it --------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_attempts_and_ends_are_counted_by_what_came_of_them(counted: CollectorRegistry, owner: User) -> None:
    """Only in classes: neither target nor address is a label, as each value is a series for ever, and addresses have secrets."""
    target = make_target(owner, retry_schedule=[1])

    def count_attempts(outcome: str) -> float | None:
        return counted.get_sample_value("djwebhooks_attempt_duration_seconds_count", {"outcome": outcome})

    def count_ends(status: str) -> float | None:
        return counted.get_sample_value("djwebhooks_deliveries_ended_total", {"status": status})

    assert [count_attempts("2xx"), count_ends("failed")] == [0, 0]
    fire("a", {}, owner=owner)
    deliver()
    fire("a", {}, owner=owner)
    deliver(503)
    make_due()
    deliver(lambda request: Reply(request.key, error="timeout", duration=7.0))

    assert [count_attempts(outcome) for outcome in ("2xx", "3xx", "4xx", "5xx", "no_answer")] == [1, 0, 0, 1, 1]
    assert [count_ends(status) for status in ("succeeded", "failed", "expired")] == [1, 1, 0]
    assert counted.get_sample_value("djwebhooks_attempt_duration_seconds_sum", {"outcome": "no_answer"}) == 7.0
    assert target.target_url not in generate_latest(counted).decode()


@pytest.mark.parametrize(
    ("status_code", "error", "outcome"),
    [
        (204, "", "2xx"),
        (301, "", "3xx"),
        (410, "", "4xx"),
        (599, "", "5xx"),
        (999, "", "5xx"),
        (None, "timeout", "no_answer"),
        (200, "cut", "no_answer"),
    ],
)
def test_an_outcome_is_a_class(status_code: int | None, error: str, outcome: str) -> None:
    """What did not end well is no answer, whatever its beginning said."""
    assert outcome_of(Attempt(status_code=status_code, error=error)) == outcome


@pytest.mark.django_db
def test_what_expired_unsent_is_counted(counted: CollectorRegistry, owner: User) -> None:
    """It is an end without an attempt."""
    make_target(owner)
    fire("a", {}, owner=owner, expires_at=timezone.now() + timedelta(hours=1))
    deliver(503)
    Delivery.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    make_due()
    deliver()

    assert counted.get_sample_value("djwebhooks_deliveries_ended_total", {"status": "expired"}) == 1


def test_a_registry_counts_once(counted: CollectorRegistry) -> None:
    """A second receiver would count everything twice."""
    before = len(attempt_made.receivers)

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        count_outcomes(counted)
    assert len(attempt_made.receivers) == before


# -- the extra ---------------------------------------------------------------------------------------------------------


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the import names the extra."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(ImportError, match=r"Metrics need prometheus_client, .*: pip install 'djwebhooks\[metrics\]'"):
        runpy.run_path(metrics.__file__)
