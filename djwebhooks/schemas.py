"""JSON Schema: whether a schema is one, and where a value does not fit it. Needs the library jsonschema."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import exceptions, validators
from jsonschema.protocols import Validator
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

#: Characters of a schema that a message shows.
SHOWN = 200


def find_schema_fault(schema: Mapping[str, Any]) -> str:
    """Say why *schema* is no JSON Schema that can be used; empty if it is one."""
    try:
        validator = _validator(write(schema))
        validator.check_schema(json.loads(write(schema)))
    except exceptions.SchemaError as error:
        return f"{error.json_path}: {error.message}"
    except Exception as error:  # noqa: BLE001 (a schema is anybody's text, and the library trusts it)
        return f"{type(error).__name__}: {error}"
    resource = Resource.from_contents(validator.schema, default_specification=DRAFT202012)
    resolver = Registry().with_resource("", resource).resolver()
    for reference in list_references(validator.schema):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            return f"it refers to {reference!r}, which is not in it; nothing is fetched."
    return ""


def list_references(part: Any) -> Iterator[str]:
    """What a schema refers to; nothing of a part that has a base of its own."""
    if isinstance(part, dict):
        if isinstance(reference := part.get("$ref"), str):
            yield reference
        for value in part.values():
            if not (isinstance(value, dict) and "$id" in value):
                yield from list_references(value)
    elif isinstance(part, list):
        for value in part:
            yield from list_references(value)


def find_fault(schema: Mapping[str, Any], value: Any) -> str:
    """Say where *value*, of what JSON can hold, does not fit *schema*, without showing it; empty if it fits."""
    try:
        error = exceptions.best_match(_validator(write(schema)).iter_errors(value))
    except Exception as fault:  # noqa: BLE001 (a schema is anybody's text, and the library trusts it)
        return f"it cannot be checked, as the library raises {type(fault).__name__}"
    if error is None:
        return ""
    return f"{error.json_path} must fit {shorten(json.dumps({error.validator: error.validator_value}))}"


def shorten(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def write(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, sort_keys=True, default=dict)  # Other mappings than dictionaries.


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    told = json.loads(schema)
    # An own registry, as the default one would fetch what a schema refers to from anywhere.
    return validators.validator_for(told, default=validators.Draft202012Validator)(told, registry=Registry())
