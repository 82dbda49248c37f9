"""Secrets in the admin: shown once, and never again."""

from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from djwebhooks.models import WebhookTarget
from djwebhooks.testing import deliver
from djwebhooks.transports.base import Reply
from tests.admin.builders import (
    LISTS,
    URL,
    act,
    act_on_list,
    add_target,
    list_of,
    make_owner,
    make_target,
    page_of,
    send,
    text_of,
)
from tests.builders import live_secrets

pytestmark = pytest.mark.django_db


def list_pages(*rows: object) -> list[str]:
    """Every page of the admin that has to do with *rows*."""
    pages = [reverse("admin:index"), reverse("admin:app_list", args=["djwebhooks"])]
    pages += [list_of(model) for model in LISTS] + [list_of("webhooktarget") + "?kind=hidden&q=receiver"]
    for row in rows:
        pages += [page_of(row), page_of(row, "history")]
    return pages


def test_no_page_shows_a_secret(admin_client: Client) -> None:
    """After all that can be done with a target, neither its secrets nor their ciphertext are on any page."""
    add_target(admin_client, owner=make_owner().pk)
    target = WebhookTarget.objects.get()
    old_secret = target.secret
    delivery = send(target, 500)
    for name in ("test", "pause", "resume", "rotate-secret", "check-keys", "finish-rotation", "retry-failed"):
        act(admin_client, target, name)
    target.refresh_from_db()
    hidden = [old_secret, target.secret, target.secrets, *(key.pair for key in target.keyring.keys)]
    pages = [*list_pages(target, delivery, delivery.event), page_of(target, "delete")]
    shown = "".join(admin_client.get(page).content.decode() for page in pages)

    assert all(admin_client.get(page).status_code == 200 for page in pages)
    assert not [secret for secret in hidden if secret in shown]
    assert "whsec_" not in shown
    assert "whsk_" not in shown


def test_a_new_secret_is_shown_once(admin_client: Client) -> None:
    """The answer to the form shows the secret; it is kept in no cookie, no session and no history."""
    response = add_target(admin_client, owner=make_owner().pk)
    target = WebhookTarget.objects.get()
    kept = str(admin_client.cookies) + "".join(str(session.get_decoded()) for session in Session.objects.all())
    kept += "".join(LogEntry.objects.values_list("change_message", flat=True))

    assert target.secret in text_of(response)
    assert "no-store" in response["cache-control"]
    assert "whsec_" not in kept
    assert target.secret not in text_of(admin_client.get(page_of(target)))


def test_the_page_of_a_new_secret_says_where_it_is(admin_client: Client) -> None:
    """The way back is above it."""
    page = text_of(act(admin_client, make_target(), "rotate-secret"))

    assert "Home Webhooks Webhook targets New secret" in page


def test_a_rotated_secret_is_shown_once_and_overlaps(admin_client: Client) -> None:
    """Rotating shows the new secret, while the old one signs for another day."""
    target = make_target()
    old = target.secret
    response = act(admin_client, target, "rotate-secret")
    target.refresh_from_db()
    now = timezone.now()

    assert target.secret != old
    assert target.secret in text_of(response)
    assert old not in text_of(response)
    assert live_secrets(target, now + timedelta(hours=23)) == [target.secret, old]
    assert live_secrets(target, now + timedelta(hours=25)) == [target.secret]
    assert "Rotated" in LogEntry.objects.get().change_message


def test_keys_are_checked_and_a_rotation_is_finished(admin_client: Client) -> None:
    """The page shows each key with what the receiver makes of it; only a key that was accepted ends the others."""
    target = make_target()
    act(admin_client, target, "rotate-secret")
    target.refresh_from_db()
    newest, oldest = target.keyring.keys
    before = text_of(admin_client.get(page_of(target)))
    assert all(key.id in before and key.public_key in before for key in (newest, oldest))
    assert "It is not known whether the receiver verifies signatures" in before
    assert "has not answered to the newest key alone" in text_of(act(admin_client, target, "finish-rotation"))

    act(admin_client, target, "check-keys")
    deliver(lambda request: Reply(request.key, status=200 if request.headers["webhook-sequence"] == "1" else 401))

    checked = text_of(admin_client.get(page_of(target)))
    assert "accepted alone" in checked
    assert "The receiver refuses what it cannot verify." in checked
    act(admin_client, target, "finish-rotation")
    after = text_of(admin_client.get(page_of(target)))
    assert newest.id in after
    assert oldest.id not in after
    assert "Finish rotation" not in after


@pytest.mark.parametrize(("status", "words"), [(401, "refused 20"), (200, "anybody may send to it in your name")])
def test_what_a_receiver_makes_of_keys_is_said(status: int, words: str, admin_client: Client) -> None:
    """That it lacks the newest key, or that it verifies nothing at all."""
    target = make_target()
    act(admin_client, target, "check-keys")
    deliver(status)

    assert words in text_of(admin_client.get(page_of(target)))


def test_keys_that_cannot_be_opened_say_so(admin_client: Client, settings: LazySettings) -> None:
    """The page of the target comes all the same, as what can be done about it is there."""
    target = make_target()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another"]

    assert "No key opens them: rotate the secret." in text_of(admin_client.get(page_of(target)))
    assert "No key of DJWEBHOOKS_ENCRYPTION_KEYS opens this secret." in text_of(act(admin_client, target, "check-keys"))


def test_secrets_of_many_targets_are_rotated_at_once(admin_client: Client) -> None:
    """The list's action shows each target's new secret beside its address."""
    owner = make_owner()
    targets = [make_target(f"{URL}/{number}", owner=owner) for number in range(2)]
    page = text_of(act_on_list(admin_client, targets, "rotate-secret"))

    for target in targets:
        target.refresh_from_db()
        assert f"{target.target_url} Rotated" in page
        assert target.secret in page


def test_a_secret_that_no_key_opens_can_be_replaced(admin_client: Client, settings: LazySettings) -> None:
    """Rotating is the way out of a lost key."""
    target = make_target()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["another key, which does not open what the first one closed"]
    page = text_of(act(admin_client, target, "rotate-secret"))

    target.refresh_from_db()
    assert target.secret in page


def test_a_report_of_an_error_does_not_show_new_secrets(admin_client: Client) -> None:
    """What a page with secrets is made of does not show them."""
    target = make_target()
    added = add_target(admin_client, owner=target.owner.pk, identifier="new")
    rotated = act(admin_client, target, "rotate-secret")

    for response in (added, rotated):
        assert "whsec_" in text_of(response)
        assert "whsec_" not in repr(response.context["done"])
