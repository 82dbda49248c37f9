"""The forms of a target: what is read of what people type, and what they are told of it."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models.fields import BLANK_CHOICE_DASH
from django.forms.fields import InvalidJSONInput
from django.forms.models import BaseInlineFormSet
from django.utils.html import format_html, format_html_join
from django.views.decorators.debug import sensitive_variables

from djwebhooks.conf import conf
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.filters import check_filters
from djwebhooks.hidden import hide
from djwebhooks.models import WebhookTarget
from djwebhooks.models.endpoints import target_digest
from djwebhooks.models.validation import check_authentication, check_certificate, check_filtered, check_version
from djwebhooks.pages import link_to

#: Fields of the form that may hold a receiver's passwords.
SECRET_FIELDS = ("headers", "initial-headers", "authentication_parts", "new_certificate")
#: The columns that are set by fields of another name.
COLUMNS = {
    "authentication_type": "authentication",
    "authentication_parts": "authentication",
    "new_certificate": "client_certificate",
    "remove_certificate": "client_certificate",
}
#: The choice that ends an authentication.
REMOVE = "none"
AUTHENTICATION_TYPES = (
    ("", "---------"),
    ("basic", "Basic: user name and password"),
    ("bearer", "Bearer token"),
    ("jwt", "JWT, signed for each request"),
    ("oauth2", "OAuth 2 client credentials"),
    (REMOVE, "none: remove the one that is set"),
)
PARTS_HELP = format_html_join(
    "",
    "{}<br>",
    (
        ('Basic: {"username": "…", "password": "…"}',),
        ('Bearer: {"token": "…"}',),
        ('JWT: {"algorithm": "ES256", "key": "-----BEGIN …", "key_id": "…", "issuer": "…", "claims": {…}, "lifetime": 60}',),
        ('OAuth 2: {"token_url": "https://…", "client_id": "…", "client_secret": "…", "scope": "…", "audience": "…"}',),
        ("They are not shown again.",),
    ),
)


class OptionalJSONField(forms.JSONField):
    """A list or an object of JSON, seldom with others inside, that is shown as nothing when there is none."""

    #: What is done with what was read, before anybody looks at it.
    keep: Callable[[Any], Any] = staticmethod(lambda value: value)
    may_nest = False

    def prepare_value(self, value: Any) -> Any:
        return super().prepare_value(value) if value else ""

    def to_python(self, value: Any) -> Any:
        """Return what *value* says. Raises ``ValidationError``, also for what json or a database cannot hold."""
        try:
            read = self.keep(super().to_python(value))
            if not self.may_nest and not is_flat(read):
                raise ValidationError("Write one list or object, without others inside.", code="nested")
            json.dumps(read, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ValidationError(self.error_messages["invalid"], code="invalid") from error
        return read

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what was typed as it was typed: to read it may have failed."""
        return data if data is None else InvalidJSONInput(data)


class FiltersField(OptionalJSONField):
    """Filters, which have objects inside."""

    may_nest = True


class HeadersField(OptionalJSONField):
    """Headers, which no report of an error may show."""

    keep = staticmethod(hide)


def is_flat(value: object) -> bool:
    parts: Iterable[object] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not any(isinstance(part, dict | list) for part in parts)


class PartsField(HeadersField):
    """The parts of an authentication, which no report of an error may show either, with others inside."""

    may_nest = True


class HiddenCharField(forms.CharField):
    """A text that no report of an error may show."""

    def to_python(self, value: Any) -> Any:
        return hide(super().to_python(value))


class SecretTextarea(forms.Textarea):
    """Takes a text, and never shows it again."""

    def format_value(self, value: Any) -> str:
        return ""


class SenderSelect(forms.Select):
    """The senders that there are, and the one that is set even if there is no such any more."""

    def optgroups(self, name: str, value: list[str], attrs: dict[str, Any] | None = None) -> Any:
        names = dict.fromkeys([*conf.SENDERS, *filter(None, value)])
        self.choices = [BLANK_CHOICE_DASH[0], *((sender, sender) for sender in names)]
        return super().optgroups(name, value, attrs)


class TargetForm(forms.ModelForm):  # type: ignore[type-arg]  # not subscriptable at run time
    """A target of an owner's."""

    authentication_type = forms.ChoiceField(required=False, label="New authentication", choices=AUTHENTICATION_TYPES)
    authentication_parts = PartsField(
        required=False,
        label="Its parts",
        widget=SecretTextarea(attrs={"rows": 4, "class": "vLargeTextField"}),
        help_text=PARTS_HELP,
    )
    new_certificate = HiddenCharField(
        required=False,
        label="New client certificate",
        widget=SecretTextarea(attrs={"rows": 4, "class": "vLargeTextField"}),
        help_text="For receivers that want one: the certificate, those that vouch for it, and its key, in PEM. "
        "It is not shown again; empty keeps the one that is set.",
    )
    remove_certificate = forms.BooleanField(required=False, label="Remove the client certificate")

    class Meta:
        # The admin adds the model and the fields when it shows the form. Here, an owner model that is not installed would
        # be an error before any system check could tell of it.
        widgets = {
            "target_url": forms.TextInput(attrs={"class": "vLargeTextField", "placeholder": "https://"}),
            "description": forms.TextInput(attrs={"class": "vLargeTextField"}),
            "headers": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField", "placeholder": '{"x-key": "value"}'}),
            "sender": SenderSelect,
            "retry_schedule": forms.TextInput(attrs={"class": "vLargeTextField"}),
            "filters": forms.Textarea(attrs={"rows": 3, "class": "vLargeTextField"}),
        }
        labels = {"is_active": "Active", "is_ordered": "Ordered"}
        help_texts = {"owner": "Whose events are sent there. The lens lists all owners to choose from."}
        field_classes = {"headers": HeadersField, "retry_schedule": OptionalJSONField, "filters": FiltersField}

    def clean_headers(self) -> Any:
        return self.cleaned_data["headers"] or {}

    def clean_filters(self) -> Any:
        filters = self.cleaned_data["filters"]
        if filters is not None:
            check_filters(filters)
        return filters

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if "owner" in cleaned:
            self._check_owner(cleaned["owner"])
        if {"authentication_type", "authentication_parts"} <= set(cleaned):
            self._set_authentication(cleaned["authentication_type"], cleaned["authentication_parts"])
        self._set_certificate(cleaned.get("new_certificate"), cleaned.get("remove_certificate"))
        return cleaned

    @sensitive_variables()
    def _set_authentication(self, name: str, parts: Any) -> None:
        if parts is not None and not isinstance(parts, dict):
            self.add_error("authentication_parts", "Write an object of the parts and their values.")
        elif parts and name in ("", REMOVE):
            self.add_error("authentication_type", "Choose what the parts are of.")
        elif name == REMOVE:
            self.instance.authentication = {}
        elif name:
            self._set_checked("authentication", (parts or {}) | {"type": name}, check_authentication, "authentication_parts")

    @sensitive_variables()
    def _set_certificate(self, pem: str | None, is_removed: bool | None) -> None:
        if pem and is_removed:
            self.add_error("remove_certificate", "Either give a new certificate or remove the one that is set.")
        elif pem:
            self._set_checked("client_certificate", pem, check_certificate, "new_certificate")
        elif is_removed:
            self.instance.client_certificate = ""

    @sensitive_variables()
    def _set_checked(self, name: str, value: Any, check: Callable[[Any], object], field: str) -> None:
        try:
            check(value)
        except InvalidTarget as error:
            self.add_error(field, error)
        else:
            setattr(self.instance, name, value)

    def _check_owner(self, owner: Any) -> None:
        if owner is None:
            self.add_error("owner", "Choose the owner whose events are sent there.")

    def validate_unique(self) -> None:
        """Say that a target exists already: its uniqueness lies in a field that no form has."""
        super().validate_unique()
        digest = target_digest(self.instance.owner_id, self.instance.target_url, self.instance.identifier)
        twin = WebhookTarget.objects.filter(digest=digest).exclude(pk=self.instance.pk).first()
        if twin is not None:
            origin = ", made by fire(urls=…)," if twin.is_hidden else ""
            message = format_html("This owner has {} already{} with this URL and identifier.", link_to(twin, "a target"), origin)
            self.add_error("target_url", ValidationError(message, code="unique"))


class SystemTargetForm(TargetForm):
    """A target of an owner's, or, for those who may make one, of the system's."""

    is_system = forms.BooleanField(
        required=False, label="System target", help_text="It has no owner, and sees every owner's events."
    )

    def _check_owner(self, owner: Any) -> None:
        is_system = self.cleaned_data.get("is_system", False)
        if owner is None and not is_system:
            self.add_error("owner", "Choose an owner, or tick that this is a system target: it sees every owner's events.")
        elif owner is not None and is_system:
            self.add_error("is_system", "A system target has no owner: remove the owner, or this tick.")


class SubscriptionFormSet(BaseInlineFormSet):  # type: ignore[type-arg]  # not subscriptable at run time
    """Tells of an event that is subscribed to already, say by a form that was sent twice."""

    def clean(self) -> None:
        super().clean()
        there = set(self.instance.events) if self.instance.pk else set()
        for form in self.extra_forms:
            event = getattr(form, "cleaned_data", {}).get("event")
            if event in there:
                form.add_error("event", f"The target is subscribed to {event!r} already.")
        # The target's own form knows only what it was subscribed to before.
        rows = [form.cleaned_data for form in self.forms if form.is_valid() and form not in self.deleted_forms]
        wanted = [row["event"] for row in rows if row.get("event")]
        check_version(self.instance.version, wanted, is_owned=self.instance.owner_id is not None)
        check_filtered(self.instance.filters, wanted)
