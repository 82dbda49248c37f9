"""Say who gets an event, who does not and why, and why a delivery waits."""

import uuid

from djwebhooks.explain.deliveries import explain_delivery
from djwebhooks.explain.events import explain_event
from djwebhooks.explain.names import ANYONE, explain_name
from djwebhooks.explain.sections import Explanation
from djwebhooks.models import Delivery, Event
from djwebhooks.models.events import events_database

__all__ = ["ANYONE", "Explanation", "explain_name", "explain_uid"]


def explain_uid(uid: uuid.UUID, *, using: str | None = None) -> Explanation | None:
    """Explain the event or the delivery with this uid; None when there is neither."""
    alias = using or events_database()
    event = Event.objects.using(alias).filter(uid=uid).first()
    if event is not None:
        return explain_event(alias, event)
    delivery = Delivery.objects.using(alias).filter(uid=uid).first()
    return explain_delivery(alias, delivery) if delivery is not None else None
