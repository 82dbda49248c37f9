"""Encrypt the targets' secrets anew, so that old keys can be thrown away."""

from dataclasses import dataclass, field
from uuid import UUID

from djwebhooks import encryption
from djwebhooks.exceptions import UndecryptableSecret
from djwebhooks.models import WebhookTarget
from djwebhooks.models.events import events_database

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
    """Encrypt one target's secrets anew, unless it was deleted meanwhile. Raises ``UndecryptableSecret``."""
    target = WebhookTarget.objects.using(using).filter(pk=pk)
    while (old := target.values_list("secrets", flat=True).first()) is not None:
        # A secret that is rotated at this moment must not be overwritten by the one before it.
        if target.filter(secrets=old).update(secrets=encryption.reencrypt(old)):
            return True
    return False
