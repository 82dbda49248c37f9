"""What is shown of an event, and what fires one."""

import json
from typing import Any, Literal

from django.db import transaction
from rest_framework import serializers

from djwebhooks import events
from djwebhooks.api.catalogue import check_event_type
from djwebhooks.api.fields import AnyField, NumberField, RowSerializer, StrictSerializer, TextField, TimeField
from djwebhooks.exceptions import IdempotencyConflict
from djwebhooks.models import Event
from djwebhooks.models.events import BUILD_TRIES, events_database
from djwebhooks.versions import VERSION_LENGTH

#: What a request that fires an event says of it, besides what its idempotency key is about.
SAID = ("identifier", "ordering_key", "deliver_at", "expires_at", "coalesce")


class ListedEventSerializer(RowSerializer):
    """An event of a list, without its payload."""

    id = serializers.UUIDField(source="uid", read_only=True)
    payload_state = serializers.SerializerMethodField(help_text="How far its payload is.")

    class Meta:
        model = Event
        fields: tuple[str, ...] = (
            "id",
            "name",
            "identifier",
            "ordering_key",
            "payload_state",
            "created_at",
            "deliver_at",
            "expires_at",
            "dispatched_at",
            "erased_at",
        )

    def get_payload_state(self, event: Event) -> Literal["built", "waiting", "failed", "erased"]:
        """Return how far its payload is; why it failed is for the staff."""
        if event.erased_at is not None:
            return "erased"
        if self.is_built(event):
            return "built"
        return "failed" if event.build_attempts >= BUILD_TRIES else "waiting"

    def is_built(self, event: Any) -> bool:
        """Return whether there is a payload."""
        return bool(event.is_built)


class EventSerializer(ListedEventSerializer):
    """An event, with its payload once that is built."""

    payload = serializers.SerializerMethodField(help_text="What it tells; null until it is built and after it was erased.")

    class Meta(ListedEventSerializer.Meta):
        fields = (*ListedEventSerializer.Meta.fields, "payload")

    def get_payload(self, event: Event) -> Any:
        """Return what *event* tells, ``None`` until that is built."""
        return json.loads(event.payload) if event.payload else None

    def is_built(self, event: Event) -> bool:
        """Return whether there is a payload."""
        return bool(event.payload)


class PublicationSerializer(StrictSerializer[Any]):
    """An event to fire. Whose it is, is not for the request to say."""

    #: Whether ``save`` fired one.
    is_new = False

    name = TextField(max_length=255, validators=[check_event_type])
    payload = AnyField(allow_null=True)
    version = TextField(max_length=VERSION_LENGTH, default="", allow_blank=True, help_text="What the payload's is called.")
    versions = serializers.DictField(
        child=AnyField(allow_null=True), default=dict, help_text="The payload in other versions, by their names."
    )
    identifier = TextField(max_length=255, default="", allow_blank=True, trim_whitespace=False)
    ordering_key = TextField(
        max_length=255, default=None, allow_null=True, allow_blank=True, trim_whitespace=False, help_text="Default: identifier."
    )
    idempotency_key = TextField(
        max_length=255,
        default="",
        allow_blank=True,
        trim_whitespace=False,
        help_text="A second request with the same key fires nothing; may be given as the header Idempotency-Key instead.",
    )
    deliver_at = TimeField(default=None, allow_null=True)
    expires_at = TimeField(default=None, allow_null=True)
    coalesce = NumberField(
        min_value=0,
        max_value=events.MOST_COALESCE,
        default=None,
        allow_null=True,
        help_text="Seconds to wait at most for newer ones, which take its place; null is never.",
    )

    def create(self, validated_data: dict[str, Any]) -> Event:
        """Fire it, or return the event that its idempotency key stands for."""
        unsaved = events.write_payloads(*(validated_data.pop(name) for name in ("payload", "version", "versions")))
        unsaved.is_published = True
        # Said aloud, as the project may keep a transaction of another database open around each request.
        with transaction.atomic(using=events_database()):
            event = events.save(event=unsaved, **validated_data)
        self.is_new = event is unsaved
        if [name for name in SAID if getattr(event, name) != getattr(unsaved, name)]:
            raise IdempotencyConflict(
                f"The idempotency key {event.idempotency_key!r} was used for another request before (event {event.uid}). "
                "Use the same key only for the same request."
            )
        return event
