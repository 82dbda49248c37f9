"""The feed's view, and how a receiver that has nothing but its target's secret may read it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar
from uuid import UUID

from django.db import connections, transaction
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.views.decorators.debug import sensitive_variables
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from djwebhooks import rows, signing
from djwebhooks.api.answers import FeedPageSerializer
from djwebhooks.api.filters import RowFilters, read_filters
from djwebhooks.api.views import OwnerViewSet
from djwebhooks.exceptions import InvalidSignature
from djwebhooks.feed import Page, read_page
from djwebhooks.models import WebhookTarget
from djwebhooks.models.events import events_database

View = TypeVar("View", bound=Callable[..., Any])

#: Seconds that a request may wait for an event, and between two looks.
LONGEST_WAIT, PAUSE = 20, 0.5


@dataclass(frozen=True)
class Receiver:
    """Who has shown that they know a target's secret; they may read its feed and nothing else."""

    target: WebhookTarget
    is_authenticated = True
    is_active = True

    @property
    def pk(self) -> str:
        """What throttles count by."""
        return str(self.target.uid)


class SecretAuthentication(BaseAuthentication):
    """The query string is signed with the target's secret, as the body of a webhook is (Standard Webhooks, v1)."""

    def authenticate(self, request: Request) -> tuple[Receiver, None] | None:
        """Return the receiver, or nothing for a request without a signature. Raises ``AuthenticationFailed``."""
        if "webhook-signature" not in request.headers:
            return None
        target = self.find_target(request)
        if target is None or not self.is_signed(request, target):
            raise AuthenticationFailed("The signature is none of the target's, or its timestamp is too old or too new.")
        return Receiver(target), None

    def authenticate_header(self, request: Request) -> str:
        """Return what a 401 asks for."""
        return "Webhook-Signature"

    def find_target(self, request: Request) -> WebhookTarget | None:
        """Return the target that the request names."""
        try:
            uid = UUID(request.query_params.get("target", ""))
        except ValueError:
            return None
        return WebhookTarget.objects.using(events_database()).filter(uid=uid).first()

    @sensitive_variables()
    def is_signed(self, request: Request, target: WebhookTarget) -> bool:
        """Whether one of the target's live secrets has signed it, a moment ago."""
        secrets = [key.secret for key in target.keyring.live(timezone.now())]
        try:
            signing.verify(request.META["QUERY_STRING"].encode(), request.headers, secrets)
        except InvalidSignature:
            return False
        return True


def check_finite(number: float) -> None:
    """Raise ``ValidationError`` for "nan", which no comparison stops: REST framework before 3.18 lets it pass."""
    if not math.isfinite(number):
        raise ValidationError("A valid number is required.")


class FeedFilters(RowFilters):
    """What a request for a page says."""

    noun = "parameter"

    target = serializers.UUIDField()
    after = serializers.IntegerField(min_value=0, max_value=2**63 - 1, default=0)
    wait = serializers.FloatField(min_value=0, max_value=LONGEST_WAIT, default=0, validators=[check_finite])


def outside_transactions(view: View) -> View:
    """Keep *view* out of ``ATOMIC_REQUESTS``: in a transaction it might wait for what its snapshot never shows."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


@method_decorator(outside_transactions, name="dispatch")
class FeedViewSet(OwnerViewSet):
    """A target's events since a sequence number."""

    throttle_scopes = MappingProxyType({"list": "feed"})

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Return the project's, and that by the target's own secret."""
        return [SecretAuthentication(), *super().get_authenticators()]

    def choose_owner(self, request: Request, kwargs: dict[str, Any]) -> Any:
        """Return whose target it may be; a receiver's request is about its own."""
        return None if isinstance(request.user, Receiver) else super().choose_owner(request, kwargs)

    def find_target(self, uid: UUID) -> WebhookTarget:
        """Return the target that the request may read. Raises ``Http404``."""
        if isinstance(self.request.user, Receiver):
            return self.request.user.target  # The one that ``target`` names.
        return get_object_or_404(rows.targets_of(self.owner), uid=uid)

    def list(self, request: Request, **_: Any) -> Response:
        """Answer with what follows ``after``; with ``wait``, as soon as there is something."""
        asked = read_filters(request, FeedFilters).validated_data
        target = self.find_target(asked["target"])
        page = wait_for_page(target, asked["after"], asked["wait"])
        return Response(FeedPageSerializer(page).data)


def wait_for_page(target: WebhookTarget, after: int, seconds: float) -> Page:
    """Return the page after *after*, as soon as there is something on it, or after so many seconds."""
    until = time.monotonic() + seconds
    while True:
        page = read_page(target, after, events_database())
        left = until - time.monotonic()
        if page.items or page.has_more or left <= 0:
            return page
        after = page.after
        time.sleep(min(PAUSE, left))
