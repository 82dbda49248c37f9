"""What becomes of the rows and settings of django-rest-hooks and drf-hooks."""

from typing import Any

import pytest
from django.conf import LazySettings

from djwebhooks.adoption import adopt, rest_hooks
from djwebhooks.model_events import read_all
from djwebhooks.models import WebhookTarget
from tests.adoption.tables import URL, CustomHook, DrfHook, RestHook, make_row
from tests.builders import make_user

pytestmark = pytest.mark.django_db

JSON = {"Content-Type": "application/json"}


def make_drf(headers: Any, event: str = "book.added", url: str = URL) -> str:
    return f"row {make_row(DrfHook, user_id=make_user(f'of {url} {event}').pk, event=event, target=url, headers=headers).pk}"


def test_hooks_become_targets_of_their_users() -> None:
    """One target for all that a user wants at an address, as old as the first of its hooks."""
    ada, bob = make_user("ada"), make_user("bob")
    first = make_row(RestHook, user_id=ada.pk, event="book.added", target=URL)
    make_row(RestHook, user_id=ada.pk, event="book.changed", target=URL)
    make_row(RestHook, user_id=bob.pk, event="book.added", target=URL)
    adopt("django-rest-hooks")
    targets = WebhookTarget.objects.order_by("pk")

    assert [(target.owner, target.events) for target in targets] == [
        (ada, ["book.added", "book.changed"]),
        (bob, ["book.added"]),
    ]
    assert targets[0].created_at == first.created
    assert targets[0].envelope == ""


def test_headers_of_drf_hooks_are_kept() -> None:
    """But for the content type that all hooks have from the beginning: each request has it anyway."""
    make_drf(JSON | {"Authorization": "Bearer 7"})
    make_drf(JSON, url="https://other.example/")
    adopt("drf-hooks")

    assert [target.headers for target in WebhookTarget.objects.order_by("pk")] == [{"Authorization": "Bearer 7"}, {}]


def test_headers_that_cannot_be_sent_leave_their_hook_out() -> None:
    """The report says why, and not what they are: a header may hold a password."""
    many = {f"x-{number}": "" for number in range(51)}
    names = [make_drf({"Content-Type": "text/plain"}), make_drf(["a"], "b"), make_drf(JSON | {"token": "päss\n"}, "c")]
    names.append(make_drf(many, "d"))
    adopted = adopt("drf-hooks")

    assert adopted.left_out == [
        (names[0], "The header 'Content-Type' is set by djwebhooks; choose another name."),
        (names[1], "Headers are an object of names and strings."),
        (names[2], "The value of the header 'token' has characters that a header cannot hold."),
        (names[3], "A target may have 50 additional headers, not 51."),
    ]


def test_headers_that_are_no_json_leave_their_hook_out() -> None:
    """As a project's own column of a text may have them; all other hooks are adopted."""
    assert rest_hooks.read_headers({"headers": "{'a': 'b'}"}) == "{'a': 'b'}"


def test_hooks_with_other_headers_do_not_share_a_target() -> None:
    """A target has its headers once, so the second hook is left out, for somebody to decide."""
    ada = make_user("ada")
    rows = [
        make_row(DrfHook, user_id=ada.pk, event=event, target=URL, headers={"key": event}).pk
        for event in ("book.added", "book.sold")
    ]
    adopted = adopt("drf-hooks")

    assert WebhookTarget.objects.get().events == ["book.added"]
    assert adopted.left_out == [(f"row {rows[1]}", f"row {rows[0]} has the same URL, but other headers.")]


def test_a_target_with_other_headers_is_told_of() -> None:
    """It is left as it is."""
    ada = make_user("ada")
    hook = make_row(DrfHook, user_id=ada.pk, event="book.added", target=URL, headers={"key": "7"})
    WebhookTarget.objects.register(URL, ["book.added"], owner=ada)

    assert adopt("drf-hooks").remarks == [(f"row {hook.pk}", "The target that is there has other headers.")]


def test_hooks_of_a_model_of_ones_own_are_read_from_its_table() -> None:
    """HOOK_CUSTOM_MODEL had them in another table, drf-hooks' first releases in that of django-rest-hooks."""
    make_drf({"key": "7"})
    adopt("django-rest-hooks", table="drf_hooks_hook")

    assert WebhookTarget.objects.get().headers == {"key": "7"}


@pytest.mark.parametrize("package", ["django-rest-hooks", "drf-hooks"])
def test_inactive_hooks_stay_so(package: str) -> None:
    """Nobody is sent anything who had switched it off; the report says what is different for them."""
    ada, bob = make_user("ada"), make_user("bob")
    make_row(CustomHook, user_id=ada.pk, event="book.added", target=URL)
    off = make_row(CustomHook, user_id=bob.pk, event="book.added", target=URL, is_active=False)
    adopted = adopt(package, table="bookstore_customhook")

    assert list(WebhookTarget.objects.order_by("pk").values_list("owner", "is_active")) == [(ada.pk, True), (bob.pk, False)]
    assert adopted.remarks == [(f"row {off.pk}", "It is inactive, as it was; but what happens meanwhile is held for it.")]


def test_settings_are_translated(settings: LazySettings) -> None:
    """Events about models that can be fired by themselves, with their users; the catalogue has the others as well."""
    settings.HOOK_EVENTS = {
        "author.added": "library.Author.created+",
        "author.paid": "library.Author.paid",
        "user.changed": "auth.User.updated",
        "book.removed": "library.Book.deleted",
        "book read": None,
    }
    suggested = adopt("drf-hooks", renamed={"book read": "book.read"}).settings

    assert list(suggested["DJWEBHOOKS_EVENTS"]) == ["author.added", "author.paid", "user.changed", "book.removed", "book.read"]
    assert suggested["DJWEBHOOKS_MODEL_EVENTS"] == {
        "author.added": {"on": "library.Author.created", "broadcast": True},
        "user.changed": {"on": "auth.User.updated", "owner": "self"},
        "book.removed": {"on": "library.Book.deleted", "owner": "user"},
    }
    assert read_all({name: entry for name, entry in suggested["DJWEBHOOKS_MODEL_EVENTS"].items() if name != "book.removed"})


def test_without_settings_nothing_is_translated() -> None:
    """As where they are gone already."""
    assert adopt("drf-hooks").settings == {}
