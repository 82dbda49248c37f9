"""Who may do what to rows that are not their own yet."""

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView


class MayPublish(BasePermission):
    """Firing an event needs ``djwebhooks.add_event``; seeing those that one's targets got does not."""

    message = "Publishing events needs the permission djwebhooks.add_event."

    def has_permission(self, request: Request, view: APIView) -> bool:
        """Whether *request* does not publish, or may."""
        return request.method != "POST" or bool(request.user and request.user.has_perm("djwebhooks.add_event"))
