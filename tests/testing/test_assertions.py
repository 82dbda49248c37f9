"""Assertions about what was fired say what was fired instead."""

from datetime import UTC, datetime
from decimal import Decimal
from unittest.mock import ANY

import pytest
from django.contrib.auth.models import User

from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.testing import assert_fired, assert_not_fired, deliver
from tests.builders import URL, make_target, make_user

pytestmark = pytest.mark.django_db


@hook("note.written")
def note_written(text: str, owner: User) -> dict[str, object]:
    return {"text": text, "tags": ["a", "b"]}


@hook("note.broken")
def note_broken(owner: User | None = None) -> None:
    raise RuntimeError("it is broken")


def failure_of(name: str, **criteria: object) -> str:
    with pytest.raises(AssertionError) as caught:
        assert_fired(name, **criteria)
    return str(caught.value)


def test_the_event_is_returned() -> None:
    """Whatever is not named does not matter."""
    ada = make_user()
    target = make_target(ada)
    event = note_written("x", owner=ada)
    same = {"at": datetime(2026, 9, 21, tzinfo=UTC), "price": Decimal("1.50"), "list": (2,)}
    other = fire("a.b", same, identifier="7")

    assert assert_fired("note.written") == event
    assert assert_fired("note.written", owner=ada, payload={"text": "x", "tags": ANY}, targets=[target]) == event
    assert assert_fired("a.b", owner=None, identifier="7", ordering_key="7", payload=same, targets=[]) == other


def test_nothing_at_all() -> None:
    """The shortest failure."""
    assert failure_of("a.b") == "The event 'a.b' was not fired.\nNothing was fired at all."


def test_a_failure_says_where_what_was_fired_differs() -> None:
    """Events of the name come first, and each difference is named."""
    ada, bob = make_user("ada"), make_user("bob")
    fire("a.c", 1)
    note_written("old", owner=bob)

    assert failure_of(
        "note.written", owner=ada, identifier="7", ordering_key="8", payload={"text": "new", "tags": ["a", "b"]}
    ) == (
        "The event 'note.written' with owner=<User: ada>, identifier='7', ordering_key='8', "
        "payload={'text': 'new', 'tags': ['a', 'b']} was not fired.\n"
        "What was fired:\n"
        f"* note.written (owner {bob.pk}): {{'text': 'old', 'tags': ['a', 'b']}}\n"
        f"    it has owner {bob.pk}, not <User: ada>\n"
        "    its identifier is '', not '7'\n"
        "    its ordering_key is '', not '8'\n"
        "    its payload differs (- wanted, + fired):\n"
        "      - {'tags': ['a', 'b'], 'text': 'new'}\n"
        "      + {'tags': ['a', 'b'], 'text': 'old'}\n"
        "* a.c (no owner): 1"
    )


def test_targets_that_get_it_and_do_not() -> None:
    """Both are told by their addresses."""
    ada = make_user()
    got, wanted = make_target(ada, url=f"{URL}/got"), make_target(ada, event="c.d", url=f"{URL}/wanted")
    event = fire("a.b", 1, owner=ada)

    told = failure_of("a.b", targets=[wanted])
    assert f"{URL}/wanted (owner {ada.pk}) would not get it" in told
    assert f"{URL}/got (owner {ada.pk}) would get it, too" in told
    assert assert_fired("a.b", targets=[got]) == event


def test_an_event_that_was_fired_twice() -> None:
    """Is a mistake that one would not see otherwise; what tells them apart helps."""
    fire("a.b", 1)
    second = fire("a.b", 2)

    assert failure_of("a.b") == "The event 'a.b' was fired 2 times, not once."
    assert assert_fired("a.b", payload=2) == second


def test_many_events_are_cut() -> None:
    """A failure is to be read."""
    for number in range(13):
        fire("a.c", number)

    assert failure_of("a.b").endswith("\n* a.c (no owner): 9\n… and 3 more.")


def test_a_payload_that_cannot_be_built_hides_no_failure() -> None:
    """It is shown what the function raised."""
    note_broken()

    assert "* note.broken (no owner): its payload cannot be built: RuntimeError('it is broken')" in failure_of("a.b")


@pytest.mark.parametrize("criteria", [{"payload": {"text": "x", "tags": ANY}}, {"targets": []}])
def test_an_event_that_cannot_be_built_is_another(criteria: dict[str, object]) -> None:
    """Nobody wanted the one, whose call is gone, and one raises; neither is in the way of the event that is looked for."""
    ada, bob = make_user("ada"), make_user("bob")
    make_target(ada, filters={"*": {"text": ["y"]}})
    note_written("x", owner=bob)
    deliver()
    broken = note_broken(owner=ada)
    event = note_written("x", owner=ada)

    assert assert_fired("note.written", owner=ada, **criteria) == event
    broken.name = "note.written"
    broken.save()
    assert assert_fired("note.written", owner=ada, **criteria) == event
    assert_not_fired("note.written", owner=bob, payload={"text": "x", "tags": ANY})
    assert "its payload cannot be built: ValueError(" in failure_of("note.written", owner=bob, payload=1)


def test_what_must_not_be_fired() -> None:
    """By its name, by what it is, or anything."""
    assert_not_fired()
    fire("a.b", 1, identifier="7")

    assert_not_fired("a.c")
    assert_not_fired("a.b", identifier="8")
    for criteria in ({}, {"name": "a.b"}, {"identifier": "7"}, {"payload": 1}):
        with pytest.raises(AssertionError) as caught:
            assert_not_fired(**criteria)
        assert str(caught.value) == "It was fired all the same:\n* a.b (no owner, identifier '7', ordering_key '7'): 1"


def test_a_wrong_owner_is_a_mistake_of_the_test() -> None:
    """It says which model owners are of."""
    fire("a.b", 1)

    with pytest.raises(TypeError, match=r"owner must be auth\.User"):
        assert_fired("a.b", owner="ada")
