"""What becomes of the rows and settings of django-webhook and django-webhook2."""

import base64
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.db import connection, transaction
from django.utils import timezone

from djwebhooks.adoption import SYSTEM, Adopted, adopt
from djwebhooks.exceptions import InvalidAdoption
from djwebhooks.model_events import read_all
from djwebhooks.models import WebhookTarget
from tests.adoption.tables import TOKEN, URL, Webhook, make_webhook
from tests.builders import live_secrets, make_user

pytestmark = pytest.mark.django_db


def run(package: str = "django-webhook") -> Adopted:
    return adopt(package, owner_of=lambda row: SYSTEM)


def as_secret(token: str) -> str:
    return "whsec_" + base64.b64encode(token.encode()).decode()


@pytest.mark.parametrize("package", ["django-webhook", "django-webhook2"])
def test_topics_become_the_events_of_a_target(package: str) -> None:
    """It keeps its id, which receivers have seen, and whether it is active; a topic's slash becomes a dot."""
    old = make_webhook("shop.Order/create", "shop.Order/delete", active=False)
    run(package)
    target = WebhookTarget.objects.get()

    assert (target.owner, target.target_url, target.events) == (None, URL, ["shop.Order.create", "shop.Order.delete"])
    assert (target.uid, target.is_active, target.created_at) == (old.uuid, False, old.created)


def test_secrets_sign_on() -> None:
    """Each as the bytes that it had, in the order of their age, until they are rotated away."""
    make_webhook("shop.Order/create", tokens=("o" * 24, TOKEN))
    run()
    target = WebhookTarget.objects.get()

    assert live_secrets(target) == [as_secret(TOKEN), as_secret("o" * 24)]

    target.rotate_secret(overlap=60)

    assert live_secrets(target)[1:] == [as_secret(TOKEN), as_secret("o" * 24)]
    assert live_secrets(target, timezone.now() + timedelta(minutes=2)) == [target.secret]


def test_a_secret_that_is_too_short_or_too_long_is_replaced() -> None:
    """The report says so, row by row; a secret in it is nowhere to be seen."""
    short, mixed = (
        make_webhook("a.B/create", tokens=("x" * 12,)),
        make_webhook("a.B/update", url=URL + "1", tokens=("x" * 65, TOKEN)),
    )
    none = make_webhook("a.B/delete", url=URL + "2", tokens=())
    adopted = run()

    assert adopted.remarks == [
        (f"row {short.pk}", "1 of its secrets cannot be kept, as a secret has 24 to 64 bytes. It gets a new one."),
        (f"row {mixed.pk}", "1 of its secrets cannot be kept, as a secret has 24 to 64 bytes. The others go on signing."),
        (f"row {none.pk}", "It had no secret, and gets one."),
    ]
    assert live_secrets(WebhookTarget.objects.get(target_url=URL + "1")) == [as_secret(TOKEN)]
    assert TOKEN not in repr(adopted)


def test_an_endpoint_without_topics_is_left_out() -> None:
    """Nothing was ever sent to it; and one that is there twice with another secret waits for somebody to decide."""
    idle, first, second = make_webhook(), make_webhook("a.B/create"), make_webhook("a.B/update", tokens=("x" * 24,))
    adopted = run()

    assert adopted.left_out == [
        (f"row {idle.pk}", "It wants no event."),
        (f"row {second.pk}", f"row {first.pk} has the same URL, but other secrets."),
    ]


@pytest.mark.sqlite
def test_a_topic_that_is_gone_is_left_out() -> None:
    """As rows of a database may be that did not hold them to their references; the others are adopted."""
    webhook = make_webhook("a.B/create", "a.B/update")
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_webhook_webhooktopic WHERE name = 'a.B/create'")
        adopted = run()
        transaction.set_rollback(True)

    assert [(one.url, one.events) for one in adopted.made] == [(URL, ("a.B.update",))]
    assert [what.partition(" which")[0] for what, _ in adopted.left_out] == [f"row {webhook.pk}, event 'number 1,"]


def test_a_target_that_signs_with_something_else_is_told_of(settings: LazySettings) -> None:
    """It is left as it is, so its receiver may be in for a surprise; one that was adopted before is not."""
    old = make_webhook("a.B/create")
    target = WebhookTarget.objects.register(URL, ["a.B.create"], owner=None)
    other = make_webhook("a.B/create", url="https://other.example/")
    run()

    assert run().remarks == [(f"row {old.pk}", "The target that is there has other secrets.")]

    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another"]

    assert run().remarks == [(f"row {one.pk}", "The target that is there has secrets that no key opens.") for one in (old, other)]
    assert WebhookTarget.objects.get(pk=target.pk).events == ["a.B.create"]


def test_an_id_that_is_taken_is_not_kept() -> None:
    """The table does not hold them unique."""
    old = make_webhook("a.B/create")
    Webhook.objects.filter(pk=make_webhook("a.B/create", url="https://other.example/").pk).update(uuid=old.uuid)
    run()

    assert WebhookTarget.objects.count() == 2


def test_somebody_has_to_say_whose_they_become() -> None:
    """They were nobody's, and a system target sees every owner's events."""
    make_webhook("a.B/create")
    with pytest.raises(InvalidAdoption, match="are nobody's: say whose the targets become, with --owner or --owner-by"):
        adopt("django-webhook")
    ada = make_user("ada")
    adopt("django-webhook", owner_of=lambda row: ada)

    assert WebhookTarget.objects.get().owner == ada


def test_settings_are_translated(settings: LazySettings) -> None:
    """Each model has three events, which are nobody's, under the names that its topics have got."""
    settings.DJANGO_WEBHOOK = {"MODELS": ["library.Book"]}
    suggested = adopt("django-webhook", owner_of=lambda row: SYSTEM, renamed={"library.Book/create": "book.added"}).settings

    assert suggested["DJWEBHOOKS_MODEL_EVENTS"] == {
        "book.added": {"on": "library.Book.created", "owner": None},
        "library.Book.update": {"on": "library.Book.updated", "owner": None},
        "library.Book.delete": {"on": "library.Book.deleted", "owner": None},
    }
    assert list(suggested["DJWEBHOOKS_EVENTS"]) == list(suggested["DJWEBHOOKS_MODEL_EVENTS"])
    assert read_all(suggested["DJWEBHOOKS_MODEL_EVENTS"])
