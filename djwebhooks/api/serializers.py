"""What the API shows of each row, and what of it can be written."""

import json
from typing import Any, Literal

from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables
from rest_framework import serializers

from djwebhooks import events, senders
from djwebhooks.api.catalogue import check_event_type, check_subscription
from djwebhooks.api.errors import Conflict
from djwebhooks.api.fields import (
    AnyField,
    ChoiceField,
    FlagField,
    HiddenTextField,
    NumberField,
    RowSerializer,
    SealedDictField,
    SealedListSerializer,
    StrictSerializer,
    TextField,
    TimeField,
)
from djwebhooks.conf import conf
from djwebhooks.exceptions import IdempotencyConflict, InvalidReplay
from djwebhooks.filters import check_filters
from djwebhooks.health import Health
from djwebhooks.models import Attempt, Delivery, Event, Replay, WebhookTarget
from djwebhooks.models.events import BUILD_TRIES, events_database
from djwebhooks.models.keyring import KeyState
from djwebhooks.models.replays import LOWEST_RATE, MOST_TARGETS, REPLAYABLE, Through, check_event
from djwebhooks.models.targets import spellings
from djwebhooks.models.validation import (
    check_authentication,
    check_certificate,
    check_filtered,
    check_headers,
    check_rate,
    check_schedule,
)
from djwebhooks.network import check_url
from djwebhooks.versions import VERSION_LENGTH

#: The words for how a target fares, and for how far a replay has come.
STATES = ("healthy", "degraded", "suspended", "disabled", "paused")
REPLAY_STATES = ("running", "finished", "cancelled")
#: Why an owner may not change a target's sender, nor where that sends to.
STAFFS_CHOICE = "This target is sent to in a way that the staff chose for it."
#: In seconds: the longest that two secrets may sign at once.
MONTH = 30 * 24 * 3600


#: What a request that fires an event says of it, besides what its idempotency key is about.
SAID = ("identifier", "ordering_key", "deliver_at", "expires_at", "coalesce")


class NothingSerializer(StrictSerializer[Any]):
    """The body of a request that needs none."""


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


class TargetSerializer(StrictSerializer[Any], RowSerializer):
    """A target, without its secret."""

    id = serializers.UUIDField(source="uid", read_only=True)
    target_url = TextField(help_text="Where events are sent by POST.")
    events = serializers.ListField(
        child=TextField(max_length=255, validators=[check_subscription]),
        max_length=1000,
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
    retry_schedule = serializers.ListField(
        child=NumberField(),
        validators=[check_schedule],
        required=False,
        allow_null=True,
        help_text="Seconds between attempts, such as [5, 300, 1800]; null is the setting's.",
    )
    filters = serializers.DictField(
        child=AnyField(),
        required=False,
        allow_null=True,
        validators=[check_filters],
        help_text="What payloads must be like, by the event that the filter is for; null is none.",
    )
    rate_limit = NumberField(
        validators=[check_rate], required=False, allow_null=True, help_text="Requests in each rate_period; null is no limit."
    )
    state = ChoiceField(STATES, read_only=True, help_text="How it fares, in a word.")
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
        """Return the owner's target with this address and identifier, made if need be, or given further events."""
        targets = WebhookTarget.objects.using(events_database())
        return targets.register(validated_data.pop("target_url"), validated_data.pop("events"), **validated_data)

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


class StatusesField(serializers.ListField):
    """How deliveries ended: a word, or a list of words."""

    def to_internal_value(self, data: Any) -> Any:
        """Return *data* as a list. Raises ``ValidationError``."""
        return super().to_internal_value([data] if isinstance(data, str) else data)


class TargetReplaySerializer(StrictSerializer[Any]):
    """Which of a target's deliveries are to be sent again, and how fast."""

    since = TimeField(required=False)
    until = TimeField(required=False)
    status = StatusesField(child=ChoiceField(REPLAYABLE), default=["failed"], allow_empty=False)
    event = TextField(required=False, max_length=255, help_text="A name, a pattern, or one event's id.")
    rate = NumberField(required=False, min_value=LOWEST_RATE, help_text="Deliveries per second.")
    dry_run = FlagField(default=False, help_text="Count only.")

    def validate_event(self, event: str) -> str:
        """Return *event*. Raises ``ValidationError`` if no event can be called so."""
        try:
            return check_event(event)
        except InvalidReplay as error:
            raise serializers.ValidationError(str(error)) from error

    def validate_rate(self, rate: float) -> float:
        """Return *rate*. Raises ``ValidationError`` if it is more than the setting allows."""
        if rate > conf.REPLAY_RATE:
            raise serializers.ValidationError(f"At most {conf.REPLAY_RATE:g} deliveries a second can be replayed, not {rate:g}.")
        return rate


class ReplayOptionsSerializer(TargetReplaySerializer):
    """Which of the owner's deliveries are to be sent again, and how fast."""

    targets = serializers.ListField(
        child=serializers.UUIDField(), required=False, max_length=MOST_TARGETS, help_text="Their ids; default: all."
    )


class ReplaySerializer(RowSerializer):
    """A replay: which deliveries, and how far it has come."""

    id = serializers.UUIDField(source="uid", read_only=True)
    state = ChoiceField(REPLAY_STATES, read_only=True)
    requested_by = serializers.SerializerMethodField(help_text="Who asked for it through the API.")
    criteria = serializers.SerializerMethodField(help_text="Which deliveries it is about.")
    progress = serializers.SerializerMethodField(help_text="How many of them have which status now.")

    class Meta:
        model = Replay
        fields: tuple[str, ...] = (
            "id",
            "state",
            "requested_by",
            "requested_through",
            "is_retry",
            "criteria",
            "rate",
            "count",
            "progress",
            "created_at",
            "cancelled_at",
            "finished_at",
        )

    def get_requested_by(self, replay: Replay) -> str:
        """Return who asked for it through the API; the others are the operator's people, and nobody's business."""
        return replay.requested_by if replay.requested_through == Through.API else ""

    def get_criteria(self, replay: Replay) -> dict[str, Any]:
        """Return which deliveries it is about; whose they are is said by who may see it."""
        criteria: dict[str, Any] = json.loads(replay.criteria_text)
        criteria.pop("owner", None)
        return criteria

    def get_progress(self, replay: Replay) -> dict[str, int]:
        """Return how many of its deliveries have which status."""
        return replay.progress()


class ListedReplaySerializer(ReplaySerializer):
    """A replay of a list, without its progress, which has to be counted."""

    progress = None  # type: ignore[assignment]  # as REST framework has it

    class Meta(ReplaySerializer.Meta):
        fields = tuple(name for name in ReplaySerializer.Meta.fields if name != "progress")


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
        default=None, allow_null=True, help_text="Seconds to wait at most for newer ones, which take its place; null is never."
    )

    def create(self, validated_data: dict[str, Any]) -> Event:
        """Fire it, or return the event that its idempotency key stands for."""
        unsaved = events.write_payloads(*(validated_data.pop(name) for name in ("payload", "version", "versions")))
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
