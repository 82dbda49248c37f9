"""What is shown of a delivery, and of each request that was made of it."""

from rest_framework import serializers

from djwebhooks.api.fields import RowSerializer, TextField
from djwebhooks.models import Attempt, Delivery


class DeliverySerializer(RowSerializer):
    """A delivery, which names its event and its target."""

    id = serializers.UUIDField(source="uid", read_only=True)
    event = serializers.UUIDField(source="event.uid", read_only=True)
    event_name = TextField(source="event.name", read_only=True)
    target = serializers.UUIDField(source="target.uid", read_only=True)

    class Meta:
        model = Delivery
        fields = (
            "id",
            "event",
            "event_name",
            "target",
            "sequence",
            "ordering_key",
            "status",
            "reason",
            "attempt_count",
            "coalesced_count",
            "replaced_by",
            "created_at",
            "due_at",
            "expires_at",
            "finished_at",
        )


class AttemptSerializer(RowSerializer):
    """One request, and what was answered."""

    id = serializers.SerializerMethodField(help_text="The delivery's, a hyphen and the number.")
    delivery = serializers.UUIDField(source="delivery.uid", read_only=True)
    duration_ms = serializers.SerializerMethodField(help_text="Milliseconds from the first step to the last byte.")
    response_headers = serializers.DictField(child=TextField(), read_only=True)

    class Meta:
        model = Attempt
        fields = (
            "id",
            "delivery",
            "number",
            "trigger",
            "url",
            "started_at",
            "duration_ms",
            "status_code",
            "response_headers",
            "response_body",
            "error",
            "detail",
            "address",
            "lookup_ms",
            "connect_ms",
            "tls_ms",
            "first_byte_ms",
        )

    def get_id(self, attempt: Attempt) -> str:
        """Return the delivery's uid and the attempt's number, which is all that identifies it outside."""
        return f"{attempt.delivery.uid}-{attempt.number}"

    def get_duration_ms(self, attempt: Attempt) -> int:
        """Return how long it took, in milliseconds as its parts are."""
        return round(attempt.duration * 1000)
