"""Turn our errors into answers, all of one form: a ``code``, a ``detail`` and, for mistakes in fields, ``errors``."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as ModelError
from django.core.signals import got_request_exception
from django.utils.log import log_response
from rest_framework import status
from rest_framework.exceptions import APIException, ErrorDetail, NotFound, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler, set_rollback

from djwebhooks.exceptions import (
    AlreadyDispatched,
    AlreadyFinished,
    DeletedTarget,
    ErasedEvent,
    IdempotencyConflict,
    InvalidEvent,
    InvalidPayload,
    InvalidReplay,
    KeyNotAccepted,
    TargetLocked,
    UndecryptableSecret,
)


class Conflict(APIException):
    """What is asked for does not go together with what is there."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class KeyReused(APIException):
    """An idempotency key came with another request than before (draft-ietf-httpapi-idempotency-key-header, section 2.7)."""

    status_code = status.HTTP_422_UNPROCESSABLE_ENTITY
    default_code = "idempotency_conflict"


class KeyUnused(APIException):
    """An idempotency key came with a request that would be done again all the same."""

    status_code = status.HTTP_400_BAD_REQUEST
    default_code = "idempotency_unsupported"


class Unavailable(APIException):
    """A fault of our own, which somebody has to mend."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"


class RequestTooLarge(APIException):
    """The request's body is larger than any that can be meant."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


#: The codes of what is 409.
CONFLICTS: dict[type[Exception], str] = {
    AlreadyDispatched: "already_dispatched",
    AlreadyFinished: "already_finished",
    ErasedEvent: "erased_event",
    KeyNotAccepted: "key_not_accepted",
    TargetLocked: "target_locked",
}


def answer_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer that tells of *error*; ``None`` for a fault of our own that Django shows more of while debugging."""
    translated = translate(error)
    answer = exception_handler(translated, context)
    if answer is None:
        return None if settings.DEBUG or settings.DEBUG_PROPAGATE_EXCEPTIONS else answer_fault(error, context["request"])
    if isinstance(translated, ValidationError):
        answer.data = {"code": "invalid", "detail": "The request has mistakes: see errors.", "errors": list_errors(answer.data)}
    else:
        # The project's own classes may have given an object or a list for it, as REST framework allows.
        told = answer.data.get("detail", answer.data) if isinstance(answer.data, dict) else answer.data
        messages = [message for _, message in walk(told)] or [ErrorDetail(HTTPStatus(answer.status_code).phrase)]
        answer.data = {"code": messages[0].code or "error", "detail": " ".join(messages)}
    return answer


def answer_fault(error: Exception, request: Request) -> Response:
    """Report *error* as Django does what it does not expect, and return an answer that tells nothing of it."""
    asked = request._request  # noqa: SLF001  # Django's own is kept nowhere else
    answer = Response({"code": "error", "detail": "Something went wrong here."}, 500)
    set_rollback()
    got_request_exception.send(sender=None, request=asked)
    log_response("Internal Server Error: %s", request.path, response=answer, request=asked, exception=error)
    return answer


def list_errors(detail: Any) -> dict[str, list[str]]:
    """Return the messages in the *detail* of a ``ValidationError`` by field; what is inside one is named ``events.0``."""
    found: dict[str, list[str]] = {}
    for name, message in walk(detail):
        found.setdefault(name or api_settings.NON_FIELD_ERRORS_KEY, []).append(message)
    return found


def walk(detail: Any, name: str = "") -> Iterator[tuple[str, ErrorDetail]]:
    """Find each message in *detail*, with its field's name."""
    if isinstance(detail, Mapping):
        for part, inner in detail.items():
            yield from walk(inner, f"{name}.{part}" if name else str(part))
    elif isinstance(detail, list):
        for inner in detail:
            yield from walk(inner, name)
    else:
        yield name, detail


def translate(error: Exception) -> Exception:
    """Return the error of REST framework that means the same as *error*, or *error* itself."""
    match error:
        case IdempotencyConflict():
            return KeyReused(str(error))
        case AlreadyDispatched() | AlreadyFinished() | ErasedEvent() | KeyNotAccepted() | TargetLocked():
            return Conflict(str(error), CONFLICTS[type(error)])
        case DeletedTarget():
            return NotFound(error.message)
        case UndecryptableSecret():
            return Unavailable("The secret of this target cannot be read at the moment.")
        case InvalidPayload():
            return ValidationError({"payload": [str(error)]})
        case InvalidEvent() | InvalidReplay():
            return refuse(str(error))
        case ModelError():
            return ValidationError(name_fields(error))
        case _:
            return error


def refuse(message: str) -> ValidationError:
    """Return the error for a mistake that is no single field's."""
    return ValidationError({api_settings.NON_FIELD_ERRORS_KEY: [message]})


def name_fields(error: ModelError) -> Mapping[str, list[str]]:
    """The messages of a model's *error* by field, as REST framework names what is no single field's."""
    by_field = error.message_dict if hasattr(error, "error_dict") else {NON_FIELD_ERRORS: error.messages}
    return {
        api_settings.NON_FIELD_ERRORS_KEY if name == NON_FIELD_ERRORS else name: messages for name, messages in by_field.items()
    }
