"""Erase what events said of a model instance or an owner, and what was answered; that there were events stays on record."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db.models import Exists, Model, OuterRef, QuerySet
from django.db.models.functions import Coalesce

from djwebhooks import database
from djwebhooks.database import DatabaseNow
from djwebhooks.exceptions import InvalidEvent
from djwebhooks.lanes import close_orphan
from djwebhooks.models import (
    Attempt,
    Body,
    Delivery,
    Event,
    Lane,
    Replay,
    Subject,
    TargetOwner,
    WebhookTarget,
)
from djwebhooks.models.events import events_database, index_subjects
from djwebhooks.models.replays import name_requester
from djwebhooks.network import cut_to_origin
from djwebhooks.owners import owner_model
from djwebhooks.senders import list_formats
from djwebhooks.signals import work_written
from djwebhooks.subjects import digests_of, has_key
from djwebhooks.versions import CURRENT, read_texts
from djwebhooks.work import NO_ANSWER

#: Events, or deliveries of one lane, that are erased in one transaction.
PAGE = 500
#: What an erased event loses. Its keys may hold somebody's name.
NOTHING: dict[str, Any] = {
    "payload": "",
    "versions": "",
    "call": "",
    "build_error": "",
    "build_due_at": None,
    "identifier": "",
    "ordering_key": "",
    "subjects": "",
    "idempotency_key": "",
    "idempotency_digest": None,
    "content_digest": "",
}


@dataclass(slots=True)
class Erased:
    """How many events lost their data, or would; how many deliveries were cancelled; how many attempts lost their answers."""

    events: int = 0
    cancelled: int = 0
    attempts: int = 0


def erase(instance: Model, *, dry_run: bool = False, using: str | None = None) -> Erased:
    """Erase the data of all events that are about *instance*: ``User(pk=5)`` will do when the row itself is gone.

    With an owner, also that of the owner's events, and the answers of the owner's targets to whatever they were sent, those that
    were deleted included; with a target, its answers. With a user, also the name under which the user had something sent again.
    What was not delivered yet is cancelled. A run that was broken off is completed by the next one. With *dry_run* nothing is
    written.
    Raises ``InvalidEvent`` for an instance without a primary key.
    """
    if not has_key(instance):
        kind = type(instance).__name__
        raise InvalidEvent(f"This {kind} has no primary key. If its row was deleted, erase({kind}(pk=…)) finds its events.")
    run = Run(using or events_database(), dry_run=dry_run)
    run.erase_about(instance)
    if isinstance(instance, apps.get_model(owner_model())):
        run.erase_owner(instance.pk)
    if isinstance(instance, WebhookTarget):
        run.erase_target(instance.pk)
    if is_user(instance):
        run.erase_requester(instance)
    return run.finish()


def is_user(instance: Model) -> bool:
    """Whether *instance* is one of those who log in, be it as a row of a model that inherits from theirs."""
    own = instance._meta.concrete_model or type(instance)
    return settings.AUTH_USER_MODEL.lower() in {model._meta.label_lower for model in (own, *own._meta.get_parent_list())}


def erase_events(events: QuerySet[Event], *, dry_run: bool = False) -> Erased:
    """Erase the data of these events."""
    run = Run(events.db, dry_run=dry_run)
    for ids in run.list_pages(events, "pk"):
        run.erase_page(ids)
    return run.finish()


@dataclass(slots=True)
class Run:
    """One erasure, in pages. First an event loses its data, then its deliveries, and at last the way to find it again."""

    using: str
    dry_run: bool
    erased: Erased = field(default_factory=Erased)
    #: The events that a dry run has counted: one may be found in several ways.
    seen: set[int] = field(default_factory=set)

    def erase_about(self, instance: Model) -> None:
        """Erase the events that have *instance* among their subjects."""
        digest = digests_of(instance)[0]
        for is_planned in (False, True):  # Each has an index of its own.
            waiting = Event.objects.using(self.using).waiting().filter(deliver_at__isnull=not is_planned)
            for ids in self.list_pages(waiting.filter(subjects__contains=digest), "pk"):
                self.index(ids)
                self.erase_page(ids)
        for ids in self.list_pages(Subject.objects.using(self.using).filter(digest=digest), "event_id"):
            self.erase_page(ids)

    def erase_owner(self, owner_pk: Any) -> None:
        """Erase the owner's events, and what the owner's targets answered to others', be they gone or not."""
        for ids in self.list_pages(Event.objects.using(self.using).filter(owner=owner_pk), "pk"):
            self.erase_page(ids)
        targets = WebhookTarget.objects.using(self.using)
        gone = TargetOwner.objects.using(self.using).filter(~Exists(targets.filter(pk=OuterRef("pk"))))
        owned = {pk for rows in (targets, gone) for pk in rows.filter(owner=owner_pk).order_by().values_list("pk", flat=True)}
        for target_id in sorted(owned):
            self.erase_target(target_id)

    def erase_target(self, target_id: int) -> None:
        """Erase what a target answered, be it gone or not."""
        target = WebhookTarget.objects.using(self.using).filter(pk=OuterRef("pk"))
        orphan = Lane.objects.using(self.using).filter(~Exists(target), pk=target_id)
        if not self.dry_run and orphan.exists():  # It was deleted by SQL: an answer on its way would still be recorded.
            while not close_orphan(self.using, target_id, is_patient=True):
                pass
        for ids in self.list_pages(Delivery.objects.using(self.using).filter(target=target_id), "sequence"):
            self.erase_answers(target_id, ids)

    def list_pages(self, rows: QuerySet[Any], column: str) -> Iterator[list[int]]:
        """The values of a *column* that is unique among *rows*, in its order, a page at a time."""
        last = 0
        while page := list(rows.filter(**{f"{column}__gt": last}).order_by(column).values_list(column, flat=True)[:PAGE]):
            yield page
            last = page[-1]

    def finish(self) -> Erased:
        if self.erased.cancelled:
            work_written.send(Event, using=self.using)
        return self.erased

    # -- events ---------------------------------------------------------------------------------------------------------

    def index(self, ids: list[int]) -> None:
        """Write by what these events are found now already: when they have lost it, the next run must find them as well."""
        if not self.dry_run:
            index_subjects(self.using, Event.objects.using(self.using).filter(pk__in=ids).only("subjects"))

    def erase_page(self, ids: list[int]) -> None:
        """Erase these events with all that belongs to them."""
        if self.dry_run:
            self.count_page([pk for pk in ids if pk not in self.seen])
            self.seen.update(ids)
            return
        self.erased.events += database.run_transaction(self.using, partial(self._empty, ids))
        deliveries = Delivery.objects.using(self.using).filter(event__in=ids)
        for target_id in sorted(set(deliveries.order_by().values_list("target_id", flat=True))):
            # From here on a worker that comes late finds the event erased, so what it records has no answer.
            cancelled, attempts = database.run_transaction(self.using, partial(self._end_deliveries, ids, target_id))
            self.erased.cancelled += cancelled
            self.erased.attempts += attempts
        Subject.objects.using(self.using).filter(event__in=ids).delete()

    def count_page(self, ids: list[int]) -> None:
        deliveries = Delivery.objects.using(self.using).filter(event__in=ids)
        self.erased.events += Event.objects.using(self.using).filter(pk__in=ids, erased_at__isnull=True).count()
        self.erased.cancelled += deliveries.pending().count()
        self.erased.attempts += self._answers(deliveries).count()

    def _empty(self, ids: list[int]) -> int:
        events = Event.objects.using(self.using).filter(pk__in=ids)
        # Whoever dispatches one of them, or builds another version, leaves it alone from here on, or was before.
        versions = dict(events.select_for_update().order_by("pk").values_list("pk", "versions"))
        dispatched_at = Coalesce("dispatched_at", DatabaseNow())
        count = events.filter(erased_at__isnull=True).update(erased_at=DatabaseNow(), dispatched_at=dispatched_at, **NOTHING)
        # A worker may have read a payload before: whichever body it writes now, an empty one was there first.
        empty = [
            (pk, body_format, b"") for pk, text in versions.items() for body_format in list_formats([CURRENT, *read_texts(text)])
        ]
        database.insert_many(self.using, Body, ("event", "format", "content"), empty)
        Body.objects.using(self.using).filter(event__in=ids).exclude(content=b"").update(content=b"")
        return count

    # -- replays --------------------------------------------------------------------------------------------------------

    def erase_requester(self, user: Model) -> None:
        """Erase a user's name from what the user had sent again, and from what the user cancelled of it."""
        if not self.dry_run:
            database.run_transaction(self.using, partial(self._forget_requester, user))

    def _forget_requester(self, user: Model) -> None:
        replays = Replay.objects.using(self.using)
        asked = replays.filter(requester_pk=str(user._meta.pk.to_python(user.pk)))
        # Who cancelled is known by name alone, and a row that is gone has none: so also by those that the user asked under.
        names = {name_requester(user)["requested_by"], *asked.values_list("requested_by", flat=True)}
        replays.filter(cancelled_by__in=names - {""}).update(cancelled_by="")
        asked.update(requested_by="", requester_pk="")

    # -- deliveries -----------------------------------------------------------------------------------------------------

    def _end_deliveries(self, event_ids: list[int], target_id: int) -> tuple[int, int]:
        lane = Lane.objects.using(self.using).select_for_update().filter(pk=target_id).first()
        deliveries = Delivery.objects.using(self.using).filter(target=target_id, event__in=event_ids)
        cancelled = deliveries.cancel(lane or Lane(pk=target_id), "erased")
        if cancelled:
            Lane.objects.using(self.using).make_due([target_id])
        deliveries.exclude(ordering_key="").update(ordering_key="")
        self._cut_urls(target_id, deliveries)
        return cancelled, self._answers(deliveries).update(**NO_ANSWER)

    def _cut_urls(self, target_id: int, deliveries: QuerySet[Delivery]) -> None:
        """Leave of URLs that are not the target's, as a sender may have made them of an event, only where they are."""
        own = WebhookTarget.objects.using(self.using).filter(pk=target_id).values_list("target_url", flat=True).first()
        others = self._attempts(deliveries).exclude(url=own or "").values_list("pk", "url")
        database.update_many(self.using, Attempt, ["url"], [(cut_to_origin(url), pk) for pk, url in others])

    def erase_answers(self, target_id: int, sequences: list[int]) -> None:
        """Erase what a target answered to these deliveries, unless their events were erased with all that belongs to them."""
        deliveries = Delivery.objects.using(self.using).filter(target=target_id, sequence__in=sequences).sendable()
        if self.dry_run:
            owned = [pk for pk, event_id in deliveries.order_by().values_list("pk", "event_id") if event_id in self.seen]
            self.erased.attempts += self._answers(deliveries).exclude(delivery__in=owned).count()
        else:
            blank = partial(self._answers(deliveries).update, **NO_ANSWER)
            self.erased.attempts += database.run_transaction(self.using, blank)

    def _answers(self, deliveries: QuerySet[Delivery]) -> QuerySet[Attempt]:
        """The attempts at these deliveries whose answers are to be erased."""
        return self._attempts(deliveries).exclude(**NO_ANSWER)

    def _attempts(self, deliveries: QuerySet[Delivery]) -> QuerySet[Attempt]:
        ids = list(deliveries.order_by().values_list("pk", flat=True))
        return Attempt.objects.using(self.using).filter(delivery__in=ids)
