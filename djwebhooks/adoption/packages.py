"""What has to be known of a package whose targets are adopted."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from djwebhooks.adoption.tables import Found

#: What an event is called from now on.
Rename = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Package:
    """Where its endpoints are, and what its settings mean."""

    name: str
    #: The table that has a row for each endpoint.
    table: str
    #: What refers to that table, and is to be dropped before it.
    other_tables: tuple[str, ...]
    #: The column with the primary key of a row's user; empty where rows are nobody's.
    owner_column: str
    #: Reads a table of a database.
    read: Callable[[str, str], Iterable[Found]]
    #: What bodies are from now on, and what they were, where no sender is given that goes on as before.
    bodies: str
    #: Returns the settings that mean here what the package's own settings meant.
    suggest: Callable[[Rename], Mapping[str, Any]]
    #: Returns what an event is called here.
    name_event: Rename = str
    #: What is different from now on, beyond what rows and settings can tell.
    remarks: tuple[str, ...] = ()
