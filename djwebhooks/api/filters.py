"""Which rows of a list a request asks for."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers
from rest_framework.exceptions import ValidationError
from rest_framework.filters import BaseFilterBackend
from rest_framework.request import Request

from djwebhooks.api.catalogue import check_event_name
from djwebhooks.api.fields import ChoiceField, StrictSerializer, TimeField
from djwebhooks.models.deliveries import Status

#: Parameters that choose a page, not rows.
PAGING = ("cursor", "page_size", "format")


class RowFilters(StrictSerializer[Any]):
    """The parameters that a list takes; each field's source is the lookup that it stands for."""

    noun = "filter"

    def narrow(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return those of *rows* that are asked for."""
        return rows.filter(**self.validated_data)


class TargetFilters(RowFilters):
    is_active = serializers.BooleanField(required=False)
    identifier = serializers.CharField(required=False, max_length=255, allow_blank=True, trim_whitespace=False)
    event = serializers.CharField(required=False, max_length=255, trim_whitespace=False, validators=[check_event_name])

    def narrow(self, rows: Any) -> QuerySet[Any]:
        """Return those of *rows* that are asked for; with ``event``, those that get it, by a wildcard or by its name."""
        lookups = dict(self.validated_data)
        event = lookups.pop("event", None)
        wanted: QuerySet[Any] = rows if event is None else rows.subscribed_to(event)
        return wanted.filter(**lookups)


class EventFilters(RowFilters):
    is_waiting = serializers.BooleanField(required=False, source="dispatched_at__isnull")
    name = serializers.CharField(required=False, max_length=255, trim_whitespace=False, validators=[check_event_name])
    since = TimeField(required=False, source="created_at__gte")
    until = TimeField(required=False, source="created_at__lt")


class DeliveryFilters(RowFilters):
    status = ChoiceField(Status.choices, required=False)
    target = serializers.UUIDField(required=False, source="target__uid")
    event = serializers.UUIDField(required=False, source="event__uid")
    event_name = serializers.CharField(
        required=False, max_length=255, trim_whitespace=False, source="event__name", validators=[check_event_name]
    )
    since = TimeField(required=False, source="created_at__gte")
    until = TimeField(required=False, source="created_at__lt")


class ReplayFilters(RowFilters):
    is_retry = serializers.BooleanField(required=False)
    since = TimeField(required=False, source="created_at__gte")
    until = TimeField(required=False, source="created_at__lt")


class AttemptFilters(RowFilters):
    delivery = serializers.UUIDField(required=False, source="delivery__uid")
    error = serializers.CharField(required=False, max_length=32, allow_blank=True, trim_whitespace=False)


def read_filters(request: Request, filters: type[RowFilters]) -> RowFilters:
    """Return what the query string asks for. Raises ``ValidationError`` for what is unknown, repeated or cannot be."""
    parameters = {name: values for name, values in request.query_params.lists() if name not in PAGING}
    repeated = [name for name, values in parameters.items() if len(values) > 1]
    if repeated:
        raise ValidationError({name: ["Give this parameter once."] for name in repeated})
    read = filters(data={name: values[0] for name, values in parameters.items()})
    read.is_valid(raise_exception=True)
    return read


class QueryFilters(BaseFilterBackend):
    """Applies a view's ``filter_class`` to its list."""

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: Any) -> QuerySet[Any]:
        """Return the rows of *queryset* that *request* asks for. Raises ``ValidationError``."""
        if view.action != "list":
            return queryset
        return read_filters(request, view.filter_class).narrow(queryset)
