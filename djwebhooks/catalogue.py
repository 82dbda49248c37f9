"""The catalogue: which events the application fires, and what is said of each."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any
from weakref import WeakSet

from djwebhooks import payload
from djwebhooks.conf import conf
from djwebhooks.exceptions import ConfigurationError, InvalidEvent, SchemaMismatch, UnknownEvent
from djwebhooks.names import OPERATIONAL_EVENTS, check_name, matches
from djwebhooks.versions import check_versions

logger = logging.getLogger(__name__)

#: What ``DJWEBHOOKS_VALIDATE_PAYLOADS`` may be.
VALIDATIONS = (None, "warn", "refuse")
NO_LIBRARY = "Payloads cannot be held against their schemas without jsonschema: pip install 'djwebhooks[schema]'."


@dataclass(frozen=True, slots=True)
class EventType:
    """What is said of an event.

    *schema* is a JSON Schema of its payload, and *sample* such a payload, both without the envelope. An *internal* one is for
    the system's own targets. *deprecated* says what to use instead; empty says that it is not. *version* is what its current
    version is called, and *versions* are the others: each is like an event of its own, but has no versions.
    """

    name: str
    description: str = ""
    schema: Mapping[str, Any] | None = None
    sample: Any = None
    internal: bool = False
    deprecated: str = ""
    version: str = ""
    versions: "tuple[EventType, ...]" = ()


#: What may be said of an event in ``DJWEBHOOKS_EVENTS``, and of another version of it.
ENTRY_KEYS = tuple(field.name for field in fields(EventType) if field.name != "name")
VERSION_KEYS = ("description", "schema", "sample", "deprecated")
#: What the values of an entry must be: in words, and for ``isinstance``.
KINDS: Mapping[str, tuple[str, Any]] = {
    "description": ("a text", str),
    "schema": ("a JSON Schema, which is a dictionary, or None", (Mapping, type(None))),
    "internal": ("True or False", bool),
    "deprecated": ("a text that says what to use instead", str),
    "version": ("a text that names it", str),
    "versions": ("a dictionary of other versions by their names", Mapping),
}
#: What code has registered; ``DJWEBHOOKS_EVENTS`` has the last word.
_registered: dict[str, Mapping[str, Any]] = {}
#: The functions that are hooks, as far as their modules were imported; each has the name of its event as ``event``.
hooks: WeakSet[Any] = WeakSet()


def register_event(
    name: str,
    *,
    description: str = "",
    schema: Mapping[str, Any] | None = None,
    sample: object = None,
    internal: bool = False,
    deprecated: str = "",
    version: str = "",
    versions: Mapping[str, Mapping[str, Any]] | None = None,
) -> EventType:
    """Put the event *name* into the catalogue, as an entry of ``DJWEBHOOKS_EVENTS`` does, and return what is said of it.

    Call it when Django starts, in a module that every process imports, such as the one with the hooks or an
    ``AppConfig.ready``. To say the same again changes nothing.

    Raises ``InvalidEvent`` for a name that no event can have, and ``ConfigurationError`` for an entry that cannot be, or if
    something else was registered under this name.
    """
    entry: dict[str, Any] = {
        "description": description,
        "schema": schema,
        "sample": sample,
        "internal": internal,
        "deprecated": deprecated,
        "version": version,
        "versions": versions or {},
    }
    check_name(name)
    if faults := list_faults(name, entry):
        raise ConfigurationError(f"register_event: {faults[0]}")
    if _registered.setdefault(name, entry) != entry:
        raise ConfigurationError(f"The event {name!r} was registered before with something else: register it in one place.")
    return _describe(name, entry)


# -- what there is -----------------------------------------------------------------------------------------------------


def is_open() -> bool:
    """Whether there is no catalogue, so that any name will do."""
    return not (_registered or conf.EVENTS)


def is_known(name: str) -> bool:
    """Whether an application may fire the event *name*."""
    return is_open() or name in conf.EVENTS or name in _registered or name in conf.MODEL_EVENTS


def is_internal(name: str) -> bool:
    """Whether the event *name* is for the system's own targets."""
    entry = _entry_of(name)
    return isinstance(entry, Mapping) and bool(entry.get("internal"))


def is_possible(pattern: str) -> bool:
    """Whether *pattern* matches an event that there can be."""
    return is_open() or any(matches(pattern, name) for name in {*names_of_all(), *OPERATIONAL_EVENTS})


def names_of_all() -> list[str]:
    """The names in the catalogue, those of ``DJWEBHOOKS_MODEL_EVENTS`` included, sorted; none if there is no catalogue."""
    return [] if is_open() else sorted({*_registered, *conf.EVENTS, *conf.MODEL_EVENTS})


def list_event_types() -> list[EventType]:
    """Return what is said of each event, by name."""
    return [_describe(name, _entry_of(name)) for name in names_of_all()]


def _describe(name: str, entry: Mapping[str, Any]) -> EventType:
    others = {"internal": entry.get("internal", False)}
    versions = tuple(EventType(name, version=key, **others, **told) for key, told in entry.get("versions", {}).items())
    return EventType(name, **{**entry, "versions": versions})


def check_known(name: str) -> None:
    """Raise ``UnknownEvent`` when there is a catalogue without *name*."""
    if not is_known(name):
        raise UnknownEvent(f"{name!r} is not in the catalogue, which has {', '.join(names_of_all())}.")


def _entry_of(name: str) -> Any:
    return conf.EVENTS[name] if name in conf.EVENTS else _registered.get(name, {})


# -- versions ----------------------------------------------------------------------------------------------------------


def list_versions(name: str) -> list[str] | None:
    """Return the versions of the event *name*, the current one first; ``None`` if the catalogue does not say."""
    entry = _entry_of(name)
    if not isinstance(entry, Mapping) or not (entry.get("version") or entry.get("versions")):
        return None
    return [*filter(None, [entry.get("version")]), *entry.get("versions", {})]


def check_version_known(name: str, version: str) -> None:
    """Raise ``UnknownEvent`` when the catalogue knows the versions of the event *name*, and *version* is none of them."""
    known = list_versions(name) if version else None
    if known is not None and version not in known:
        raise UnknownEvent(f"{name!r} has no version {version!r} in the catalogue, which has {', '.join(known)}.")


def find_version_fault(version: str, names: Iterable[str]) -> str:
    """Say that none of the events *names* has *version*; empty if one has, or may have, as the catalogue does not say."""
    told = [list_versions(name) for name in names]
    known = {word for versions in told for word in versions or ()}
    if not told or None in told or version in known:
        return ""
    return f"None of the events has a version {version!r}: there are {', '.join(sorted(known))}."


# -- schemas -----------------------------------------------------------------------------------------------------------


def check_payload(name: str, text: str, version: str = "") -> None:
    """Hold a payload, as JSON *text*, against its event's schema in that *version*, if ``DJWEBHOOKS_VALIDATE_PAYLOADS`` says so.

    One that does not fit is logged, or raises ``SchemaMismatch``. Neither says more of the payload than where it does not fit.
    Raises ``UnknownEvent`` for a version that the catalogue does not have, and ``ConfigurationError`` if payloads are to be
    refused and the library for that is not installed.
    """
    check_version_known(name, version)
    mode = conf.VALIDATE_PAYLOADS
    entry = _entry_of(name) if mode is not None else None
    if isinstance(entry, Mapping) and version in entry.get("versions", {}):
        entry = entry["versions"][version]
    schema = entry.get("schema") if isinstance(entry, Mapping) else None
    if schema is None:
        return
    schemas = find_schemas()
    if schemas is None:
        if mode == "refuse":
            raise ConfigurationError(NO_LIBRARY)
        return
    if fault := schemas.find_fault(schema, json.loads(text)):
        which = f" in version {version!r}" if version else ""
        message = f"The payload of {name!r}{which} does not fit its schema: {fault}"
        if mode == "refuse":
            raise SchemaMismatch(message)
        logger.warning("%s", message)


@cache
def find_schemas() -> ModuleType | None:
    """Return the module that knows JSON Schema, or ``None`` when its library is not installed."""
    try:
        return import_module("djwebhooks.schemas")
    except ImportError:
        return None


def has_schemas() -> bool:
    """Whether the catalogue has a schema for any event."""
    return any(_has_schema(entry) for entry in map(_entry_of, names_of_all()))


def _has_schema(entry: object) -> bool:
    if not isinstance(entry, Mapping):
        return False
    versions = entry.get("versions")
    return entry.get("schema") is not None or (isinstance(versions, Mapping) and any(map(_has_schema, versions.values())))


def list_faults(name: str, entry: object) -> list[str]:
    """Say in sentences what is wrong with the *entry* of the event *name*."""
    faults = _list_faults(repr(name), entry, ENTRY_KEYS)
    if faults or not isinstance(entry, Mapping):
        return faults
    versions = entry.get("versions", {})
    try:
        check_versions(entry.get("version", ""), versions)
    except InvalidEvent as error:
        return [f"{name!r}: {error}"]
    return [
        fault
        for version, told in versions.items()
        for fault in _list_faults(f"{name!r} in version {version!r}", told, VERSION_KEYS)
    ]


def _list_faults(what: str, entry: object, keys: Iterable[str]) -> list[str]:
    if not isinstance(entry, Mapping):
        return [f"{what} must have a dictionary, not {entry!r}: write {{'description': …}}."]
    faults = [
        f"{what} has the key {key!r}, which means nothing: there are {', '.join(keys)}." for key in entry if key not in keys
    ]
    faults += [
        f"{what} has a {key} that must be {kind}, not {entry[key]!r}."
        for key, (kind, types) in KINDS.items()
        if key in entry and not isinstance(entry[key], types)
    ]
    if conf.ENVELOPE == "flat" and not isinstance(entry.get("sample") or {}, Mapping):
        faults.append(f"{what} has a sample that is no object, and the flat envelope holds nothing else.")
    return faults or _list_schema_faults(what, entry)


def _list_schema_faults(what: str, entry: Mapping[str, Any]) -> list[str]:
    schema, sample, schemas = entry.get("schema"), entry.get("sample"), find_schemas()
    if schema is None or schemas is None:
        return []
    if fault := schemas.find_schema_fault(schema):
        return [f"{what} has an invalid schema: {fault}"]
    if sample is not None and (fault := schemas.find_fault(schema, json.loads(payload.encode(sample)))):
        return [f"{what} has a sample that does not fit its schema: {fault}"]
    return []
