"""An engine is woken after the commit: once for a transaction, never for one that was rolled back, never in a way that harms."""

import logging
from collections.abc import Iterator
from datetime import datetime

import pytest
from django.conf import LazySettings
from django.db import transaction

from djwebhooks import engines
from djwebhooks.engines.base import Engine
from djwebhooks.engines.database import DatabaseEngine
from djwebhooks.events import fire
from djwebhooks.models import Event
from djwebhooks.signals import work_written
from tests.connections import manual_commits

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])

#: The databases that were woken for, in order.
woken: list[str] = []


class CountingEngine(Engine):
    """Notes its wake-ups, and that what they are for is committed."""

    def wake(self, using: str, at: datetime | None = None) -> None:
        assert not transaction.get_connection(using).in_atomic_block
        woken.append(using)


class BrokenEngine(Engine):
    """Cannot be woken."""

    def wake(self, using: str, at: datetime | None = None) -> None:
        raise OSError("no bell")


@pytest.fixture(autouse=True)
def engine(settings: LazySettings) -> Iterator[None]:
    settings.DJWEBHOOKS_ENGINE = f"{__name__}.CountingEngine"
    engines._make.cache_clear()
    woken.clear()
    yield
    engines._make.cache_clear()


def test_a_commit_wakes_the_engine() -> None:
    """What is fired outside any transaction wakes at once."""
    fire("a.b", {})

    assert woken == ["default"]


def test_a_transaction_wakes_once() -> None:
    """However much a transaction fires, there is one wake-up, after its commit."""
    with transaction.atomic():
        for number in range(3):
            fire("a.b", {"n": number})
        assert woken == []

    assert woken == ["default"]


def test_who_commits_by_hand_wakes_nobody() -> None:
    """With autocommit off nobody can say when the event is committed; it is kept all the same, and workers will find it."""
    with manual_commits():
        fire("a.b", {})
        transaction.commit()

    assert woken == []
    assert Event.objects.waiting().count() == 1


def test_savepoints_do_not_wake_more_often() -> None:
    """Events of savepoints, nested ones too, share the wake-up of their transaction."""
    with transaction.atomic():
        with transaction.atomic(), transaction.atomic():
            fire("a.b", {})
        with transaction.atomic():
            fire("a.b", {})
        fire("a.b", {})

    assert woken == ["default"]
    assert Event.objects.count() == 3


def test_a_rollback_wakes_nobody() -> None:
    """A transaction that is rolled back leaves neither an event nor a wake-up."""
    with transaction.atomic():
        fire("a.b", {})
        transaction.set_rollback(True)

    assert woken == []
    assert not Event.objects.exists()


def test_a_savepoint_that_is_rolled_back_takes_no_wake_up_with_it() -> None:
    """If the first event's savepoint is undone, a later event still wakes; if the later one's is, the first still does."""
    with transaction.atomic():
        with transaction.atomic():
            fire("a.b", {})
            transaction.set_rollback(True)
        fire("a.b", {})
    assert woken == ["default"]

    with transaction.atomic():
        fire("a.b", {})
        with transaction.atomic():
            fire("a.b", {})
            transaction.set_rollback(True)

    assert woken == ["default"] * 2


def test_only_the_savepoint_that_fired_counts() -> None:
    """A transaction whose only event was undone by a savepoint wakes nobody."""
    with transaction.atomic(), transaction.atomic():
        fire("a.b", {})
        transaction.set_rollback(True)

    assert woken == []


def test_each_database_is_woken_for_by_its_own_commit() -> None:
    """Work in two databases is two wake-ups, each after the commit of its database and for it."""
    with transaction.atomic():
        with transaction.atomic(using="other"):
            for alias in ("default", "other", "default", "other"):
                work_written.send(Event, using=alias)
            assert woken == []
        assert woken == ["other"]

    assert woken == ["other", "default"]


def test_an_application_may_have_other_callbacks() -> None:
    """Callbacks that the application registers are neither taken for a wake-up nor skipped."""
    called: list[str] = []
    with transaction.atomic():
        transaction.on_commit(lambda: called.append("before"))
        fire("a.b", {})
        transaction.on_commit(lambda: called.append("after"))

    assert woken == ["default"]
    assert called == ["before", "after"]


def test_a_wake_up_that_fails_harms_nobody(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """The call that committed goes on, the application's callbacks run, and the log says what failed."""
    settings.DJWEBHOOKS_ENGINE = f"{__name__}.BrokenEngine"
    called: list[str] = []
    with caplog.at_level(logging.ERROR), transaction.atomic():
        fire("a.b", {})
        transaction.on_commit(lambda: called.append("after"))

    assert called == ["after"]
    assert Event.objects.count() == 1
    assert "no bell" in caplog.text


def test_the_setting_is_read_live(settings: LazySettings) -> None:
    """Another engine takes over as soon as the setting names it."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
    fire("a.b", {})

    assert isinstance(engines.get_engine(), DatabaseEngine)
    assert woken == []


def test_an_engine_that_does_not_exist_is_an_error(settings: LazySettings) -> None:
    """A wrong path is named."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.pigeon.PigeonEngine"

    with pytest.raises(ImportError, match="pigeon"):
        engines.get_engine()
