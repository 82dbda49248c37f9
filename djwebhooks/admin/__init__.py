"""The admin pages of targets, events, deliveries and replays."""

from djwebhooks.admin.deliveries import DeliveryAdmin
from djwebhooks.admin.events import EventAdmin
from djwebhooks.admin.replays import ReplayAdmin
from djwebhooks.admin.targets import WebhookTargetAdmin

__all__ = ["DeliveryAdmin", "EventAdmin", "ReplayAdmin", "WebhookTargetAdmin"]
