"""What the API shows of each row, and what of it can be written."""

from djwebhooks.api.fields import NothingSerializer
from djwebhooks.api.serializers.deliveries import AttemptSerializer, DeliverySerializer
from djwebhooks.api.serializers.events import EventSerializer, ListedEventSerializer, PublicationSerializer
from djwebhooks.api.serializers.replays import (
    ListedReplaySerializer,
    ReplayOptionsSerializer,
    ReplaySerializer,
    TargetReplaySerializer,
)
from djwebhooks.api.serializers.targets import (
    FinishSerializer,
    HealthSerializer,
    KeySerializer,
    RotationSerializer,
    TargetSerializer,
)

__all__ = [
    "AttemptSerializer",
    "DeliverySerializer",
    "EventSerializer",
    "FinishSerializer",
    "HealthSerializer",
    "KeySerializer",
    "ListedEventSerializer",
    "ListedReplaySerializer",
    "NothingSerializer",
    "PublicationSerializer",
    "ReplayOptionsSerializer",
    "ReplaySerializer",
    "RotationSerializer",
    "TargetReplaySerializer",
    "TargetSerializer",
]
