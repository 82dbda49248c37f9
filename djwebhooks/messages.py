"""Make requests of deliveries, with a fresh signature for each attempt."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from django.db import DatabaseError, InterfaceError
from django.views.decorators.debug import sensitive_variables
from rq.timeouts import BaseTimeoutException

from djwebhooks import __version__, payload, retry, signing, tokens
from djwebhooks.authentication.base import AccessToken, HeaderAuthentication, TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.contents import ERASED, UNFIT, Content, read_contents, write_bodies
from djwebhooks.exceptions import InvalidTarget, UndecryptableSecret
from djwebhooks.models import WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.models.keyring import UNKNOWN_KEY, Key
from djwebhooks.models.validation import check_authentication
from djwebhooks.transports.base import Request
from djwebhooks.work import OWN_FAULT_PAUSE, Held, Letterhead, Outcome, Work

logger = logging.getLogger(__name__)

#: How deliveries end whose event has no body.
NO_BODIES = {UNFIT: (Status.FAILED, "invalid_payload"), ERASED: (Status.CANCELLED, "erased")}
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


def prepare(using: str, works: Sequence[Work], held: Mapping[int, Held], now: datetime) -> Prepared:
    """Make a request of each of *works*, or say why there is none."""
    contents = read_contents(using, {work.event_id for work in works}, now)
    desk = Desk(contents, held, now)
    desk.do_each(desk.sort, works)
    write_bodies(using, contents)
    desk.do_each(desk.sign, desk.sendable)
    return desk.prepared


class Desk:
    """Makes the requests of one hand-over; what they have in common is looked up once."""

    def __init__(self, contents: Mapping[int, Content], held: Mapping[int, Held], now: datetime) -> None:
        self.prepared = Prepared()
        self.sendable: list[Work] = []
        self._contents = contents
        self._held = held
        self._now = now
        self._timestamp = int(now.timestamp())
        self._envelope = conf.ENVELOPE
        self._allows_http = conf.ALLOW_HTTP is True
        self._limits: dict[str, Any] = {
            "timeout": conf.seconds("TIMEOUT"),
            "connect_timeout": conf.seconds("CONNECT_TIMEOUT"),
            "response_limit": conf.RESPONSE_LIMIT,
        }

    def do_each(self, act: Callable[[Work], None], works: Iterable[Work]) -> None:
        """Put off what cannot be prepared for a reason that nobody thought of: it must not hold up all the others."""
        for work in works:
            try:
                act(work)
            except (DatabaseError, InterfaceError, BaseTimeoutException):
                raise
            except Exception:
                logger.exception("delivery=%s cannot be prepared; it is tried again in a minute.", work.delivery_id)
                rest = Outcome(work, Status.PENDING, "internal_error", due_at=self._now + OWN_FAULT_PAUSE)
                self.prepared.outcomes.append(rest)

    # -- what may be sent -----------------------------------------------------------------------------------------------

    def sort(self, work: Work) -> None:
        """Find out whether *work* may be sent, and say which body it needs."""
        content, target = self._contents.get(work.event_id), self._held[work.target_id].target
        end = self._find_end(work, content, target)
        if end is not None:
            self.prepared.outcomes.append(Outcome(work, *end))
        elif content is None or target is None or not content.is_built:
            self.prepared.unbuilt.append(work)
        else:
            content.wanted.add(self._find_format(target))
            self.sendable.append(work)

    def _find_end(self, work: Work, content: Content | None, target: WebhookTarget | None) -> tuple[str, str] | None:
        if content is None:
            return Status.CANCELLED, "event_deleted"
        if content.is_erased:
            return Status.CANCELLED, "erased"
        if work.expires_at is not None and work.expires_at <= self._now:
            return Status.EXPIRED, "expired"
        if content.is_given_up:
            return Status.FAILED, "build_error"
        if target is not None and not self._allows_http and not target.target_url.lower().startswith("https://"):
            # It was allowed when the target was made.
            return Status.FAILED, retry.INVALID_URL
        return None

    def _find_format(self, target: WebhookTarget) -> str:
        return payload.envelope_format(target.envelope or self._envelope, with_owner=target.owner_id is None)

    # -- requests -------------------------------------------------------------------------------------------------------

    @sensitive_variables("letterhead", "by", "request")
    def sign(self, work: Work) -> None:
        """Make the request of *work*, whose body there is."""
        held, content = self._held[work.target_id], self._contents[work.event_id]
        target = cast("WebhookTarget", held.target)  # ``sort`` has seen to it.
        body_format = self._find_format(target)
        body = content.bodies[body_format]
        if body in (UNFIT, ERASED):
            self.prepared.outcomes.append(Outcome(work, *NO_BODIES[body]))
            return
        if content.only_key:
            work = work._replace(only_key=content.only_key)
        try:
            letterhead = self._find_letterhead(held, target, content.only_key)
            by = held.find_token(letterhead.kind, self._now) or letterhead.kind
            if isinstance(by, TokenAuthentication):
                self.prepared.tokenless.append((work, target, by, tokens.ask(work, by)))
                return
            request = self._write(work, letterhead, by, content.message_id, body_format, body)
        except (UndecryptableSecret, InvalidTarget) as error:
            # Our own fault: nothing is counted, and nothing is lost.
            reason = "undecryptable_secret" if isinstance(error, UndecryptableSecret) else "invalid_authentication"
            logger.warning("target=%s cannot be sent to: %s", target.uid, error)
            rest = Outcome(work, Status.PENDING, reason, due_at=self._now, hold_until=self._now + OWN_FAULT_PAUSE)
            self.prepared.outcomes.append(rest)
            return
        if not letterhead.signers:
            self.prepared.outcomes.append(Outcome(work, Status.CANCELLED, "key_retired"))
            return
        self.prepared.ready.append((work, target, request))

    def _find_letterhead(self, held: Held, target: WebhookTarget, only_key: str) -> Letterhead:
        if only_key:
            return _make_letterhead(target, only_key, self._now)
        found = held.letterhead
        if found is None or found.target is not target or (found.until is not None and found.until <= self._now):
            found = held.letterhead = _make_letterhead(target, "", self._now)
        return found

    @sensitive_variables()
    def _write(
        self,
        work: Work,
        letterhead: Letterhead,
        by: HeaderAuthentication | AccessToken | None,
        message_id: str,
        body_format: str,
        body: bytes,
    ) -> Request:
        own, url = letterhead.headers, letterhead.target.target_url
        if by is not None:
            credentials = by.headers(url, self._now)
            own = {name: value for name, value in own.items() if name.lower() not in credentials} | credentials
        headers = {
            **own,
            "content-type": payload.content_type(body_format),
            "user-agent": USER_AGENT,
            "webhook-id": message_id,
            "webhook-timestamp": str(self._timestamp),
            "webhook-signature": signing.sign_all(letterhead.signers, message_id, self._timestamp, body),
            "webhook-sequence": str(work.sequence),
            "webhook-attempt": str(work.attempt_count + 1),
        }
        return Request(work.delivery_id, url, body, headers, client_certificate=letterhead.certificate, **self._limits)


@sensitive_variables("keys", "signers")
def _make_letterhead(target: WebhookTarget, only_key: str, now: datetime) -> Letterhead:
    """Open what the requests to *target* are signed and sent with. Raises ``UndecryptableSecret`` and ``InvalidTarget``.

    In each version that it gets, every live key signs, or for a key check the one that it is about.
    """
    keys, versions = find_keys(target, only_key, now), target.signature_versions
    return Letterhead(
        target,
        headers=target.headers,
        signers=[signer for key in keys for signer in key.read_signers(versions)],
        kind=check_authentication(target.authentication),
        certificate=target.client_certificate,
        until=min((key.until for key in keys if key.until is not None), default=None),
    )


def find_keys(target: WebhookTarget, only_key: str, now: datetime) -> list[Key]:
    if only_key == UNKNOWN_KEY:
        return [Key.new(now)]
    needs_pairs = only_key or signing.V1A in target.signature_versions
    ring = target.complete_keyring() if needs_pairs else target.keyring
    return [key for key in ring.live(now) if not only_key or key.id == only_key]
