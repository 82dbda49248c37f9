"""What is shown of a target, and what of it can be written."""

from typing import Any

from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables
from rest_framework import serializers

from djwebhooks import senders
from djwebhooks.api.catalogue import check_subscription
from djwebhooks.api.errors import Conflict
from djwebhooks.api.fields import (
    AnyField,
    ChoiceField,
    FlagField,
    HiddenTextField,
    ListField,
    NumberField,
    RowSerializer,
    SealedDictField,
    SealedListSerializer,
    StrictSerializer,
    TextField,
    TimeField,
)
from djwebhooks.filters import check_filters
from djwebhooks.health import Health
from djwebhooks.models import WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.models.keyring import KeyState
from djwebhooks.models.operation import STATES
from djwebhooks.models.targets import spellings
from djwebhooks.models.validation import (
    MOST_EVENTS,
    MOST_RETRIES,
    check_authentication,
    check_certificate,
    check_filtered,
    check_headers,
    check_rate,
    check_schedule,
)
from djwebhooks.network import check_url

#: Why an owner may not change a target's sender, nor where that sends to.
STAFFS_CHOICE = "This target is sent to in a way that the staff chose for it."
#: What a target is found by, and what it can have more of.
ALWAYS_GIVEN = frozenset({"target_url", "identifier", "events"})
#: In seconds: the longest that two secrets may sign at once.
MONTH = 30 * 24 * 3600


class KeySerializer(serializers.Serializer[KeyState]):
    """What may be told of a key."""

    id = TextField(help_text="Tells it apart from the others.")
    public_key = TextField(help_text="What verifies ``v1a`` signatures.")
    created_at = TimeField(allow_null=True)
    until = TimeField(allow_null=True, help_text="It signs until then; null is for good.")
    last_accepted_at = TimeField(allow_null=True, help_text="When the receiver last accepted what it alone had signed.")
    last_refused_at = TimeField(allow_null=True, help_text="When the receiver last refused that.")

    class Meta:
        list_serializer_class = SealedListSerializer


class HealthSerializer(serializers.Serializer[Health]):
    """How a target's receiver fares, and why."""

    failing_since = TimeField(allow_null=True, help_text="Of the first attempt that failed since the last success.")
    failure_count = serializers.IntegerField(help_text="Failed attempts since the last success.")
    failure = TextField(help_text="What went wrong last, in a word.")
    held_until = TimeField(allow_null=True, help_text="Nothing is sent before; of a suspended one, its next probe.")
    suspended_at = TimeField(allow_null=True, help_text="Since when only probes are sent.")
    recovering_since = TimeField(allow_null=True, help_text="Since when it is sent to at a rising rate.")
    disabled_at = TimeField(allow_null=True)
    disabled_reason = TextField(help_text="``gone``, ``receiver`` or ``failing``.")


class FiltersField(serializers.DictField):
    """Filters by the events that they are for."""

    def to_internal_value(self, data: Any) -> Any:
        """Return *data*, ``None`` for no filter. Raises ``InvalidTarget``."""
        check_filters(data)
        return super().to_internal_value(data) or None


class TargetSerializer(StrictSerializer[Any], RowSerializer):
    """A target, without its secret."""

    #: Whether ``save`` made one.
    is_new = False

    id = serializers.UUIDField(source="uid", read_only=True)
    target_url = TextField(help_text="Where events are sent by POST.")
    events = ListField(
        child=TextField(max_length=255, validators=[check_subscription]),
        max_length=MOST_EVENTS,
        help_text="Names of events, 'project.*' for all below project, or '*' for all.",
    )
    headers = SealedDictField(
        child=TextField(max_length=4096, allow_blank=True, trim_whitespace=False),
        required=False,
        validators=[check_headers],
        help_text="Additional request headers, name to value; at most 50.",
    )
    authentication = serializers.DictField(
        child=AnyField(),
        write_only=True,
        required=False,
        allow_null=True,
        help_text="How the receiver is told who sends: a type and its parts; null is none. It is never shown.",
    )
    authentication_summary = serializers.DictField(read_only=True, help_text="What of it is not secret.")
    client_certificate = HiddenTextField(
        write_only=True,
        required=False,
        allow_blank=True,
        validators=[check_certificate],
        help_text="For receivers that want one: the certificate chain and its key, in PEM. It is never shown.",
    )
    client_certificate_summary = serializers.DictField(read_only=True, help_text="Its subject, and when it ends.")
    retry_schedule = ListField(
        child=NumberField(),
        max_length=MOST_RETRIES,
        validators=[check_schedule],
        required=False,
        allow_null=True,
        help_text="Seconds between attempts, such as [5, 300, 1800]; null is the setting's.",
    )
    filters = FiltersField(
        child=AnyField(),
        required=False,
        allow_null=True,
        help_text="What payloads must be like, by the event that the filter is for; null is none.",
    )
    rate_limit = NumberField(
        validators=[check_rate], required=False, allow_null=True, help_text="Requests in each rate_period; null is no limit."
    )
    state = ChoiceField(tuple(STATES), read_only=True, help_text="How it fares, in a word.")
    keys = KeySerializer(many=True, read_only=True, allow_null=True, help_text="The live ones, newest first; null if unreadable.")
    accepts_unknown_keys = FlagField(
        read_only=True, allow_null=True, help_text="Whether its receiver verifies nothing; null before a check."
    )
    health = HealthSerializer(read_only=True)

    class Meta:
        model = WebhookTarget
        fields: tuple[str, ...] = (
            "id",
            "target_url",
            "identifier",
            "events",
            "filters",
            "description",
            "is_active",
            "is_ordered",
            "headers",
            "authentication",
            "authentication_summary",
            "client_certificate",
            "client_certificate_summary",
            "envelope",
            "sender",
            "version",
            "signatures",
            "retry_schedule",
            "rate_limit",
            "rate_period",
            "concurrency_limit",
            "state",
            "keys",
            "accepts_unknown_keys",
            "health",
            "created_at",
            "modified_at",
        )
        read_only_fields = ("created_at", "modified_at")
        extra_kwargs = {
            "identifier": {"trim_whitespace": False},
            "sender": {"validators": [senders.check_for_owners]},
            "concurrency_limit": {"min_value": 1, "max_value": 2**31 - 1},
        }

    def validate_target_url(self, url: str) -> str:
        """Return *url* as it is kept. Raises ``InvalidTarget``, and ``ValidationError`` if the staff alone may change it."""
        url, target = check_url(url), self._find_settled()
        if target is not None and url not in spellings(target.target_url):
            raise serializers.ValidationError(f"{STAFFS_CHOICE} So only they may change its address.")
        return url

    def validate_sender(self, name: str) -> str:
        """Return *name*, or what the staff chose instead. Raises ``ValidationError`` for another choice."""
        target = self._find_settled()
        if target is None:
            return name
        if name:
            raise serializers.ValidationError(f"{STAFFS_CHOICE} So only they may change it.")
        return str(target.sender)

    def _find_settled(self) -> WebhookTarget | None:
        """Return the target that is to be changed, if the staff chose its sender."""
        target: WebhookTarget | None = self.instance
        return target if target is not None and target.sender and not senders.is_for_owners(target.sender) else None

    def to_representation(self, instance: Any) -> dict[str, Any]:
        """Return what is shown of *instance*, without a sender that is not for owners."""
        shown = super().to_representation(instance)
        return shown if senders.is_for_owners(shown["sender"]) else shown | {"sender": ""}

    @sensitive_variables()
    def validate_authentication(self, told: dict[str, Any] | None) -> dict[str, Any]:
        """Return what was *told* of it. Raises ``InvalidTarget``."""
        check_authentication(told or {})
        return told or {}

    @sensitive_variables("validated_data")
    def create(self, validated_data: dict[str, Any]) -> WebhookTarget:
        """Return the owner's target with this address and identifier, made if need be."""
        targets = WebhookTarget.objects.using(events_database())
        url, events = (validated_data.pop(name) for name in ("target_url", "events"))
        target, self.is_new = targets.get_or_make(url, events, **validated_data)
        return target

    @sensitive_variables("asked")
    def extend(self, target: WebhookTarget) -> None:
        """Give the events to *target*, which was there already. Raises ``Conflict`` if it was asked for as what it is not."""
        asked = {name: value for name, value in self.validated_data.items() if name not in ALWAYS_GIVEN}
        shown = self.to_representation(target)
        others = [name for name, value in asked.items() if value != (shown[name] if name in shown else getattr(target, name))]
        if others:
            raise Conflict(
                f"You have a target with this target_url and identifier ({target.uid}), which differs in: {', '.join(others)}. "
                "Leave these fields out, or change that target.",
                "same_target",
            )
        target.subscribe(self.validated_data["events"], events_database())

    @sensitive_variables("validated_data", "value")
    def update(self, instance: Any, validated_data: dict[str, Any]) -> WebhookTarget:
        """Change and return *instance*, a locked target. Raises ``Conflict`` if the owner has another one just like it."""
        target: WebhookTarget = instance
        for name, value in validated_data.items():
            setattr(target, name, value)
        target.full_clean(exclude=["digest"])
        check_filtered(target.filters, target.events)
        try:
            with transaction.atomic(using=events_database()):
                target.save()
        except IntegrityError as error:
            raise Conflict(
                "Another of your targets has this target_url and identifier: change or delete that one.", "same_target"
            ) from error
        return target


class RotationSerializer(StrictSerializer[Any]):
    """How to rotate a secret."""

    overlap = NumberField(
        min_value=0, max_value=MONTH, required=False, help_text="Seconds that the old secret signs as well; a day by default."
    )


class FinishSerializer(StrictSerializer[Any]):
    """How to finish a rotation."""

    force = FlagField(default=False, help_text="Whatever is known of the receiver.")
