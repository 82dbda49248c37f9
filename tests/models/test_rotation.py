"""How a target's keys are replaced, and what its receiver is known to verify with."""

import json

import pytest
from django.db import transaction

from djwebhooks import encryption
from djwebhooks.events import fire
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.models import WebhookTarget
from djwebhooks.signing import verify
from djwebhooks.testing import deliver
from tests.builders import make_target
from tests.connections import Thread, postgresql_only, second_connection


@pytest.mark.django_db
def test_a_rotation_replaces_the_key_pair_too() -> None:
    """The public key is a new one, and receivers with either of them verify meanwhile."""
    target = make_target(signatures="v1a")
    old = target.public_key
    target.rotate_secret(overlap=3600)
    fire("a.b", 1)
    [request] = deliver()

    assert target.public_key.startswith("whpk_")
    assert target.public_key != old
    assert [verify(request.body, request.headers, key) for key in (old, target.public_key)] == [0, 0]


def make_pairless(target: WebhookTarget) -> WebhookTarget:
    """Put back the row of *target* as it was before there were key pairs."""
    entries = [{"secret": target.secret, "until": None}]
    WebhookTarget.objects.filter(pk=target.pk).update(secrets=encryption.encrypt(json.dumps(entries)))
    return WebhookTarget.objects.get(pk=target.pk)


@pytest.mark.django_db
def test_a_target_from_before_there_were_pairs_gets_one_when_it_is_needed() -> None:
    """Once, by whoever needs it first, and its secret stays."""
    secret = make_target(signatures="v1 v1a").secret
    target, other = make_pairless(WebhookTarget.objects.get()), WebhookTarget.objects.get()
    fire("a.b", 1)
    [request] = deliver()

    assert verify(request.body, request.headers, [target.public_key]) == 0
    assert verify(request.body, request.headers, [secret]) == 0
    assert target.public_key == other.public_key == WebhookTarget.objects.get().public_key
    assert WebhookTarget.objects.get().secret == secret


@postgresql_only
@pytest.mark.django_db(transaction=True)
def test_completing_keys_waits_for_no_application() -> None:
    """A row that an application keeps locked is an error that says so, and no worker stands still for it."""
    target = make_pairless(make_target())
    with second_connection() as other, transaction.atomic(using=other):
        list(WebhookTarget.objects.using(other).select_for_update())
        with pytest.raises(InvalidTarget, match="is locked by a transaction that goes on"):
            Thread(target.complete_keyring).result()

    assert target.public_key == WebhookTarget.objects.get().public_key
