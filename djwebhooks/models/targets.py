"""Where webhooks go: an owner's endpoint, and the events it wants."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver

from djwebhooks import database, network
from djwebhooks.catalogue import is_internal
from djwebhooks.conf import conf
from djwebhooks.database import ExactCharField
from djwebhooks.exceptions import DeletedTarget, IdempotencyConflict, InvalidEvent, InvalidTarget, TooManyTargets
from djwebhooks.managers import WriterManager
from djwebhooks.models.endpoints import target_digest
from djwebhooks.models.events import Event
from djwebhooks.models.lanes import Lane
from djwebhooks.models.operation import STATES
from djwebhooks.models.rotation import SigningTarget
from djwebhooks.models.validation import (
    check_filtered,
    check_number_of_events,
    check_subscription,
    check_version,
    is_storable,
)
from djwebhooks.names import check_name, patterns_for
from djwebhooks.owners import check_owner, owner_model
from djwebhooks.signals import work_written

#: How often a target is looked for, or made, that others delete meanwhile.
TRIES = 5

T = TypeVar("T")


def spellings(url: str) -> set[str]:
    """Return *url* as it was given, and in its normal form: targets that were saved without ``full_clean`` have the first."""
    try:
        return {url, network.check_url(url)}
    except InvalidTarget:
        return {url} if is_storable(url) else set()


class WebhookTargetQuerySet(models.QuerySet["WebhookTarget"]):
    def in_state(self, word: str) -> "WebhookTargetQuerySet":
        """Targets whose ``state`` is *word*."""
        return self.filter(STATES[word])

    def subscribed_to(self, name: str) -> "WebhookTargetQuerySet":
        """Targets with a subscription that matches the event *name*, wildcards included. Raises ``InvalidEvent``."""
        return self.filter(subscriptions__event__in=patterns_for(check_name(name))).distinct()

    def matching(self, event: Event) -> "WebhookTargetQuerySet":
        """Targets that get *event*: by their subscriptions, their owner and their identifier; inactive ones too."""
        if event.direct_targets:
            return self.filter(pk__in=event.direct_targets)
        wanted = self.filter(subscriptions__event__in=patterns_for(event.name))
        if not event.is_broadcast:
            owners = models.Q(owner__isnull=True) | models.Q(owner=event.owner_id)
            wanted = wanted.filter(owners, identifier__in=["", event.identifier])
        if is_internal(event.name):
            wanted = wanted.filter(owner__isnull=True)
        return wanted.distinct()

    def register(self, url: str, events: Sequence[str], *, owner: Any, identifier: str = "", **fields: Any) -> "WebhookTarget":
        """Return the target for *url*, made if need be, subscribed to *events* besides what it had.

        *owner* must be said, ``None`` for the system's own target, which sees every owner's events. *fields* are the model's
        other fields, for a target that is new, or was hidden. Raises ``InvalidTarget`` for an address or event that cannot
        be, ``TooManyTargets``, and ``DeletedTarget`` if others delete it again and again.
        """
        check_owner(owner)
        return try_again(partial(self._register, url, events, owner, identifier, fields))

    def _register(
        self, url: str, events: Sequence[str], owner: Any, identifier: str, fields: Mapping[str, Any]
    ) -> "WebhookTarget":
        target, is_new = self._get_or_make(url, events, owner, identifier, fields)
        if not is_new:
            target.subscribe(events, self.db)
        return target

    def get_or_make(
        self, url: str, events: Sequence[str], *, owner: Any, identifier: str = "", **fields: Any
    ) -> tuple["WebhookTarget", bool]:
        """Return the target for *url*, and whether it is new: then it has these *events* and *fields*, else those it had.

        One that was hidden is new, as nobody was told of it; it keeps its uid, its log and its secret. Raises as ``register``,
        and ``IdempotencyConflict`` for a request whose key has made another target meanwhile.
        """
        check_owner(owner)
        return try_again(partial(self._get_or_make, url, events, owner, identifier, fields))

    def _get_or_make(
        self, url: str, events: Sequence[str], owner: Any, identifier: str, fields: Mapping[str, Any]
    ) -> tuple["WebhookTarget", bool]:
        new = WebhookTarget(target_url=network.check_url(url), owner=owner, identifier=identifier, **fields)
        new.events = list(events) if not isinstance(events, str) else events
        target = self.find(url, owner, identifier) or self.save_new(new)
        if target is new or not target.is_hidden:
            return target, target is new
        return self._reveal(target.pk, new, fields)

    def _reveal(self, pk: int, new: "WebhookTarget", fields: Mapping[str, Any]) -> tuple["WebhookTarget", bool]:
        try:
            with database.engine_transaction(self.db):
                new.lock_owner(self.db)
                target = self.select_for_update().filter(pk=pk).first()
                if target is None:
                    raise DeletedTarget
                if not target.is_hidden:  # Somebody else was faster.
                    return target, False
                for name, value in fields.items():
                    setattr(target, name, value)
                target.is_hidden, target.events = False, new.events
                target.clean()
                target.check_number()
                target.clean_fields(exclude=["digest", "owner"])
                target.save(using=self.db)
        except IntegrityError as error:
            raise IdempotencyConflict("The idempotency key was used for another target.") from error
        return target, True

    def deregister(self, url: str, *, owner: Any) -> int:
        """End the subscriptions of *owner*'s targets with this address, and what waits for them; return how many there were.

        Their log and their secrets stay, so that a later ``register`` finds them again.
        """
        check_owner(owner)
        targets = list(self.filter(target_url__in=spellings(url), owner=owner))
        for target in targets:
            with suppress(DeletedTarget), transaction.atomic(using=self.db):
                target.lock_row(self.db)
                target.events = []
                target.forget_creation()
                # And nothing else: somebody may be making it a new secret.
                target.save(using=self.db, update_fields=["creation_key", "creation_request", "modified_at"])
                target.cancel_pending("deregistered")
        return len(targets)

    def direct(self, url: str, owner: Any) -> "WebhookTarget":
        """Return *owner*'s target for *url*, made hidden and without subscriptions if there is none.

        Until the transaction ends, it is not pruned. Raises ``InvalidTarget``, and ``DeletedTarget`` as ``register``.
        """
        return try_again(partial(self._direct, url, owner))

    def _direct(self, url: str, owner: Any) -> "WebhookTarget":
        new = WebhookTarget(target_url=network.check_url(url), owner=owner, is_hidden=True)
        target = self.find(new.target_url, owner, "") or self.save_new(new)
        if target is new or not target.is_hidden or database.keep_row(self.db, WebhookTarget, target.pk):
            return target
        raise DeletedTarget

    def bulk_create(self, objs: Iterable["WebhookTarget"], *args: Any, **kwargs: Any) -> list["WebhookTarget"]:
        """As Django's, and the targets' ``events`` are saved with them."""
        with transaction.atomic(using=self.db):
            targets = super().bulk_create(objs, *args, **kwargs)
            for target in targets:
                if target.pk is not None:
                    target.save_events(self.db)
        return targets

    def find(self, url: str, owner: Any, identifier: str) -> "WebhookTarget | None":
        """Return *owner*'s target with this address and this identifier, if there is one, hidden or not."""
        digests = [target_digest(getattr(owner, "pk", None), spelling, identifier) for spelling in spellings(url)]
        return self.filter(digest__in=digests).order_by("pk").first()

    def save_new(self, target: "WebhookTarget") -> "WebhookTarget":
        """Save a new target, or return the same one that somebody has saved in the meantime.

        Raises ``IdempotencyConflict`` when that was another one, by a request with the same key, and ``DeletedTarget`` when that
        is gone again.
        """
        target._state.db = self.db  # Where it is to be, and where ``clean`` looks for the others.
        try:
            with database.engine_transaction(self.db):
                target.lock_owner(self.db)
                target.clean()
                # Whether the owner exists would be asked of a replica, which may not have heard of them yet.
                target.clean_fields(exclude=["digest", "owner"])
                target.save(using=self.db)
        except IntegrityError as error:
            same = self.filter(digest=target.digest).first()
            if same is not None:
                return same
            if target.creation_key and self.filter(creation_key=target.creation_key).exists():
                raise IdempotencyConflict("The idempotency key was used for another target.") from error
            raise DeletedTarget from error
        return target


def try_again(act: Callable[[], T]) -> T:
    """Call *act* again if it raises ``DeletedTarget``: but not for ever, as a transaction may never see what others did."""
    for _ in range(TRIES - 1):
        with suppress(DeletedTarget):
            return act()
    return act()


class WebhookTarget(SigningTarget):
    """An endpoint that events are sent to. People say whether it is active; how it fares is its lane's business."""

    objects = WriterManager.from_queryset(WebhookTargetQuerySet)()

    class Meta:
        db_table = "djw_target"
        ordering = ["-id"]
        verbose_name = "webhook target"
        permissions = [("add_system_target", "Can make targets that see every owner's events")]

    def __str__(self) -> str:
        return self.target_url

    # -- events ---------------------------------------------------------------------------------------------------------

    @property
    def events(self) -> list[str]:
        """The event names and patterns that it is subscribed to, sorted. Assign a list and save to change them."""
        wanted: list[str] | None = self.__dict__.get("_events")
        if wanted is not None:
            return sorted(wanted)
        if self.pk is None:
            return []
        return sorted(subscription.event for subscription in self.subscriptions.all())

    @events.setter
    def events(self, names: Iterable[str]) -> None:
        if isinstance(names, str):
            raise InvalidEvent(f"events must be a list of names, not the string {names!r}: write [{names!r}] or use event=.")
        self.__dict__["_events"] = list(dict.fromkeys(names))

    @property
    def event(self) -> str:
        """The one event it is subscribed to; several are joined by commas."""
        return ", ".join(self.events)

    @event.setter
    def event(self, name: str) -> None:
        self.events = [name]

    # -- saving ---------------------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Raise ``InvalidTarget`` for an address, event, version, header or limit that cannot be, or ``TooManyTargets``."""
        super().clean()
        check_number_of_events(len(self.events))
        for name in self.events:
            check_subscription(name, is_owned=self.owner_id is not None)
        check_version(self.version, self.events, is_owned=self.owner_id is not None)
        if "_events" in self.__dict__:  # Else only who changes the subscriptions, as the admin does, knows them all.
            check_filtered(self.filters, self.events)
        if self._state.adding:
            self.check_number()
        else:
            self._check_owner()

    def _check_owner(self) -> None:
        before = WebhookTarget.objects.using(self._using()).filter(pk=self.pk).values_list("owner_id", flat=True)
        if list(before) not in ([], [self.owner_id]):
            raise InvalidTarget("A target keeps its owner, who could see its log otherwise: make another one for the new owner.")

    def lock_owner(self, using: str) -> None:
        """Let nobody else make targets for this owner until the transaction ends, so that the limit is kept.

        Hidden ones do not count, and lock nothing. Raises ``InvalidTarget`` if there is no such owner.
        """
        if self.owner_id is None:
            return
        owner: Any = apps.get_model(owner_model())._base_manager.using(using).filter(pk=self.owner_id)
        if not (owner.exists() if self.is_hidden else database.lock_against_changes(owner, using)):
            raise InvalidTarget(
                f"The database {using!r} has no {owner_model()} with the key {self.owner_id}: save the owner there before."
            )

    def check_number(self) -> None:
        """Raise ``TooManyTargets`` if the owner has as many visible ones as the setting allows."""
        if self.owner_id is None or self.is_hidden:
            return
        count = WebhookTarget.objects.using(self._using()).filter(owner=self.owner_id, is_hidden=False).count()
        if count >= conf.TARGETS_PER_OWNER:
            raise TooManyTargets(
                f"{self.owner} has {count} targets already, and DJWEBHOOKS_TARGETS_PER_OWNER allows {conf.TARGETS_PER_OWNER}."
            )

    def save(self, **kwargs: Any) -> None:
        """Save the target and its ``events``."""
        fields = kwargs.get("update_fields")
        if fields is not None and {"owner", "target_url", "identifier"}.intersection(fields):
            kwargs["update_fields"] = {*fields, "digest"}
        using = kwargs.get("using") or self._using()
        with transaction.atomic(using=using):
            super().save(**kwargs)
            self.save_events(using)
            # Being active, ordered or limited in another way may make work due.
            Lane.objects.using(using).filter(pk=self.pk).make_due([self.pk])
        work_written.send(type(self), using=using)

    def subscribe(self, names: Iterable[str], using: str) -> None:
        """Subscribe to *names* as well. Only adds, so that of two calls at once neither undoes the other's.

        Raises ``InvalidTarget``, and ``DeletedTarget``.
        """
        for name in names:
            check_subscription(name, is_owned=self.owner_id is not None)
        with transaction.atomic(using=using):
            if self.is_hidden:
                self.is_hidden = False
                self.lock_owner(using)
                self.check_number()
            # MariaDB locks it a little for each subscription: of two callers, neither could change it any more.
            if not database.lock_against_changes(WebhookTarget.objects.using(using).filter(pk=self.pk), using):
                raise DeletedTarget
            self._add_subscriptions(names, using)
            check_number_of_events(Subscription.objects.using(using).filter(target=self).count())
            WebhookTarget.objects.using(using).filter(pk=self.pk, is_hidden=True).update(is_hidden=False)

    def save_events(self, using: str) -> None:
        wanted = self.__dict__.pop("_events", None)
        if wanted is None:
            return
        Subscription.objects.using(using).filter(target=self).exclude(event__in=wanted).delete()
        self._add_subscriptions(wanted, using)
        self._drop_filters(wanted, using)

    def _add_subscriptions(self, names: Iterable[str], using: str) -> None:
        new = [Subscription(target=self, event=name) for name in names]
        Subscription.objects.using(using).bulk_create(new, ignore_conflicts=True)
        getattr(self, "_prefetched_objects_cache", {}).pop("subscriptions", None)

    def _drop_filters(self, events: Collection[str], using: str) -> None:
        """A filter goes with its subscription, or it would be in force again with the next one."""
        kept = {event: wanted for event, wanted in (self.filters or {}).items() if event in events}
        if kept != (self.filters or {}):
            self.filters = kept or None
            self.rows(using).filter(pk=self.pk).update(filters=self.filters)


@receiver(pre_delete, sender=WebhookTarget)
def cancel_what_waits(instance: WebhookTarget, using: str, **_: Any) -> None:
    """A deleted target, its owner's cascade included, leaves nothing pending."""
    lanes = Lane.objects.using(using)
    # The target before its lane, as everybody locks them.
    list(instance.rows(using).select_for_update().filter(pk=instance.pk).values_list("pk"))
    # Until the deletion commits, nothing may be appended: so its lane is locked, even one that is being made.
    lanes.bulk_create([Lane(pk=instance.pk)], ignore_conflicts=True)
    list(lanes.select_for_update().filter(pk=instance.pk))
    instance.cancel_pending("target_deleted")
    lanes.filter(pk=instance.pk).delete()


class Subscription(models.Model):
    """A target wants an event: an exact name, ``project.*`` or ``*``."""

    target = models.ForeignKey(WebhookTarget, models.CASCADE, related_name="subscriptions")
    event = ExactCharField(max_length=255)

    objects = WriterManager()

    class Meta:
        db_table = "djw_subscription"
        constraints = [models.UniqueConstraint(fields=["event", "target"], name="djw_subscription_once")]

    def __str__(self) -> str:
        return str(self.event)

    def clean(self) -> None:
        """Raise ``InvalidTarget`` for an event that cannot be, or is not in the catalogue."""
        target = self.target if self.target_id is not None else None
        check_subscription(self.event, is_owned=target is not None and target.owner_id is not None)


class TargetOwner(models.Model):
    """Whose a target is, or was: the way to its answers when it is gone. It is made with the target's lane, and outlives both."""

    target = models.OneToOneField(WebhookTarget, models.DO_NOTHING, primary_key=True, db_constraint=False, related_name="+")
    owner = models.ForeignKey(owner_model(), models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+")

    objects = WriterManager()

    class Meta:
        db_table = "djw_target_owner"
        indexes = [models.Index(fields=["owner"], name="djw_target_owner_targets")]

    def __str__(self) -> str:
        return f"owner {self.owner_id} of target {self.pk}"
