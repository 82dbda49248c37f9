"""Tell the application what was recorded, by signals."""

from djwebhooks.models import Attempt, Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded, target_disabled
from djwebhooks.work import Outcome, Recorded


def announce(using: str, recorded: Recorded) -> None:
    """Send the signals for what was recorded. A receiver that raises is logged and harms nothing."""
    if any(signal.has_listeners() for signal in (attempt_made, delivery_succeeded, delivery_failed)):
        deliveries = Delivery.objects.using(using).in_bulk([outcome.work.delivery_id for outcome in recorded.outcomes])
        for outcome in recorded.outcomes:
            if outcome.work.delivery_id in deliveries:  # Nobody has pruned it meanwhile.
                announce_outcome(using, outcome, deliveries[outcome.work.delivery_id])
    if recorded.disabled and target_disabled.has_listeners():
        for target in WebhookTarget.objects.using(using).filter(pk__in=recorded.disabled):
            target_disabled.send_robust(WebhookTarget, target=target, reason=recorded.disabled[target.pk])


def announce_outcome(using: str, outcome: Outcome, delivery: Delivery) -> None:
    if outcome.sent is not None and attempt_made.has_listeners():
        attempt = Attempt.objects.using(using).get(delivery=delivery, number=outcome.work.attempt_count + 1)
        attempt_made.send_robust(Attempt, delivery=delivery, attempt=attempt)
    if outcome.is_success:
        delivery_succeeded.send_robust(Delivery, delivery=delivery)
    elif outcome.status != Status.PENDING:
        delivery_failed.send_robust(Delivery, delivery=delivery)
