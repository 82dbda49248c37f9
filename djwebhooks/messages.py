"""Make requests of deliveries: each event's bytes once and for all, and a fresh signature for each attempt."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache, partial
from typing import Any

from django.apps import apps
from django.db import DatabaseError, InterfaceError
from django.views.decorators.debug import sensitive_variables
from rq.timeouts import BaseTimeoutException

from djwebhooks import __version__, database, payload, retry, signing, tokens
from djwebhooks.authentication.base import AccessToken, HeaderAuthentication, TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.exceptions import InvalidPayload, InvalidTarget, UndecryptableSecret
from djwebhooks.models import Body, Event, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.keyring import UNKNOWN_KEY, Key
from djwebhooks.models.validation import check_authentication
from djwebhooks.owners import name_of_owner, owner_model
from djwebhooks.transports.base import Request
from djwebhooks.work import OWN_FAULT_PAUSE, Held, Outcome, Work

logger = logging.getLogger(__name__)

#: Stands for the body of an event whose payload does not fit the format.
UNFIT = b"unfit"
#: The body of an event whose data was erased after its payload was read.
ERASED = b""
USER_AGENT = f"djwebhooks/{__version__}"


#: A work that needs an access token first, its target, how to read one, and the request for it.
Tokenless = tuple[Work, WebhookTarget, TokenAuthentication, Request]


@dataclass(slots=True)
class Prepared:
    """What became of works that were to be sent."""

    ready: list[tuple[Work, WebhookTarget, Request]] = field(default_factory=list)
    #: Works of events whose payload must be built first.
    unbuilt: list[Work] = field(default_factory=list)
    #: Works that can be sent with an access token, which their lane does not have.
    tokenless: list[Tokenless] = field(default_factory=list)
    #: Works that end, or wait, without a request.
    outcomes: list[Outcome] = field(default_factory=list)


def prepare(using: str, works: Sequence[Work], held: dict[int, Held], now: datetime) -> Prepared:
    """Make a request of each of *works*, or say why there is none."""
    prepared = Prepared()
    events = Event.objects.using(using).defer("call", "build_error").in_bulk([work.event_id for work in works])
    sendable: list[tuple[Work, WebhookTarget, Event, str]] = []
    for work in works:
        event, target = events.get(work.event_id), held[work.target_id].target
        with _sparing_others(work, prepared, now):
            outcome = _end_early(work, event, target, now)
            if outcome is not None:
                prepared.outcomes.append(outcome)
            elif event is not None and target is not None and event.payload:
                sendable.append((work, target, event, _format_for(target)))
            else:
                prepared.unbuilt.append(work)
    bodies = _bodies(using, [(event, body_format) for _, _, event, body_format in sendable])
    # Opened once for each target, and not for each attempt.
    signers_of = cache(partial(_read_signers, now=now))
    for work, target, event, body_format in sendable:
        with _sparing_others(work, prepared, now):
            _sign(
                prepared, held[work.target_id], work, target, event, body_format, bodies[event.pk, body_format], signers_of, now
            )
    return prepared


@sensitive_variables("signers", "headers")
def _sign(
    prepared: Prepared,
    held: Held,
    work: Work,
    target: WebhookTarget,
    event: Event,
    body_format: str,
    body: bytes,
    signers_of: Callable[[WebhookTarget, str], list[signing.Signer]],
    now: datetime,
) -> None:
    if body == UNFIT:
        prepared.outcomes.append(Outcome(work, Status.FAILED, "invalid_payload"))
        return
    if body == ERASED:
        prepared.outcomes.append(Outcome(work, Status.CANCELLED, "erased"))
        return
    try:
        signers = signers_of(target, event.only_key)
        kind = check_authentication(target.authentication)
        by = held.find_token(kind, now) or kind
        if isinstance(by, TokenAuthentication):
            prepared.tokenless.append((replace(work, only_key=event.only_key), target, by, tokens.ask(work, by)))
            return
        headers = _authenticate(target, by, now)
        headers |= _headers(work, event, body_format, signers, body, now)
        request = _request(work, target, headers, body)
    except (UndecryptableSecret, InvalidTarget) as error:
        # Our own fault: nothing is counted, and nothing is lost.
        reason = "undecryptable_secret" if isinstance(error, UndecryptableSecret) else "invalid_authentication"
        logger.warning("target=%s cannot be sent to: %s", target.uid, error)
        rest = Outcome(work, Status.PENDING, reason, due_at=now, hold_until=now + OWN_FAULT_PAUSE)
        prepared.outcomes.append(rest)
        return
    if not signers:
        prepared.outcomes.append(Outcome(work, Status.CANCELLED, "key_retired"))
        return
    prepared.ready.append((replace(work, only_key=event.only_key), target, request))


@sensitive_variables()
def _read_signers(target: WebhookTarget, only_key: str, now: datetime) -> list[signing.Signer]:
    """What signs for *target*, in each version that it gets: every live key, or for a key check the one that it is about."""
    versions = target.signature_versions
    return [signer for key in _find_keys(target, only_key, now) for signer in key.read_signers(versions)]


def _find_keys(target: WebhookTarget, only_key: str, now: datetime) -> list[Key]:
    if only_key == UNKNOWN_KEY:
        return [Key.new(now)]
    needs_pairs = only_key or signing.V1A in target.signature_versions
    ring = target.complete_keyring() if needs_pairs else target.keyring
    return [key for key in ring.live(now) if not only_key or key.id == only_key]


@contextmanager
def _sparing_others(work: Work, prepared: Prepared, now: datetime) -> Iterator[None]:
    """Put one work off that cannot be prepared for a reason that nobody thought of: it must not hold up all the others."""
    try:
        yield
    except (DatabaseError, InterfaceError, BaseTimeoutException):
        raise
    except Exception:
        logger.exception("delivery=%s cannot be prepared; it is tried again in a minute.", work.delivery_id)
        prepared.outcomes.append(Outcome(work, Status.PENDING, "internal_error", due_at=now + OWN_FAULT_PAUSE))


def _end_early(work: Work, event: Event | None, target: WebhookTarget | None, now: datetime) -> Outcome | None:
    if event is None:
        return Outcome(work, Status.CANCELLED, "event_deleted")
    if event.erased_at is not None:
        return Outcome(work, Status.CANCELLED, "erased")
    if work.expires_at is not None and work.expires_at <= now:
        return Outcome(work, Status.EXPIRED, "expired")
    if event.has_failed_to_build and (event.build_due_at is None or event.build_due_at <= now):
        return Outcome(work, Status.FAILED, "build_error")
    if target is not None and conf.ALLOW_HTTP is not True and not target.target_url.lower().startswith("https://"):
        # It was allowed when the target was made.
        return Outcome(work, Status.FAILED, retry.INVALID_URL)
    return None


def _format_for(target: WebhookTarget) -> str:
    return payload.envelope_format(target.envelope or conf.ENVELOPE, with_owner=target.owner_id is None)


@sensitive_variables()
def _authenticate(target: WebhookTarget, by: HeaderAuthentication | AccessToken | None, now: datetime) -> dict[str, str]:
    """Return the target's own headers, and those that tell its receiver who sends. Raises ``UndecryptableSecret``."""
    credentials = by.headers(target.target_url, now) if by is not None else {}
    own = {name: value for name, value in target.headers.items() if name.lower() not in credentials}
    return own | credentials


@sensitive_variables("signers")
def _headers(
    work: Work, event: Event, body_format: str, signers: list[signing.Signer], body: bytes, now: datetime
) -> dict[str, str]:
    timestamp = int(now.timestamp())
    return {
        "content-type": payload.content_type(body_format),
        "user-agent": USER_AGENT,
        "webhook-id": str(event.uid),
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign_all(signers, str(event.uid), timestamp, body),
        "webhook-sequence": str(work.sequence),
        "webhook-attempt": str(work.attempt_count + 1),
    }


@sensitive_variables("headers")
def _request(work: Work, target: WebhookTarget, headers: dict[str, str], body: bytes) -> Request:
    return Request(
        key=work.delivery_id,
        url=target.target_url,
        body=body,
        headers=headers,
        timeout=conf.seconds("TIMEOUT"),
        connect_timeout=conf.seconds("CONNECT_TIMEOUT"),
        response_limit=conf.RESPONSE_LIMIT,
        client_certificate=target.client_certificate,
    )


# -- bodies ------------------------------------------------------------------------------------------------------------


def _bodies(using: str, wanted: Iterable[tuple[Event, str]]) -> dict[tuple[int, str], bytes]:
    """Return the bytes of each event in each format; those that nobody has written yet are written now.

    Whoever writes first wins, and everybody sends what the database has.
    """
    events = {(event.pk, body_format): event for event, body_format in wanted}
    found = _read_bodies(using, events)
    missing = {key: event for key, event in events.items() if key not in found}
    if missing:
        owners = _read_owners(using, missing.values())
        rendered = {key: content for key, event in missing.items() if (content := _render(event, key[1], owners)) is not None}
        rows = [(*key, content) for key, content in rendered.items() if content != UNFIT]
        database.insert_many(using, Body, ("event", "format", "content"), rows)
        found |= rendered | _read_bodies(using, missing)
    return found


def _read_bodies(using: str, keys: Iterable[tuple[int, str]]) -> dict[tuple[int, str], bytes]:
    ids = {pk for pk, _ in keys}
    rows = Body.objects.using(using).filter(event_id__in=ids).values_list("event_id", "format", "content")
    return {(pk, body_format): bytes(content) for pk, body_format, content in rows}


def _read_owners(using: str, events: Iterable[Event]) -> dict[Any, Any]:
    ids = {event.owner_id for event in events} - {None}
    return apps.get_model(owner_model())._base_manager.using(using).in_bulk(list(ids)) if ids else {}


def _render(event: Event, body_format: str, owners: dict[Any, Any]) -> bytes | None:
    """Return the event's body, or ``None`` when it cannot be made for a reason that nobody thought of."""
    try:
        owner = owners.get(event.owner_id)
        name = name_of_owner(owner) if owner is not None or event.owner_id is None else str(event.owner_id)
        return payload.render(body_format, payload.Message(event.uid, event.name, event.created_at, event.payload, name))
    except InvalidPayload:
        return UNFIT
    except BaseTimeoutException:
        raise
    except Exception:
        logger.exception("event=%s cannot be written in the format %s.", event.uid, body_format)
        return None
