"""Where webhooks go: an owner's endpoint, and the events it wants."""

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.apps import apps
from django.db import IntegrityError, models, transaction
from django.db.models.signals import pre_delete
from django.dispatch import receiver
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from djwebhooks import authentication, certificates, database, network, payload, signing
from djwebhooks.conf import conf
from djwebhooks.database import DatabaseNow, ExactCharField
from djwebhooks.exceptions import InvalidEvent, InvalidTarget, KeyNotAccepted, TargetLocked, TooManyTargets, UndecryptableSecret
from djwebhooks.health import RAMP_SECONDS, UNKNOWN, Health
from djwebhooks.models.deliveries import Delivery, DeliveryQuerySet, Status
from djwebhooks.models.events import Event
from djwebhooks.models.keyring import UNKNOWN_KEY, Keyring, KeyState, is_later, new_secrets
from djwebhooks.models.lanes import HEALTH, Lane
from djwebhooks.models.managers import WriterManager
from djwebhooks.models.replays import Through, make_criteria
from djwebhooks.models.sealed import SealedField
from djwebhooks.models.validation import (
    check_authentication,
    check_certificate,
    check_headers,
    check_number_of_events,
    check_one_authorization,
    check_rate,
    check_schedule,
    check_storable,
    check_subscription,
    is_internal,
    is_rate,
    is_storable,
)
from djwebhooks.owners import check_owner, owner_model
from djwebhooks.signals import work_written
from djwebhooks.uid import uuid7

#: The event that ``send_test`` sends.
TEST_EVENT = "webhook.test"
#: How long a key check may wait, say for a target that is paused: what it tells is told of the present.
CHECK_LIFETIME = timedelta(hours=1)
#: What a rate limit may be for, in seconds.
PERIODS = {"second": 1, "minute": 60, "hour": 3600}
#: Deliveries that a bulk operation changes in one transaction.
PAGE = 1000


#: The columns that are encrypted as a whole, and what is checked of each.
SEALED: dict[str, Callable[[Any], object]] = {
    "headers": check_headers,
    "authentication": check_authentication,
    "client_certificate": check_certificate,
}
#: The summary of what no key opens.
UNREADABLE = {"type": "unreadable"}


class DigestField(ExactCharField):
    """What makes a target unique, in 64 characters: owners may be null, and addresses are too long for an index."""

    def pre_save(self, instance: models.Model, add: bool) -> str:
        digest = target_digest(instance.owner_id, instance.target_url, instance.identifier)  # type: ignore[attr-defined]  # a WebhookTarget
        setattr(instance, self.attname, digest)
        return digest


def target_digest(owner_pk: object, url: str, identifier: str) -> str:
    parts = json.dumps([None if owner_pk is None else str(owner_pk), url, identifier])
    return hashlib.sha256(parts.encode()).hexdigest()


def spellings(url: str) -> set[str]:
    """Return *url* as it was given, and in its normal form: targets that were saved without ``full_clean`` have the first."""
    try:
        return {url, network.check_url(url)}
    except InvalidTarget:
        return {url} if is_storable(url) else set()


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


class WebhookTargetQuerySet(models.QuerySet["WebhookTarget"]):
    def in_state(self, word: str) -> "WebhookTargetQuerySet":
        """Targets whose ``state`` is *word*."""
        return self.filter(STATES[word])

    def subscribed_to(self, name: str) -> "WebhookTargetQuerySet":
        """Targets with a subscription that matches the event *name*, wildcards included. Raises ``InvalidEvent``."""
        return self.filter(subscriptions__event__in=payload.patterns_for(payload.check_name(name))).distinct()

    def matching(self, event: Event) -> "WebhookTargetQuerySet":
        """Targets that get *event*: by their subscriptions, their owner and their identifier; inactive ones too."""
        if event.direct_targets:
            return self.filter(pk__in=event.direct_targets)
        wanted = self.filter(subscriptions__event__in=payload.patterns_for(event.name))
        if not event.is_broadcast:
            owners = models.Q(owner__isnull=True) | models.Q(owner=event.owner_id)
            wanted = wanted.filter(owners, identifier__in=["", event.identifier])
        if is_internal(event.name):
            wanted = wanted.filter(owner__isnull=True)
        return wanted.distinct()

    def register(self, url: str, events: Sequence[str], *, owner: Any, identifier: str = "", **fields: Any) -> "WebhookTarget":
        """Return the target for *url*, made if need be, subscribed to *events* besides what it had.

        *owner* must be said, ``None`` for the system's own target, which sees every owner's events. *fields* are the model's
        other fields, for a new target. Raises ``InvalidTarget`` for an address or event that cannot be, and
        ``TooManyTargets``.
        """
        check_owner(owner)
        new = WebhookTarget(target_url=network.check_url(url), owner=owner, identifier=identifier, **fields)
        new.events = list(events) if not isinstance(events, str) else events
        target = self._find(url, owner, identifier) or self.save_new(new)
        if target is not new:
            target.subscribe(new.events, self.db)
        return target

    def deregister(self, url: str, *, owner: Any) -> int:
        """End the subscriptions of *owner*'s targets with this address, and what waits for them; return how many there were.

        Their log and their secrets stay, so that a later ``register`` finds them again.
        """
        check_owner(owner)
        targets = list(self.filter(target_url__in=spellings(url), owner=owner))
        for target in targets:
            with transaction.atomic(using=self.db):
                target.events = []
                target.save(using=self.db)
                target.cancel_pending("deregistered")
        return len(targets)

    def direct(self, url: str, owner: Any) -> "WebhookTarget":
        """Return *owner*'s target for *url*, made hidden and without subscriptions if there is none."""
        target = self._find(network.check_url(url), owner, "")
        return target or self.save_new(WebhookTarget(target_url=network.check_url(url), owner=owner, is_hidden=True))

    def bulk_create(self, objs: Iterable["WebhookTarget"], *args: Any, **kwargs: Any) -> list["WebhookTarget"]:
        """As Django's, and the targets' ``events`` are saved with them."""
        with transaction.atomic(using=self.db):
            targets = super().bulk_create(objs, *args, **kwargs)
            for target in targets:
                if target.pk is not None:
                    target.save_events(self.db)
        return targets

    def _find(self, url: str, owner: Any, identifier: str) -> "WebhookTarget | None":
        digests = [target_digest(getattr(owner, "pk", None), spelling, identifier) for spelling in spellings(url)]
        return self.filter(digest__in=digests).order_by("pk").first()

    def save_new(self, target: "WebhookTarget") -> "WebhookTarget":
        """Save a new target, or return the same one that somebody has saved in the meantime."""
        try:
            with database.engine_transaction(self.db):
                target.lock_number(self.db)
                target.clean()
                # Whether the owner exists would be asked of a replica, which may not have heard of them yet.
                target.clean_fields(exclude=["digest", "owner"])
                target.save(using=self.db)
        except IntegrityError:
            return self.get(digest=target.digest)
        return target


class WebhookTarget(models.Model):
    """An endpoint that events are sent to. People say whether it is active; how it fares is its lane's business."""

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(default=uuid7, unique=True, editable=False)
    owner = models.ForeignKey(owner_model(), models.CASCADE, null=True, blank=True, related_name="webhook_targets")
    identifier = ExactCharField(
        max_length=255, blank=True, help_text="Only events with this identifier are sent; empty is all of the owner's."
    )
    target_url = models.TextField("URL", help_text="Where events are sent by POST.")
    digest = DigestField(max_length=64, unique=True, editable=False)
    description = models.CharField(max_length=255, blank=True)
    is_active = models.BooleanField(default=True, help_text="Events for an inactive target are held until it is active again.")
    is_ordered = models.BooleanField(
        default=False, help_text="Send events of one ordering key one at a time, in the order they were fired."
    )
    is_hidden = models.BooleanField(default=False, editable=False, help_text="Made by fire(urls=…), shown to nobody.")
    secrets = models.TextField(default=new_secrets, editable=False)
    headers = SealedField(default=dict, blank=True, help_text="Additional request headers, name to value.")
    authentication = SealedField(
        default=dict, blank=True, editable=False, help_text="How the receiver is told who sends: a type and its parts."
    )
    client_certificate = SealedField(
        default=str,
        blank=True,
        editable=False,
        help_text="For receivers that want one: the certificate chain and its key, in PEM.",
    )
    envelope = models.CharField(
        max_length=16,
        blank=True,
        choices=[(name, name) for name in payload.ENVELOPES],
        help_text="How the body is wrapped; empty is the setting's.",
    )
    signatures = models.CharField(
        max_length=16,
        blank=True,
        choices=[("v1", "v1"), ("v1a", "v1a"), ("v1 v1a", "v1 and v1a")],
        help_text="What it is signed with: v1 (a shared secret), v1a (a public key) or both; empty is the setting's.",
    )
    retry_schedule = models.JSONField(
        null=True, blank=True, help_text="Seconds between attempts, such as [5, 300, 1800]; empty is the setting's."
    )
    rate_limit = models.FloatField(null=True, blank=True, help_text="Requests at most in each period; empty is no limit.")
    rate_period = models.CharField(
        max_length=6,
        choices=[(name, name) for name in PERIODS],
        default="second",
        help_text="What the rate limit is for. Requests are spread evenly over it.",
    )
    concurrency_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="Requests in flight at most; empty is a fair share of the worker's."
    )
    created_at = models.DateTimeField(db_default=DatabaseNow())
    modified_at = models.DateTimeField(auto_now=True)

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
        """Raise ``InvalidTarget`` for an address, event, header, schedule or limit that cannot be."""
        self.target_url = network.check_url(self.target_url)
        check_number_of_events(len(self.events))
        for name in self.events:
            check_subscription(name)
        self._check_sealed()
        check_schedule(self.retry_schedule)
        check_rate(self.rate_limit)
        if self.concurrency_limit == 0:
            raise InvalidTarget("The concurrency limit must be at least 1; to stop, deactivate the target.")
        for name in ("identifier", "description"):
            check_storable(name, getattr(self, name))
        if self._state.adding:
            self._check_number()
        else:
            self._check_owner()

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Leave to ``clean`` what is encrypted: it can say that no key opens it."""
        super().clean_fields(exclude={*(exclude or ()), *SEALED})

    @sensitive_variables()
    def _check_sealed(self) -> None:
        for name, check in SEALED.items():
            try:
                check(getattr(self, name))
            except UndecryptableSecret as error:
                raise InvalidTarget(f"{error} It is in the target's {name}, which has to be set anew.") from error
        check_one_authorization(self.headers, self.authentication)

    def _check_owner(self) -> None:
        before = WebhookTarget.objects.using(self._using()).filter(pk=self.pk).values_list("owner_id", flat=True)
        if list(before) not in ([], [self.owner_id]):
            raise InvalidTarget("A target keeps its owner, who could see its log otherwise: make another one for the new owner.")

    def lock_number(self, using: str) -> None:
        """Let nobody else make targets for this owner until the transaction ends, so that the limit is kept."""
        if self.owner_id is not None and not self.is_hidden:
            owners: Any = apps.get_model(owner_model())._base_manager.using(using)
            database.lock_against_changes(owners.filter(pk=self.owner_id), using)

    def _check_number(self) -> None:
        if self.owner_id is None or self.is_hidden:
            return
        count = type(self).objects.filter(owner=self.owner_id, is_hidden=False).count()
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
        """Subscribe to *names* as well. Only adds, so that of two calls at once neither undoes the other's."""
        for name in names:
            check_subscription(name)
        with transaction.atomic(using=using):
            if self.is_hidden:
                self.is_hidden = False
                self.lock_number(using)
                self._check_number()
            # MariaDB locks it a little for each subscription: of two callers, neither could change it any more.
            database.lock_against_changes(WebhookTarget.objects.using(using).filter(pk=self.pk), using)
            new = [Subscription(target=self, event=name) for name in names]
            Subscription.objects.using(using).bulk_create(new, ignore_conflicts=True)
            check_number_of_events(Subscription.objects.using(using).filter(target=self).count())
            WebhookTarget.objects.using(using).filter(pk=self.pk, is_hidden=True).update(is_hidden=False)
        getattr(self, "_prefetched_objects_cache", {}).pop("subscriptions", None)

    def save_events(self, using: str) -> None:
        wanted = self.__dict__.pop("_events", None)
        if wanted is None:
            return
        subscriptions = Subscription.objects.using(using)
        subscriptions.filter(target=self).exclude(event__in=wanted).delete()
        new = [Subscription(target=self, event=name) for name in wanted]
        subscriptions.bulk_create(new, ignore_conflicts=True)
        getattr(self, "_prefetched_objects_cache", {}).pop("subscriptions", None)

    # -- secrets --------------------------------------------------------------------------------------------------------

    @property
    def secret(self) -> str:
        """The newest signing secret (v1), ``whsec_…``. Raises ``UndecryptableSecret`` when no key opens it."""
        return self.keyring.newest.secret

    @property
    def public_key(self) -> str:
        """The newest public key (v1a), ``whpk_…``, which is no secret. Raises ``UndecryptableSecret``."""
        return self.complete_keyring().newest.public_key

    @property
    def signature_versions(self) -> tuple[str, ...]:
        """Which signatures it gets, by its own word or the setting's. Raises ``ConfigurationError``."""
        return signing.check_versions(self.signatures.split() or conf.SIGNATURES)

    @property
    def keyring(self) -> Keyring:
        return Keyring.open(self.secrets)

    def complete_keyring(self) -> Keyring:
        """Return its keys with all of their pairs: those of a row from before there were pairs get theirs now.

        Raises ``UndecryptableSecret``, and ``TargetLocked`` when they cannot be written now.
        """
        ring, using = self.keyring, self._using()
        return ring if ring.is_complete else database.run_transaction(using, lambda: self._add_pairs(using))

    def _add_pairs(self, using: str) -> Keyring:
        rows = WebhookTarget.objects.using(using).filter(pk=self.pk)
        for target in database.lock_rows(rows, using):
            # Somebody else may have added them.
            ring = target.keyring.complete()
            self.secrets = ring.seal()
            rows.update(secrets=self.secrets)
            return ring
        raise TargetLocked

    @sensitive_variables()
    def rotate_secret(self, overlap: float | timedelta = timedelta(days=1)) -> str:
        """Make a new secret, which is returned, and a new key pair.

        For *overlap* (seconds or ``timedelta``) the old ones sign as well.
        """
        using = self._using()
        length = overlap if isinstance(overlap, timedelta) else timedelta(seconds=overlap)
        with database.engine_transaction(using):
            # What somebody else has made in the meantime goes on signing, too.
            self._lock_secrets(using)
            self._save_keys(self._keyring_if_possible().rotate(database.read_clock(using), length))
        return self.secret

    def finish_rotation(self, *, force: bool = False) -> None:
        """End all keys but the newest, at once.

        Raises ``KeyNotAccepted`` unless ``check_keys`` has shown that the receiver verifies, and accepts the newest key
        alone. With *force* that is not asked.
        """
        using = self._using()
        with database.engine_transaction(using):
            self._lock_secrets(using)
            if len(self.keyring.live(database.read_clock(using))) > 1 and not force:
                self._check_accepted()
            self._save_keys(self.keyring.finish())

    @property
    def keys(self) -> list[KeyState]:
        """Its live keys, the newest first, with what ``check_keys`` found out about them. Raises ``UndecryptableSecret``."""
        lane = self._find_lane() or Lane()
        return [
            KeyState(key.id, key.public_key, key.created_at, key.until, *lane.read_key_check(key.id, self.target_url))
            for key in self.complete_keyring().live(timezone.now())
        ]

    @property
    def accepts_unknown_keys(self) -> bool | None:
        """Whether the receiver accepts what it cannot have verified; ``None`` before ``check_keys`` has got an answer."""
        lane = self._find_lane() or Lane()
        accepted_at, refused_at = lane.read_key_check(UNKNOWN_KEY, self.target_url)
        return None if accepted_at is None and refused_at is None else is_later(accepted_at, refused_at)

    def check_keys(self) -> list[Event]:
        """Find out what the receiver verifies with, by two ``webhook.test`` events to it alone; return them.

        The newest key alone signs the first, and a key that the receiver cannot know the second, which it should refuse.
        What it answers shows in ``keys`` and ``accepts_unknown_keys``. It says nothing of the target's health, and neither
        event is tried again by itself.
        """
        newest = self.complete_keyring().newest.id
        with transaction.atomic(using=self._using()):
            return [
                self._fire_test("Only the newest key has signed this: it should be accepted.", only_key=newest),
                self._fire_test("No key that you know has signed this: it should be refused.", only_key=UNKNOWN_KEY),
            ]

    def _lock_secrets(self, using: str) -> None:
        rows = WebhookTarget.objects.using(using).select_for_update()
        self.secrets = rows.values_list("secrets", flat=True).get(pk=self.pk)

    def _save_keys(self, ring: Keyring) -> None:
        self.secrets = ring.seal()
        self.save(update_fields=["secrets", "modified_at"])

    def _check_accepted(self) -> None:
        self._state.fields_cache.pop("lane", None)
        newest = self.keys[0]
        if self.accepts_unknown_keys:
            why = "accepts what it cannot have verified, so it is not known which keys it has"
        elif newest.is_accepted:
            return
        elif newest.last_refused_at is None:
            why = "has not answered to the newest key alone"
        else:
            why = "refuses the newest key"
        raise KeyNotAccepted(
            f"The rotation cannot be finished: the receiver of {self.target_url} {why}. "
            "Give it the newest key and check the keys, or finish with force=True."
        )

    def _keyring_if_possible(self) -> Keyring:
        try:
            return self.keyring
        except UndecryptableSecret:
            return Keyring()  # A new secret is the way out.

    @property
    def authentication_summary(self) -> dict[str, Any]:
        """What of ``authentication`` is not secret: its type and some of its parts; empty if there is none."""
        try:
            return authentication.summarize(self.authentication)
        except UndecryptableSecret:
            return UNREADABLE

    @property
    def client_certificate_summary(self) -> dict[str, Any]:
        """The subject of ``client_certificate``, and when it ends; empty if there is none."""
        try:
            return certificates.read(self.client_certificate).summary if self.client_certificate else {}
        except UndecryptableSecret:
            return UNREADABLE

    @property
    def host(self) -> str:
        """The host of its URL."""
        return urlsplit(self.target_url).hostname or self.target_url

    @property
    def rate(self) -> float | None:
        """How many requests a second its rate limit allows; None for any number."""
        return self.rate_limit / PERIODS.get(self.rate_period, 1) if is_rate(self.rate_limit) else None

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

    def _find_lane(self) -> Lane | None:
        cache = self._state.fields_cache
        lane: Lane | None = cache["lane"] if "lane" in cache else self._read_lane()
        return lane

    def _read_lane(self) -> Lane | None:
        return Lane.objects.using(self._using()).filter(pk=self.pk).first()

    def _using(self) -> str:
        return self._state.db or type(self).objects.db

    def pause(self) -> None:
        """Hold its events from now on; what is in flight still arrives."""
        self.is_active = False
        self.save(update_fields=["is_active", "modified_at"])

    def resume(self) -> None:
        """Send again what was held, at a rising rate, whether people, the receiver or its failures had stopped it."""
        using = self._using()
        with transaction.atomic(using=using):
            # The target before its lane, as everybody locks them.
            mine = WebhookTarget.objects.using(using).select_for_update().filter(pk=self.pk)
            was_active = mine.values_list("is_active", flat=True).get()
            self.is_active = True
            self.save(update_fields=["is_active", "modified_at"])
            self._change_health(lambda health, now: self._resumed(health, now, was_paused=not was_active), using)

    def _resumed(self, health: Health, now: datetime, *, was_paused: bool) -> Health:
        was_held = was_paused or health.suspended_at is not None or health.is_closed(now)
        return UNKNOWN.recover(now) if was_held else UNKNOWN

    def probe(self) -> None:
        """See now whether the receiver works again: send what waits first, or a test if nothing waits.

        A suspended or disabled target gets this one request; only if it succeeds does the rest follow. Raises
        ``InvalidTarget`` when it is paused.
        """
        if not self.is_active:
            raise InvalidTarget("A paused target is not probed: resume it.")
        using = self._using()
        with transaction.atomic(using=using):
            self._change_health(lambda health, now: health.probe(now), using)
            waiting = Delivery.objects.using(using).filter(target=self).pending()
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
            name=payload.DISABLED_EVENT, owner_id=self.owner_id, payload=payload.encode(facts)
        )

    def send_test(self) -> Event:
        """Send this target, and no other, a ``webhook.test`` event; return the event."""
        return self._fire_test("This is a test.")

    def _fire_test(self, message: str, *, only_key: str = "") -> Event:
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
        waiting = Delivery.objects.using(using).filter(target=self).pending()
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


@receiver(pre_delete, sender=WebhookTarget)
def cancel_what_waits(instance: WebhookTarget, using: str, **_: Any) -> None:
    """A deleted target, its owner's cascade included, leaves nothing pending."""
    lanes = Lane.objects.using(using)
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
        check_subscription(self.event)
