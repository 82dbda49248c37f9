"""``manage.py webhooks adopt``: what it takes and what it says."""

from io import StringIO

import pytest
from django.conf import LazySettings
from django.core.management import call_command
from django.core.management.base import CommandError

from djwebhooks.adoption.tables import Row
from djwebhooks.models import WebhookTarget
from tests.adoption.tables import DjWebhooksTarget, make_row, make_webhook
from tests.builders import make_user

pytestmark = pytest.mark.django_db


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("webhooks", "adopt", *arguments, stdout=output, no_color=True)
    return output.getvalue()


def make(owner_id: int, url: str = "https://shop.example/hook", event: str = "a", identifier: str = "") -> str:
    row = make_row(DjWebhooksTarget, owner_id=owner_id, event=event, target_url=url, identifier=identifier)
    return f"row {row.pk}"


def test_the_report_says_what_became_of_each_row(settings: LazySettings) -> None:
    """First what would be, then what is, then that all is there."""
    settings.WEBHOOK_EVENTS = ["a", "b"]
    ada = make_user("ada")
    names = [make(ada.pk), make(ada.pk, event="b"), make(ada.pk, "https://shop.example/p", identifier="p-42"), make(0)]
    made = [
        f"  https://shop.example/hook of ada ({names[0]}, {names[1]}): a, b",
        f"  https://shop.example/p of ada with 'p-42' ({names[2]}): a",
    ]
    gone = f"  {names[3]}: There is no auth.User with the primary key 0."
    head = "dj-webhooks: 4 rows in djwebhooks_webhooktarget."

    assert run("dj-webhooks", "--dry-run").splitlines()[:6] == [head, "Would make 2 targets:", *made, "Would be left out:", gone]

    done = run("dj-webhooks").splitlines()

    assert done[:6] == [head, "Made 2 targets:", *made, "Were left out:", gone]
    assert done[6:9] == ["To write into the settings:", "  DJWEBHOOKS_EVENTS = {'a': {}, 'b': {}}", "From now on:"]
    assert done[-2:] == ["  DROP TABLE djwebhooks_delivery;", "  DROP TABLE djwebhooks_webhooktarget;"]

    again = run("dj-webhooks").splitlines()

    assert again[:3] == [head, "Made 0 targets.", "Are there already, and stay as they are: 2 targets."]


def test_what_targets_lack_is_told_and_added_on_request() -> None:
    """A row that was written after the first run is not forgotten."""
    ada = make_user("ada")
    make(ada.pk)
    run("dj-webhooks")
    make(ada.pk, event="b")

    assert "of ada (" in run("dj-webhooks")
    assert "lacks b; --subscribe adds them." in run("dj-webhooks")
    assert "Were subscribed to more events:\n  https://shop.example/hook of ada" in run("dj-webhooks", "--subscribe")
    assert "lacks" not in run("dj-webhooks")


def test_what_is_not_as_it_was_is_told() -> None:
    """Such as a secret that could not be kept. Nobody is kept from being deleted by rows that are nobody's."""
    old = make_webhook("a.B/create", tokens=("short",))
    lines = run("django-webhook", "--owner", "none").splitlines()

    assert lines[3:5] == [
        "Take note:",
        f"  row {old.pk}: 1 of its secrets cannot be kept, as a secret has 24 to 64 bytes. It gets a new one.",
    ]
    assert "When its tables are not needed any more:" in lines


def test_a_sender_says_what_bodies_are(settings: LazySettings) -> None:
    """What they would be without one is not told then; but it is told of targets that have another, each time."""
    settings.DJWEBHOOKS_SENDERS = {"form": "djwebhooks.senders.FormSender", "json": "djwebhooks.senders.Sender"}
    name = make(make_user("ada").pk)
    form, json, bare = (run("dj-webhooks", *more) for more in (("--sender", "form"), ("--sender", "json"), ()))

    assert "  Bodies are what the sender 'form' writes.\n" in form
    assert "Bodies are JSON" not in form
    assert "Bodies are JSON" in bare
    assert "The target that is there" not in form + bare
    assert f"Take note:\n  {name}: The target that is there has the sender 'form'.\n" in json

    WebhookTarget.objects.update(sender="")

    assert f"  {name}: The target that is there has no sender.\n" in run("dj-webhooks", "--sender", "form")


def owner_of(row: Row) -> object:
    return OWNERS[row["identifier"]]


OWNERS: dict[str, object] = {}


def test_owners_are_named_or_found_by_a_function() -> None:
    """By primary key, as the system, or by a dotted path."""
    ada = make_user("ada")
    make(0, identifier="x")
    OWNERS["x"] = ada
    run("dj-webhooks", "--owner-by", f"{__name__}.owner_of")
    run("dj-webhooks", "--owner", "none")

    assert list(WebhookTarget.objects.order_by("pk").values_list("owner", flat=True)) == [ada.pk, None]
    assert "Are there already" in run("dj-webhooks", "--owner", str(ada.pk))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["webhooks"], "invalid choice: 'webhooks'"),
        (["dj-webhooks", "--owner", "7"], "--owner '7': there is no auth.User"),
        (["dj-webhooks", "--owner-by", "shop.owner"], "'shop.owner' cannot be imported: "),
        (["dj-webhooks", "--owner-by", f"{__name__}.__doc__"], "is no function."),
        (["dj-webhooks", "--rename", "a"], "'a' has no =: write the event's old name, =, and its new one."),
        (["dj-webhooks", "--table", "hooks"], "has no table 'hooks'"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], why: str) -> None:
    """With the argument that it was, and what to do."""
    with pytest.raises(CommandError) as caught:
        run(*arguments)
    assert why in str(caught.value)


def test_events_are_renamed() -> None:
    """What stands before the last = is the old name."""
    make(make_user("ada").pk, event="a=b")
    run("dj-webhooks", "--rename", "a=b=a.b")

    assert WebhookTarget.objects.get().events == ["a.b"]
