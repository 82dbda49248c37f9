"""The tables, and what people may do with their rows."""

from djwebhooks.models.deliveries import Attempt, Delivery
from djwebhooks.models.events import Body, Event, Subject
from djwebhooks.models.lanes import Dispatcher, Lane, Worker
from djwebhooks.models.replays import Replay
from djwebhooks.models.targets import Subscription, TargetOwner, WebhookTarget

__all__ = [
    "Attempt",
    "Body",
    "Delivery",
    "Dispatcher",
    "Event",
    "Lane",
    "Replay",
    "Subject",
    "Subscription",
    "TargetOwner",
    "WebhookTarget",
    "Worker",
]
