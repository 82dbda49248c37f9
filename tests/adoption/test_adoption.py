"""Rows of another package become targets, once; whatever does not is told, with its reason."""

from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from djwebhooks.adoption import PACKAGES, SYSTEM, Adopted, adopt, find_owners
from djwebhooks.exceptions import InvalidAdoption
from djwebhooks.models import WebhookTarget
from tests.adoption.tables import URL, DjWebhooksTarget, make_row, make_webhook
from tests.builders import make_user

pytestmark = pytest.mark.django_db


def make(owner: User | None = None, event: str = "a", url: str = URL, **fields: Any) -> str:
    """Make a row of dj-webhooks, and return its name in the report."""
    row = make_row(DjWebhooksTarget, owner_id=owner.pk if owner else 0, event=event, target_url=url, **fields)
    return f"row {row.pk}"


def run(**options: Any) -> Adopted:
    return adopt("dj-webhooks", **options)


def list_targets() -> list[tuple[str, list[str]]]:
    return [(target.target_url, target.events) for target in WebhookTarget.objects.order_by("pk")]


def test_rows_of_one_address_become_one_target() -> None:
    """There was a row for each event; now the events are the subscriptions of a target, which the report tells."""
    ada = make_user("ada")
    names = [make(ada, "a"), make(ada, "b", "HTTPS://shop.example:443/hook")]
    elsewhere = make(ada, "b", "https://other.example")
    adopted = run()

    assert list_targets() == [(URL, ["a", "b"]), ("https://other.example/", ["b"])]
    assert [(one.url, one.owner, one.rows, one.events) for one in adopted.made] == [
        (URL, "ada", tuple(names), ("a", "b")),
        ("https://other.example/", "ada", (elsewhere,), ("b",)),
    ]
    assert (adopted.row_count, adopted.left_out, adopted.unchanged) == (3, [], [])


def test_owners_and_identifiers_keep_targets_apart() -> None:
    """Each is of its own owner, and gets what has its identifier."""
    ada, bob = make_user("ada"), make_user("bob")
    make(ada)
    make(bob)
    make(bob, identifier="p-42")
    run()

    assert set(WebhookTarget.objects.values_list("owner", "identifier")) == {(ada.pk, ""), (bob.pk, ""), (bob.pk, "p-42")}


def test_adopting_again_changes_nothing() -> None:
    """Not even where people have changed a target in the meantime, ended its subscriptions or paused it."""
    ada = make_user("ada")
    make(ada, "a")
    make(ada, "b")
    run()
    target = WebhookTarget.objects.get()
    target.events, target.is_active = ["a"], False
    target.save()
    adopted = run()

    assert list_targets() == [(URL, ["a"])]
    assert not WebhookTarget.objects.get().is_active
    assert adopted.made == []
    assert [one.events for one in adopted.unchanged] == [("b",)]


def test_targets_that_are_there_are_subscribed_when_that_is_asked_for() -> None:
    """They get the events that they lack; what a pattern of theirs wants, they do not lack."""
    ada = make_user("ada")
    for event in ("a", "b.c", "d"):
        make(ada, event)
    WebhookTarget.objects.register(URL, ["a", "b.*"], owner=ada)
    adopted = run(subscribe=True)

    assert list_targets() == [(URL, ["a", "b.*", "d"])]
    assert [one.events for one in adopted.subscribed] == [("d",)]
    assert run(subscribe=True).unchanged[0].events == ()


def test_a_hidden_target_is_found() -> None:
    """What fire(urls=…) has made becomes a target that everybody sees."""
    ada = make_user("ada")
    WebhookTarget.objects.direct(URL, ada)
    make(ada)
    run()

    assert list_targets() == [(URL, ["a"])]
    assert not WebhookTarget.objects.get().is_hidden


def test_a_dry_run_says_the_same_and_does_nothing() -> None:
    """Whatever a real run would find out, such as limits, it finds out."""
    ada = make_user("ada")
    make(ada)
    make(ada, url="ftp://shop.example")
    WebhookTarget.objects.register("https://there.example/", ["x"], owner=ada)
    make(ada, url="https://there.example")
    dry = run(subscribe=True, dry_run=True)

    assert list_targets() == [("https://there.example/", ["x"])]
    assert run(subscribe=True) == dry
    assert len(list_targets()) == 2


def test_what_cannot_be_is_left_out_with_its_reason(settings: LazySettings) -> None:
    """Addresses that are refused, owners that are gone, events that cannot be fired: the others are taken all the same."""
    settings.DJWEBHOOKS_ALLOW_HTTP = False
    settings.DJWEBHOOKS_EVENTS = {"a": {}}
    ada = make_user("ada")
    gone = make()
    names = [make(ada, url=url) for url in ("http://shop.example", "https://10.0.0.1/", "https://user:secret@shop.example/")]
    names += [make(ada, event) for event in ("not a name", "b")]
    make(ada)
    adopted = run()

    assert list_targets() == [(URL, ["a"])]
    no_pattern = (
        "'not a name' is no pattern: use an event's name (words of a-z, A-Z, 0-9, _ joined by dots), "
        "'project.*' for all below project, or '*' for all."
    )
    assert adopted.left_out == [
        (gone, "There is no auth.User with the primary key 0."),
        (names[0], "The URL begins with 'http'. Use https://. http:// needs DJWEBHOOKS_ALLOW_HTTP."),
        (names[1], "The address 10.0.0.1 is forbidden. Use the public name of the receiver."),
        (names[2], "The URL has a user name or password. Use the target's headers to authenticate."),
        (f"{names[3]}, event 'not a name'", no_pattern),
        (f"{names[4]}, event 'b'", "'b' matches no event of the catalogue: a."),
    ]


@pytest.mark.parametrize("key", ["ada", "", b"x"])
def test_a_key_that_no_user_can_have_is_nobodys(key: object) -> None:
    """Users may have had keys of another type when the row was written: it is left out, and the others are taken."""
    assert find_owners(PACKAGES["dj-webhooks"], "default")({"id": 1, "owner_id": key}) is None


def test_the_limit_of_targets_holds(settings: LazySettings) -> None:
    """An owner gets as many as DJWEBHOOKS_TARGETS_PER_OWNER allows, in the order of the rows."""
    settings.DJWEBHOOKS_TARGETS_PER_OWNER = 2
    ada = make_user("ada")
    names = [make(ada, url=f"https://shop.example/{number}") for number in range(3)]
    adopted = run()

    assert len(list_targets()) == 2
    assert [name for name, _ in adopted.left_out] == names[2:]
    assert "DJWEBHOOKS_TARGETS_PER_OWNER" in adopted.left_out[0][1]


@pytest.mark.sqlite
@pytest.mark.parametrize("wrong", ["bogus", "0000-00-00 00:00:00", "0001-01-01 00:00:00+14:00", 5, b"x"])
def test_a_row_whose_time_is_none_is_adopted(wrong: object) -> None:
    """SQLite holds whatever it was given: the target is as old as its adoption then. Of a secret, it is not known since when."""
    make(make_user("ada"))
    make_webhook("a.B/create", url="https://other.example/")
    before = timezone.now() - timedelta(minutes=1)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("UPDATE djwebhooks_webhooktarget SET created = %s, modified = %s", [wrong, wrong])
        for table in ("webhook", "webhooksecret"):
            cursor.execute(f"UPDATE django_webhook_{table} SET created = %s", [wrong])
        adopted = [run(), adopt("django-webhook", owner_of=lambda row: SYSTEM)]
        targets = list(WebhookTarget.objects.order_by("pk"))
        transaction.set_rollback(True)

    assert [len(one.made) for one in adopted] == [1, 1]
    assert all(target.created_at >= before for target in targets)
    assert [key.created_at for key in targets[1].keyring.keys] == [None]


def test_events_may_be_renamed() -> None:
    """What had a name that events cannot have gets one that they can."""
    make(make_user("ada"), "order paid")
    adopted = run(renamed={"order paid": "order.paid"})

    assert list_targets() == [(URL, ["order.paid"])]
    assert adopted.left_out == []


def test_a_function_says_whose_a_row_becomes() -> None:
    """It sees the whole row; where it returns nothing, the row is nobody's and left out."""
    ada, bob = make_user("ada"), make_user("bob")
    make(ada, identifier="x")
    left_out = make(ada)
    adopted = run(owner_of=lambda row: bob if row["identifier"] else None)

    assert list(WebhookTarget.objects.values_list("owner", flat=True)) == [bob.pk]
    assert adopted.left_out == [(left_out, "It is nobody's, as the function says that finds its owner.")]


def test_system_targets_are_made_on_request_only() -> None:
    """They see every owner's events, so somebody has to say so."""
    make(make_user("ada"))
    run(owner_of=lambda row: SYSTEM)

    assert WebhookTarget.objects.get().owner is None


def test_what_is_no_owner_is_refused() -> None:
    """Nothing is made when the function returns something else."""
    name = make(make_user("ada"))
    with pytest.raises(InvalidAdoption, match=rf"^Whose {name} becomes: owner must be auth\.User"):
        run(owner_of=lambda row: row["owner_id"])
    assert list_targets() == []


def test_targets_get_the_sender_that_is_asked_for(settings: LazySettings) -> None:
    """Until their receivers know another way; one that does not exist is refused before anything is made."""
    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender"}
    make(make_user("ada"))
    with pytest.raises(InvalidAdoption, match="'forms'"):
        run(sender="forms")
    run(sender="form")

    assert WebhookTarget.objects.get().sender == "form"


def test_a_missing_table_is_named() -> None:
    """So is one that is none of this package, and a package that nobody knows."""
    with pytest.raises(InvalidAdoption, match="The database 'default' has no table 'hooks': say --table"):
        run(table="hooks")
    with pytest.raises(InvalidAdoption, match="'auth_user' has no column 'event', as that of dj-webhooks has"):
        run(table="auth_user")
    with pytest.raises(InvalidAdoption, match="The rows have no column 'owner_id': say by --owner-by whose they are"):
        find_owners(PACKAGES["dj-webhooks"], "default")({"id": 1})
    with pytest.raises(InvalidAdoption, match="Nothing is known of 'webhooks'"):
        adopt("webhooks")


def test_packages_are_known_by_the_names_that_they_are_installed_by() -> None:
    """Each has its remarks, which are sentences."""
    for name, package in PACKAGES.items():
        assert package.name == name
        assert all(remark.endswith(".") for remark in (package.bodies, *package.remarks))


def test_users_are_no_owners_where_owners_are_something_else(settings: LazySettings) -> None:
    """Which owner a user stands for is the project's to say."""
    settings.DJWEBHOOKS_OWNER_MODEL = "library.Author"
    with pytest.raises(InvalidAdoption, match=r"are a user's, and targets belong to library\.Author: say by --owner-by"):
        run()
