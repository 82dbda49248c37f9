"""Fire events: one row in the caller's transaction, whatever the number of targets."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, connections, transaction
from django.db.models import Model
from django.utils import timezone

from djwebhooks import capture, catalogue, database
from djwebhooks import payload as payloads
from djwebhooks.exceptions import IdempotencyConflict, InvalidEvent, InvalidTarget, WrongTransaction
from djwebhooks.models import Event, WebhookTarget, validation
from djwebhooks.models.events import events_database
from djwebhooks.models.validation import is_storable
from djwebhooks.names import check_name
from djwebhooks.owners import check_owner
from djwebhooks.signals import work_written
from djwebhooks.subjects import has_key, join_digests
from djwebhooks.versions import check_versions, write_texts

#: Model instances that one event may be about.
MOST_SUBJECTS = 1000

#: The most seconds that an event may wait for newer ones.
MOST_COALESCE = 24 * 3600

#: What ``coalesce=`` takes.
Coalesce = bool | float | timedelta | None
#: What ``urls=`` takes.
URLs = str | Iterable[str] | Callable[[], str | Iterable[str]]


def fire(
    name: str,
    payload: object,
    *,
    owner: Any = None,
    identifier: str = "",
    ordering_key: str | None = None,
    broadcast: bool = False,
    idempotency_key: str = "",
    expires_at: datetime | None = None,
    deliver_at: datetime | None = None,
    coalesce: Coalesce = None,
    urls: URLs | None = None,
    subjects: Iterable[Model] = (),
    sender: str = "",
    version: str = "",
    versions: Mapping[str, object] | None = None,
    using: str | None = None,
) -> Event:
    """Say that *name* happened: save an event in the caller's transaction, to be sent if and only if that commits.

    *payload* is anything that JSON can hold. *owner* and *identifier* choose the targets; *broadcast* reaches every
    subscriber. Events of one *ordering_key* (the identifier, if it is not given) go to ordered targets one after the other.
    A second call with the same *idempotency_key* (for this owner and name) returns the first one's event. *deliver_at* and
    *expires_at* are aware times. With *coalesce* the event takes the place of earlier ones of its name and ordering key that
    asked for it too and that were not sent to a target yet, and waits so long (seconds or a ``timedelta``; ``True`` is no longer
    than it has to anyway) for newer ones to take its own. *urls*, a string, a list or a callable that returns one, sends straight
    to these addresses.
    *subjects* are the model instances that the payload tells of, besides the owner: ``djwebhooks.erasure.erase`` finds the event
    by them. *sender* is a name of ``DJWEBHOOKS_SENDERS``: who writes and sends it, where a target has none of its own. *versions*
    are other payloads by the names of their versions, for targets that want one of these; *version* is what that of *payload* is
    called. *using* is the alias to write to, instead of the one that the database routers choose for events.

    Raises ``InvalidEvent`` (``UnknownEvent``, ``InvalidPayload``, ``PayloadTooLarge``, ``SchemaMismatch``), ``TypeError`` for a
    wrong owner, ``ValidationError`` for an address that cannot be sent to, ``IdempotencyConflict`` and ``WrongTransaction``: all
    of them without harm to the caller's transaction.
    """
    return save(
        name,
        write_payloads(payload, version, versions or {}),
        owner=owner,
        identifier=identifier,
        ordering_key=ordering_key,
        broadcast=broadcast,
        idempotency_key=idempotency_key,
        expires_at=expires_at,
        deliver_at=deliver_at,
        coalesce=coalesce,
        urls=urls,
        subjects=subjects,
        sender=sender,
        using=using,
    )


def write_payloads(payload: object, version: str, versions: Mapping[str, object]) -> Event:
    """Return an unsaved event with these payloads. Raises ``InvalidEvent``."""
    check_versions(version, versions)
    others = {name: payloads.encode(other) for name, other in versions.items()}
    return Event(payload=payloads.encode(payload), version=version, versions=write_texts(others))


async def afire(name: str, payload: object, **options: Any) -> Event:
    """See ``fire``."""
    return await sync_to_async(fire, thread_sensitive=True)(name, payload, **options)


def save(
    name: str,
    event: Event,
    *,
    owner: Any = None,
    identifier: str = "",
    ordering_key: str | None = None,
    broadcast: bool = False,
    idempotency_key: str = "",
    expires_at: datetime | None = None,
    deliver_at: datetime | None = None,
    coalesce: Coalesce = None,
    urls: URLs | None = None,
    subjects: Iterable[Model] = (),
    sender: str = "",
    using: str | None = None,
) -> Event:
    """Check and save *event*, which has its payload or its captured call. The arguments are those of ``fire``."""
    alias = using or events_database()
    check_transaction(alias)
    event.name = check_event(name)
    if event.payload:
        check_payloads(event)
        payloads.warn_if_large(name, event.payload)
    event.owner_id = check_owner(owner)
    event.identifier = check_text("identifier", identifier)
    event.ordering_key = check_text("ordering_key", event.identifier if ordering_key is None else ordering_key)
    event.is_broadcast = check_flag("broadcast", broadcast)
    event.idempotency_key = check_text("idempotency_key", idempotency_key)
    event.expires_at = check_time("expires_at", expires_at)
    event.deliver_at = check_time("deliver_at", deliver_at)
    if event.expires_at is not None and event.deliver_at is not None and event.expires_at <= event.deliver_at:
        raise InvalidEvent(f"expires_at ({expires_at}) must be later than deliver_at ({deliver_at}).")
    event.sender = check_sender(sender)
    event.coalesce = check_coalesce(coalesce, event.ordering_key)
    event.subjects = join_digests(check_subjects(subjects), owner)
    if urls is None:
        event = insert_once(event, alias) if idempotency_key else insert(event, alias)
    else:
        addresses = list_addresses(urls)
        with database.engine_transaction(alias):  # The targets stay until their event is there.
            event.target_ids = json.dumps([WebhookTarget.objects.using(alias).direct(url, owner).pk for url in addresses])
            event = insert_once(event, alias) if idempotency_key else insert(event, alias)
    work_written.send(Event, using=alias)
    return event


def check_payloads(event: Event) -> None:
    """Hold all versions of the event's payload against the catalogue. Raises ``SchemaMismatch`` and ``UnknownEvent``."""
    for version, text in event.payloads.items() if event.versions else [("", event.payload)]:
        catalogue.check_payload(event.name, text or "", version or event.version)


def check_transaction(alias: str) -> None:
    """Raise ``WrongTransaction`` when the caller's transaction is not one that the event can be part of."""
    if connections[alias].in_atomic_block:
        return
    for other in connections.all(initialized_only=True):
        if other.in_atomic_block:
            raise WrongTransaction(
                f"fire() was called in a transaction of the database {other.alias!r}, but events are kept in {alias!r}, so that "
                f"it could not be sent if and only if {other.alias!r} commits. Open transaction.atomic(using={alias!r}) around "
                "it to say that this is meant, or route djwebhooks' models to the same database."
            )


def check_event(name: str) -> str:
    """Return *name*. Raises ``InvalidEvent``, or ``UnknownEvent`` when there is a catalogue without it."""
    check_name(name)
    catalogue.check_known(name)
    return name


def check_text(name: str, value: str) -> str:
    """Return *value*. Raises ``InvalidEvent`` for what a column of 255 characters cannot hold."""
    if not isinstance(value, str):
        raise InvalidEvent(f"{name} must be a string, not {type(value).__name__}: write str({value!r}).")
    if len(value) > 255:
        raise InvalidEvent(f"{name} has {len(value)} characters; at most 255 are possible.")
    if not is_storable(value):
        raise InvalidEvent(f"{name} {value!r} has a character that a database cannot hold (NUL or a lone surrogate).")
    return value


def check_flag(name: str, value: bool) -> bool:
    """Return *value*. Raises ``InvalidEvent`` for what is neither true nor false."""
    if not isinstance(value, bool):
        raise InvalidEvent(f"{name} must be True or False, not {value!r}.")
    return value


def check_time(name: str, value: datetime | None) -> datetime | None:
    """Return *value* in UTC. Raises ``InvalidEvent`` if it is naive, or if no database and no worker could read it again."""
    if value is None:
        return None
    if not isinstance(value, datetime) or timezone.is_naive(value):
        raise InvalidEvent(f"{name} must be an aware datetime, not {value!r}: see django.utils.timezone.now().")
    if not 1 < value.year < 9999:
        raise InvalidEvent(f"{name} is {value}, which is too far away: leave it out.")
    # Two times of one zone are compared as its clocks show them, which is wrong in the night when they are put back.
    return value.astimezone(UTC)


def check_sender(sender: str) -> str:
    """Return *sender*. Raises ``InvalidEvent`` for one that ``DJWEBHOOKS_SENDERS`` does not have."""
    try:
        if sender:
            validation.check_sender(sender)
    except InvalidTarget as error:
        raise InvalidEvent(str(error.message)) from None
    return sender


def check_coalesce(value: Coalesce, ordering_key: str) -> float | None:
    """Return *value* in seconds, or None for an event that is not coalesced.

    Raises ``InvalidEvent`` for what is no duration, or too long a one, and where there is no ordering key to tell the event by.
    """
    if value is None or value is False:
        return None
    if not isinstance(value, int | float | timedelta):
        raise InvalidEvent(f"coalesce must be seconds, a timedelta or True, not {value!r}.")
    seconds = value.total_seconds() if isinstance(value, timedelta) else 0.0 if value is True else float(value)
    if not 0 <= seconds <= MOST_COALESCE:
        raise InvalidEvent(f"coalesce is {value!r}; events may wait for newer ones up to a day ({MOST_COALESCE} seconds).")
    if not ordering_key:
        raise InvalidEvent(
            "coalesce needs an ordering_key (or an identifier): it says which events are of the same thing, so that the newest "
            "of them stands for all. Events without one have nothing to do with each other."
        )
    return seconds


def check_subjects(subjects: Iterable[Model]) -> list[Model]:
    """Return *subjects* as a list. Raises ``InvalidEvent`` for what is no saved model instance, and for too many."""
    if isinstance(subjects, Model) or not isinstance(subjects, Iterable):
        raise InvalidEvent(f"subjects must be a list of model instances, not {type(subjects).__name__}.")
    listed = list(subjects)
    for subject in listed:
        if not isinstance(subject, Model) or not has_key(subject):
            raise InvalidEvent(f"subjects must be saved model instances; one is {type(subject).__name__}, unsaved or no model.")
    if len(listed) > MOST_SUBJECTS:
        raise InvalidEvent(
            f"An event may be about {MOST_SUBJECTS} model instances, not {len(listed)}: say with subjects= which of them matter."
        )
    return listed


def list_addresses(urls: URLs) -> list[str]:
    """Return what *urls* names, each once. Raises ``InvalidEvent`` for nothing, and for what cannot name any."""
    given = urls() if callable(urls) else urls
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise InvalidEvent(f"urls must be an address, a list of addresses or a callable that returns one, not {given!r}.")
    listed = [given] if isinstance(given, str) else list(dict.fromkeys(given))
    if not listed:
        raise InvalidEvent("urls names no address. Leave it out to send to subscribed targets.")
    return listed


def insert(event: Event, alias: str) -> Event:
    database.insert_row(alias, event)
    return event


def insert_once(event: Event, alias: str, tries: int = 3) -> Event:
    """Insert *event*, or return the one with its idempotency key. Raises ``IdempotencyConflict`` when that is another one.

    Raises ``IntegrityError`` when it can be neither inserted nor found, as in a transaction that sees no later commits.
    """
    key = [None if event.owner_id is None else str(event.owner_id), event.name, event.idempotency_key]
    event.idempotency_digest = digest(key)
    content = capture.name_content(event.call) if event.call else event.payload
    event.content_digest = digest([event.hook, content, *filter(None, [event.version, event.versions])])
    try:
        with transaction.atomic(using=alias):
            return insert(event, alias)
    except IntegrityError:
        with transaction.atomic(using=alias):
            # A locking read sees what was committed after this transaction's snapshot.
            first = Event.objects.using(alias).select_for_update().filter(idempotency_digest=event.idempotency_digest).first()
        if first is None and tries == 1:
            raise
    if first is None:  # It was pruned or erased a moment ago, and its key is free again.
        return insert_once(event, alias, tries - 1)
    if first.content_digest != event.content_digest:
        raise IdempotencyConflict(
            f"The idempotency key {event.idempotency_key!r} was used for another {event.name!r} before (event {first.uid}). "
            "Use the same key only for the same payload."
        )
    return first


def digest(parts: list[str | None]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
