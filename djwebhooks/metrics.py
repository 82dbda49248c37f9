"""Show Prometheus what waits and what comes of it, by way of prometheus_client (extra ``metrics``)."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, InterfaceError, connections

from djwebhooks import database, stats
from djwebhooks.models import Attempt, Delivery
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import events_database
from djwebhooks.models.operation import STATES
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        f"Metrics need prometheus_client, which cannot be imported ({error}): pip install 'djwebhooks[metrics]'."
    ) from error

logger = logging.getLogger(__name__)

#: Rows that one number counts at most.
LIMIT = 10_000
#: What begins all names.
PREFIX = "djwebhooks_"
#: The numbers of ``djwebhooks.stats``, with their units, and what they mean.
GAUGES = {
    "events_waiting": "Events whose time has come and that no worker has turned into deliveries yet.",
    "events_planned": "Events whose time has not come yet.",
    "events_failing": "Events whose payload could not be built the last time, among the newest.",
    "oldest_waiting_age_seconds": "For how long the oldest of the waiting events has waited, 0 if there is none.",
    "deliveries_pending": "Deliveries that have not ended.",
    "deliveries_due": "Pending deliveries that could be sent now, among those that are counted.",
    "deliveries_held": "Pending deliveries of targets that are paused, disabled or suspended, among those that are counted.",
    "oldest_due_age_seconds": "For how long the oldest delivery that could be sent has been due, 0 if there is none.",
    "lanes_leased": "Targets that a worker works on.",
    "lanes_due": "Targets that have something to do and no worker.",
    "workers": "Workers at work.",
}
#: The ends of the buckets of an attempt's duration, in seconds.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
#: The outcome of an attempt that got no answer, whatever the reason.
NO_ANSWER = "no_answer"


# -- what is there -----------------------------------------------------------------------------------------------------


class WebhookCollector(Collector):
    """Reads the numbers of now at each scrape, as gauges with the label ``database``.

    *databases* are the aliases of those to look into; without any it is the one that the routers choose for events. No number
    counts beyond *limit*; the two ages are exact. A database that fails has ``djwebhooks_up`` 0 and nothing else, so that the
    other metrics of the application are shown all the same. Raises ``ConnectionDoesNotExist`` for an unknown alias, and
    ``ValueError`` for a limit below 1.
    """

    def __init__(self, *databases: str, limit: int = LIMIT) -> None:
        for alias in databases:
            connections[alias]
        if limit < 1:
            raise ValueError(f"limit={limit!r} counts nothing: give a number of rows from 1.")
        self.databases = databases
        self.limit = limit

    def describe(self) -> list[GaugeMetricFamily]:
        """The same without numbers: whoever registers it asks no database, which may not be there yet."""
        return Gauges().families

    def collect(self) -> list[GaugeMetricFamily]:
        """Return the gauges of now."""
        gauges = Gauges()
        for alias in self.databases or [events_database()]:
            gauges.add(alias, read_numbers(alias, self.limit))
        return gauges.families


class Gauges:
    """The families of one scrape."""

    def __init__(self) -> None:
        self.up = GaugeMetricFamily(f"{PREFIX}up", "Whether the database could be read.", labels=["database"])
        self.numbers = {
            name: GaugeMetricFamily(f"{PREFIX}{name}", meaning, labels=["database"]) for name, meaning in GAUGES.items()
        }
        self.targets = GaugeMetricFamily(f"{PREFIX}targets", "Targets by their state.", labels=["database", "state"])

    @property
    def families(self) -> list[GaugeMetricFamily]:
        return [self.up, *self.numbers.values(), self.targets]

    def add(self, alias: str, numbers: dict[str, Any] | None) -> None:
        """Add the *numbers* of a database, ``None`` if it failed."""
        self.up.add_metric([alias], numbers is not None)
        if numbers is None:
            return
        for name, family in self.numbers.items():
            family.add_metric([alias], numbers[name.removesuffix("_seconds")] or 0)
        for state in STATES:
            self.targets.add_metric([alias, state], numbers[f"targets_{state}"])


def read_numbers(alias: str, limit: int) -> dict[str, Any] | None:
    """Return the numbers of a database by their names in ``djwebhooks.stats``, ``None`` if it fails."""
    try:
        with borrow_connection(alias):
            numbers = stats.count(alias, database.read_clock(alias), limit)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("The database %r shows no metrics: %s", alias, error)
        return None
    return numbers | {"workers": sum(worker.is_live for worker in numbers["workers"])}


@contextmanager
def borrow_connection(alias: str) -> Iterator[None]:
    """Leave the thread's connection as it was, unless it is broken: outside of a request nobody else would close it."""
    connection = connections[alias]
    was_open = connection.connection is not None
    try:
        yield
    finally:
        if not was_open:
            connection.close()
        elif connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


# -- what comes of it --------------------------------------------------------------------------------------------------


def count_outcomes(registry: CollectorRegistry = REGISTRY) -> None:
    """Count from now on what this process sends, if a worker runs in it: attempts by their outcome, deliveries by their status.

    ``djwebhooks_attempt_duration_seconds`` is a histogram whose ``outcome`` is ``2xx``, ``3xx``, ``4xx`` or ``5xx`` by the
    answer's status code, or ``no_answer``. ``djwebhooks_deliveries_ended_total`` has the ``status`` ``succeeded``, ``failed`` or
    ``expired``. What a worker recorded just before it was killed may be missing. Raises ``ValueError`` when *registry* counts
    already.
    """
    durations = Histogram(
        f"{PREFIX}attempt_duration_seconds",
        "How long attempts took, from the first step to the last byte.",
        ["outcome"],
        registry=registry,
        buckets=BUCKETS,
    )
    ended = Counter(
        f"{PREFIX}deliveries_ended", "Deliveries that ended, except for cancelled ones.", ["status"], registry=registry
    )
    # A rate can only be had of what was there before the first one.
    for outcome in ("2xx", "3xx", "4xx", "5xx", NO_ANSWER):
        durations.labels(outcome)
    for status in (Status.SUCCEEDED, Status.FAILED, Status.EXPIRED):
        ended.labels(status.value)

    def count_attempt(attempt: Attempt, **_: object) -> None:
        durations.labels(outcome_of(attempt)).observe(attempt.duration)

    def count_success(**_: object) -> None:  # Its row may be pending again by now.
        ended.labels(Status.SUCCEEDED.value).inc()

    def count_failure(delivery: Delivery, **_: object) -> None:
        ended.labels(delivery.status).inc()

    attempt_made.connect(count_attempt, weak=False)
    delivery_succeeded.connect(count_success, weak=False)
    delivery_failed.connect(count_failure, weak=False)


def outcome_of(attempt: Attempt) -> str:
    """Return the class of an answer's status code. Never more than that: each further value is a time series for ever.

    A code from 600 on, which is none, is taken for a server's error (RFC 9110, section 15).
    """
    if attempt.error or attempt.status_code is None:
        return NO_ANSWER
    return f"{min(attempt.status_code // 100, 5)}xx"
