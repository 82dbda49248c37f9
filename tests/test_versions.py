"""A payload in several versions: each target gets the one that it wants, or else the current one, and is told which."""

import json
import pickle
import sys
from collections.abc import Iterator
from datetime import timedelta
from operator import attrgetter
from types import ModuleType
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import transaction

from djwebhooks.build import build
from djwebhooks.catalogue import list_faults
from djwebhooks.contents import read_contents, write_bodies
from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.decorators import Hook, hook
from djwebhooks.erasure import erase_events
from djwebhooks.events import fire
from djwebhooks.exceptions import ConfigurationError, IdempotencyConflict, InvalidEvent, InvalidPayload
from djwebhooks.explain import explain_uid
from djwebhooks.feed import read_page
from djwebhooks.models import Body, Delivery, Event, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.payload import Message
from djwebhooks.senders import Sender
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Request
from djwebhooks.versions import MOST_VERSIONS, check_version, read_texts, write_texts
from tests.builders import make_target, make_user
from tests.library.models import Book
from tests.test_docs import DOCS, read_blocks

DB = "default"

pytestmark = pytest.mark.django_db

#: What the functions were called with, and which of them raise, by version.
calls: list[str] = []
faulty: set[str] = set()


def note(version: str) -> None:
    calls.append(version)
    if version in faulty:
        raise ValueError(f"{version or 'the current one'} is faulty")


@hook("project.update", version="2025-06")
def project_updated(name: str) -> dict[str, Any]:
    note("")
    return {"project": {"name": name}}


@project_updated.version("2024-01")
def project_updated_2024(name: str) -> dict[str, Any]:
    note("2024-01")
    return {"name": name}


@project_updated.version("2023-01")
def project_updated_2023(name: str) -> dict[str, Any]:
    note("2023-01")
    return {"title": name}


@hook("project.closed", build="now")
def project_closed(name: str) -> str:
    return name


@project_closed.version("2024-01")
def project_closed_2024(name: str) -> list[str]:
    return [name]


class Short(Sender):
    """Writes little."""

    def payload(self, message: Message) -> object:
        return [message.version, message.data]


class Project:
    """Has hooks that are methods."""

    @staticmethod
    @hook("project.open")
    def opened(name: str) -> str:
        return name

    @hook("project.method", build="now")
    def tell(self) -> str:
        return "new"

    @tell.version("old")
    def tell_old(self) -> str:
        return "old"


@pytest.fixture(autouse=True)
def clean_slate() -> Iterator[None]:
    yield
    calls.clear()
    faulty.clear()


def send(answer: int = 200) -> dict[str, tuple[Any, str | None]]:
    """Send what is due; return data and version by the ends of the addresses."""
    return {request.url.rpartition("/")[2]: read(request) for request in deliver(answer)}


def read(request: Request) -> tuple[Any, str | None]:
    return json.loads(request.body)["data"], request.headers.get("webhook-version")


def make_pinned(*versions: str) -> None:
    for version in versions:
        make_target(make_user(f"owner-{version}"), url=f"http://127.0.0.1:9/{version or 'current'}", version=version)


def make_due(event: Event) -> None:
    Event.objects.filter(pk=event.pk, build_due_at__isnull=False).update(build_due_at=DatabaseNow() - timedelta(seconds=1))
    Delivery.objects.pending().update(due_at=DatabaseNow())
    for delivery in Delivery.objects.select_related("target"):
        delivery.target.save()


# -- what each target gets ---------------------------------------------------------------------------------------------


def fire_update() -> Event:
    """Fire a hook's event to everybody."""
    event = project_updated("x")
    Event.objects.filter(pk=event.pk).update(is_broadcast=True)
    return event


def test_each_target_gets_the_version_that_it_wants() -> None:
    """One call, one build: the functions run once each, however many targets there are, and the header says which it is."""
    make_pinned("", "2024-01", "2023-01", "2025-06")
    fire_update()

    assert send() == {
        "current": ({"project": {"name": "x"}}, "2025-06"),
        "2025-06": ({"project": {"name": "x"}}, "2025-06"),
        "2024-01": ({"name": "x"}, "2024-01"),
        "2023-01": ({"title": "x"}, "2023-01"),
    }
    assert calls == ["", "2024-01", "2023-01"]


def test_an_event_without_the_version_is_sent_in_its_current_one() -> None:
    """Its receiver sees it by the header: it names another version, or there is none."""
    make_pinned("2022-01")
    fire("a.b", 1, version="3", broadcast=True)
    fire("a.c", 2, versions={"2021-01": 3}, broadcast=True)
    fire("a.d", 4, broadcast=True)

    assert [read(request) for request in deliver()] == [(1, "3"), (2, None), (4, None)]


def test_a_payload_is_fired_in_versions() -> None:
    """What ``fire`` is given needs no function."""
    make_pinned("", "old")
    fire("a.b", {"new": 1}, version="new", versions={"old": {"old": 1}}, broadcast=True)

    assert send() == {"current": ({"new": 1}, "new"), "old": ({"old": 1}, "old")}


def test_a_hook_that_builds_at_once_builds_all_versions() -> None:
    """Both functions run at the call, those of methods, too."""
    events = [project_closed("x"), Project().tell()]

    assert [event.payloads for event in events] == [{"": '"x"', "2024-01": '["x"]'}, {"": '"new"', "old": '"old"'}]
    assert [event.call for event in events] == ["", ""]


def test_every_attempt_has_the_same_bytes() -> None:
    """The body of a version is written once, as that of the current one is."""
    make_pinned("2024-01")
    event = fire_update()
    first = deliver(500)
    make_due(event)
    second = deliver()

    assert [request.headers["webhook-attempt"] for request in first + second] == ["1", "2"]
    assert first[0].body == second[0].body
    assert [body.format for body in Body.objects.all()] == ["standard@2024-01"]
    assert calls == ["", "2024-01", "2023-01"]


@pytest.mark.parametrize("envelope", ["standard", "flat", "cloudevents"])
def test_a_version_goes_in_every_envelope(envelope: str) -> None:
    """Also to targets of the system, who are told the owner."""
    owner = make_user()
    make_target(owner, url="http://127.0.0.1:9/a", version="old", envelope=envelope)
    make_target(url="http://127.0.0.1:9/b", version="old", envelope=envelope)
    fire("a.b", {"new": 1}, versions={"old": {"old": 1}}, owner=owner)

    bodies = [json.loads(request.body) for request in sorted(deliver(), key=attrgetter("url"))]

    assert [body.get("data", body)["old"] for body in bodies] == [1, 1]
    assert bodies[1]["owner"] == "ada"


def test_a_sender_writes_the_version_that_the_target_wants(settings: LazySettings) -> None:
    """It sees that one alone, and its name; the header is the usual one."""
    settings.DJWEBHOOKS_SENDERS = {"short": "tests.test_versions.Short"}
    for version in ("", "old"):
        make_target(url=f"http://127.0.0.1:9/{version or 'current'}", version=version, sender="short")
    fire("a.b", 1, version="new", versions={"old": 2})

    sent = [(json.loads(request.body), request.headers["webhook-version"]) for request in deliver()]

    assert sorted(sent) == [(["new", 1], "new"), (["old", 2], "old")]


def test_the_feed_gives_the_version_that_the_target_wants() -> None:
    """What is fetched is what would be sent, header included."""
    target = make_target(version="old")
    fire("a.b", 1, versions={"old": 2})
    fire("a.c", 3, version="new")
    deliver()

    items = read_page(target, 0, DB).items

    assert [(json.loads(item.body)["data"], item.headers.get("webhook-version")) for item in items] == [(2, "old"), (3, "new")]


def test_who_wants_no_version_pays_nothing_for_them(django_assert_num_queries: Any) -> None:
    """Neither is another version read, nor is there a statement more."""
    event = fire("a.b", 1, versions={"old": 2})

    now = read_clock(DB)

    with django_assert_num_queries(1) as queries:
        contents = read_contents(DB, [event.pk], now, with_versions=False)

    assert "versions" not in queries[0]["sql"]
    assert contents[event.pk].built == {"": True}


# -- a version that fails ----------------------------------------------------------------------------------------------


def test_a_version_that_fails_stops_no_other() -> None:
    """The others are kept, and sent; it alone is run again, after the usual pause, and its target gets no other meanwhile."""
    make_pinned("", "2024-01", "2023-01")
    faulty.add("2024-01")
    event = fire_update()

    assert send().keys() == {"current", "2023-01"}
    waiting = Delivery.objects.get(status=Status.PENDING)
    assert (waiting.target.version, waiting.reason) == ("2024-01", "build_error")
    assert "2024-01 is faulty" in Event.objects.get().build_error

    faulty.clear()
    calls.clear()
    make_due(event)

    assert send() == {"2024-01": ({"name": "x"}, "2024-01")}
    assert calls == ["2024-01"]
    event.refresh_from_db()
    assert (event.call, event.build_error) == ("", "")


def test_the_current_version_may_fail_alone() -> None:
    """Targets of another one get theirs."""
    make_pinned("", "2024-01")
    faulty.add("")
    event = fire_update()

    assert send().keys() == {"2024-01"}
    faulty.clear()
    make_due(event)
    assert send() == {"current": ({"project": {"name": "x"}}, "2025-06")}


def test_a_version_is_given_up_after_the_last_try() -> None:
    """Its deliveries fail, nobody else's do, and a retry by hand begins anew."""
    make_pinned("", "2024-01")
    faulty.add("2024-01")
    event = fire_update()
    deliver()
    for _ in range(BUILD_TRIES):
        make_due(event)
        deliver()

    failed = Delivery.objects.get(status=Status.FAILED)
    assert (failed.target.version, failed.reason) == ("2024-01", "build_error")
    assert Delivery.objects.get(status=Status.SUCCEEDED).target.version == ""
    assert calls.count("2024-01") == BUILD_TRIES
    assert calls.count("") == 1
    event.refresh_from_db()
    assert event.has_failed_to_build

    faulty.clear()
    failed.retry()
    assert send() == {"2024-01": ({"name": "x"}, "2024-01")}


def test_which_versions_there_are_is_settled_by_the_first_that_is_built() -> None:
    """A version that a deploy adds later is not for this event: a target would get other bytes at a retry."""
    event = fire_update()
    faulty.update(("2024-01", "2023-01"))
    build(DB, event.pk)

    Event.objects.all().keep_build(event.pk, {"2024-01": '"late"', "2026-01": '"new"'}, "", "why", timedelta(0))

    event.refresh_from_db()
    assert event.payloads == {"": '{"project":{"name":"x"}}', "2024-01": '"late"', "2023-01": None}


def test_what_was_built_first_is_kept() -> None:
    """A slower build changes nothing of it."""
    event = fire_update()
    build(DB, event.pk)
    Event.objects.filter(pk=event.pk).update(call=event.call)

    Event.objects.all().keep_build(event.pk, {"": '"late"', "2024-01": '"late"'}, "late", "", timedelta(0))

    event.refresh_from_db()
    assert (event.version, event.payloads["2024-01"], event.call) == ("2025-06", '{"name":"x"}', "")


def test_a_version_that_the_code_lost_is_an_error() -> None:
    """It is not silently sent in another one."""
    faulty.add("2024-01")
    event = fire_update()
    build(DB, event.pk)
    Event.objects.filter(pk=event.pk).update(versions=write_texts({"2020-01": None}))
    make_due(event)
    build(DB, event.pk)

    event.refresh_from_db()
    assert "has no version '2020-01' in this process" in event.build_error


def test_an_explanation_says_which_versions_there_are() -> None:
    """Of an event which are built and why others are not; of a delivery which one it is."""
    make_pinned("", "2024-01", "2020-01")
    faulty.add("2024-01")
    event = fire_update()
    deliver()

    told = explain(event.uid)
    assert "Its current version is 2025-06." in told
    assert "Built in version 2023-01 as well." in told
    assert "In version 2024-01: Not built yet after 1 of 5 runs" in told
    assert "ValueError: 2024-01 is faulty" in told
    waiting, other = (Delivery.objects.get(target__version=version) for version in ("2024-01", "2020-01"))
    assert "Version: 2024-01, as its target wants it" in explain(waiting.uid)
    assert "Payload: Not built yet after 1 of 5 runs" in explain(waiting.uid)
    assert "the current one (2025-06), as there is none called 2020-01" in explain(other.uid)


def explain(uid: Any) -> str:
    explanation = explain_uid(uid)
    assert explanation is not None
    return "\n".join(line for section in explanation.sections for line in section.lines)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_an_erasure_erases_all_versions(settings: LazySettings) -> None:
    """Texts, and bodies: those that are written, and those that a worker is just about to write, whoever writes them."""
    settings.DJWEBHOOKS_SENDERS = {"short": "tests.test_versions.Short"}
    make_pinned("old", "older")
    event = fire("a.b", 1, versions={"old": "secret", "older": "secret"}, broadcast=True)
    late = read_contents(DB, [event.pk], read_clock(DB), with_versions=True)
    deliver()

    erase_events(Event.objects.all())
    late[event.pk].wanted.update(("standard@old", "sender:short+owner@old", "cloudevents@old", "sender:short@old"))
    write_bodies(DB, late)

    event.refresh_from_db()
    assert event.payloads == {"": None}
    assert {bytes(body.content) for body in Body.objects.all()} == {b""}
    assert set(Body.objects.filter(format__contains="@").values_list("format", flat=True)) >= {
        "standard@old",
        "flat@older",
    }


def test_versions_are_part_of_what_an_idempotency_key_stands_for() -> None:
    """The same in another version is not the same."""
    first = fire("a.b", 1, versions={"x": 2, "y": 3}, idempotency_key="k")

    assert fire("a.b", 1, versions={"y": 3, "x": 2}, idempotency_key="k").pk == first.pk
    with transaction.atomic(), pytest.raises(IdempotencyConflict):
        fire("a.b", 1, versions={"x": 2, "y": 4}, idempotency_key="k")


# -- what can be a version ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["2024-01", "v2", "2", "1.0.3", "2024-01-31_beta", "x" * 32])
def test_a_name_of_a_version(name: str) -> None:
    """Dates, numbers and words, as a header can hold them."""
    assert check_version(name) == name


@pytest.mark.parametrize("name", ["", "-1", "a b", "a@b", "ä", "x" * 33, "a\n", 2024, None])
def test_what_is_no_name_of_a_version(name: Any) -> None:
    """The message says what one is made of."""
    with pytest.raises(InvalidEvent, match=r"cannot name a version: use up to 32 of a-z"):
        check_version(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"versions": {"a b": 1}}, "'a b' cannot name a version"),
        ({"version": "a b"}, "'a b' cannot name a version"),
        ({"version": "2", "versions": {"2": 1}}, "'2' is given twice"),
        ({"versions": {str(number): 1 for number in range(MOST_VERSIONS + 1)}}, "may have 20 versions besides the current one"),
    ],
)
def test_versions_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    """Before anything is written."""
    with pytest.raises(InvalidEvent, match=message):
        fire("a.b", 1, **options)

    assert not Event.objects.exists()


def test_each_version_must_be_json() -> None:
    """Each is held against the limits of a payload."""
    with pytest.raises(InvalidPayload, match="JSON cannot hold nan"):
        fire("a.b", 1, versions={"old": float("nan")})


def test_a_hook_with_versions_stays_a_plain_function() -> None:
    """It can be pickled, as RQ does; its other functions stay what they were, and can be called."""
    assert pickle.loads(pickle.dumps(project_updated)) is project_updated
    assert project_updated_2024("x") == project_updated.versions["2024-01"]("x") == {"name": "x"}
    assert project_updated.current == "2025-06"
    assert not Event.objects.exists()


def other_parameters(title: str) -> str:
    return title


def same_parameters(name: str) -> str:
    return name


async def asynchronous(name: str) -> str:
    return name


@pytest.mark.parametrize(
    ("version", "function", "error", "message"),
    [
        ("2024-01", same_parameters, InvalidEvent, "'2024-01' is given twice"),
        ("2025-06", same_parameters, InvalidEvent, "'2025-06' is given twice"),
        ("a b", same_parameters, InvalidEvent, "cannot name a version"),
        ("1", other_parameters, ConfigurationError, r"must have the parameters of the hook, \(name: str\)"),
        ("1", asynchronous, ConfigurationError, "async def"),
        ("1", project_closed, ConfigurationError, "is a hook: decorate a plain function"),
        ("1", project_updated.build, ConfigurationError, "would take the place of the hook"),
    ],
)
def test_what_cannot_build_a_version_is_refused(version: str, function: Any, error: type[Exception], message: str) -> None:
    """Whoever decorates it hears at once."""
    decorated: Hook[..., Any] = project_updated
    with pytest.raises(error, match=message):
        decorated.version(version)(function)

    assert list(project_updated.versions) == ["2024-01", "2023-01"]


def test_a_hook_s_own_version_must_have_a_name_that_can_be() -> None:
    """As any other."""
    with pytest.raises(InvalidEvent, match="cannot name a version"):
        hook("a.b", version="a b")


def test_texts_come_back_as_they_were() -> None:
    """Whatever is in them, and whichever are missing."""
    texts = {"b": '{"a":"\\"ä\\u2028"}', "a": None}

    assert read_texts(write_texts(texts)) == texts
    assert (write_texts({}), read_texts("")) == ("", {})


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_page_does_what_it_says(monkeypatch: pytest.MonkeyPatch, settings: LazySettings) -> None:
    """Its hook, its ``fire``, its targets and its catalogue, one after the other."""
    blocks = {block.caption: block.text for block in read_blocks(DOCS / "how-to" / "versions.rst")}
    exec(blocks["settings"], told := {})
    settings.DJWEBHOOKS_EVENTS = told["DJWEBHOOKS_EVENTS"]
    assert list_faults("project.update", settings.DJWEBHOOKS_EVENTS["project.update"]) == []
    module = ModuleType("projects_hooks")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(blocks["projects/webhooks.py"], module.__dict__)
    user, book = make_user(), Book.objects.create(title="x")
    names: dict[str, Any] = {"user": user}
    exec(blocks["pin"].replace("https://example.com/hook", "http://127.0.0.1:9/old"), names)
    pinned = names["target"]
    WebhookTarget.objects.filter(pk=pinned.pk).update(version="2024-01")
    make_target(user, url="http://127.0.0.1:9/new")

    module.project_updated(book, owner=user)
    assert send() == {
        "new": ({"project": {"id": str(book.pk), "title": "x"}}, "2025-06"),
        "old": ({"id": str(book.pk), "title": "x"}, "2024-01"),
    }
    exec(blocks["fire"], names)
    assert send() == {"new": ({"project": {"title": "x"}}, "2025-06"), "old": ({"title": "x"}, "2024-01")}
    exec(blocks["who"], names)
    assert list(names["pinned"]) == [pinned]
