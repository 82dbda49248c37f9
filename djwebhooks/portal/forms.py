"""The form of a target: where it is, which events it wants, and what its owner calls it."""

import secrets
from collections.abc import Collection
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils.html import format_html
from django.utils.safestring import SafeString

from djwebhooks import catalogue, rows, senders
from djwebhooks.catalogue import EventType
from djwebhooks.conf import conf
from djwebhooks.creations import find_made, is_repeated, mark_creation
from djwebhooks.exceptions import InvalidEvent, TooManyTargets
from djwebhooks.models import WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.names import DISABLED_EVENT, check_pattern
from djwebhooks.network import check_url

SAME_URL = "You have another webhook with this URL: change that one. If you do not have its secret, make it a new one."
#: Why an owner may not change where a target's own sender sends to.
STAFFS_CHOICE = "This webhook is sent to in a way that the staff chose for it, so only they can change its URL."
#: What can be chosen besides the events of the catalogue.
ALL = EventType("*", "All events, also those that there will be.")
DISABLED = EventType(DISABLED_EVENT, "Another one of your webhooks was disabled.")


class PatternsField(forms.CharField):
    """Names of events and patterns, as any will do: there is no catalogue."""

    widget = forms.Textarea(attrs={"rows": 3, "placeholder": "project.update", "autocapitalize": "off", "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> list[str]:
        """Return the names in *value*. Raises ``ValidationError``."""
        names: list[str] = super().clean(value).replace(",", " ").split()
        for name in names:
            try:
                check_pattern(name)
            except InvalidEvent as error:
                raise ValidationError(str(error)) from error
        return names


def make_events_field(chosen: Collection[str]) -> forms.Field:
    """Return what asks for events: all that the catalogue has for owners, and those *chosen* before, or any."""
    if catalogue.is_open():
        return PatternsField(help_text="Names, project.* for all below project, or * for all; one on each line.")
    listed = [ALL, *(told for told in catalogue.list_event_types() if not told.internal), DISABLED]
    others = [EventType(name) for name in chosen if name not in {told.name for told in listed}]
    choices = [(told.name, describe(told)) for told in (*listed, *others)]
    return forms.MultipleChoiceField(choices=choices, widget=forms.CheckboxSelectMultiple)


def describe(told: EventType) -> SafeString:
    """Return an event's name, and what is said of it."""
    end = f"Deprecated: {told.deprecated}" if told.deprecated else ""
    return format_html("<code>{}</code> <span>{}</span>", told.name, " ".join(filter(None, (told.description, end))))


def in_one_line(text: str) -> str:
    """Return *text* as a browser has it in a field of one line; hidden ones keep the ends of lines, but write them anew."""
    return text.replace("\r", "").replace("\n", "")


class TargetForm(forms.Form):
    """Makes a target, or changes one."""

    data: Any  # A QueryDict.
    url = forms.CharField(
        label="URL",
        help_text="Where events are sent by POST.",
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "placeholder": "https://example.com/webhooks"}),
    )
    events: Any = forms.Field()
    description = forms.CharField(required=False, max_length=255, help_text="For you alone.")

    def __init__(self, data: Any = None, *, target: WebhookTarget | None = None) -> None:
        now = {"url": target.target_url, "events": target.events, "description": target.description} if target else None
        super().__init__(data, initial=now, label_suffix="")
        self.fields["events"] = make_events_field(target.events if target else ())
        for field in self.fields.values():
            field.show_hidden_initial = target is not None
        if target is None:
            self.fields["key"] = forms.CharField(required=False, widget=forms.HiddenInput, initial=secrets.token_urlsafe)
        if target and target.sender and not senders.is_for_owners(target.sender):
            self.fields["url"].disabled = True
            self.fields["url"].help_text = STAFFS_CHOICE

    def clean_url(self) -> str:
        """Return the URL in its normal form. Raises ``InvalidTarget``."""
        return check_url(self.cleaned_data["url"])

    def add(self, owner: Any) -> WebhookTarget | None:
        """Return *owner*'s new target; None, and an error in its place, if there can be none, or was one already.

        The same form once more, as by a double click, has the same target, so that its secret is seen.
        """
        url, events, description, key = (self.cleaned_data[name] for name in ("url", "events", "description", "key"))
        creation = mark_creation(owner, key and [key, url, events, description], "")
        if made := find_made(rows.targets_of(owner), creation):
            return made
        targets = WebhookTarget.objects.using(events_database())
        try:
            target, is_new = targets.get_or_make(url, events, owner=owner, description=description, **creation)
        except TooManyTargets:
            self.add_error(None, f"You have {conf.TARGETS_PER_OWNER} webhooks, which is as many as you may: delete one first.")
        except ValidationError as error:
            self.add_error(None, error.messages)
        else:
            if is_new or is_repeated(target, creation):
                return target
            self.add_error("url", SAME_URL)
        return None

    def change(self, target: WebhookTarget) -> bool:
        """Change of *target*, which is locked, what was changed in the form; return whether that was possible."""
        self._replace("url", target, "target_url")
        self._replace("description", target, "description")
        self._choose_events(target)
        if self.errors:
            return False
        # A filter goes with its event.
        target.filters = {event: wanted for event, wanted in (target.filters or {}).items() if event in target.events} or None
        try:
            target.full_clean(exclude=["digest", "owner"])
            with transaction.atomic(using=events_database()):
                target.save()
        except ValidationError as error:
            self.add_error(None, error.messages)
        except IntegrityError:
            self.add_error("url", SAME_URL)
        return not self.errors

    def _replace(self, name: str, target: WebhookTarget, column: str) -> None:
        now, wanted = getattr(target, column), self.cleaned_data[name]
        shown = self._read_shown(name, now)
        if in_one_line(wanted) == in_one_line(shown):
            return
        if in_one_line(now) not in (in_one_line(shown), wanted):
            self.add_error(name, f"This was changed meanwhile, to {now!r}. Save once more to have yours in its place.")
            self.data = self.data.copy()
            self.data[self[name].html_initial_name] = now
        setattr(target, column, wanted)

    def _choose_events(self, target: WebhookTarget) -> None:
        """Add and remove what was added and removed in the form: what others have subscribed to meanwhile stays."""
        shown, wanted = self._read_shown("events", target.events), self.cleaned_data["events"]
        words = set(shown if isinstance(shown, list) else shown.split())
        target.events = [name for name in target.events if name in wanted or name not in words]
        target.events += [name for name in wanted if name not in words]

    def _read_shown(self, name: str, now: Any) -> Any:
        """Return what the page had of a field when it was opened; what is so *now* if it does not say."""
        if self["url"].html_initial_name not in self.data:
            return now
        return self.fields[name].hidden_widget().value_from_datadict(self.data, self.files, self[name].html_initial_name)
