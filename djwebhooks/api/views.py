"""The API's views: each reads the request, calls one function of the models and shows what came of it."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from django.db import models, transaction
from django.http import Http404
from django.views.decorators.debug import sensitive_variables
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import BaseSerializer
from rest_framework.throttling import BaseThrottle
from rest_framework.viewsets import GenericViewSet

from djwebhooks import rows
from djwebhooks.api.answers import CatalogueSerializer, ChecksSerializer, StartedReplaySerializer
from djwebhooks.api.catalogue import list_event_types
from djwebhooks.api.errors import answer_error, refuse
from djwebhooks.api.fields import StrictSerializer
from djwebhooks.api.filters import (
    AttemptFilters,
    DeliveryFilters,
    EventFilters,
    QueryFilters,
    ReplayFilters,
    RowFilters,
    TargetFilters,
    read_filters,
)
from djwebhooks.api.formats import ASCIIRenderer, BoundedJSONParser, JSONOnly
from djwebhooks.api.idempotency import read_key, refuse_key
from djwebhooks.api.pagination import NewestFirst
from djwebhooks.api.permissions import MayPublish, may_publish
from djwebhooks.api.serializers import (
    AttemptSerializer,
    DeliverySerializer,
    EventSerializer,
    FinishSerializer,
    ListedEventSerializer,
    ListedReplaySerializer,
    NothingSerializer,
    PublicationSerializer,
    ReplayOptionsSerializer,
    ReplaySerializer,
    RotationSerializer,
    TargetReplaySerializer,
    TargetSerializer,
)
from djwebhooks.api.throttling import ActionThrottle
from djwebhooks.creations import find_made, is_repeated, mark_creation
from djwebhooks.models import Attempt, Delivery, Event, Replay, WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.models.replays import Through, make_criteria
from djwebhooks.owners import find_owner

#: An attempt's id: its delivery's uid and its number.
ATTEMPT_ID = re.compile(r"([0-9a-f-]{36})-([1-9][0-9]{0,8})")


#: The actions on a target that have requests made to it, and the scope of ``DJWEBHOOKS_API_THROTTLES`` that each counts in.
TARGET_THROTTLES = MappingProxyType({"test": "test", "check_keys": "test", "probe": "test", "resume": "test", "replay": "replay"})


class OwnerViewSet(GenericViewSet[Any]):
    """What all views have in common. Nothing but authentication and throttles is left to the project's defaults."""

    permission_classes: tuple[type[BasePermission], ...] = (IsAuthenticated,)
    renderer_classes = (ASCIIRenderer,)
    parser_classes = (BoundedJSONParser,)
    content_negotiation_class = JSONOnly
    pagination_class = NewestFirst
    filter_backends = (QueryFilters,)
    filter_class: type[RowFilters] = RowFilters
    versioning_class = None
    metadata_class = None
    lookup_field = "uid"
    # A name that the URL which the API is included at will hardly have.
    lookup_url_kwarg = "webhooks_id"
    #: The scope of ``DJWEBHOOKS_API_THROTTLES`` that each of these actions counts in.
    throttle_scopes: Mapping[str, str] = MappingProxyType({})
    #: The actions that obey the header ``Idempotency-Key``.
    keyed_actions: tuple[str, ...] = ()
    #: Whose rows the request is about.
    owner: Any

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Let nobody in who has no owner, or who trusts in a header that is not obeyed."""
        super().initial(request, *args, **kwargs)
        if self.action and request.method == "POST" and self.action not in self.keyed_actions:
            refuse_key(request)
        self.owner = self.choose_owner(request, {name: kwargs[name] for name in kwargs if name != self.lookup_url_kwarg})

    def choose_owner(self, request: Request, kwargs: dict[str, Any]) -> Any:
        """Return whose rows the request is about. Raises ``PermissionDenied``."""
        return find_owner(request, kwargs)

    def get_throttles(self) -> list[BaseThrottle]:
        """Return the project's throttles, and our own for what makes requests to others."""
        scope = self.throttle_scopes.get(self.action or "")
        return [*super().get_throttles(), *([ActionThrottle(scope)] if scope else [])]

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        """Return our own, so that errors look the same in every project."""
        return answer_error

    @property
    def default_response_headers(self) -> dict[str, str]:
        """The headers of every answer: no cache may keep one."""
        return {**super().default_response_headers, "Cache-Control": "no-store"}

    def read(self, serializer_class: type[StrictSerializer[Any]]) -> dict[str, Any]:
        """Return the request's options. Raises ``ValidationError``."""
        serializer = serializer_class(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def answer_replay(self, *, rate: float | None = None, dry_run: bool, **which: Any) -> Response:
        """Start a replay, unless it is a dry run, and say how many deliveries it is about."""
        deliveries = Delivery.objects.db_manager(events_database())
        criteria = make_criteria(**which)
        plan = deliveries.plan(criteria)
        uid = None
        if not dry_run:
            replay = deliveries.replay(criteria, rate=rate, by=self.request.user, through=Through.API, plan=plan)
            uid = replay.uid
        started = {"id": uid, "count": plan.count, "left_out": plan.left_out}
        return Response(StartedReplaySerializer(started).data, status.HTTP_202_ACCEPTED)

    @sensitive_variables("extra")
    def show(self, row: models.Model, code: int = status.HTTP_200_OK, **extra: object) -> Response:
        """Return the answer that shows *row*."""
        return Response({**self.get_serializer(row).data, **extra}, code)


class TargetViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, OwnerViewSet):
    """The owner's targets."""

    serializer_class = TargetSerializer
    filter_class = TargetFilters
    throttle_scopes = TARGET_THROTTLES
    keyed_actions = ("create",)

    def get_queryset(self) -> models.QuerySet[WebhookTarget]:
        """Return the targets with what is shown of them."""
        return rows.targets_of(self.owner).select_related("lane").prefetch_related("subscriptions")

    def lock(self) -> WebhookTarget:
        """Return the target that the URL names, as nobody else can change it until the transaction ends."""
        return get_object_or_404(rows.targets_of(self.owner).select_for_update(), uid=self.kwargs["webhooks_id"])

    def operate(self, operation: Callable[[WebhookTarget], None], code: int = status.HTTP_200_OK) -> Response:
        """Do *operation* to the target, as nobody else can change it meanwhile; show what became of it."""
        with transaction.atomic(using=events_database()):
            target = self.lock()
            self.read(NothingSerializer)
            operation(target)
        return self.show(self.get_object(), code)

    def create(self, request: Request, **_: Any) -> Response:
        """Make a target: 201 with its secret, also for the same key again. One that is there already gets the events: 200."""
        serializer = TargetSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        creation = mark_creation(self.owner, read_key(request), request.data)
        target: Any = find_made(rows.targets_of(self.owner), creation) or serializer.save(owner=self.owner, **creation)
        if serializer.is_new or is_repeated(target, creation):
            return self.show(target, status.HTTP_201_CREATED, secret=target.secret)
        serializer.extend(target)
        return self.show(target)

    def update(self, request: Request, partial: bool = False, **_: Any) -> Response:
        """Change what is given; ``events`` are replaced."""
        with transaction.atomic(using=events_database()):
            serializer = self.get_serializer(self.lock(), data=request.data, partial=partial)
            serializer.is_valid(raise_exception=True)
            target = serializer.save()
        return self.show(target)

    def partial_update(self, request: Request, **kwargs: Any) -> Response:
        """Change what is given, and nothing else."""
        return self.update(request, partial=True, **kwargs)

    @action(["post"], detail=True)
    def test(self, request: Request, **_: Any) -> Response:
        """Send it, and no other, a test."""
        target = self.get_object()
        self.read(NothingSerializer)
        return Response(EventSerializer(target.send_test()).data, status.HTTP_202_ACCEPTED)

    @action(["post"], detail=True, url_path="rotate-secret")
    @sensitive_variables("secret")
    def rotate_secret(self, request: Request, **_: Any) -> Response:
        """Make a new secret, shown this once."""
        with transaction.atomic(using=events_database()):
            target = self.lock()
            secret = target.rotate_secret(**self.read(RotationSerializer))
        return self.show(target, secret=secret)

    @action(["post"], detail=True, url_path="check-keys")
    def check_keys(self, request: Request, **_: Any) -> Response:
        """Find out what its receiver verifies with."""
        target = self.get_object()
        self.read(NothingSerializer)
        return Response(ChecksSerializer({"events": target.check_keys()}).data, status.HTTP_202_ACCEPTED)

    @action(["post"], detail=True, url_path="finish-rotation")
    def finish_rotation(self, request: Request, **_: Any) -> Response:
        """End all keys but the newest."""
        with transaction.atomic(using=events_database()):
            self.lock().finish_rotation(**self.read(FinishSerializer))
        return self.show(self.get_object())

    @action(["post"], detail=True)
    def pause(self, request: Request, **_: Any) -> Response:
        """Hold its events."""
        return self.operate(WebhookTarget.pause)

    @action(["post"], detail=True)
    def resume(self, request: Request, **_: Any) -> Response:
        """Send what was held, whoever or whatever stopped it."""
        return self.operate(WebhookTarget.resume)

    @action(["post"], detail=True)
    def probe(self, request: Request, **_: Any) -> Response:
        """Send it one request now, whatever its cool-down says."""
        return self.operate(WebhookTarget.probe, status.HTTP_202_ACCEPTED)

    @action(["post"], detail=True)
    def replay(self, request: Request, **_: Any) -> Response:
        """Have what ended sent again; say how many deliveries that is."""
        target = self.get_object()
        return self.answer_replay(targets=[target], **self.read(TargetReplaySerializer))


class EventViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, OwnerViewSet):
    """The events that the owner's targets got, or will get; for who may publish, also those that were published here."""

    permission_classes = (IsAuthenticated, MayPublish)
    filter_class = EventFilters
    keyed_actions = ("create",)

    def get_queryset(self) -> models.QuerySet[Event]:
        """Return the events, in a list without what may be large, and those that were published only if they are asked for."""
        events = rows.events_of(self.owner)
        if self.action == "list":
            return rows.listed(rows.published_events_of(self.owner) if self.wants_waiting() else events)
        return events | rows.published_events_of(self.owner) if may_publish(self.request) else events

    def wants_waiting(self) -> bool:
        """Return whether the request asks for what was published and waits. Raises ``PermissionDenied``."""
        wanted = read_filters(self.request, EventFilters).validated_data.get("dispatched_at__isnull", False)
        if wanted and not may_publish(self.request):
            self.permission_denied(self.request, MayPublish.message)
        return bool(wanted)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        """Return what shows the events."""
        return ListedEventSerializer if self.action == "list" else EventSerializer

    def create(self, request: Request, **_: Any) -> Response:
        """Fire an event: 201. One whose idempotency key was used for the same before: 200."""
        serializer = PublicationSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        key = self.read_idempotency_key(serializer.validated_data["idempotency_key"])
        event = serializer.save(owner=self.owner, idempotency_key=key)
        return self.show(event, status.HTTP_201_CREATED if serializer.is_new else status.HTTP_200_OK)

    def destroy(self, request: Request, **_: Any) -> Response:
        """Take it back before it is dispatched."""
        try:
            self.get_object().cancel()
        except Event.DoesNotExist as error:  # Somebody else was faster.
            raise Http404 from error
        return Response(status=status.HTTP_204_NO_CONTENT)

    def read_idempotency_key(self, in_body: str) -> str:
        """Return the key, wherever it is. Raises ``ValidationError`` when there are two."""
        in_header = read_key(self.request)
        if in_body and in_header and in_body != in_header:
            raise refuse(f"The header Idempotency-Key is {in_header!r}, but idempotency_key is {in_body!r}: send one of them.")
        return in_body or in_header


class DeliveryViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, OwnerViewSet):
    """What was, or will be, sent to the owner's targets."""

    serializer_class = DeliverySerializer
    filter_class = DeliveryFilters
    throttle_scopes = MappingProxyType({"retry": "retry"})

    def get_queryset(self) -> models.QuerySet[Delivery]:
        """Return the deliveries."""
        return rows.deliveries_of(self.owner)

    def destroy(self, request: Request, **_: Any) -> Response:
        """Cancel it; its row stays."""
        self.get_object().cancel()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(["post"], detail=True)
    def retry(self, request: Request, **_: Any) -> Response:
        """Try it again as soon as possible."""
        delivery = self.get_object()
        self.read(NothingSerializer)
        delivery.retry(by=request.user, through=Through.API)
        return self.show(self.get_object(), status.HTTP_202_ACCEPTED)

    @action(["post"], detail=True)
    def cancel(self, request: Request, **_: Any) -> Response:
        """End it before it succeeds."""
        delivery = self.get_object()
        self.read(NothingSerializer)
        delivery.cancel()
        return self.show(self.get_object())


class ReplayViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, OwnerViewSet):
    """What was sent again to the owner's targets, or will be."""

    filter_class = ReplayFilters
    throttle_scopes = MappingProxyType({"create": "replay"})

    def get_queryset(self) -> models.QuerySet[Replay]:
        """Return the replays."""
        return rows.replays_of(self.owner)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        """Return what shows the replays."""
        return ListedReplaySerializer if self.action == "list" else ReplaySerializer

    def create(self, request: Request, **_: Any) -> Response:
        """Have what ended sent again, to the targets that are named or to all; say how many deliveries that is."""
        options = self.read(ReplayOptionsSerializer)
        uids = options.pop("targets", None)
        if uids is None:
            return self.answer_replay(owner=self.owner, **options)
        targets = list(rows.targets_of(self.owner).filter(uid__in=uids))
        unknown = set(uids).difference(target.uid for target in targets)
        if unknown or not targets:
            names = ", ".join(sorted(map(str, unknown)))
            raise ValidationError({"targets": [f"You have no target {names}." if names else "Name one target at least."]})
        return self.answer_replay(targets=targets, **options)

    @action(["post"], detail=True)
    def cancel(self, request: Request, **_: Any) -> Response:
        """Send no more of it; what was not sent yet is as before."""
        replay = self.get_object()
        self.read(NothingSerializer)
        replay.cancel(by=request.user)
        return self.show(self.get_object())


class AttemptViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, OwnerViewSet):
    """The requests that were made to the owner's targets."""

    serializer_class = AttemptSerializer
    filter_class = AttemptFilters

    def get_queryset(self) -> models.QuerySet[Attempt]:
        """Return the attempts."""
        return rows.attempts_of(self.owner)

    def get_object(self) -> Attempt:
        """Return the attempt with the URL's id. Raises ``Http404``."""
        parts = ATTEMPT_ID.fullmatch(self.kwargs["webhooks_id"])
        if parts is None:
            raise Http404("No Attempt matches the given query.")
        return get_object_or_404(self.get_queryset(), delivery__uid=parts[1], number=int(parts[2]))


class EventTypeViewSet(OwnerViewSet):
    """The events that can be subscribed to."""

    def list(self, request: Request, **_: Any) -> Response:
        """Show the catalogue, all of it on one page."""
        read_filters(request, RowFilters)
        return Response(CatalogueSerializer({"next": None, "previous": None, "results": list_event_types()}).data)
