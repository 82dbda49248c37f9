"""REST Hooks, as Zapier and others subscribe by them: each is one event for one address (https://resthooks.org)."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Left
from django.http import Http404
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.exceptions import ValidationError
from rest_framework.generics import get_object_or_404
from rest_framework.request import Request
from rest_framework.response import Response

from djwebhooks import rows, senders
from djwebhooks.api.catalogue import check_subscription, list_event_types
from djwebhooks.api.fields import ChoiceField, StrictSerializer, TextField
from djwebhooks.api.filters import RowFilters, read_filters
from djwebhooks.api.views import OwnerViewSet
from djwebhooks.exceptions import InvalidPayload, SenderFault, UnknownSender
from djwebhooks.models import Subscription, WebhookTarget
from djwebhooks.models.events import EventQuerySet, events_database
from djwebhooks.models.operation import STATES
from djwebhooks.names import OPERATIONAL_EVENTS, matches
from djwebhooks.network import check_url
from djwebhooks.owners import name_of_owner
from djwebhooks.payload import Message, encode
from djwebhooks.uid import uuid7

#: A hook's id: its target's uid and its event.
HOOK_ID = re.compile(r"([0-9a-f-]{36})-([a-zA-Z0-9_.*]+)")
#: How many events are shown as samples.
SAMPLES = 3
#: What subscribers call the address: we do, Zapier does, django-rest-hooks and drf-hooks do, and Zapier did.
URL_NAMES = ("target_url", "hookUrl", "target", "subscription_url")


class HookFilters(RowFilters):
    event = serializers.CharField(required=False, max_length=255, trim_whitespace=False)


class SampleFilters(RowFilters):
    """Which events are wanted."""

    noun = "parameter"

    event = serializers.CharField(max_length=255, trim_whitespace=False, validators=[check_subscription])


class HookSerializer(serializers.Serializer[Subscription]):
    """A hook."""

    id = serializers.SerializerMethodField(help_text="What it is deleted by.")
    event = serializers.CharField(help_text="An event's name, 'project.*' for all below project, or '*' for all.")
    target_url = serializers.CharField(source="target.target_url", help_text="Where events are sent by POST.")
    state = ChoiceField(tuple(STATES), source="target.state", help_text="How it fares, in a word.")

    def get_id(self, hook: Subscription) -> str:
        """Return its target's uid and its event, which no other hook has together."""
        return f"{hook.target.uid}-{hook.event}"


class NewHookSerializer(HookSerializer):
    """A hook with its secret, which is shown this once."""

    secret = serializers.CharField(source="target.secret", help_text="``whsec_…``: what its receiver verifies with.")


class HookRequestSerializer(StrictSerializer[Any]):
    """A hook to make."""

    event = TextField(max_length=255, validators=[check_subscription])
    target_url = TextField(
        required=False,
        error_messages={"required": "Give it, as target_url or as hookUrl."},
        help_text="Where events are sent by POST.",
    )
    hookUrl = TextField(required=False, help_text="The same, as Zapier calls it.")  # noqa: N815  # its name outside
    target = TextField(required=False, help_text="The same, as django-rest-hooks and drf-hooks call it.")
    subscription_url = TextField(required=False, help_text="The same, as Zapier called it formerly.")

    def to_internal_value(self, data: Any) -> Any:
        """Return the validated *data*. Raises ``ValidationError``, which names all that is missing."""
        self.fields["target_url"].required = not (isinstance(data, Mapping) and any(name in data for name in URL_NAMES))
        return super().to_internal_value(data)

    def validate_target_url(self, url: str) -> str:
        """Return *url* as it is kept. Raises ``InvalidTarget``."""
        return check_url(url)

    # REST framework finds these by the fields' names.
    validate_hookUrl = validate_target = validate_subscription_url = validate_target_url  # noqa: N815  # after the field

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the event and the one URL. Raises ``ValidationError``."""
        names = [name for name in URL_NAMES if name in attrs]
        if len({attrs[name] for name in names}) > 1:
            raise ValidationError({names[0]: [f"Give one address: {' and '.join(names)} differ."]})
        return {"event": attrs["event"], "url": attrs[names[0]]}


class HookViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, OwnerViewSet):
    """The owner's hooks."""

    serializer_class = HookSerializer
    filter_class = HookFilters

    def get_queryset(self) -> QuerySet[Subscription]:
        """Return the hooks with what is shown of them."""
        return rows.hooks_of(self.owner)

    def get_object(self) -> Subscription:
        """Return the hook with the URL's id. Raises ``Http404``."""
        parts = HOOK_ID.fullmatch(self.kwargs["webhooks_id"])
        if parts is None:
            raise Http404("No Subscription matches the given query.")
        return get_object_or_404(self.get_queryset(), target__uid=parts[1], event=parts[2])

    @sensitive_variables("shown")
    def create(self, request: Request, **_: Any) -> Response:
        """Subscribe: 201 with its secret. What is subscribed already: 200."""
        wanted = self.read(HookRequestSerializer)
        rows.gone_hooks_of(self.owner).delete()
        alias = events_database()
        targets, events = WebhookTarget.objects.using(alias), [wanted["event"]]
        target, is_new = targets.get_or_make(wanted["url"], events, owner=self.owner, is_rest_hook=True)
        if not is_new:
            target.subscribe(events, alias)
        hook = get_object_or_404(target.subscriptions.select_related("target__lane"), event=wanted["event"])
        if not is_new:
            return Response(HookSerializer(hook).data)
        shown = NewHookSerializer(hook).data
        # WSGI servers take a str for a header, and no subclass.
        return Response(shown, status.HTTP_201_CREATED, headers={"X-Hook-Secret": "".join([shown["secret"]])})

    def destroy(self, request: Request, **_: Any) -> Response:
        """Unsubscribe. With the last hook for an address, what waits for it is cancelled."""
        with transaction.atomic(using=events_database()):
            hook = self.get_object()
            target = get_object_or_404(rows.targets_of(self.owner).select_for_update(), pk=hook.target_id)
            if hook.event not in target.events:  # Of two who unsubscribe it at once, the second one waited for the first.
                raise Http404("No Subscription matches the given query.")
            target.events = [event for event in target.events if event != hook.event]
            if target.events or not target.is_rest_hook:
                target.save()
            else:
                target.delete()
        return Response(status=status.HTTP_204_NO_CONTENT)

    @action(["get"], detail=False)
    def samples(self, request: Request, **_: Any) -> Response:
        """Show what a hook for ``event`` would be sent: the latest events, or else the catalogue's samples."""
        event = read_filters(request, SampleFilters).validated_data["event"]
        return Response(list(self.list_samples(event)))

    def list_samples(self, pattern: str) -> Iterator[Any]:
        """Find the bodies, newest first: as JSON, or the text of a sender that writes something else."""
        target = WebhookTarget(owner=self.owner)
        with suppress(UnknownSender):  # Nothing is sent either, until the settings are mended.
            body_format = senders.find_format_for(target, "", ())
            for message in self.find_messages(pattern):
                with suppress(InvalidPayload, SenderFault):  # What cannot be written is not sent either.
                    yield read_body(senders.render(body_format, message))

    def find_messages(self, pattern: str) -> list[Message]:
        """Return the owner's latest events that *pattern* matches, or else one of each that the catalogue has a sample of."""
        owner = name_of_owner(self.owner)
        events = name_like(pattern, rows.events_of(self.owner)).filter(erased_at=None).exclude(payload="").order_by("-id")
        latest = [
            Message(event.uid, event.name, event.created_at, event.payload, owner, event.version) for event in events[:SAMPLES]
        ]
        return latest or [
            Message(uuid7(), known.name, timezone.now(), encode(known.sample), owner)
            for known in list_event_types()
            if known.sample is not None and matches(pattern, known.name)
        ]


def read_body(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


def name_like(pattern: str, events: EventQuerySet) -> EventQuerySet:
    """Return those of *events* that ``matches`` would say yes to."""
    if pattern == "*":
        return events.exclude(name__in=OPERATIONAL_EVENTS)
    if not pattern.endswith(".*"):
        return events.filter(name=pattern)
    # Not startswith: on SQLite that leaves upper and lower case out of account.
    prefix = pattern.removesuffix("*")
    return events.alias(prefix=Left("name", len(prefix))).filter(prefix=prefix)
