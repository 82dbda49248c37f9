"""Find out whose webhooks a request is about."""

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import PermissionDenied
from django.utils.module_loading import import_string
from rest_framework.request import Request

from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError
from djwebhooks.owners import check_owner


def find_owner(request: Request, kwargs: Mapping[str, Any]) -> Any:
    """Return the owner that an authenticated *request* acts for; *kwargs* are those of the URL that the API is included at.

    Raises ``PermissionDenied`` when there is none, or when the function of ``DJWEBHOOKS_REQUEST_OWNER`` does, and
    ``ConfigurationError`` when what it returns cannot own targets.
    """
    owner = import_string(conf.REQUEST_OWNER)(request, **kwargs) if conf.REQUEST_OWNER else request.user
    # The rows of no owner are the system's, which nobody sees here.
    if owner is None:
        raise PermissionDenied("There is nobody here whose webhooks you may see.")
    try:
        check_owner(owner)
    except TypeError as error:
        raise ConfigurationError(
            f"DJWEBHOOKS_REQUEST_OWNER is {conf.REQUEST_OWNER!r}, which does not give an owner of webhooks: {error} Let it be a "
            "function of (request, **url_kwargs) that returns one, or None."
        ) from error
    return owner
