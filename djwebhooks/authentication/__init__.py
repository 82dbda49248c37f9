"""How a receiver is told who sends: Basic, bearer, a signed JWT, or OAuth 2 client credentials."""

import json
from collections.abc import Mapping
from typing import Any

from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables

from djwebhooks.authentication.base import DEPTH_LIMIT, SIZE_LIMIT, AnyAuthentication
from djwebhooks.exceptions import InvalidTarget

#: Where the class of each type is. Those that need a library of the extra ``auth`` are imported only when they are used.
TYPES: Mapping[str, str] = {
    "basic": "djwebhooks.authentication.plain.Basic",
    "bearer": "djwebhooks.authentication.plain.Bearer",
    "jwt": "djwebhooks.authentication.jwt.SignedToken",
    "oauth2": "djwebhooks.authentication.oauth2.ClientCredentials",
}


@sensitive_variables()
def read(told: object) -> AnyAuthentication:
    """Return what *told* describes: an object with a ``type`` and the parts of that type.

    Raises ``InvalidTarget``, which never shows what is secret.
    """
    name = told.get("type") if isinstance(told, Mapping) else None
    if not isinstance(told, Mapping) or not isinstance(name, str) or name not in TYPES:
        raise InvalidTarget(f"The authentication is an object whose type is one of {', '.join(TYPES)}.")
    try:
        size = len(json.dumps(told, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        raise InvalidTarget("The authentication is an object of JSON; this one has something that JSON cannot hold.") from None
    if size > SIZE_LIMIT:
        raise InvalidTarget(f"The authentication has {size} characters as JSON; at most {SIZE_LIMIT} are possible.")
    if is_deep(told):
        raise InvalidTarget(f"The authentication has more than {DEPTH_LIMIT} objects or lists in each other: flatten it.")
    return find_class(name).read({part: value for part, value in told.items() if part != "type"})


@sensitive_variables()
def is_deep(told: Mapping[str, Any]) -> bool:
    """Whether more objects and lists are in each other than there may be."""
    level: list[Any] = [told]
    for _ in range(DEPTH_LIMIT):
        insides = (value.values() if isinstance(value, Mapping) else value for value in level)
        level = [item for inside in insides for item in inside if isinstance(item, Mapping | list | tuple)]
    return bool(level)


def find_class(name: str) -> type[AnyAuthentication]:
    """Return the class of the type *name*. Raises ``InvalidTarget`` if the library that it needs is not installed."""
    try:
        found: type[AnyAuthentication] = import_string(TYPES[name])
    except ImportError as error:
        library = str(error.name).partition(".")[0]
        raise InvalidTarget(
            f"The authentication {name!r} needs the library {library}. Install it with: pip install 'djwebhooks[auth]'"
        ) from error
    return found


@sensitive_variables("told")
def summarize(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the type and the parts of *told* that are not secret; nothing for nothing. Raises ``InvalidTarget``."""
    if not told:
        return {}
    shown = read(told).summary
    # Written and read anew, as what is shown is not hidden.
    summary: dict[str, Any] = json.loads(json.dumps({"type": told["type"], **shown}))
    return summary
