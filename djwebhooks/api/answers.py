"""What the API answers that is no row of a table, or a row and more, such as a new target with its secret."""

from typing import Any

from rest_framework import serializers

from djwebhooks.api.fields import AnyField
from djwebhooks.api.serializers import EventSerializer, TargetSerializer
from djwebhooks.catalogue import EventType
from djwebhooks.feed import Item, Page

#: What is in an answer only where it means something.
SOMETIMES = ("errors",)


class EventVersionSerializer(serializers.Serializer[EventType]):
    """What the catalogue says of an event in one version."""

    name = serializers.CharField()
    version = serializers.CharField(help_text="What the version is called; empty if it has no name.")
    description = serializers.CharField()
    schema = AnyField(help_text="A JSON Schema of its payload, or null.")
    sample = AnyField(help_text="A payload, or null.")
    deprecated = serializers.CharField(help_text="What to use instead; empty if it is not deprecated.")


class EventTypeSerializer(EventVersionSerializer):
    """What the catalogue says of an event, in its current version."""

    versions = EventVersionSerializer(many=True, help_text="Those that a target may ask for instead.")


class CatalogueSerializer(serializers.Serializer[Any]):
    """The catalogue, all of it on one page."""

    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)
    results = EventTypeSerializer(many=True)


class ChecksSerializer(serializers.Serializer[Any]):
    """The tests that find out what a receiver verifies with."""

    events = EventSerializer(many=True)


class StartedReplaySerializer(serializers.Serializer[Any]):
    """What a replay is about, and where to see how far it has come."""

    id = serializers.UUIDField(allow_null=True, help_text="The replay's; null for a dry run.")
    count = serializers.IntegerField(help_text="Deliveries that are sent again.")
    left_out = serializers.DictField(child=serializers.IntegerField(), help_text="Deliveries that are not, by the reason.")


class FeedItemSerializer(serializers.Serializer[Item]):
    """An event as it is sent."""

    sequence = serializers.IntegerField()
    headers = serializers.DictField(child=serializers.CharField())
    body = serializers.CharField()


class FeedPageSerializer(serializers.Serializer[Page]):
    """What follows a sequence number."""

    after = serializers.IntegerField(help_text="What to ask for next.")
    has_more = serializers.BooleanField(help_text="Whether there is something to get at once.")
    waiting_for = serializers.IntegerField(allow_null=True, help_text="The event whose payload has yet to be built, or null.")
    results = FeedItemSerializer(many=True, source="items")


class NewTargetSerializer(TargetSerializer):
    """A target with its secret, which is shown this once."""

    secret = serializers.CharField(read_only=True, help_text="``whsec_…``: what its receiver verifies with.")

    class Meta(TargetSerializer.Meta):
        fields: tuple[str, ...] = (*TargetSerializer.Meta.fields, "secret")


class ErrorSerializer(serializers.Serializer[Any]):
    """What went wrong."""

    code = serializers.CharField(help_text="A word for programs.")
    detail = serializers.CharField(help_text="A sentence for people.")
    errors = serializers.DictField(  # type: ignore[assignment]  # a field of this name, not the property
        child=serializers.ListField(child=serializers.CharField()),
        required=False,
        help_text="The mistakes in fields, by field: ``events.0`` is the first of the ``events``.",
    )
