"""A column whose value is encrypted in the database, and opened when it is asked for."""

import json
from collections.abc import Callable
from typing import Any

from django import forms
from django.db import models
from django.db.models.query_utils import DeferredAttribute
from django.views.decorators.debug import sensitive_variables

from djwebhooks import encryption
from djwebhooks.exceptions import UndecryptableSecret
from djwebhooks.hidden import HiddenText, hide

#: Stands for a value that is not known yet: no value of JSON, and the same object in every copy.
UNOPENED: Any = ...
#: How every token of Fernet begins: its version, and the first bytes of a time before the year 3000.
TOKEN_START = "gAAAA"


class Sealed:
    """A value of JSON that shows neither itself nor its token; nothing, such as an empty object, has an empty token."""

    __slots__ = ("_token", "_value")

    def __init__(self, token: str = "", value: Any = UNOPENED) -> None:
        self._token = token
        self._value = hide(value)

    @sensitive_variables()
    def open(self) -> Any:
        """Return the value, the same object each time. Raises ``UndecryptableSecret``."""
        if self._value is UNOPENED:
            self._value = hide(json.loads(encryption.decrypt(self._token)))
        return self._value

    @property
    @sensitive_variables()
    def token(self) -> str:
        """What the database keeps: as it was read, or encrypted anew once somebody has opened it and may have changed it."""
        if self._value is UNOPENED:
            return self._token
        return encryption.encrypt(HiddenText(json.dumps(self._value))) if self._value else ""

    def __eq__(self, other: object) -> bool:
        # Without opening them: two texts of the same value differ.
        return isinstance(other, Sealed) and (self._token, self._value) == (other._token, other._value)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, say in somebody's queue, has the encrypted text.
        token = self.token
        return Sealed, (token, UNOPENED if token else self._value)

    def __repr__(self) -> str:
        return "<sealed>"


class SealedAttribute(DeferredAttribute):
    """Keeps the value in its ``Sealed``, so that a row's ``vars()`` do not show it."""

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        found = super().__get__(instance, cls)
        return found.open() if isinstance(found, Sealed) else found

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value if isinstance(value, Sealed) else Sealed(value=value)


class SealedField(models.TextField):  # type: ignore[type-arg]  # not subscriptable at run time
    """Anything that JSON can hold. Dumps of the database have the encrypted text, and a row without a value an empty one.

    Reading the attribute raises ``UndecryptableSecret`` when no key opens it; loading and saving the row do not.
    """

    descriptor_class = SealedAttribute
    _pyi_private_get_type: Any
    _pyi_private_set_type: Any

    def from_db_value(self, value: str | None, *_: object) -> Sealed:
        return Sealed(value) if value else Sealed(value=self.get_default())

    def to_python(self, value: Any) -> Any:
        """Return *value*: what people give is never taken for an encrypted text, which would open others' for them."""
        return value

    def pre_save(self, instance: models.Model, add: bool) -> Sealed:
        sealed: Sealed = instance.__dict__[self.attname]
        return sealed

    def get_prep_value(self, value: Any) -> str | None:
        if isinstance(value, str) and value.startswith(TOKEN_START):
            return value  # From a dump that is loaded.
        return (value if isinstance(value, Sealed) else Sealed(value=value)).token

    def value_to_string(self, obj: models.Model) -> str:
        return self.pre_save(obj, add=False).token

    def value_from_object(self, obj: models.Model) -> Any:
        """Return what a form shows: nothing, when no key opens it."""
        return super().value_from_object(obj) if self._can_open(obj) else self.get_default()

    def save_form_data(self, instance: models.Model, data: Any) -> None:
        """Take what a form says; it says nothing, and changes nothing, of what no key opens."""
        if data or self._can_open(instance):
            super().save_form_data(instance, data)

    def _can_open(self, instance: models.Model) -> bool:
        try:
            self.pre_save(instance, add=False).open()
        except UndecryptableSecret:
            return False
        return True

    def formfield(self, form_class: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
        return super().formfield(**{"form_class": form_class or forms.JSONField, **kwargs})
