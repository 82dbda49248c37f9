"""Which rows an owner sees: the only place where the API and the portal begin a query."""

from typing import Any

from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q, QuerySet

from djwebhooks.models import Attempt, Delivery, Event, Replay, Subscription, WebhookTarget
from djwebhooks.models.deliveries import DeliveryQuerySet
from djwebhooks.models.events import EventQuerySet, events_database
from djwebhooks.models.replays import ReplayQuerySet
from djwebhooks.models.targets import WebhookTargetQuerySet
from djwebhooks.retry import GONE


def targets_of(owner: Any) -> WebhookTargetQuerySet:
    """*owner*'s targets, without those that ``fire(urls=…)`` made."""
    return WebhookTarget.objects.using(events_database()).filter(owner=owner, is_hidden=False)


def hooks_of(owner: Any) -> QuerySet[Subscription]:
    """What *owner*'s targets are subscribed to, but for those whose receivers have answered that they are gone."""
    hooks = Subscription.objects.using(events_database()).filter(target__owner=owner, target__is_hidden=False)
    return hooks.exclude(target__lane__disabled_reason=GONE).select_related("target__lane")


def gone_hooks_of(owner: Any) -> WebhookTargetQuerySet:
    """*owner*'s targets that REST Hooks made, and whose receivers have answered that they are gone."""
    return targets_of(owner).filter(is_rest_hook=True, lane__disabled_reason=GONE)


def deliveries_of(owner: Any) -> DeliveryQuerySet:
    """All that was, or will be, sent to *owner*'s targets, hidden ones included."""
    rows = Delivery.objects.using(events_database()).of_owner(owner).select_related("event", "target")
    return rows.defer("event__payload", "event__versions", "event__call", "event__build_error", "target__secrets")


def attempts_of(owner: Any) -> QuerySet[Attempt]:
    """The requests that were made to *owner*'s targets."""
    return Attempt.objects.using(events_database()).filter(delivery__target__owner=owner).select_related("delivery")


def replays_of(owner: Any) -> ReplayQuerySet:
    """The replays, and retries, that are about *owner*'s deliveries alone, whoever asked for them."""
    return Replay.objects.using(events_database()).of_owner(owner)


def events_of(owner: Any) -> EventQuerySet:
    """The events that have a delivery to one of *owner*'s targets, whoever they belong to."""
    alias = events_database()
    deliveries = Delivery.objects.using(alias).of_owner(owner).filter(event=OuterRef("pk"))
    return Event.objects.using(alias).filter(Exists(deliveries)).defer("versions", "call", "build_error")


def published_events_of(owner: Any) -> EventQuerySet:
    """The events that were published for *owner* here, whether they have deliveries or not."""
    published = Event.objects.using(events_database()).filter(owner=owner, is_published=True)
    return published.defer("versions", "call", "build_error")


def listed(events: EventQuerySet) -> EventQuerySet:
    """The same *events* without their payloads, which may be large together; each says whether it ``is_built``."""
    is_built = ExpressionWrapper(~Q(payload=""), BooleanField())
    return events.defer("payload").annotate(is_built=is_built)
