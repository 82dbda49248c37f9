"""Versions of payloads: what they may be called, and an event's payloads besides the current one, as text."""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from djwebhooks.exceptions import InvalidEvent

#: How long the name of a version may be, and how many an event may have besides the current one.
VERSION_LENGTH, MOST_VERSIONS = 32, 20
#: Stands for the current version, whatever its name.
CURRENT = ""
#: Which versions an event has, and whether each is built, if there is but the current one.
BUILT, UNBUILT = MappingProxyType({CURRENT: True}), MappingProxyType({CURRENT: False})

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def check_version(version: str) -> str:
    """Return *version* if it can name one. Raises ``InvalidEvent``."""
    if not isinstance(version, str) or not NAME.fullmatch(version) or len(version) > VERSION_LENGTH:
        raise InvalidEvent(
            f"{version!r} cannot name a version: use up to {VERSION_LENGTH} of a-z, A-Z, 0-9, '.', '_' and '-', as in '2024-01'."
        )
    return version


def check_versions(current: str, others: Iterable[str]) -> None:
    """Raise ``InvalidEvent`` unless one payload can be in these versions; *current* may be empty."""
    names = [check_version(version) for version in others]
    told = names + ([check_version(current)] if current else [])
    if doubles := [version for version in told if told.count(version) > 1]:
        raise InvalidEvent(f"The version {doubles[0]!r} is given twice: each needs a name of its own.")
    if len(names) > MOST_VERSIONS:
        raise InvalidEvent(f"A payload may have {MOST_VERSIONS} versions besides the current one, not {len(names)}.")


def write_texts(texts: Mapping[str, str | None]) -> str:
    """Return as one text what ``read_texts`` reads: the payload's JSON text in each version, none in one that is not built."""
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":"), sort_keys=True) if texts else ""


def read_texts(text: str) -> dict[str, str | None]:
    """Return what ``write_texts`` wrote."""
    return json.loads(text) if text else {}


def list_built(payload: object, text: str) -> Mapping[str, bool]:
    """Say of each version of an event whether it is built: the current one is if there is a *payload*."""
    if not text:
        return BUILT if payload else UNBUILT
    return {CURRENT: bool(payload)} | {version: built is not None for version, built in read_texts(text).items()}


def choose_version(version: str, versions: Collection[str]) -> str:
    """Return which of an event's *versions* a target gets that wants *version*: this one, or the current if there is none."""
    return version if version in versions else CURRENT
