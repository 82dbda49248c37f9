"""A field whose values are of a type that nobody else knows."""

from dataclasses import dataclass
from typing import Any

from django.db import models


@dataclass(frozen=True)
class Place:
    """Where a book stands."""

    floor: int
    shelf: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        floor, _, shelf = text.partition("/")
        return cls(int(floor), shelf)

    def __str__(self) -> str:
        return f"{self.floor}/{self.shelf}"


class PlaceField(models.CharField):
    """A ``Place``, written as ``floor/shelf``."""

    def from_db_value(self, value: str | None, expression: object, connection: object) -> Place | None:
        return self.to_python(value)

    def to_python(self, value: Any) -> Place | None:
        return Place.parse(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Place | None) -> str | None:
        return None if value is None else str(value)

    def value_to_string(self, obj: models.Model) -> str:
        return str(self.value_from_object(obj))
