"""The catalogue, from the setting and from code, and what it keeps from happening."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User

from djwebhooks import catalogue
from djwebhooks.catalogue import EventType, check_payload, is_internal, is_known, is_possible, list_event_types, register_event
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.exceptions import ConfigurationError, InvalidEvent, InvalidTarget, SchemaMismatch, UnknownEvent
from djwebhooks.models import Event, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.testing import deliver
from tests.builders import URL

SCHEMA = {"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}}


@pytest.fixture(autouse=True)
def registered() -> Iterator[dict[str, Any]]:
    """What code registers during the test."""
    yield catalogue._registered
    catalogue._registered.clear()


@hook("paper.titled")
def title(title: object) -> dict[str, object]:
    return {"title": title}


# -- what there is -----------------------------------------------------------------------------------------------------


def test_without_a_catalogue_any_name_will_do() -> None:
    """Nobody has to say what there is."""
    assert catalogue.is_open()
    assert is_known("whatever")
    assert is_possible("what.*")
    assert list_event_types() == []


def test_the_setting_and_code_make_one_catalogue(settings: LazySettings) -> None:
    """What is in either of them is there, and the setting has the last word."""
    settings.DJWEBHOOKS_EVENTS = {"a.b": {"description": "Told."}, "audit": {"internal": True}}

    register_event("c.d", schema=SCHEMA, sample={"title": "x"}, deprecated="Use a.b.")
    register_event("a.b", description="Registered.")

    assert list_event_types() == [
        EventType("a.b", "Told."),
        EventType("audit", internal=True),
        EventType("c.d", schema=SCHEMA, sample={"title": "x"}, deprecated="Use a.b."),
    ]
    assert [is_known("c.d"), is_known("c.e")] == [True, False]
    assert [is_possible("c.*"), is_possible("e.*"), is_possible("webhook.*")] == [True, False, True]


def test_events_about_models_are_in_the_catalogue(settings: LazySettings) -> None:
    """Who has named them in one setting need not name them in another; alone they close nothing."""
    settings.DJWEBHOOKS_MODEL_EVENTS = {"book.added": "library.Book.created"}
    assert is_known("whatever")
    assert list_event_types() == []

    settings.DJWEBHOOKS_EVENTS = {"a.b": {}}

    assert [is_known("book.added"), is_possible("book.*"), is_known("whatever")] == [True, True, False]
    assert list_event_types() == [EventType("a.b"), EventType("book.added")]


def test_to_register_the_same_again_changes_nothing() -> None:
    """A module may be imported twice; but two places cannot say two things."""
    assert register_event("a.b", description="One.") == register_event("a.b", description="One.")

    with pytest.raises(ConfigurationError, match=r"'a\.b' was registered before with something else"):
        register_event("a.b", description="Two.")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"description": 1}, "'a' has a description that must be a text, not 1."),
        ({"schema": ["object"]}, "'a' has a schema that must be a JSON Schema, which is a dictionary, or None"),
        ({"internal": "yes"}, "'a' has a internal that must be True or False, not 'yes'."),
        ({"deprecated": True}, "'a' has a deprecated that must be a text that says what to use instead, not True."),
        ({"schema": {"type": "objekt"}}, r"'a' has an invalid schema: \$\.type: 'objekt' is not valid"),
        ({"schema": SCHEMA, "sample": {"title": 1}}, r"'a' has a sample that does not fit its schema: \$\.title must fit"),
        ({"schema": {"$ref": "https://example.com/x"}}, "refers to 'https://example.com/x', which is not in it"),
        ({"schema": {"allOf": [{"$ref": "#/$defs/none"}]}}, r"refers to '#/\$defs/none', which is not in it"),
        ({"schema": {"items": {"$ref": "#/$defs/none"}}}, r"refers to '#/\$defs/none', which is not in it"),
        ({"schema": {"pattern": "("}}, "'a' has an invalid schema: "),
        ({"version": 2}, "'a' has a version that must be a text that names it, not 2"),
        ({"version": "2", "versions": {"2": {}}}, "'a': The version '2' is given twice"),
        ({"versions": {"2": "x"}}, "'a' in version '2' must have a dictionary, not 'x'"),
        ({"versions": {"2": {"versions": {}}}}, "'a' in version '2' has the key 'versions', which means nothing: there are"),
        ({"versions": {"2": {"schema": SCHEMA, "sample": {}}}}, r"'a' in version '2' has a sample that does not fit its schema"),
        ({"schema": {"$ref": "#"}, "sample": 1}, "sample that does not fit its schema: it cannot be checked, .* RecursionError"),
    ],
)
def test_what_cannot_be_is_refused(entry: dict[str, Any], message: str, registered: dict[str, Any]) -> None:
    """Whoever registers it hears at once what is wrong with it, and nothing is registered."""
    with pytest.raises(ConfigurationError, match=message):
        register_event("a", **entry)

    assert registered == {}


def test_a_name_that_cannot_be_is_refused() -> None:
    """The rule is that of ``fire``."""
    with pytest.raises(InvalidEvent, match="'a-b' is no event name"):
        register_event("a-b")


@pytest.mark.django_db
def test_an_event_that_is_not_registered_is_refused() -> None:
    """Its name may be misspelt."""
    register_event("project.update")

    with pytest.raises(UnknownEvent, match=r"'project\.updated' is not in the catalogue, which has project\.update\."):
        fire("project.updated", 1)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [({"internal": True}, True), ({"internal": False}, False), ({}, False), (None, False), ("A user changed.", False)],
)
def test_only_what_says_so_is_internal(settings: LazySettings, entry: object, expected: bool) -> None:
    """An entry that is no dictionary is for the system check to complain of: a worker goes on."""
    settings.DJWEBHOOKS_EVENTS = {"user.update": entry}

    assert is_internal("user.update") is expected
    assert not is_internal("another")


# -- schemas -----------------------------------------------------------------------------------------------------------


def test_a_payload_that_does_not_fit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The message says where and what is asked for, and nothing of what the payload has there."""
    register_event("a", schema=SCHEMA)

    check_payload("a", '{"title": "fine"}')
    assert caplog.records == []
    check_payload("a", '{"title": 4711}')

    [record] = caplog.records
    assert (record.name, record.levelno) == ("djwebhooks.catalogue", logging.WARNING)
    assert record.getMessage() == 'The payload of \'a\' does not fit its schema: $.title must fit {"type": "string"}'


@pytest.mark.django_db
def test_a_payload_that_does_not_fit_can_be_refused(settings: LazySettings) -> None:
    """``fire`` and a hook that is built at the call raise before anything is written."""
    settings.DJWEBHOOKS_VALIDATE_PAYLOADS = "refuse"
    register_event("a", schema=SCHEMA)

    with pytest.raises(SchemaMismatch, match=r"The payload of 'a' does not fit its schema: \$ must fit \{\"required\""):
        fire("a", {})

    assert not Event.objects.exists()
    assert fire("a", {"title": "x"}).pk


@pytest.mark.django_db(transaction=True)
def test_a_hook_whose_payload_is_refused_has_failed(settings: LazySettings) -> None:
    """In the worker it is as if the function had raised: staff see why, and it is tried again."""
    settings.DJWEBHOOKS_VALIDATE_PAYLOADS = "refuse"
    register_event("paper.titled", schema=SCHEMA)
    owner = User.objects.create_user("owner")
    target = WebhookTarget.objects.register("https://example.com/", ["paper.titled"], owner=owner)

    good, bad = title("x"), title(4711)
    Event.objects.update(owner=owner)
    requests = deliver()

    assert [request.headers["webhook-id"] for request in requests] == [str(good.uid)]
    bad.refresh_from_db()
    assert "SchemaMismatch: The payload of 'paper.titled' does not fit its schema" in bad.build_error
    assert target.deliveries.get(event=bad).status == Status.PENDING


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#"}, "1"),
        ({"multipleOf": 0.1}, "1" + "0" * 400),
        ({"properties": {"x": {"$ref": "#"}}}, '{"x":' * 85 + "1" + "}" * 85),
        (MappingProxyType({"properties": MappingProxyType({"x": MappingProxyType({"type": "string"})})}), '{"x": 1}'),
    ],
)
def test_no_schema_keeps_an_event_from_being_fired(settings: LazySettings, schema: Any, text: str) -> None:
    """Whatever the library makes of it: unless payloads are to be refused, there is a line in the log at most."""
    settings.DJWEBHOOKS_EVENTS = {"a": {"schema": schema}}

    check_payload("a", text)


def test_nothing_is_checked_when_that_is_asked_for(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """Schemas may be there for the documentation alone."""
    settings.DJWEBHOOKS_VALIDATE_PAYLOADS = None
    register_event("a", schema=SCHEMA)

    check_payload("a", "4711")

    assert caplog.records == []


WITHOUT_LIBRARY = """
import sys; sys.modules["jsonschema"] = None
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django_rq", "djwebhooks"],
    RQ_QUEUES={"default": {"URL": "redis://localhost"}}, USE_TZ=True, DJWEBHOOKS_VALIDATE_PAYLOADS=sys.argv[1],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DJWEBHOOKS_EVENTS={"a.b": {"schema": {"type": "object"}}})
import django; django.setup()
from django.core.checks import run_checks
print([check.id for check in run_checks() if check.id.startswith("djwebhooks") and "schema" in check.msg])
from djwebhooks import catalogue, exceptions
catalogue.check_payload("c.d", "4711")
try:
    catalogue.check_payload("a.b", "4711")
except exceptions.ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("warn", ["['djwebhooks.W014']"]),
        ("refuse", ["['djwebhooks.E026']", catalogue.NO_LIBRARY]),
    ],
)
def test_without_the_library_payloads_are_only_refused_when_that_was_asked_for(mode: str, said: list[str]) -> None:
    """A site that never asked for it works without the library, with a warning; one that relies on it hears of it."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_LIBRARY, mode], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines() == said


# -- versions ----------------------------------------------------------------------------------------------------------

IN_VERSIONS = {
    "a.b": {"version": "2", "schema": SCHEMA, "versions": {"1": {"schema": {"type": "string"}, "deprecated": "Use 2."}}},
    "a.c": {"version": "2"},
    "a.d": {},
}


@pytest.mark.django_db
def test_each_version_is_held_against_its_own_schema(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """The warning says which one it is; the current one may go without its name."""
    settings.DJWEBHOOKS_EVENTS = IN_VERSIONS

    fire("a.b", {"title": "x"}, version="2", versions={"1": "x"})
    assert caplog.messages == []

    fire("a.b", "x", versions={"1": {"title": "x"}})
    assert caplog.messages == [
        """The payload of 'a.b' does not fit its schema: $ must fit {"type": "object"}""",
        """The payload of 'a.b' in version '1' does not fit its schema: $ must fit {"type": "string"}""",
    ]


def test_a_version_may_be_all_that_has_a_schema(settings: LazySettings) -> None:
    """It counts as a schema of the catalogue."""
    settings.DJWEBHOOKS_EVENTS = {"a": {"versions": {"1": {}}}}
    assert not catalogue.has_schemas()

    settings.DJWEBHOOKS_EVENTS = {"a": {"versions": {"1": {"schema": SCHEMA}}}}
    assert catalogue.has_schemas()


@pytest.mark.django_db
@pytest.mark.parametrize("options", [{"version": "3"}, {"versions": {"3": 1}}])
def test_a_version_that_the_catalogue_does_not_have_is_refused(settings: LazySettings, options: dict[str, Any]) -> None:
    """Of an event whose versions it knows; of the others any will do."""
    settings.DJWEBHOOKS_EVENTS = IN_VERSIONS

    with pytest.raises(UnknownEvent, match=r"'a\.c' has no version '3' in the catalogue, which has 2\."):
        fire("a.c", 1, **options)

    fire("a.d", 1, **options)


def test_versions_are_listed_with_their_event(settings: LazySettings) -> None:
    """Each says what an event says, but that it has others; an internal event's are internal."""
    settings.DJWEBHOOKS_EVENTS = {"audit": {"internal": True, "version": "2", "versions": {"1": {"deprecated": "Use 2."}}}}

    old = EventType("audit", internal=True, deprecated="Use 2.", version="1")
    assert list_event_types() == [EventType("audit", internal=True, version="2", versions=(old,))]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("events", "version"),
    [(["a.b"], "1"), (["a.b"], "2"), (["a.b", "a.c"], "1"), (["a.*"], "3"), (["a.d"], "3"), (["webhook.target.disabled"], "3")],
)
def test_a_target_may_want_what_some_event_of_it_may_have(settings: LazySettings, events: list[str], version: str) -> None:
    """One event is enough, and of one whose versions are not told nobody knows."""
    settings.DJWEBHOOKS_EVENTS = IN_VERSIONS

    assert WebhookTarget.objects.register(URL, events, owner=None, version=version).version == version


@pytest.mark.django_db
def test_a_target_cannot_want_what_none_of_its_events_has(settings: LazySettings) -> None:
    """Whoever makes it, or changes its events, hears which there are."""
    settings.DJWEBHOOKS_EVENTS = IN_VERSIONS
    with pytest.raises(InvalidTarget, match=r"None of the events has a version '3': there are 1, 2\. Leave it empty"):
        WebhookTarget.objects.register(URL, ["a.b", "a.c"], owner=None, version="3")
    with pytest.raises(InvalidTarget, match="'a b' cannot name a version"):
        WebhookTarget.objects.register(URL, ["a.b"], owner=None, version="a b")

    target = WebhookTarget.objects.register(URL, ["a.b"], owner=None, version="1")
    target.events = ["a.c"]
    with pytest.raises(InvalidTarget, match="there are 2"):
        target.clean()


@pytest.mark.django_db
def test_new_targets_get_the_version_of_the_setting(settings: LazySettings) -> None:
    """Those that are given none, whatever their events are; older ones keep theirs."""
    settings.DJWEBHOOKS_EVENTS = IN_VERSIONS
    before = WebhookTarget.objects.register(URL, ["a.c"], owner=None)
    settings.DJWEBHOOKS_TARGET_VERSION = "1"

    made = [WebhookTarget.objects.register(f"{URL}/{len(pin)}", ["a.c"], owner=None, **pin) for pin in ({}, {"version": ""})]

    assert [target.version for target in made] == ["1", ""]
    assert WebhookTarget.objects.register(URL, ["a.c"], owner=None).version == before.version == ""
