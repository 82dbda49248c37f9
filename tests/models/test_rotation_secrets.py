"""A target's secrets are kept encrypted, sign together while they overlap, and are replaced when their key is lost."""

import logging
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.utils import timezone
from standardwebhooks import Webhook

from djwebhooks.events import fire
from djwebhooks.exceptions import UndecryptableSecret
from djwebhooks.models import Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.testing import deliver
from tests.builders import URL, live_secrets, make_target


@pytest.mark.django_db
def test_secrets_are_kept_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the row, nor what is printed, nor what is logged has the secret in it."""
    caplog.set_level(logging.DEBUG)
    target = make_target()
    fire("a.b", 1)
    deliver(500)
    [row] = WebhookTarget.objects.values()
    shown = [repr(target), str(target), repr(row), repr(vars(target)), caplog.text]

    assert target.secret.startswith("whsec_")
    assert not [text for text in shown if target.secret in text or target.secret.removeprefix("whsec_") in text]
    assert make_target(url=f"{URL}/2").secret != target.secret


@pytest.mark.django_db
def test_after_a_rotation_both_secrets_sign() -> None:
    """Until the overlap ends a receiver may verify with the old secret or the new."""
    target = make_target()
    old = target.secret
    new = target.rotate_secret(overlap=3600)
    fire("a.b", 1)
    [request] = deliver()

    assert target.secret == new != old
    assert live_secrets(target) == [new, old]
    assert live_secrets(target, timezone.now() + timedelta(hours=2)) == [new]
    for secret in (old, new):
        Webhook(secret).verify(request.body, dict(request.headers))
    assert len(request.headers["webhook-signature"].split()) == 2


@pytest.mark.django_db
@pytest.mark.parametrize("overlap", [0, timedelta(0)])
def test_without_overlap_the_old_secret_ends(overlap: Any) -> None:
    """A leaked secret is taken out of use at once."""
    target = make_target()
    new = target.rotate_secret(overlap)

    assert live_secrets(target) == [new]


@pytest.mark.django_db
def test_rotations_of_several_people_all_sign() -> None:
    """Whoever rotates a row that was read before somebody else's rotation does not undo it."""
    target = make_target()
    first = target.secret
    mine, theirs = WebhookTarget.objects.get(), WebhookTarget.objects.get()
    second, third = mine.rotate_secret(), theirs.rotate_secret()

    assert live_secrets(WebhookTarget.objects.get()) == [third, second, first]


@pytest.mark.django_db
def test_saving_a_stale_target_keeps_a_rotation() -> None:
    """Pausing what was read before a rotation writes no secrets."""
    target, stale = make_target(), WebhookTarget.objects.get()
    new = target.rotate_secret()
    stale.pause()
    stale.resume()

    assert WebhookTarget.objects.get().secret == new


@pytest.mark.django_db
def test_a_lost_key_is_said(settings: LazySettings) -> None:
    """A secret that no key opens is an error that says so, and what waits for it is not lost."""
    target = make_target()
    settings.SECRET_KEY = "another key, of which nobody has told anybody anything at all"
    fire("a.b", 1)

    with pytest.raises(UndecryptableSecret):
        _ = target.secret
    assert deliver() == []
    assert Delivery.objects.get().status == Status.PENDING


@pytest.mark.django_db
def test_a_new_secret_is_the_way_out_of_a_lost_key(settings: LazySettings) -> None:
    """A target whose secret no key opens any more can be given another."""
    target = make_target()
    settings.SECRET_KEY = "another key, of which nobody has told anybody anything at all"

    secret = target.rotate_secret()

    assert secret.startswith("whsec_")
    assert live_secrets(target) == [secret]


@pytest.mark.django_db
def test_ten_secrets_sign_at_most() -> None:
    """However often somebody rotates, the header of signatures stays short."""
    target = make_target()
    for _ in range(12):
        target.rotate_secret()

    assert len(live_secrets(target)) == 10
    assert live_secrets(target)[0] == target.secret
