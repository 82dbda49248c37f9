"""What admin pages show of the sender's own models: whose a row is, what belongs to it, and who may touch it."""

from django.http import HttpRequest

from djwebhooks.models import Delivery, Event, WebhookTarget
from djwebhooks.owners import name_of_owner

#: Who may make targets that see every owner's events, and touch them.
SYSTEM_PERMISSION = "djwebhooks.add_system_target"


def name_owner(row: Event | WebhookTarget) -> str:
    """Say whose an event or a target is; an event's owner may be gone."""
    if row.owner_id is None:
        return "no owner" if isinstance(row, Event) else "the system"
    return name_of_owner(row.owner) or f"deleted owner #{row.owner_id}"


def find_event(delivery: Delivery) -> Event | None:
    """Return the delivery's event, unless it was pruned."""
    try:
        return delivery.event
    except Event.DoesNotExist:
        return None


def find_target(delivery: Delivery) -> WebhookTarget | None:
    """Return the delivery's target, unless it was deleted."""
    try:
        return delivery.target
    except WebhookTarget.DoesNotExist:
        return None


def may_touch(request: HttpRequest, target: WebhookTarget | None) -> bool:
    """Whether the user may do something about this target: the system's needs a permission of its own."""
    return target is None or target.owner_id is not None or request.user.has_perm(SYSTEM_PERMISSION)
