"""Tell the application what was recorded, by signals."""

from collections.abc import Collection

from djwebhooks import senders
from djwebhooks.models import Attempt, Delivery, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.signals import attempt_made, delivery_failed, delivery_succeeded, target_disabled
from djwebhooks.work import Outcome, Recorded


def announce(using: str, recorded: Recorded) -> None:
    """Send the signals for what was recorded, and have senders follow up. One that raises is logged and harms nothing."""
    followed = [outcome for outcome in recorded.outcomes if outcome.work.sender and outcome.sent is not None]
    followed = [outcome for outcome in followed if senders.wants_attempts(outcome.work.sender)]
    if followed or any(signal.has_listeners() for signal in (attempt_made, delivery_succeeded, delivery_failed)):
        # All is read before anybody is told, and attempts first, as they are deleted with their delivery.
        attempts = find_attempts(using, recorded.outcomes if attempt_made.has_listeners() else followed)
        deliveries = Delivery.objects.using(using).in_bulk([outcome.work.delivery_id for outcome in recorded.outcomes])
        for outcome in recorded.outcomes:
            if outcome.work.delivery_id in deliveries:  # Nobody has pruned it meanwhile.
                announce_outcome(outcome, deliveries[outcome.work.delivery_id], attempts.get(key_of(outcome)))
    if recorded.disabled and target_disabled.has_listeners():
        for target in WebhookTarget.objects.using(using).filter(pk__in=recorded.disabled):
            target_disabled.send_robust(WebhookTarget, target=target, reason=recorded.disabled[target.pk])


def announce_expired(using: str, delivery_ids: Collection[int]) -> None:
    """Send the signals for what expired before a worker took it."""
    if delivery_ids and delivery_failed.has_listeners():
        for delivery in Delivery.objects.using(using).in_bulk(delivery_ids).values():
            announce_failure(delivery)


def find_attempts(using: str, outcomes: Collection[Outcome]) -> dict[tuple[int, int], Attempt]:
    """The attempts that *outcomes* came of, by their delivery and number."""
    keys = {key_of(outcome) for outcome in outcomes if outcome.sent is not None}
    ids, numbers = {pk for pk, _ in keys}, {number for _, number in keys}
    # A few too many: all of these numbers of all of these deliveries.
    rows = Attempt.objects.using(using).filter(delivery_id__in=ids, number__in=numbers)
    return {(attempt.delivery_id, attempt.number): attempt for attempt in rows}


def key_of(outcome: Outcome) -> tuple[int, int]:
    return outcome.work.delivery_id, outcome.work.attempt_count + 1


def announce_outcome(outcome: Outcome, delivery: Delivery, attempt: Attempt | None) -> None:
    if outcome.sent is not None and attempt is not None:
        attempt_made.send_robust(Attempt, delivery=delivery, attempt=attempt)
        if outcome.work.sender:
            senders.follow_up(outcome.work.sender, delivery, attempt)
    if outcome.is_success:
        delivery_succeeded.send_robust(Delivery, delivery=delivery)
    elif outcome.status != Status.PENDING:
        announce_failure(delivery)


def announce_failure(delivery: Delivery) -> None:
    """Tell that a delivery failed or expired, unless people have cancelled it, or want it sent again, by now."""
    if delivery.status in (Status.FAILED, Status.EXPIRED):
        delivery_failed.send_robust(Delivery, delivery=delivery)
