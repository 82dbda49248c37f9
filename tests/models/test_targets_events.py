"""Which events a target wants, and which it gets."""

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidEvent, InvalidTarget
from djwebhooks.models import Event, Subscription, WebhookTarget
from djwebhooks.testing import deliver
from tests.builders import URL, is_reached, make_target, make_user


@pytest.mark.django_db
def test_create_takes_one_event_or_many() -> None:
    """``event=`` is one name, ``events=`` a list; both are the target's subscriptions."""
    one = WebhookTarget.objects.create(event="a.b", target_url=URL)
    many = WebhookTarget.objects.create(events=["c.*", "a.b", "a.b"], target_url=f"{URL}/2")

    assert (one.event, one.events) == ("a.b", ["a.b"])
    assert (many.event, many.events) == ("a.b, c.*", ["a.b", "c.*"])
    assert WebhookTarget.objects.get(pk=many.pk).events == ["a.b", "c.*"]
    assert Subscription.objects.count() == 3


@pytest.mark.django_db
def test_assigning_events_replaces_them_on_save() -> None:
    """Until ``save`` nothing is written; then what is listed is all that is left, and what stays keeps its row."""
    target = make_target(event="a.b")
    kept = Subscription.objects.get()
    target.events = ["a.b", "a.c"]
    assert target.events == ["a.b", "a.c"]
    assert Subscription.objects.count() == 1
    target.save()
    assert sorted(Subscription.objects.values_list("event", flat=True)) == ["a.b", "a.c"]
    assert Subscription.objects.get(event="a.b") == kept

    target.events = []
    target.save(update_fields=["description"])
    assert Subscription.objects.count() == 0
    assert target.events == []


@pytest.mark.django_db
def test_saving_leaves_events_alone_unless_assigned() -> None:
    """A save of something else neither drops nor queries subscriptions."""
    target = make_target(event="a.b")
    other = WebhookTarget.objects.get(pk=target.pk)
    other.events = ["a.c"]
    other.save()
    target.description = "changed"
    target.save()

    assert target.events == ["a.c"]


@pytest.mark.django_db
def test_prefetched_events_need_no_query_and_are_not_stale() -> None:
    """A list page prefetches them; a save forgets them."""
    make_target(event="a.b")
    [target] = WebhookTarget.objects.prefetch_related("subscriptions")
    with CaptureQueriesContext(connection) as queries:
        assert target.events == ["a.b"]
    assert len(queries) == 0

    target.events = ["a.c"]
    target.save()
    assert target.events == ["a.c"]


def test_an_unsaved_target_has_no_events() -> None:
    """Without a query, as it has no row."""
    assert WebhookTarget(target_url=URL).events == []


def test_a_string_is_no_list_of_events() -> None:
    """``events="a.b"`` would be three one-letter names."""
    with pytest.raises(InvalidEvent, match=r"write \['a.b'\] or use event="):
        WebhookTarget(events="a.b")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("project", ["project"]),
        ("project.update", ["project.update"]),
        ("project.*", ["project.update", "project.update.title"]),
        ("project.update.*", ["project.update.title"]),
        ("*", ["project", "project.update", "project.update.title", "projects.update", "Project.update"]),
        ("projects.*", ["projects.update"]),
        ("Project.*", ["Project.update"]),
    ],
)
def test_wildcards(pattern: str, names: list[str]) -> None:
    """``project.*`` is any depth below project, not project itself; names are compared letter by letter."""
    every = ["project", "project.update", "project.update.title", "projects.update", "Project.update"]
    target = make_target(event=pattern)

    assert [name for name in every if is_reached(target, name)] == names
    assert [name for name in every if WebhookTarget.objects.subscribed_to(name)] == names


@pytest.mark.django_db
def test_subscribed_to_lists_each_target_once() -> None:
    """Several subscriptions that match are one target, which gets the event once."""
    target = WebhookTarget.objects.create(events=["*", "a.*", "a.b"], target_url=URL)
    fire("a.b", 1)

    assert list(WebhookTarget.objects.subscribed_to("a.b")) == [target]
    assert len(deliver()) == 1


# -- who gets what ----------------------------------------------------------------------------------------------------


#: DESIGN's table, by columns: (owner, identifier) of the target.
TARGETS = [("acme", ""), ("acme", "p-42"), ("other", ""), (None, ""), (None, "p-42"), ("other", "p-42")]


MATCHES = [
    # owner, identifier, broadcast -> the targets above that get it
    ("acme", "p-42", False, [0, 1, 3, 4]),
    ("acme", "", False, [0, 3]),
    ("acme", "p-7", False, [0, 3]),
    (None, "", False, [3]),
    (None, "p-42", False, [3, 4]),
    ("acme", "", True, [0, 1, 2, 3, 4, 5]),
    (None, "p-7", True, [0, 1, 2, 3, 4, 5]),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("owner", "identifier", "broadcast", "expected"), MATCHES)
def test_who_gets_an_event(owner: str | None, identifier: str, broadcast: bool, expected: list[int]) -> None:
    """A target gets what it subscribed to, of its owner or of any if it has none, and with its identifier or any."""
    users = {"acme": make_user("acme"), "other": make_user("other"), None: None}
    for number, (of, name) in enumerate(TARGETS):
        make_target(users[of], identifier=name, url=f"{URL}/{number}")
        make_target(users[of], identifier=name, url=f"{URL}/unsubscribed/{number}", event="x.y")
    event = fire("a.b", 1, owner=users[owner], identifier=identifier, broadcast=broadcast)

    matching = WebhookTarget.objects.matching(event).values_list("target_url", flat=True)
    assert sorted(matching) == [f"{URL}/{number}" for number in expected]
    assert sorted(request.url for request in deliver()) == [f"{URL}/{number}" for number in expected]


@pytest.mark.django_db
def test_an_internal_event_is_for_system_targets_only(settings: LazySettings) -> None:
    """What the catalogue calls internal reaches no owner: not by a pattern, not by a broadcast."""
    settings.DJWEBHOOKS_EVENTS = {"audit.entry": {"internal": True}, "a.b": {}}
    owner = make_user()
    owned, system = make_target(owner, url=f"{URL}/owned"), make_target(url=f"{URL}/system")

    for options in ({"owner": owner}, {"broadcast": True}):
        fire("audit.entry", 1, **options)
        assert [request.url for request in deliver()] == [system.target_url]
        assert list(WebhookTarget.objects.matching(Event.objects.latest("id"))) == [system]
    assert is_reached(owned, "a.b", owner=owner)


@pytest.mark.django_db
def test_an_internal_event_cannot_be_subscribed_to_by_name(settings: LazySettings) -> None:
    """Its owner would wait for it in vain; the system's own targets may."""
    settings.DJWEBHOOKS_EVENTS = {"audit.entry": {"internal": True}, "a.b": {}}
    owner = make_user()

    with pytest.raises(InvalidTarget, match=r"'audit\.entry' is an internal event, which only the system's own targets get\."):
        WebhookTarget.objects.register(URL, ["audit.entry"], owner=owner)
    with pytest.raises(InvalidTarget, match="is an internal event"):
        Subscription(target=make_target(owner), event="audit.entry").clean()

    with pytest.raises(InvalidTarget, match=r"'gone' matches no event of the catalogue: a\.b\."):
        WebhookTarget.objects.register(URL, ["gone"], owner=owner)

    assert WebhookTarget.objects.register(f"{URL}/system", ["audit.entry"], owner=None).events == ["audit.entry"]
