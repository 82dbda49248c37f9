"""JSON Schema: whether a schema is one, and where a value does not fit it. Needs the library jsonschema."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import exceptions, validators
from jsonschema.protocols import Validator
from referencing import Registry
from referencing.exceptions import Unresolvable

#: Characters of a schema that a message shows.
SHOWN = 200


def find_schema_fault(schema: Mapping[str, Any]) -> str:
    """Say where *schema* is no JSON Schema; empty if it is one."""
    kind = validators.validator_for(dict(schema), default=validators.Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except exceptions.SchemaError as error:
        return f"{error.json_path}: {error.message}"
    return ""


def find_fault(schema: Mapping[str, Any], value: Any) -> str:
    """Say where *value*, of what JSON can hold, does not fit *schema*, without showing it; empty if it fits."""
    try:
        error = exceptions.best_match(_validator(json.dumps(schema, sort_keys=True)).iter_errors(value))
    except Unresolvable as unresolvable:
        return f"the schema refers to {unresolvable.ref!r}, which is not in it; nothing is fetched."
    if error is None:
        return ""
    return f"{error.json_path} must fit {shorten(json.dumps({error.validator: error.validator_value}))}"


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    told = json.loads(schema)
    # An own registry, as the default one would fetch what a schema refers to from anywhere.
    return validators.validator_for(told, default=validators.Draft202012Validator)(told, registry=Registry())
