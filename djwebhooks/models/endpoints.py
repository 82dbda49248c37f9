"""An endpoint: whose it is, where it is, and how it wants to be sent to."""

import hashlib
import json
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from django.db import models
from django.views.decorators.debug import sensitive_variables

from djwebhooks import authentication, certificates, network, payload
from djwebhooks.conf import conf
from djwebhooks.database import DatabaseNow, ExactCharField
from djwebhooks.exceptions import DeletedTarget, InvalidTarget, UndecryptableSecret
from djwebhooks.filters import check_filters
from djwebhooks.models.events import SENDER_LENGTH
from djwebhooks.models.keyring import new_secrets
from djwebhooks.models.lanes import Lane
from djwebhooks.models.sealed import SealedField
from djwebhooks.models.validation import (
    check_authentication,
    check_certificate,
    check_headers,
    check_one_authorization,
    check_rate,
    check_schedule,
    check_sender,
    check_storable,
    is_rate,
)
from djwebhooks.owners import owner_model
from djwebhooks.uid import uuid7
from djwebhooks.versions import VERSION_LENGTH

#: What a rate limit may be for, in seconds.
PERIODS = {"second": 1, "minute": 60, "hour": 3600}
#: The columns that are encrypted as a whole, and what is checked of each.
SEALED: dict[str, Callable[[Any], object]] = {
    "headers": check_headers,
    "authentication": check_authentication,
    "client_certificate": check_certificate,
}
#: The summary of what no key opens, of what was saved unchecked, and of what the library to read it is missing for.
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


def version_of_new() -> str:
    """Return the version that new targets get."""
    return conf.TARGET_VERSION


class Endpoint(models.Model):
    """The columns of a target, and what follows from them alone."""

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
    is_rest_hook = models.BooleanField(
        default=False, editable=False, help_text="Made by hooks/ of the API, and goes with its last hook."
    )
    # The request that made it, by the API or the portal, if that had an idempotency key.
    creation_key = ExactCharField(max_length=64, null=True, unique=True, editable=False)  # NULLs never collide
    creation_request = ExactCharField(max_length=64, blank=True, editable=False)
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
        max_length=24,
        blank=True,
        choices=[(name, name) for name in payload.ENVELOPES],
        help_text="How the body is wrapped; empty is the setting's.",
    )
    sender = ExactCharField(
        max_length=SENDER_LENGTH,
        blank=True,
        help_text="Who writes and sends: a name of DJWEBHOOKS_SENDERS; empty is the event's.",
    )
    version = models.CharField(
        max_length=VERSION_LENGTH,
        blank=True,
        default=version_of_new,
        help_text="The version of payloads that it gets, where an event has it; empty is the current one.",
    )
    signatures = models.CharField(
        max_length=16,
        blank=True,
        choices=[("v1", "v1"), ("v1a", "v1a"), ("v1 v1a", "v1 and v1a")],
        help_text="What it is signed with: v1 (a shared secret), v1a (a public key) or both; empty is the setting's.",
    )
    filters = models.JSONField(
        null=True,
        blank=True,
        help_text='What payloads must be like, by the event that it is for: {"order.*": {"status": ["paid"]}}.',
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

    class Meta:
        abstract = True

    def clean(self) -> None:
        """Raise ``InvalidTarget`` for an address, header, schedule or limit that cannot be."""
        self.target_url = network.check_url(self.target_url)
        self._check_sealed()
        check_sender(self.sender)
        if self.filters is not None:
            check_filters(self.filters)
        check_schedule(self.retry_schedule)
        check_rate(self.rate_limit)
        if self.concurrency_limit == 0:
            raise InvalidTarget("The concurrency limit must be at least 1; to stop, pause the target.")
        for name in ("identifier", "description"):
            check_storable(name, getattr(self, name))

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

    @property
    def authentication_summary(self) -> dict[str, Any]:
        """What of ``authentication`` is not secret: its type and some of its parts; empty if there is none."""
        try:
            return authentication.summarize(self.authentication)
        except (UndecryptableSecret, InvalidTarget):
            return UNREADABLE

    @property
    def client_certificate_summary(self) -> dict[str, Any]:
        """The subject of ``client_certificate``, and when it ends; empty if there is none."""
        try:
            return certificates.read(self.client_certificate).summary if self.client_certificate else {}
        except (UndecryptableSecret, InvalidTarget):
            return UNREADABLE

    @property
    def host(self) -> str:
        """The host of its URL."""
        return urlsplit(self.target_url).hostname or self.target_url

    @property
    def rate(self) -> float | None:
        """How many requests a second its rate limit allows; None for any number."""
        return self.rate_limit / PERIODS.get(self.rate_period, 1) if is_rate(self.rate_limit) else None

    def forget_creation(self) -> None:
        """Let the request that made it be as any other from now on: it was answered with what is so no longer."""
        self.creation_key, self.creation_request = None, ""

    def rows(self, using: str) -> models.QuerySet[Any]:
        """Return the table's rows, on that database."""
        return type(self)._default_manager.using(using)

    def lock_row(self, using: str, column: str = "pk") -> Any:
        """Return what the row has in *column*, which nobody else can change until the transaction ends.

        Raises ``DeletedTarget``.
        """
        for value in self.rows(using).select_for_update().filter(pk=self.pk).values_list(column, flat=True):
            return value
        raise DeletedTarget

    def _find_lane(self) -> Lane | None:
        cache = self._state.fields_cache
        lane: Lane | None = cache["lane"] if "lane" in cache else self._read_lane()
        return lane

    def _read_lane(self) -> Lane | None:
        return Lane.objects.using(self._using()).filter(pk=self.pk).first()

    def _using(self) -> str:
        return self._state.db or type(self)._default_manager.db
