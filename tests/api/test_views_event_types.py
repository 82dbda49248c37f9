"""The catalogue, as far as owners may know it, and what it lets them subscribe to and publish."""

import pytest
from django.conf import LazySettings

from tests.api.world import NEW, Api, make_owner, make_publisher

pytestmark = pytest.mark.django_db

CATALOGUE = {
    "project.update": {
        "description": "A project changed.",
        "schema": {"type": "object"},
        "sample": {"title": "x"},
        "deprecated": "Use x.",
        "version": "2",
        "versions": {"1": {"description": "As it was.", "sample": {"name": "x"}, "deprecated": "Use 2."}},
    },
    "project.done": {},
    "audit.entry": {"description": "Ours.", "internal": True},
}


def test_event_types_are_the_catalogue(settings: LazySettings) -> None:
    """Internal events are not for owners to know of."""
    settings.DJWEBHOOKS_EVENTS = CATALOGUE

    answer = Api(make_owner()).get("event-types/")

    nothing = {"description": "", "schema": None, "sample": None, "deprecated": "", "version": ""}
    old = {"name": "project.update", "version": "1", "schema": None, **CATALOGUE["project.update"]["versions"]["1"]}
    assert answer.status == 200
    assert answer.data == {
        "next": None,
        "previous": None,
        "results": [
            {"name": "project.done", **nothing, "versions": []},
            {"name": "project.update", **CATALOGUE["project.update"], "versions": [old]},
        ],
    }


def test_without_a_catalogue_there_are_no_event_types() -> None:
    """Any name is possible then."""
    assert Api(make_owner()).get("event-types/").data["results"] == []


def test_a_version_is_one_that_an_event_may_have(settings: LazySettings) -> None:
    """A target asks for it by its name; internal events are not looked at, and no message names theirs."""
    settings.DJWEBHOOKS_EVENTS = {
        "project.update": {"version": "2", "versions": {"1": {}}},
        "audit.entry": {"internal": True, "version": "7"},
    }
    api = Api(make_owner())

    made = api.post("targets/", NEW | {"events": ["project.update"], "version": "1"})
    refused = api.patch(f"targets/{made.data['id']}/", {"events": ["*"], "version": "7"})
    changed = api.patch(f"targets/{made.data['id']}/", {"version": ""})

    assert (made.status, made.data["version"]) == (201, "1")
    assert (refused.status, "there are 1, 2." in str(refused.data)) == (400, True)
    assert (changed.status, changed.data["version"]) == (200, "")


@pytest.mark.parametrize("event", ["audit.entry", "audit.*", "project.gone"])
def test_only_public_events_can_be_subscribed_to_and_published(settings: LazySettings, event: str) -> None:
    """An internal event is as unknown as one that does not exist, and no message names it."""
    settings.DJWEBHOOKS_EVENTS = CATALOGUE
    api = Api(make_publisher())

    subscribed = api.post("targets/", NEW | {"events": [event]})
    published = api.post("events/", {"name": event.replace("*", "entry"), "payload": 1})

    assert (subscribed.status, published.status) == (400, 400)
    assert "there are project.done, project.update." in str(subscribed.mistakes["events.0"])
    assert "there are project.done, project.update." in str(published.mistakes["name"])
    assert api.post("targets/", NEW).status == 201
