"""Make requests of deliveries, with a fresh signature for each attempt."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError
from django.views.decorators.debug import sensitive_variables
from rq.timeouts import BaseTimeoutException

from djwebhooks import network, payload, retry, senders, signing, tokens
from djwebhooks.authentication.base import AccessToken, HeaderAuthentication, TokenAuthentication
from djwebhooks.conf import conf
from djwebhooks.contents import FAULTY, UNFIT, Content, Statement, is_sendable, read_contents, read_statements, write_bodies
from djwebhooks.exceptions import ForbiddenAddress, InvalidTarget, SenderFault, UndecryptableSecret, UnknownSender
from djwebhooks.filters import MOST_COMPARISONS
from djwebhooks.handshake import Handshake, Permission
from djwebhooks.models import Event, WebhookTarget
from djwebhooks.models.deliveries import FILTERED, Status
from djwebhooks.models.keyring import UNKNOWN_KEY, Key
from djwebhooks.models.validation import check_authentication
from djwebhooks.transports.base import Request
from djwebhooks.versions import CURRENT, choose_version
from djwebhooks.work import Held, Letterhead, Outcome, Work

logger = logging.getLogger(__name__)

#: How long what cannot be sent waits whose fault is ours and not the network's, such as a secret that no key opens.
PUT_OFF = timedelta(minutes=1)
#: A work that needs an access token or a permission first, its target, how to read one, and the request for it.
Asker = tuple[Work, WebhookTarget, TokenAuthentication | Handshake, Request]


@dataclass(slots=True)
class Prepared:
    """What became of works that were to be sent."""

    ready: list[tuple[Work, WebhookTarget, Request]] = field(default_factory=list)
    #: Works of events whose payload must be built first.
    unbuilt: list[Work] = field(default_factory=list)
    #: Works that can be sent with an access token, or a permission, which their lane does not have.
    askers: list[Asker] = field(default_factory=list)
    #: Works that end, or wait, without a request.
    outcomes: list[Outcome] = field(default_factory=list)


def prepare(using: str, works: Sequence[Work], held: Mapping[int, Held], now: datetime) -> Prepared:
    """Make a request of each of *works*, or say why there is none."""
    targets = (held[work.target_id].target for work in works)
    with_versions = any(target is not None and target.version for target in targets)
    contents = read_contents(using, {work.event_id for work in works}, now, with_versions=with_versions)
    desk = Desk(using, contents, held, now)
    desk.do_each(desk.sort, zip(works, strict=True))
    desk.sift()
    write_bodies(using, contents, desk.told)
    desk.do_each(desk.sign, desk.sendable)
    return desk.prepared


class Desk:
    """Makes the requests of one hand-over; what they have in common is looked up once."""

    def __init__(self, using: str, contents: Mapping[int, Content], held: Mapping[int, Held], now: datetime) -> None:
        self.prepared = Prepared()
        #: What may be sent: a work, its target, its content, and the format of its body.
        self.sendable: list[tuple[Work, WebhookTarget, Content, str]] = []
        #: What its target's filters are still to judge.
        self.undecided: list[tuple[Work, WebhookTarget, Content]] = []
        self._statements: dict[int, Statement] = {}
        #: The ids of events of which somebody wants to know more than their bodies.
        self.told: set[int] = set()
        self._using = using
        self._contents = contents
        self._held = held
        self._now = now
        self._timestamp = int(now.timestamp())
        self._envelope = conf.ENVELOPE
        self._sender = conf.SENDER
        self._origin = conf.CLOUDEVENTS_ORIGIN
        self._allows_http = conf.ALLOW_HTTP is True
        self._limits: dict[str, Any] = {
            "timeout": conf.seconds("TIMEOUT"),
            "connect_timeout": conf.seconds("CONNECT_TIMEOUT"),
            "response_limit": conf.RESPONSE_LIMIT,
        }

    def do_each(self, act: Callable[..., None], items: Iterable[tuple[Work, *tuple[Any, ...]]]) -> None:
        """Put off what cannot be prepared for a reason that nobody thought of: it must not hold up all the others."""
        for item in items:
            try:
                act(*item)
            except (DatabaseError, InterfaceError, BaseTimeoutException):
                raise
            except Exception:
                logger.exception("delivery=%s cannot be prepared.", item[0].delivery_id)
                self._put_off(item[0], "internal_error")

    def _put_off(self, work: Work, reason: str) -> None:
        """Try *work* again in a minute: the fault is ours, and may be its own alone.

        What nobody has mended for as long as anything is kept has failed.
        """
        too_old = self._now - timedelta(seconds=conf.seconds("RETENTION"))
        if Event.objects.using(self._using).filter(pk=work.event_id, created_at__lt=too_old).exists():
            self.prepared.outcomes.append(Outcome(work, Status.FAILED, reason))
        else:
            self.prepared.outcomes.append(Outcome(work, Status.PENDING, reason, due_at=self._now + PUT_OFF))

    def _report(self, work: Work, reason: str, error: object) -> None:
        """Put *work* off because of *error*, and have the log tell of that."""
        logger.warning("delivery=%s cannot be sent: %s", work.delivery_id, error)
        self._put_off(work, reason)

    def _hold(self, work: Work, target: WebhookTarget, reason: str, error: Exception) -> None:
        """Try the whole lane again in a minute: the fault is ours, nothing is counted, and nothing is lost."""
        logger.warning("target=%s cannot be sent to: %s", target.uid, error)
        rest = Outcome(work, Status.PENDING, reason, due_at=self._now, hold_until=self._now + PUT_OFF)
        self.prepared.outcomes.append(rest)

    # -- what may be sent -----------------------------------------------------------------------------------------------

    def sort(self, work: Work) -> None:
        """Find out whether *work* may be sent, and say which body it needs."""
        content, target = self._contents.get(work.event_id), self._held[work.target_id].target
        end = self._find_end(work, content, target)
        if end is not None:
            self.prepared.outcomes.append(Outcome(work, *end))
        elif content is None or target is None or not content.is_built(target.version):
            self.prepared.unbuilt.append(work)
        elif target.filters and work.is_undecided:
            self.undecided.append((work, target, content))
        else:
            self._sort_written(work, target, content)

    def sift(self) -> None:
        """End what the filters of its target do not let through."""
        self._statements = read_statements(self._using, {work.event_id for work, _, _ in self.undecided})
        self.do_each(self._judge, self.undecided)

    def _judge(self, work: Work, target: WebhookTarget, content: Content) -> None:
        statement = self._statements.get(work.event_id)
        verdict = statement is None or statement.judge(target)
        if verdict is False:
            self.prepared.outcomes.append(Outcome(work, Status.CANCELLED, FILTERED))
            return
        if verdict is None:
            logger.warning(
                "delivery=%s is not filtered: that takes more than %d comparisons.", work.delivery_id, MOST_COMPARISONS
            )
        self._sort_written(work, target, content)

    def _sort_written(self, work: Work, target: WebhookTarget, content: Content) -> None:
        sender = target.sender or content.sender or self._sender
        envelope, with_owner = target.envelope or self._envelope, target.owner_id is None
        version = choose_version(target.version, content.built)
        if sender:
            try:
                body_format = senders.find_format(sender, envelope, with_owner=with_owner, version=version)
            except UnknownSender as error:
                if sender == content.sender:
                    self._report(work, "unknown_sender", error)
                else:
                    self._hold(work, target, "unknown_sender", error)
                return
            work = work._replace(sender=sender)
            self.told.add(work.event_id)
        else:
            body_format = payload.envelope_format(envelope, with_owner=with_owner, version=version)
            if envelope == payload.BINARY:
                self.told.add(work.event_id)
        content.wanted.add(body_format)
        self.sendable.append((work, target, content, body_format))

    def _find_end(self, work: Work, content: Content | None, target: WebhookTarget | None) -> tuple[str, str] | None:
        if content is None:
            return Status.CANCELLED, "event_deleted"
        if content.is_erased:
            return Status.CANCELLED, "erased"
        if work.expires_at is not None and work.expires_at <= self._now:
            return Status.EXPIRED, "expired"
        if content.is_given_up and not content.is_built(target.version if target is not None else CURRENT):
            return Status.FAILED, "build_error"
        if target is not None and not self._allows_http and not target.target_url.lower().startswith("https://"):
            # It was allowed when the target was made.
            return Status.FAILED, retry.INVALID_URL
        return None

    # -- requests -------------------------------------------------------------------------------------------------------

    @sensitive_variables("letterhead", "by", "request")
    def sign(self, work: Work, target: WebhookTarget, content: Content, body_format: str) -> None:
        """Make the request of *work*, whose body there is."""
        held, body = self._held[work.target_id], content.bodies[body_format]
        if not is_sendable(body):
            self._end_bodiless(work, body)
            return
        if content.only_key:
            work = work._replace(only_key=content.only_key)
        try:
            letterhead = self._find_letterhead(held, target, content.only_key)
            if not letterhead.signers:
                self.prepared.outcomes.append(Outcome(work, Status.CANCELLED, "key_retired"))
                return
            letter = self._begin_letter(work, letterhead, content, body_format) if work.sender else None
            url = target.target_url if letter is None else senders.address(work.sender, letter)
            by = held.find_token(letterhead.authentication, self._now) or letterhead.authentication
            if url != target.target_url and not network.has_same_origin(url, target.target_url):
                self._check_elsewhere(work, body_format)
                letterhead, by = letterhead.without_credentials(), None
            if isinstance(by, TokenAuthentication):
                self.prepared.askers.append((work, target, by, tokens.ask(work, by)))
                return
            if self._must_ask(held.permission, target, url, body_format):
                self.prepared.askers.append(self._ask_permission(work, letterhead, by, url))
                return
            request = self._write(work, letterhead, by, content, body_format, url, letter)
        except (UndecryptableSecret, InvalidTarget, ForbiddenAddress, SenderFault) as error:
            self._end_unwritten(work, target, error)
            return
        self.prepared.ready.append((work, target, request))

    def _is_asked_for(self, body_format: str) -> bool:
        """Whether a receiver is asked before it gets this, and told who has asked."""
        return bool(self._origin) and body_format.startswith(payload.CLOUDEVENTS)

    def _check_elsewhere(self, work: Work, body_format: str) -> None:
        """Raise ``SenderFault`` for what is sent where nobody asks: its lane has room for the permission of one receiver."""
        if self._is_asked_for(body_format):
            raise SenderFault(
                f"The sender {work.sender!r} sends to another host than the target's, and only that one is asked for permission. "
                "Give the target the sender's URL, or another envelope, or empty DJWEBHOOKS_CLOUDEVENTS_ORIGIN."
            )

    def _must_ask(self, permission: Permission | None, target: WebhookTarget, url: str, body_format: str) -> bool:
        """Whether *url* is still to be asked; of a sender's, which may be another for each event, one is enough."""
        if not self._is_asked_for(body_format):
            return False
        if permission is None or url == target.target_url:
            return permission is None or permission.url != url
        return not network.has_same_origin(permission.url, url)

    def _end_unwritten(self, work: Work, target: WebhookTarget, error: Exception) -> None:
        match error:
            case UndecryptableSecret():
                self._hold(work, target, "undecryptable_secret", error)
            case InvalidTarget():
                self._hold(work, target, "invalid_authentication", error)
            case ForbiddenAddress():
                logger.warning("delivery=%s cannot be sent: %s", work.delivery_id, error)
                self.prepared.outcomes.append(Outcome(work, Status.FAILED, retry.INVALID_URL))
            case _:
                self._report(work, "sender_error", error)

    def _end_bodiless(self, work: Work, body: bytes) -> None:
        if body is FAULTY:
            self._report(work, "sender_error", "its body cannot be written.")
        elif body is UNFIT:
            self.prepared.outcomes.append(Outcome(work, Status.FAILED, "invalid_payload"))
        else:
            self.prepared.outcomes.append(Outcome(work, Status.CANCELLED, "erased"))

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
        content: Content,
        body_format: str,
        url: str,
        letter: senders.Letter | None,
    ) -> Request:
        message_id, body = content.message_id, content.bodies[body_format]
        if letter is not None:
            headers = senders.write(work.sender, letter)
        else:
            content_type = payload.content_type(body_format)
            numbers = work.sequence, work.attempt_count + 1, work.coalesced_count
            version = content.name_version(letterhead.target.version)
            headers = senders.write_headers(content_type, message_id, self._timestamp, *numbers, version)
            if self.told and body_format.startswith(payload.BINARY):
                headers |= payload.envelope_headers(body_format, content.tell(body_format))
            headers["webhook-signature"] = signing.sign_all(letterhead.signers, message_id, self._timestamp, body)
        if self._is_asked_for(body_format):
            headers["origin"] = self._origin
        own = letterhead.headers if by is None else self._with_credentials(letterhead, by, url)
        if own:
            headers = {name: value for name, value in own.items() if name.lower() not in headers} | headers
        return Request(work.delivery_id, url, body, headers, client_certificate=letterhead.certificate, **self._limits)

    @sensitive_variables()
    def _with_credentials(self, letterhead: Letterhead, by: HeaderAuthentication | AccessToken, url: str) -> dict[str, str]:
        """Return the target's own headers, and those by which the receiver at *url* knows who sends."""
        credentials = by.headers(url, self._now)
        return {name: value for name, value in letterhead.headers.items() if name.lower() not in credentials} | credentials

    @sensitive_variables()
    def _ask_permission(
        self, work: Work, letterhead: Letterhead, by: HeaderAuthentication | AccessToken | None, url: str
    ) -> Asker:
        target = letterhead.target
        # A sender may have made its URL of an event, whose data belongs into no lane.
        covers = url if url == target.target_url else network.cut_to_origin(url)
        asked = Handshake(url, self._origin, target.rate, covers)
        own = letterhead.headers if by is None else self._with_credentials(letterhead, by, asked.url)
        return work, target, asked, tokens.ask_permission(work, asked, own, letterhead.certificate)

    @sensitive_variables("letterhead")
    def _begin_letter(self, work: Work, letterhead: Letterhead, content: Content, body_format: str) -> senders.Letter:
        message = content.tell(body_format)
        return senders.Letter(
            target=letterhead.target,
            message=senders.tell(message, body_format),
            body=content.bodies[body_format],
            content_type=senders.content_type(body_format),
            envelope_headers=payload.envelope_headers(body_format, message),
            timestamp=self._timestamp,
            sequence=work.sequence,
            attempt=work.attempt_count + 1,
            secrets=letterhead.secrets,
            signers=letterhead.signers,
            coalesced=work.coalesced_count,
        )


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
        secrets=[key.secret for key in keys],
        authentication=check_authentication(target.authentication),
        certificate=target.client_certificate,
        until=min((key.until for key in keys if key.until is not None), default=None),
    )


def find_keys(target: WebhookTarget, only_key: str, now: datetime) -> list[Key]:
    if only_key == UNKNOWN_KEY:
        return [Key.new(now)]
    needs_pairs = only_key or signing.V1A in target.signature_versions
    ring = target.complete_keyring() if needs_pairs else target.keyring
    return [key for key in ring.live(now) if not only_key or key.id == only_key]
