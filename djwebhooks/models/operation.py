"""What people do with a target's work: pause and resume, probe and test, replay and cancel."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db import models, transaction
from django.utils import timezone

from djwebhooks import database, payload
from djwebhooks.database import DatabaseNow
from djwebhooks.exceptions import InvalidTarget
from djwebhooks.health import RAMP_SECONDS, UNKNOWN, Health
from djwebhooks.models.deliveries import Delivery, DeliveryQuerySet, Status
from djwebhooks.models.endpoints import Endpoint
from djwebhooks.models.events import Event
from djwebhooks.models.lanes import HEALTH, Lane
from djwebhooks.models.replays import Through, make_criteria
from djwebhooks.names import DISABLED_EVENT
from djwebhooks.signals import work_written

#: The event that ``send_test`` sends.
TEST_EVENT = "webhook.test"
#: How long a key check may wait, say for a target that is paused: what it tells is told of the present.
CHECK_LIFETIME = timedelta(hours=1)
#: Deliveries that a bulk operation changes in one transaction.
PAGE = 1000

#: How a target's lane must be for each state: ``WebhookTarget.state`` as a condition.
ENABLED = models.Q(is_active=True, lane__isnull=True) | models.Q(is_active=True, lane__disabled_at__isnull=True)
SUSPENDED = models.Q(lane__suspended_at__isnull=False) | models.Q(lane__held_until__gt=DatabaseNow())
DEGRADED = models.Q(lane__failure_count__gt=0) | models.Q(
    lane__recovering_since__gt=DatabaseNow() - timedelta(seconds=RAMP_SECONDS), lane__cooldown_count__gt=0
)
STATES = {
    "healthy": ENABLED & ~SUSPENDED & ~DEGRADED,
    "degraded": ENABLED & ~SUSPENDED & DEGRADED,
    "suspended": ENABLED & SUSPENDED,
    "disabled": models.Q(is_active=True, lane__disabled_at__isnull=False),
    "paused": models.Q(is_active=False),
}


class OperatedTarget(Endpoint):
    """An endpoint with a lane, whose work people steer."""

    class Meta:
        abstract = True

    # -- state ----------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> str:
        """One word: ``healthy``, ``degraded``, ``suspended``, ``disabled`` or ``paused``."""
        return self.health.state(timezone.now()) if self.is_active else "paused"

    @property
    def health(self) -> Health:
        """How its receiver fares, as its attempts showed."""
        lane = self._find_lane()
        return lane.health if lane is not None else UNKNOWN

    def pause(self) -> None:
        """Hold its events from now on; what is in flight still arrives. Raises ``DeletedTarget``."""
        using = self._using()
        with transaction.atomic(using=using):
            self.lock_row(using)
            self.is_active = False
            self.save(update_fields=["is_active", "modified_at"])

    def resume(self) -> None:
        """Send again what was held, at a rising rate, whether people, the receiver or its failures had stopped it.

        Raises ``DeletedTarget``.
        """
        using = self._using()
        with transaction.atomic(using=using):
            # The target before its lane, as everybody locks them.
            was_active = self.lock_row(using, "is_active")
            self.is_active = True
            self.save(update_fields=["is_active", "modified_at"])
            self._change_health(lambda health, now: self._resumed(health, now, was_paused=not was_active), using)

    def _resumed(self, health: Health, now: datetime, *, was_paused: bool) -> Health:
        was_held = was_paused or health.suspended_at is not None or health.is_closed(now)
        return UNKNOWN.recover(now) if was_held else UNKNOWN

    def probe(self) -> None:
        """See now whether the receiver works again: send what waits first, or a test if nothing waits.

        A suspended or disabled target gets this one request; only if it succeeds does the rest follow. Raises
        ``InvalidTarget`` when it is paused, and ``DeletedTarget``.
        """
        if not self.is_active:
            raise InvalidTarget("A paused target is not probed: resume it.")
        using = self._using()
        with transaction.atomic(using=using):
            self.lock_row(using)
            self._change_health(lambda health, now: health.probe(now), using)
            waiting = Delivery.objects.using(using).filter(target=self.pk).pending()
            first = waiting.filter(due_at__isnull=False).order_by("due_at", "sequence").first()
            if first is not None:
                waiting.filter(pk=first.pk).update(due_at=DatabaseNow())
            elif not waiting.exists():
                self.send_test()
        work_written.send(type(self), using=using)

    def _change_health(self, change: Callable[[Health, datetime], Health], using: str) -> None:
        lanes = Lane.objects.using(using)
        lane = lanes.select_for_update().filter(pk=self.pk).first()
        if lane is not None:
            lane.health = change(lane.health, database.read_clock(using))
            lane.save(using=using, update_fields=HEALTH)
            lanes.make_due([self.pk])
        self._state.fields_cache.pop("lane", None)

    def report_disabled(self, reason: str) -> Event:
        """Fire ``webhook.target.disabled``, in the transaction that disables it, for who asked for that event by name."""
        facts = {"target": str(self.uid), "target_url": self.target_url, "description": self.description, "reason": reason}
        return Event.objects.using(self._using()).create(
            name=DISABLED_EVENT, owner_id=self.owner_id, payload=payload.encode(facts)
        )

    # -- tests ------------------------------------------------------------------------------------------------------------

    def send_test(self) -> Event:
        """Send this target, and no other, a ``webhook.test`` event; return the event."""
        return self.fire_test("This is a test.")

    def fire_test(self, message: str, *, only_key: str = "") -> Event:
        """Fire a ``webhook.test`` event for this target, signed by *only_key* alone if it names a key; return the event."""
        using = self._using()
        event = Event.objects.using(using).create(
            name=TEST_EVENT,
            owner_id=self.owner_id,
            payload=payload.encode({"target": str(self.uid), "message": message}),
            target_ids=json.dumps([self.pk]),
            only_key=only_key,
            # A check stands in nobody's way on an ordered target.
            ordering_key=TEST_EVENT if only_key else "",
            expires_at=database.read_clock(using) + CHECK_LIFETIME if only_key else None,
        )
        work_written.send(type(self), using=using)
        return event

    # -- many deliveries -------------------------------------------------------------------------------------------------

    def replay(
        self,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        status: str | Iterable[str] = Status.FAILED,
        event: str | UUID = "",
        rate: float | None = None,
        by: Any = None,
        through: str = Through.PYTHON,
        dry_run: bool = False,
    ) -> int:
        """Have what ended with *status* and was created from *since* to *until* sent again; return how many deliveries that is.

        *event* is a name, a pattern or one event's uid. Workers make *rate* deliveries a second pending again, in their order
        (``DJWEBHOOKS_REPLAY_RATE``). *by* is who wants it, a user or a text. Raises ``InvalidReplay``.
        """
        deliveries = Delivery.objects.db_manager(self._using())
        criteria = make_criteria(targets=[self], since=since, until=until, status=status, event=event)
        if dry_run:
            return deliveries.plan(criteria).count
        return deliveries.replay(criteria, rate=rate, by=by, through=through).count

    def cancel_pending(self, reason: str = "cancelled") -> int:
        """Cancel all that waits for this target; return how many deliveries that was."""
        using = self._using()
        waiting = Delivery.objects.using(using).filter(target=self.pk).pending()
        return self._change_in_pages(waiting, lambda page, lane: page.cancel(lane, reason))

    def _change_in_pages(self, chosen: DeliveryQuerySet, change: Callable[[DeliveryQuerySet, Lane], int]) -> int:
        """Change the chosen deliveries under the lane's lock, a page in a transaction; return how many were changed."""
        lanes, deliveries = Lane.objects.using(chosen.db), Delivery.objects.using(chosen.db)

        def change_page(ids: list[int]) -> int:
            changed = change(deliveries.filter(pk__in=ids), lanes.select_for_update().get(pk=self.pk))
            lanes.make_due([self.pk])
            return changed

        count, last = 0, 0
        while ids := list(chosen.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:PAGE]):
            count += database.run_transaction(chosen.db, partial(change_page, ids))
            last = ids[-1]
        work_written.send(type(self), using=chosen.db)
        return count
