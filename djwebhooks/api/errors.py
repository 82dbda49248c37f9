"""Turn our errors into answers."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS
from django.core.exceptions import ValidationError as ModelError
from rest_framework import status
from rest_framework.exceptions import APIException, ValidationError
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import exception_handler

from djwebhooks.exceptions import (
    AlreadyFinished,
    ErasedEvent,
    IdempotencyConflict,
    InvalidEvent,
    InvalidPayload,
    KeyNotAccepted,
    TargetLocked,
    UndecryptableSecret,
)


class Conflict(APIException):
    """What is asked for does not go together with what is there."""

    status_code = status.HTTP_409_CONFLICT
    default_code = "conflict"


class Unavailable(APIException):
    """A fault of our own, which somebody has to mend."""

    status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    default_code = "unavailable"


class RequestTooLarge(APIException):
    """The request's body is larger than any that can be meant."""

    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_code = "too_large"


def answer_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """Return the answer that tells of *error*; ``None`` for one that is nobody's mistake."""
    return exception_handler(translate(error), context)


def translate(error: Exception) -> Exception:
    """Return the error of REST framework that means the same as *error*, or *error* itself."""
    match error:
        case IdempotencyConflict() | AlreadyFinished() | ErasedEvent() | KeyNotAccepted() | TargetLocked():
            return Conflict(str(error))
        case UndecryptableSecret():
            return Unavailable("The secret of this target cannot be read at the moment.")
        case InvalidPayload():
            return ValidationError({"payload": [str(error)]})
        case InvalidEvent():
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
