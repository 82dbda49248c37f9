"""Requests that make a target: one that is made again finds what it has made, and is shown its secret again."""

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac

from djwebhooks.exceptions import IdempotencyConflict
from djwebhooks.models import WebhookTarget

#: How long a new target is shown with its secret to the request that made it.
SHOWN = timedelta(days=1)


def mark_creation(owner: Any, key: object, request: object) -> dict[str, str]:
    """Return the columns by which a target knows the *request* with this *key*, both of JSON; empty without a key."""
    # With the application's own key, as the body may have a receiver's password that can be guessed.
    return {"creation_key": _digest([str(owner.pk), key]), "creation_request": _digest(request)} if key else {}


def find_made(targets: QuerySet[WebhookTarget], creation: Mapping[str, str]) -> WebhookTarget | None:
    """Return which of the owner's *targets* was made with this key; one that is out of date is forgotten."""
    made = targets.filter(creation_key=creation["creation_key"]) if creation else targets.none()
    made.filter(created_at__lte=timezone.now() - SHOWN).update(creation_key=None, creation_request="")
    return made.first()


def is_repeated(target: WebhookTarget, creation: Mapping[str, str]) -> bool:
    """Return whether *target* was made by the same request. Raises ``IdempotencyConflict`` for another one with its key."""
    if not creation or target.creation_key != creation["creation_key"]:
        return False
    if target.creation_request != creation["creation_request"]:
        raise IdempotencyConflict(f"The idempotency key was used for another request before, which made the target {target.uid}.")
    return True


def _digest(content: Any) -> str:
    return salted_hmac(__name__, json.dumps(content, sort_keys=True), algorithm="sha256").hexdigest()
