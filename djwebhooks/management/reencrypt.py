"""Encrypt the targets' secrets anew, so that old keys can be thrown away."""

from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import QuerySet

from djwebhooks import encryption
from djwebhooks.exceptions import UndecryptableSecret
from djwebhooks.models import Lane, WebhookTarget
from djwebhooks.models.endpoints import SEALED
from djwebhooks.models.events import events_database
from djwebhooks.models.sealed import Sealed

#: Targets that are read at once.
PAGE = 500


@dataclass(slots=True)
class Reencrypted:
    """How many targets have their secrets under the newest key now, and those whose secrets no key opens."""

    count: int = 0
    unreadable: list[UUID] = field(default_factory=list)


def reencrypt_secrets(*, using: str | None = None, page: int = PAGE) -> Reencrypted:
    """Encrypt every target's secrets with the newest key of ``DJWEBHOOKS_ENCRYPTION_KEYS``, in pages of *page* targets.

    It can be broken off and run again at any time. Raises ``ConfigurationError`` when the setting cannot be used.
    """
    targets = WebhookTarget.objects.using(using or events_database())
    result = Reencrypted()
    last = 0
    while rows := list(targets.filter(pk__gt=last).order_by("pk").values_list("pk", "uid")[:page]):
        for pk, uid in rows:
            try:
                result.count += reencrypt_one(targets.db, pk)
            except UndecryptableSecret:
                result.unreadable.append(uid)
        last = rows[-1][0]
    return result


def reencrypt_one(using: str, pk: int) -> bool:
    """Encrypt one target's columns anew, unless it was deleted meanwhile.

    Raises ``UndecryptableSecret`` when no key opens one of them, after the others.
    """
    target = WebhookTarget.objects.using(using).filter(pk=pk)
    # What a token server gave is asked for again.
    Lane.objects.using(using).filter(pk=pk).exclude(access_token={}).update(access_token={})
    if unreadable := [column for column in ("secrets", *SEALED) if not reencrypt_column(target, column)]:
        raise UndecryptableSecret(f"No key opens {unreadable[0]}.")
    return target.exists()


def reencrypt_column(target: QuerySet[WebhookTarget], column: str) -> bool:
    """Encrypt one column anew, if there is something in it; return whether it could be read."""
    while old := target.values_list(column, flat=True).first():
        token = old.token if isinstance(old, Sealed) else old
        try:
            # A secret that is rotated at this moment must not be overwritten by the one before it.
            if not token or target.filter(**{column: old}).update(**{column: encryption.reencrypt(token)}):
                return True
        except UndecryptableSecret:
            return False
    return True
