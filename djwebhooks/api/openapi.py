"""Describe the API in OpenAPI 3.1, by way of drf-spectacular (extra ``openapi``)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from inspect import getdoc
from itertools import product
from threading import Lock
from typing import Any

from rest_framework import serializers

import djwebhooks
from djwebhooks.api import answers, feed, hooks, urls, views
from djwebhooks.api import serializers as own
from djwebhooks.api.fields import AnyField, SealedDictField, StatusesField, StrictSerializer
from djwebhooks.api.filters import RowFilters
from djwebhooks.models.replays import REPLAYABLE
from djwebhooks.names import NAME

try:
    from drf_spectacular.extensions import (
        OpenApiAuthenticationExtension,
        OpenApiSerializerFieldExtension,
        OpenApiViewExtension,
    )
    from drf_spectacular.generators import SchemaGenerator
    from drf_spectacular.openapi import AutoSchema
    from drf_spectacular.settings import patched_settings
    from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
except ImportError as error:
    raise ImportError(
        f"The API's description needs drf-spectacular, which cannot be imported ({error}): pip install 'djwebhooks[openapi]'."
    ) from error

#: What is said of the API as a whole, whatever the project says of its own.
SETTINGS = {
    "TITLE": "Webhooks",
    "DESCRIPTION": "Where events are sent to, which there were, and what became of each.",
    "VERSION": djwebhooks.__version__,
    "OAS_VERSION": "3.1.0",
    "SERVERS": [],
    "SCHEMA_PATH_PREFIX": "/",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "PREPROCESSING_HOOKS": [],
    "POSTPROCESSING_HOOKS": [f"{__name__}.tidy"],
}
#: What the errors mean, and their codes.
ERRORS = {
    400: "The request has mistakes: `invalid`, with `errors`, `parse_error`, or `idempotency_unsupported`, for a header "
    "Idempotency-Key where it is not obeyed.",
    401: "Nobody is known to ask: `not_authenticated`, `authentication_failed`.",
    403: "You may not: `permission_denied`, or those of 401 where the authentication asks for nothing.",
    404: "It does not exist, or is not yours: `not_found`.",
    409: "It does not go together with what is there: `already_dispatched`, `already_finished`, `erased_event`, "
    "`key_not_accepted`, `same_target`, `target_locked`.",
    413: "The body is larger than the largest payload can be: `too_large`.",
    415: "The body is said to be something else than JSON: `unsupported_media_type`.",
    422: "The idempotency key was used for another request: `idempotency_conflict`.",
    429: "Too many requests; `Retry-After` has the seconds: `throttled`.",
    500: "A fault of our own, which was reported: `error`.",
    503: "No encryption key opens the target's secret: `unavailable`.",
}
#: The errors of every request, and of one with a body.
ALWAYS, WITH_BODY = (401, 403, 500), (400, 413, 415)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": 255},
    OpenApiParameter.HEADER,
    description="The same request with the same key again does nothing, and is answered as the first.",
)
PAGING = (
    OpenApiParameter("cursor", str, description="Which page, from `next` or `previous`."),
    OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
)

Serializer = type[serializers.BaseSerializer[Any]]


@dataclass(frozen=True)
class Operation:
    """What an action takes, what it answers by status, and which errors it has besides those that follow from this."""

    answers: Mapping[int, Serializer | dict[str, Any] | None]
    body: Serializer | None = None
    errors: tuple[int, ...] = ()
    filters: type[RowFilters] | None = None
    parameters: tuple[OpenApiParameter, ...] = ()


def lists(serializer: Serializer) -> Operation:
    """Return the operation that shows a page of rows."""
    return Operation({200: serializer}, errors=(400,), parameters=PAGING)


TARGET, EVENT, DELIVERY = own.TargetSerializer, own.EventSerializer, own.DeliverySerializer
NEW_TARGET = answers.NewTargetSerializer

OPERATIONS: dict[type[views.OwnerViewSet], dict[str, Operation]] = {
    views.TargetViewSet: {
        "list": lists(TARGET),
        "create": Operation({201: NEW_TARGET, 200: TARGET}, TARGET, (409, 422, 503), parameters=(IDEMPOTENCY_KEY,)),
        "retrieve": Operation({200: TARGET}),
        "update": Operation({200: TARGET}, TARGET, (409,)),
        "partial_update": Operation({200: TARGET}, TARGET, (409,)),
        "destroy": Operation({204: None}),
        "test": Operation({202: EVENT}, own.NothingSerializer),
        "rotate_secret": Operation({200: NEW_TARGET}, own.RotationSerializer, (409, 503)),
        "check_keys": Operation({202: answers.ChecksSerializer}, own.NothingSerializer, (409, 503)),
        "finish_rotation": Operation({200: TARGET}, own.FinishSerializer, (409, 503)),
        "pause": Operation({200: TARGET}, own.NothingSerializer),
        "resume": Operation({200: TARGET}, own.NothingSerializer),
        "probe": Operation({202: TARGET}, own.NothingSerializer),
        "replay": Operation({202: answers.StartedReplaySerializer}, own.TargetReplaySerializer),
    },
    views.EventViewSet: {
        "list": lists(own.ListedEventSerializer),
        "create": Operation({201: EVENT, 200: EVENT}, own.PublicationSerializer, (422,), parameters=(IDEMPOTENCY_KEY,)),
        "retrieve": Operation({200: EVENT}),
        "destroy": Operation({204: None}, errors=(409,)),
    },
    views.DeliveryViewSet: {
        "list": lists(DELIVERY),
        "retrieve": Operation({200: DELIVERY}),
        "destroy": Operation({204: None}, errors=(409,)),
        "retry": Operation({202: DELIVERY}, own.NothingSerializer, (409,)),
        "cancel": Operation({200: DELIVERY}, own.NothingSerializer, (409,)),
    },
    views.ReplayViewSet: {
        "list": lists(own.ListedReplaySerializer),
        "create": Operation({202: answers.StartedReplaySerializer}, own.ReplayOptionsSerializer),
        "retrieve": Operation({200: own.ReplaySerializer}),
        "cancel": Operation({200: own.ReplaySerializer}, own.NothingSerializer, (409,)),
    },
    views.AttemptViewSet: {
        "list": lists(own.AttemptSerializer),
        "retrieve": Operation({200: own.AttemptSerializer}),
    },
    views.EventTypeViewSet: {"list": Operation({200: answers.CatalogueSerializer}, errors=(400,))},
    hooks.HookViewSet: {
        "list": lists(hooks.HookSerializer),
        "create": Operation({201: hooks.NewHookSerializer, 200: hooks.HookSerializer}, hooks.HookRequestSerializer),
        "retrieve": Operation({200: hooks.HookSerializer}),
        "destroy": Operation({204: None}),
        "samples": Operation({200: {"type": "array", "items": {}}}, errors=(400,), filters=hooks.SampleFilters),
    },
    feed.FeedViewSet: {
        "list": Operation({200: answers.FeedPageSerializer}, errors=(400, 404, 503), filters=feed.FeedFilters),
    },
}


#: What an action does whose method is REST framework's own.
SUMMARIES = {"retrieve": "Show one of them.", "destroy": "Delete it, and cancel what waits for it."}
#: The ids that are not random: an attempt's and a hook's.
IDS = {views.AttemptViewSet: views.ATTEMPT_ID, hooks.HookViewSet: hooks.HOOK_ID}
#: What fields of requests are, besides what their serializers say.
HINTS: dict[str, dict[str, Any]] = {"target_url": {"format": "uri"}, "name": {"pattern": f"^{NAME.pattern}$"}}
#: What says how the database keeps an answer, and what is no key of OpenAPI 3.1.
REMARKS, MARKS = ("maximum", "minimum", "maxLength"), ("x-spec-enum-id", "nullable")


class Description(AutoSchema):
    """What drf-spectacular asks of a view, answered out of ``OPERATIONS``."""

    @property
    def operation(self) -> Operation:
        """The view's current action."""
        [operations] = [told for view, told in OPERATIONS.items() if isinstance(self.view, view)]
        return operations[self.view.action]

    @property
    def parts(self) -> list[str]:
        """The path's parts behind the prefix that the API is included at: what kind of row, which row, what to do."""
        route = next(str(url.pattern) for url in urls.urlpatterns if self.path_regex.endswith(str(url.pattern)))
        found: list[str] = self.path.strip("/").split("/")
        return found[-route.count("/") :]

    @property
    def is_paged(self) -> bool:
        """Whether it shows a page of rows."""
        return PAGING[0] in self.operation.parameters

    def get_operation_id(self) -> str:
        """Return ``targets_rotate_secret`` and the like."""
        return f"{self.parts[0]}_{self.view.action}".replace("-", "_")

    def get_tags(self) -> list[str]:
        """Return the kind of rows that it is about."""
        return [self.parts[0]]

    def get_summary(self) -> str:
        """Return what it does."""
        told = getattr(self.view, self.view.action).__doc__ or SUMMARIES.get(self.view.action)
        return told or str(getdoc(type(self.view)))

    def get_description(self) -> str:
        """Return nothing more."""
        return ""

    def get_override_parameters(self) -> list[Any]:
        """Return what may be in the query string, and in headers of its own."""
        filters = self.operation.filters or (self.view.filter_class if self.is_paged else None)
        return [*([filters] if filters else []), *self.operation.parameters]

    def _get_filter_parameters(self) -> list[Any]:
        return []

    def _get_pagination_parameters(self) -> list[Any]:
        return []

    def _resolve_path_parameters(self, variables: list[str]) -> list[Any]:
        row = [part.strip("{}") for part in self.parts[1:2] if part.startswith("{")]
        patterns = [{"pattern": f"^{pattern.pattern}$"} for view, pattern in IDS.items() if isinstance(self.view, view)]
        schema = {"type": "string", **(patterns[0] if patterns else {"format": "uuid"})}
        others = super()._resolve_path_parameters([name for name in variables if name not in row])
        return [*others, *({"name": name, "in": "path", "required": True, "schema": schema} for name in row)]

    def get_request_serializer(self) -> Any:
        """Return what reads the body."""
        return self.operation.body

    def get_response_serializers(self) -> Any:
        """Return what may be answered, by status."""
        told = {code: OpenApiResponse(serializer, HTTPStatus(code).phrase) for code, serializer in self.operation.answers.items()}
        return told | {code: OpenApiResponse(answers.ErrorSerializer, ERRORS[code]) for code in sorted(self.find_errors())}

    def find_errors(self) -> set[int]:
        """Return the statuses of what may be wrong."""
        found = {*ALWAYS, *self.operation.errors}
        if self.operation.body is not None:
            found.update(WITH_BODY)
        if "{" in "".join(self.parts):
            found.add(404)
        if self.view.get_throttles():
            found.add(429)
        return found

    def _is_list_view(self, serializer: Any = None) -> bool:
        return self.is_paged

    def _map_basic_serializer(self, serializer: Any, direction: Any) -> Any:
        told = super()._map_basic_serializer(serializer, direction)
        if direction == "request" and isinstance(serializer, StrictSerializer):
            told["additionalProperties"] = False
            for name, schema in told.get("properties", {}).items():
                schema.update(HINTS.get(name, {}))
        if direction == "response":
            told["required"] = [name for name in told["properties"] if name not in answers.SOMETIMES]
            for schema, remark in product(told["properties"].values(), REMARKS):
                schema.pop(remark, None)
        return told

    def _map_serializer_field(self, field: Any, direction: Any, bypass_extensions: bool = False) -> Any:
        if isinstance(field, AnyField):
            return {"description": field.help_text} if field.help_text else {}
        return super()._map_serializer_field(field, direction, bypass_extensions)


class ViewExtension(OpenApiViewExtension):
    """Has our views described so in every schema that drf-spectacular makes, the project's own included."""

    target_class = views.OwnerViewSet
    match_subclasses = True

    def view_replacement(self) -> Any:
        """Return the same view, with a description."""
        return type(self.target.__name__, (self.target,), {"schema": Description()})


class SealedDictExtension(OpenApiSerializerFieldExtension):
    """An object that may be shown as null, and not be written so."""

    target_class = SealedDictField

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        """Return the schema for that direction."""
        told: dict[str, Any] = auto_schema._map_serializer_field(self.target, direction, bypass_extensions=True)  # noqa: SLF001  # as drf-spectacular's documentation has it
        return told if direction == "request" else told | {"nullable": True}


class StatusesExtension(OpenApiSerializerFieldExtension):
    """A word, or a list of words."""

    target_class = StatusesField

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Any) -> dict[str, Any]:
        """Return the schema for both."""
        word = {"type": "string", "enum": list(REPLAYABLE)}
        words = {"type": "array", "items": word, "minItems": 1, "maxItems": len(REPLAYABLE)}
        return {"oneOf": [word, words], "default": ["failed"]}


class SecretExtension(OpenApiAuthenticationExtension):
    """The three headers by which a receiver shows that it knows its target's secret."""

    target_class = feed.SecretAuthentication
    name = ["webhookId", "webhookTimestamp", "webhookSignature"]

    def get_security_definition(self, auto_schema: AutoSchema) -> list[dict[str, Any]]:
        """Return each header."""
        headers = ("webhook-id", "webhook-timestamp", "webhook-signature")
        return [
            {"type": "apiKey", "in": "header", "name": name, "description": "The query string is signed as a webhook's body is."}
            for name in headers
        ]


class Generator(SchemaGenerator):
    """Calls the id of a row ``id``."""

    def coerce_path(self, path: str, method: str, view: Any) -> str:
        """Return the *path* as people know it."""
        return str(super().coerce_path(path, method, view)).replace(f"{{{view.lookup_url_kwarg}}}", "{id}")


_lock = Lock()


@cache
def _describe() -> dict[str, Any]:
    with patched_settings(SETTINGS):
        schema: dict[str, Any] = Generator(urlconf=urls.__name__).get_schema(request=None, public=True)
    return schema


def describe(server: str) -> dict[str, Any]:
    """Return the OpenAPI document of the API that is served below the path *server*."""
    with _lock:  # drf-spectacular's settings are the process's.
        schema = _describe()
    return {**schema, "servers": [{"url": server}]}


def tidy(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Return *result* without drf-spectacular's own marks, and without components that nothing refers to."""
    result = drop_marks(result)
    schemas = result["components"]["schemas"]
    text = json.dumps(result)
    for name in [name for name in schemas if f'"#/components/schemas/{name}"' not in text]:
        del schemas[name]
    return result


def drop_marks(told: Any) -> Any:
    """Return *told* without what is for drf-spectacular's own hooks, the database's, or OpenAPI 3.0's; code is as in Markdown."""
    if isinstance(told, dict):
        may_be_null = {"type": [told["type"], "null"]} if told.get("nullable") is True else {}
        kept = {name: drop_marks(value) for name, value in told.items() if name not in MARKS and value != "int64"}
        return kept | may_be_null
    if isinstance(told, list):
        return [drop_marks(value) for value in told]
    return told.replace("``", "`") if isinstance(told, str) else told
