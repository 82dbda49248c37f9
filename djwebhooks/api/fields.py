"""Serializer fields that mean the same in every project."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeVar

from django.db import models
from django.utils.dateparse import parse_datetime
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from djwebhooks.exceptions import DjWebhooksError, UndecryptableSecret
from djwebhooks.hidden import HiddenText

T = TypeVar("T")

#: Mistakes inside one object or list that are told: each has a message, which may be longer than what it is about.
MOST_MISTAKES = 20


def read_items(child: Any, items: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return what *child* reads each of the *items* as. Raises ``ValidationError`` with the first mistakes."""
    values, mistakes = {}, {}
    for key, item in items:
        try:
            values[key] = child.run_validation(item)
        except ValidationError as error:
            mistakes[key] = error.detail
            if len(mistakes) == MOST_MISTAKES:
                break
    if mistakes:
        raise ValidationError(mistakes)
    return values


class TimeField(serializers.DateTimeField):
    """A time with its offset (RFC 3339), always shown in UTC."""

    default_error_messages = {
        "invalid": "Write a time with its offset, such as 2026-09-21T14:13:20Z. Inside an address, + is written as %2B."
    }

    def to_internal_value(self, value: object) -> datetime:
        """Return *value* in UTC. Raises ``ValidationError``."""
        try:
            time = parse_datetime(value) if isinstance(value, str) else None
            if time is None or time.tzinfo is None:
                self.fail("invalid")
            return time.astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail("invalid")

    def to_representation(self, value: datetime) -> str:
        """Return *value* as text that ends with Z."""
        return value.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


class ChoiceField(serializers.ChoiceField):
    """One of a few words; what is none of them is told which there are."""

    def __init__(self, choices: Any, **options: Any) -> None:
        super().__init__(choices, **options)
        self.error_messages["invalid_choice"] = f'"{{input}}" is none of: {", ".join(map(str, self.choices))}.'


class TextField(serializers.CharField):
    """A text of JSON: no number, which another program would write in another way."""

    def to_internal_value(self, data: object) -> str:
        """Return *data*, without spaces around it unless they are kept. Raises ``ValidationError``."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class FlagField(serializers.BooleanField):
    """A truth value of JSON, and no word for one."""

    def to_internal_value(self, data: object) -> bool:
        """Return *data*. Raises ``ValidationError``."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class CountField(serializers.IntegerField):
    """A whole number of JSON, and no text of one."""

    def to_internal_value(self, data: object) -> int:
        """Return *data*. Raises ``ValidationError``."""
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return data


class NumberField(serializers.FloatField):
    """A number of JSON: neither text nor a truth value."""

    def to_internal_value(self, data: object) -> float:
        """Return *data* as a float. Raises ``ValidationError``."""
        if isinstance(data, bool) or not isinstance(data, int | float):
            self.fail("invalid")
        try:
            return float(data)
        except OverflowError:
            self.fail("invalid")


class ListField(serializers.ListField):
    """A list whose length is looked at before what is in it."""

    def run_child_validation(self, data: Any) -> list[Any]:
        """Return *data* with each item read. Raises ``ValidationError``."""
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return list(read_items(self.child, enumerate(data)).values())


class StatusesField(ListField):
    """How deliveries ended: a word, or a list of words."""

    def to_internal_value(self, data: Any) -> Any:
        """Return *data* as a list. Raises ``ValidationError``."""
        return super().to_internal_value([data] if isinstance(data, str) else data)


class AnyField(serializers.Field[Any, Any, Any, Any]):
    """Whatever JSON can hold; ``djwebhooks.payload`` judges it."""

    def to_representation(self, value: Any) -> Any:
        """Return *value*."""
        return value

    def to_internal_value(self, data: Any) -> Any:
        """Return *data*."""
        return data


class SealedDictField(serializers.DictField):
    """An object that is encrypted in the database, and null while no key opens it."""

    def get_attribute(self, instance: Any) -> Any:
        """Return the object."""
        try:
            return super().get_attribute(instance)
        except UndecryptableSecret:
            return None

    def run_child_validation(self, data: Any) -> dict[str, Any]:
        """Return *data* with each value read. Raises ``ValidationError``."""
        return read_items(self.child, data.items())


class SealedListSerializer(serializers.ListSerializer[Any]):
    """A list that is read from what is encrypted in the database, and null when it cannot be."""

    def get_attribute(self, instance: Any) -> Any:
        """Return the list."""
        try:
            return super().get_attribute(instance)
        except DjWebhooksError:
            return None


class HiddenTextField(TextField):
    """A text that no report of an error may show."""

    def to_internal_value(self, data: Any) -> str:
        """Return *data*, without spaces around it. Raises ``ValidationError``."""
        return HiddenText(super().to_internal_value(data))


class RowSerializer(serializers.ModelSerializer[models.Model]):
    """Shows a row, with its times in UTC, and takes what JSON has a type for in that type."""

    serializer_field_mapping = {
        **serializers.ModelSerializer.serializer_field_mapping,
        models.DateTimeField: TimeField,
        models.CharField: TextField,
        models.TextField: TextField,
        models.BooleanField: FlagField,
        models.PositiveIntegerField: CountField,
    }
    serializer_choice_field = ChoiceField


class StrictSerializer(serializers.Serializer[T]):
    """Refuses what it does not know, so that nothing is believed to be set that is not."""

    #: What one of its fields is called in the refusal.
    noun = "field to write"

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated *data*. Raises ``ValidationError``."""
        if isinstance(data, Mapping):
            self.refuse_unknown(data)
        return super().to_internal_value(data)

    def refuse_unknown(self, data: Mapping[str, Any]) -> None:
        """Raise ``ValidationError`` for names in *data* that are not to be written."""
        known = [name for name, field in self.fields.items() if not field.read_only]
        # What GET showed may be sent back as a whole.
        ignored = set(self.fields) if self.instance is not None and not self.partial else set()
        unknown = list(islice((name for name in data if name not in known and name not in ignored), MOST_MISTAKES))
        if unknown:
            names = ", ".join(known) or "none"
            raise ValidationError({name: [f"There is no {self.noun} with this name; there are: {names}."] for name in unknown})


class NothingSerializer(StrictSerializer[Any]):
    """The body of a request that needs none."""
