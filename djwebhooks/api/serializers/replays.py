"""What is shown of a replay, and what asks for one."""

import json
from typing import Any

from rest_framework import serializers

from djwebhooks.api.fields import (
    ChoiceField,
    FlagField,
    ListField,
    NumberField,
    RowSerializer,
    StatusesField,
    StrictSerializer,
    TextField,
    TimeField,
)
from djwebhooks.conf import conf
from djwebhooks.exceptions import InvalidReplay
from djwebhooks.models import Replay
from djwebhooks.models.replays import LOWEST_RATE, MOST_TARGETS, REPLAYABLE, STATES, Through, check_event


class TargetReplaySerializer(StrictSerializer[Any]):
    """Which of a target's deliveries are to be sent again, and how fast."""

    since = TimeField(required=False)
    until = TimeField(required=False)
    status = StatusesField(child=ChoiceField(REPLAYABLE), default=["failed"], allow_empty=False, max_length=len(REPLAYABLE))
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

    targets = ListField(
        child=serializers.UUIDField(), required=False, max_length=MOST_TARGETS, help_text="Their ids; default: all."
    )


class ReplaySerializer(RowSerializer):
    """A replay: which deliveries, and how far it has come."""

    id = serializers.UUIDField(source="uid", read_only=True)
    state = ChoiceField(tuple(STATES), read_only=True)
    requested_by = serializers.SerializerMethodField(help_text="Who asked for it through the API or the portal.")
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
        """Return who of the owner's people asked for it; the others are the operator's, and nobody's business."""
        return replay.requested_by if replay.requested_through in (Through.API, Through.PORTAL) else ""

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

    progress = None  # type: ignore[assignment]  # how a serializer drops an inherited field

    class Meta(ReplaySerializer.Meta):
        fields = tuple(name for name in ReplaySerializer.Meta.fields if name != "progress")
