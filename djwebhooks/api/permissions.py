"""Who may do what to rows that are not their own yet."""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request


def may_publish(request: Request) -> bool:
    """Whether who makes *request* has the permission to fire events."""
    has_permission = getattr(request.user, "has_perm", None)  # Not everybody who may ask has permissions.
    return bool(has_permission and has_permission("djwebhooks.add_event"))


class MayPublish(BasePermission):
    """What is done with events of one's own needs ``djwebhooks.add_event``; seeing those that one's targets got does not."""

    message = "Publishing events, and taking them back, needs the permission djwebhooks.add_event."

    def has_permission(self, request: Request, view: Any) -> bool:
        """Whether *request* neither fires an event nor takes one back, or may."""
        return view.action not in ("create", "destroy") or may_publish(request)
