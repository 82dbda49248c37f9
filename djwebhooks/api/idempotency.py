"""The header ``Idempotency-Key``: a request that is made again does nothing again (draft-ietf-httpapi-idempotency-key-header)."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.request import Request

from djwebhooks.api.errors import KeyUnused, refuse
from djwebhooks.exceptions import IdempotencyConflict
from djwebhooks.models import WebhookTarget

#: A text in quotes, in which a backslash stands before quotes and backslashes (RFC 9651, section 3.3.3).
QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
#: How long a new target is shown with its secret to the request that made it.
SHOWN = timedelta(days=1)


def read_key(request: Request) -> str:
    """Return the key in the header, which may be quoted or bare; empty without one. Raises ``ValidationError``."""
    header = request.headers.get("Idempotency-Key", "")
    quoted = QUOTED.fullmatch(header)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else header
    if len(key) > 255:
        raise refuse(f"The header Idempotency-Key has {len(key)} characters; at most 255 are possible.")
    return key


def refuse_key(request: Request) -> None:
    """Raise ``KeyUnused`` if there is such a header, as whoever sends it believes that nothing is done twice."""
    if "Idempotency-Key" in request.headers:
        raise KeyUnused(
            "Only POST targets/ and POST events/ obey the header Idempotency-Key. This request would be done again: leave it out."
        )


def mark_creation(request: Request, owner: Any) -> dict[str, str]:
    """Return the columns by which a target knows the request that made it; empty without a key."""
    key = read_key(request)
    # With the application's own key, as the body may have a receiver's password that can be guessed.
    return {"creation_key": _digest([str(owner.pk), key]), "creation_request": _digest(request.data)} if key else {}


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
