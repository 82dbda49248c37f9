"""The admin pages of targets, events and deliveries."""

from djwebhooks.admin.deliveries import DeliveryAdmin
from djwebhooks.admin.events import EventAdmin
from djwebhooks.admin.targets import WebhookTargetAdmin

__all__ = ["DeliveryAdmin", "EventAdmin", "WebhookTargetAdmin"]
