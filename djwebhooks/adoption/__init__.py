"""Adopt the targets of another package: its rows become targets, once, and what cannot is told."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.views.decorators.debug import sensitive_variables

from djwebhooks import database, network, signing
from djwebhooks.adoption import dj_webhooks, django_webhook, rest_hooks
from djwebhooks.adoption.packages import Package
from djwebhooks.adoption.tables import Found, OldSecret, Row
from djwebhooks.exceptions import DjWebhooksError, InvalidAdoption, InvalidTarget, UndecryptableSecret
from djwebhooks.models import WebhookTarget
from djwebhooks.models.events import events_database
from djwebhooks.models.keyring import LIVE_KEYS, Key, Keyring
from djwebhooks.models.validation import check_sender, check_subscription
from djwebhooks.names import matches
from djwebhooks.owners import check_owner, owner_model

#: Whose a row's target becomes: an owner, ``SYSTEM``, or ``None`` for nobody, and then the row is left out.
OwnerOf = Callable[[Row], Any]
#: Stands for the system's own targets, which see every owner's events.
SYSTEM = object()

PACKAGES: Mapping[str, Package] = {
    package.name: package
    for package in (
        dj_webhooks.PACKAGE,
        rest_hooks.DJANGO_REST_HOOKS,
        rest_hooks.DRF_HOOKS,
        django_webhook.DJANGO_WEBHOOK,
        django_webhook.DJANGO_WEBHOOK2,
    )
}


@dataclass(frozen=True, slots=True)
class Adoptee:
    """A target, and what of another package it stands for."""

    url: str
    owner: str
    identifier: str
    rows: tuple[str, ...]
    #: The events that it has got by this; of one that was there before, those that it lacks.
    events: tuple[str, ...]


@dataclass(slots=True)
class Adopted:
    """What became of the rows."""

    package: Package
    table: str
    #: The sender of the targets that are made.
    sender: str = ""
    row_count: int = 0
    made: list[Adoptee] = field(default_factory=list)
    #: Targets that were there, and are subscribed to more events now.
    subscribed: list[Adoptee] = field(default_factory=list)
    #: Targets that were there, and are as they were.
    unchanged: list[Adoptee] = field(default_factory=list)
    #: What was left out of which row, and why.
    left_out: list[tuple[str, str]] = field(default_factory=list)
    #: What is not as it was in a row.
    remarks: list[tuple[str, str]] = field(default_factory=list)
    #: The settings that mean what the package's own meant, and are not there yet.
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Wanted:
    """A target that rows ask for: those with the same owner, address and identifier."""

    owner: Any
    first: Found
    url: str
    rows: list[str] = field(default_factory=list)
    events: dict[str, None] = field(default_factory=dict)


def adopt(
    package: str,
    *,
    owner_of: OwnerOf | None = None,
    renamed: Mapping[str, str] = MappingProxyType({}),
    table: str = "",
    sender: str = "",
    subscribe: bool = False,
    dry_run: bool = False,
    using: str | None = None,
) -> Adopted:
    """Make a target for each endpoint that *package*, one of ``PACKAGES``, has in its tables, and return what became of its rows.

    All is done in one transaction; with *dry_run* nothing is. A target that is there already is not changed, unless *subscribe*
    says that it is to get the events that it lacks.

    *owner_of* gets a row, as a dictionary of its columns, and returns whose its target becomes: an owner, ``SYSTEM`` for the
    system's own, ``None`` to leave it out. Without it, that is the row's own user. *renamed* has new names for events, *table*
    names another table than the package's own, and *sender* a sender for the targets that are made.

    Raises ``InvalidAdoption`` when there is no such package, table or sender, nobody whose the targets could be, or no table for
    these yet.
    """
    if package not in PACKAGES:
        raise InvalidAdoption(f"Nothing is known of {package!r}: there are {', '.join(PACKAGES)}.")
    try:
        check_sender(sender)
    except InvalidTarget as error:
        raise InvalidAdoption(reason(error)) from error
    source, alias = PACKAGES[package], using or events_database()
    if WebhookTarget._meta.db_table not in connections[alias].introspection.table_names():
        raise InvalidAdoption(f"The database {alias!r} has no tables of djwebhooks yet: run manage.py migrate first.")
    adopted = Adopted(source, table or source.table, sender)
    with database.engine_transaction(alias):
        found = list(source.read(alias, adopted.table))
        adopted.row_count = len(found)
        adoption = Adoption(adopted, owner_of or find_owners(source, alias), owner_of is None, renamed, alias)
        for wanted in adoption.gather(found):
            adoption.take(wanted, subscribe=subscribe)
        suggested = source.suggest(adoption.rename).items()
        adopted.settings = {name: value for name, value in suggested if not hasattr(settings, name)}
        if dry_run:
            transaction.set_rollback(True, using=alias)
    return adopted


def find_owners(package: Package, using: str) -> OwnerOf:
    """Return a function that finds the user of a row. Raises ``InvalidAdoption`` where targets are not a user's."""
    if not package.owner_column:
        raise InvalidAdoption(
            f"The rows of {package.name} are nobody's: say whose the targets become, with --owner or --owner-by."
        )
    if owner_model() != settings.AUTH_USER_MODEL:
        raise InvalidAdoption(
            f"The rows of {package.name} are a user's, and targets belong to {owner_model()}: say by --owner-by which one."
        )
    users = apps.get_model(owner_model())._base_manager.using(using)

    @cache
    def find(pk: object) -> Any:
        try:
            return users.filter(pk=pk).first()
        except (TypeError, ValueError, ValidationError):  # Users had other keys when the row was written.
            return None

    def owner_of(row: Row) -> Any:
        if package.owner_column not in row:
            raise InvalidAdoption(f"The rows have no column {package.owner_column!r}: say by --owner-by whose they are.")
        return find(row[package.owner_column])

    return owner_of


@dataclass(slots=True)
class Adoption:
    """The rows on their way, and what is told of them."""

    adopted: Adopted
    owner_of: OwnerOf
    #: Whether that is the row's own user.
    is_by_user: bool
    renamed: Mapping[str, str]
    using: str

    def rename(self, event: str) -> str:
        return self.renamed.get(event) or self.adopted.package.name_event(event)

    def leave_out(self, what: str, why: str) -> None:
        self.adopted.left_out.append((what, why))

    # -- gathering ------------------------------------------------------------------------------------------------------

    def gather(self, rows: Iterable[Found]) -> Iterable[Wanted]:
        """Return the targets that *rows* ask for, and leave out what cannot be."""
        targets: dict[tuple[object, str, str], Wanted] = {}
        for found in rows:
            owner = self.owner_of(found.row)
            if owner is None:
                self.leave_out(found.name, self._miss_owner(found))
                continue
            owner = None if owner is SYSTEM else owner
            owner_pk = self._check_owner(found, owner)
            try:
                url = network.check_url(found.url)
            except DjWebhooksError as error:
                self.leave_out(found.name, reason(error))
                continue
            events = list(self._list_events(found, is_owned=owner is not None))
            if not events:
                continue
            wanted = targets.setdefault((owner_pk, url, found.identifier), Wanted(owner, found, url))
            if differs(found, wanted.first):
                self.leave_out(found.name, f"{wanted.first.name} has the same URL, but {differs(found, wanted.first)}.")
            else:
                wanted.rows.append(found.name)
                wanted.events.update(dict.fromkeys(events))
        return targets.values()

    def _miss_owner(self, found: Found) -> str:
        if not self.is_by_user:
            return "It is nobody's, as the function says that finds its owner."
        return f"There is no {owner_model()} with the primary key {found.row[self.adopted.package.owner_column]!r}."

    def _check_owner(self, found: Found, owner: object) -> object:
        try:
            return check_owner(owner)
        except TypeError as error:
            raise InvalidAdoption(f"Whose {found.name} becomes: {error}") from error

    def _list_events(self, found: Found, *, is_owned: bool) -> Iterator[str]:
        if not found.events:
            self.leave_out(found.name, "It wants no event.")
        for event in found.events:
            try:
                check_subscription(self.rename(event), is_owned=is_owned)
            except DjWebhooksError as error:
                self.leave_out(f"{found.name}, event {event!r}", reason(error))
            else:
                yield self.rename(event)

    # -- taking ---------------------------------------------------------------------------------------------------------

    def take(self, wanted: Wanted, *, subscribe: bool) -> None:
        """Make the target, or find that it is there."""
        targets = WebhookTarget.objects.using(self.using)
        known = targets.find(wanted.url, wanted.owner, wanted.first.identifier)
        try:
            with transaction.atomic(using=self.using):
                if known is None:
                    targets.save_new(self._make(wanted))
                    self.adopted.made.append(describe(wanted, wanted.events))
                    if wanted.first.remark:
                        self.adopted.remarks.append((wanted.first.name, wanted.first.remark))
                    return
                lacking = list_lacking(known, wanted.events)
                if lacking and (subscribe or known.is_hidden):
                    known.subscribe(lacking, self.using)
                    self.adopted.subscribed.append(describe(wanted, lacking))
                else:
                    self.adopted.unchanged.append(describe(wanted, lacking))
                if conflict := " and ".join(find_conflicts(known, wanted.first, self.adopted.sender)):
                    self.adopted.remarks.append((wanted.first.name, f"The target that is there has {conflict}."))
        except ValidationError as error:
            self.leave_out(", ".join(wanted.rows), reason(error))

    def _make(self, wanted: Wanted) -> WebhookTarget:
        first = wanted.first
        target = WebhookTarget(
            target_url=wanted.url,
            owner=wanted.owner,
            identifier=first.identifier,
            headers=first.headers,
            is_active=first.is_active,
            envelope=first.envelope,
            sender=self.adopted.sender,
        )
        if first.created_at is not None:
            target.created_at = first.created_at
        if first.secrets:
            target.secrets = keep(first.secrets)
        if first.uid is not None and not WebhookTarget.objects.using(self.using).filter(uid=first.uid).exists():
            target.uid = first.uid
        target.events = list(wanted.events)
        return target


def reason(error: Exception) -> str:
    return " ".join(error.messages) if isinstance(error, ValidationError) else str(error)


@sensitive_variables()
def keep(secrets: Iterable[OldSecret]) -> str:
    """Return the encrypted keys of a target that signs with *secrets*: with all of them, until it is given another."""
    keys = [Key(secret.text, signing.new_key_pair(), secret.created_at) for secret in secrets]
    return Keyring(tuple(keys[:LIVE_KEYS])).seal()


def differs(found: Found, other: Found) -> str:
    """Return in what two rows differ that a target has once; nothing if in nothing."""
    for name, what in (("headers", "other headers"), ("is_active", "another state"), ("secrets", "other secrets")):
        if getattr(found, name) != getattr(other, name):
            return what
    return ""


def find_conflicts(target: WebhookTarget, found: Found, sender: str) -> Iterator[str]:
    """Find what *target*, which was there before, has instead of what the row says, and of the *sender* that was asked for."""
    if sender and target.sender != sender:
        yield f"the sender {target.sender!r}" if target.sender else "no sender"
    try:
        if found.headers and target.headers != found.headers:
            yield "other headers"
        if not {secret.text for secret in found.secrets} <= {key.secret for key in target.keyring.keys}:
            yield "other secrets"
    except UndecryptableSecret:
        yield "secrets that no key opens"


def list_lacking(target: WebhookTarget, events: Iterable[str]) -> list[str]:
    """Return those of *events* that the target is not subscribed to, by whichever pattern."""
    return [event for event in events if not any(matches(pattern, event) for pattern in target.events)]


def describe(wanted: Wanted, events: Iterable[str]) -> Adoptee:
    owner = "the system" if wanted.owner is None else str(wanted.owner)
    return Adoptee(wanted.url, owner, wanted.first.identifier, tuple(wanted.rows), tuple(events))
