"""How an event is written and sent, in small steps that applications may change."""

import logging
import traceback
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import requests
from django.utils.module_loading import import_string
from django.views.decorators.debug import sensitive_variables
from rq.timeouts import BaseTimeoutException

from djwebhooks import network, payload, signing
from djwebhooks.conf import conf
from djwebhooks.exceptions import (
    ConfigurationError,
    ForbiddenAddress,
    InvalidPayload,
    InvalidTarget,
    PayloadTooLarge,
    SenderFault,
    UnknownSender,
)
from djwebhooks.models import Attempt, Delivery, WebhookTarget
from djwebhooks.models.validation import check_sender, check_sender_headers
from djwebhooks.payload import Message
from djwebhooks.transports.base import USER_AGENT
from djwebhooks.versions import choose_version

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).parent
#: What a sender may be asked.
STEPS = ("payload", "body", "url", "headers", "sign", "after")
#: How the formats of bodies begin that a sender has written; its name follows.
PREFIX = "sender:"
#: How many times ``DJWEBHOOKS_PAYLOAD_LIMIT`` a sender's body may have.
SIZE_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Letter:
    """One attempt to send an event to a target: what the steps ``url``, ``headers`` and ``sign`` know.

    *message* is the event, *body* its bytes, of which *content_type* says what they are. *timestamp* is when it is signed, in
    Unix seconds, *sequence* its number in the target's queue and *attempt* which attempt it is, both from 1. *secrets* are the
    target's live ``whsec_…``, the newest first; they belong into no log, and into no header. *coalesced* is for how many earlier
    events it stands.
    """

    target: WebhookTarget
    message: Message = field(repr=False)
    body: bytes = field(repr=False)
    content_type: str
    #: What the envelope says in headers, and not in the body.
    envelope_headers: Mapping[str, str] = field(repr=False)
    timestamp: int
    sequence: int
    attempt: int
    secrets: Sequence[str] = field(repr=False)
    signers: Sequence[signing.Signer] = field(repr=False)
    coalesced: int = 0

    @property
    def signature(self) -> str:
        """What ``webhook-signature`` holds: a signature by each live key (Standard Webhooks 1.0.0, "Signature scheme")."""
        return signing.sign_all(self.signers, str(self.message.uid), self.timestamp, self.body)


class Sender:
    """Writes events and sends them. Override the steps that are to be different; each has one small question to answer.

    ``payload`` and ``body`` see the event alone: what they return is kept, and sent at every attempt to every target. With
    neither of them, the body is that of the envelope. All steps run in the worker, one after the other, while nothing else does:
    they must be quick, and keep away from the network and the database; ``after`` may use the latter. One that raises, or returns
    what cannot be sent, keeps its delivery waiting.
    """

    #: The ``content-type`` of what ``body`` returns.
    content_type = "application/json"
    #: Whether ``message.owner`` is known for all targets. For the system's own it always is.
    tells_owner = False
    #: Whether owners may choose it for their targets, through the API. What it sends goes to whichever URL they say: it must
    #: add nothing that they may not know.
    is_for_owners = False

    def payload(self, message: Message) -> object:
        """Return what the body says: anything that JSON can hold. By default, the standard envelope."""
        owner = {} if message.owner is None else {"owner": message.owner}
        timestamp = payload.write_timestamp(message.created_at)
        return {"type": message.name, "timestamp": timestamp, **owner, "data": message.data}

    def body(self, message: Message) -> bytes | str:
        """Return the bytes to send; a string is sent as UTF-8. By default, ``payload`` as JSON.

        May raise ``InvalidPayload``, which fails the delivery.
        """
        return payload.encode(self.payload(message), limit=SIZE_FACTOR * conf.PAYLOAD_LIMIT)

    def url(self, letter: Letter) -> str:
        """Return where to send it. By default, to the target's URL. The rules for those hold for any other, too."""
        return letter.target.target_url

    def headers(self, letter: Letter) -> Mapping[str, str]:
        """Return the headers, but for the target's own, its authentication and the signature."""
        message_id, version = str(letter.message.uid), letter.message.version
        numbers = letter.timestamp, letter.sequence, letter.attempt, letter.coalesced
        return {**write_headers(letter.content_type, message_id, *numbers, version), **letter.envelope_headers}

    def sign(self, letter: Letter) -> Mapping[str, str]:
        """Return the headers that prove who sends."""
        return {"webhook-signature": letter.signature}

    def after(self, delivery: Delivery, attempt: Attempt) -> None:
        """Do something once *attempt* is recorded. By default, nothing."""


class FormSender(Sender):
    """Sends forms, as dj-webhooks did: the payload's own fields, then ``hash``, ``owner``, ``event`` and ``attempt``.

    ``hash`` is the event's id in hexadecimal. ``attempt`` is always 1, since every attempt sends the same bytes; the header
    ``webhook-attempt`` has the true one. dj-webhooks' field ``url`` is left out, as all targets get one body.
    """

    content_type = "application/x-www-form-urlencoded"
    tells_owner = True
    is_for_owners = True

    def payload(self, message: Message) -> Mapping[str, object]:
        """Return the fields of the form. Raises ``InvalidPayload`` if the payload is no object."""
        data = message.data
        if not isinstance(data, dict):
            raise InvalidPayload(f"A form needs a payload that is an object, and that of {message.name!r} is none.")
        return {**data, "hash": message.uid.hex, "owner": message.owner, "event": message.name, "attempt": 1}

    def body(self, message: Message) -> str:
        """Return the form as requests encodes it: a list is a field for each item, None is left out."""
        return str(requests.Request("POST", "http://localhost", data=self.payload(message)).prepare().body)


def write_headers(
    content_type: str, message_id: str, timestamp: int, sequence: int, attempt: int, coalesced: int, version: str
) -> dict[str, str]:
    """Return the headers of every webhook, without its signature.

    For how many earlier events it stands is told if there are any, and its *version* if that has a name.
    """
    headers = {
        "content-type": content_type,
        "user-agent": USER_AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-sequence": str(sequence),
        "webhook-attempt": str(attempt),
    }
    if coalesced:
        headers["webhook-coalesced"] = str(coalesced)
    if version:
        headers["webhook-version"] = version
    return headers


# -- finding a sender --------------------------------------------------------------------------------------------------


def find(name: str) -> Sender:
    """Return the sender called *name*. Raises ``UnknownSender``, also if its path in ``DJWEBHOOKS_SENDERS`` leads to none."""
    try:
        check_sender(name)
    except InvalidTarget as error:
        raise UnknownSender(str(error.message)) from None
    path = conf.SENDERS[name]
    try:
        return _load(path)
    except BaseTimeoutException:
        raise
    except (Exception, SystemExit) as error:  # Whatever the application's module does.
        raise UnknownSender(f"The sender {name!r} is {path!r} in DJWEBHOOKS_SENDERS, which cannot be used: {error}") from error


@cache
def _load(path: str) -> Sender:
    found = import_string(path)
    if not (isinstance(found, type) and issubclass(found, Sender)):
        raise ConfigurationError("it is not a subclass of djwebhooks.senders.Sender.")
    return found()


def find_fault(name: str) -> str:
    """Say why nothing can be sent by the sender *name*; empty if nothing is wrong with it, or if it is none."""
    try:
        if name:
            find(name)
    except UnknownSender as error:
        return str(error)
    return ""


def is_for_owners(name: str) -> bool:
    """Whether owners may choose the sender *name*, and see that it is chosen."""
    return name in conf.SENDERS and not find_fault(name) and find(name).is_for_owners


def check_for_owners(name: str) -> None:
    """Raise ``InvalidTarget`` for a sender that owners may not choose, as if there was none."""
    if name and not is_for_owners(name):
        there_are = ", ".join(repr(sender) for sender in conf.SENDERS if is_for_owners(sender)) or "none"
        raise InvalidTarget(f"There is no sender {name!r} to choose. There are: {there_are}.")


def has_own_body(sender: Sender) -> bool:
    """Whether *sender* writes bodies of its own, instead of the envelope's."""
    return _overrides(sender, "payload") or _overrides(sender, "body")


def wants_attempts(name: str) -> bool:
    """Whether the sender *name* does something after an attempt."""
    return not find_fault(name) and _overrides(find(name), "after")


def _overrides(sender: Sender, step: str) -> bool:
    return getattr(type(sender), step) is not getattr(Sender, step)


# -- bodies ------------------------------------------------------------------------------------------------------------


def find_format(name: str, envelope: str, *, with_owner: bool, version: str) -> str:
    """Return the format of the bodies that the sender *name* sends in *envelope*; without a name, nobody changes them.

    *with_owner* and *version* as in ``payload.envelope_format``. Raises ``UnknownSender`` and ``ConfigurationError``.
    """
    sender = find(name) if name else None
    if sender is None or not has_own_body(sender):
        return payload.envelope_format(envelope, with_owner=with_owner, version=version)
    return payload.add_version(f"{PREFIX}{name}{'+owner' if with_owner or sender.tells_owner else ''}", version)


def find_format_for(target: WebhookTarget, sender: str, versions: Collection[str]) -> str:
    """Return the format that *target* gets an event in which was fired with *sender*, if any, and has these *versions*.

    Raises ``UnknownSender``.
    """
    name, version = target.sender or sender or conf.SENDER, choose_version(target.version, versions)
    return find_format(name, target.envelope or conf.ENVELOPE, with_owner=target.owner_id is None, version=version)


def list_formats(versions: Iterable[str]) -> list[str]:
    """Return all formats that an event may have which has these *versions*."""
    own = [f"{PREFIX}{name}{suffix}" for name in conf.SENDERS for suffix in ("", "+owner")]
    return [payload.add_version(wrapping, version) for wrapping in (*payload.FORMATS, *own) for version in versions]


def _find_writer(body_format: str) -> Sender | None:
    wrapping, _ = payload.split_format(body_format)
    name = wrapping.removeprefix(PREFIX).removesuffix("+owner")
    return find(name) if wrapping.startswith(PREFIX) else None


def content_type(body_format: str) -> str:
    """Return the ``content-type`` header for a body in *body_format*. Raises ``UnknownSender``."""
    writer = _find_writer(body_format)
    return payload.content_type(body_format) if writer is None else writer.content_type


def render(body_format: str, message: Message) -> bytes:
    """Return the exact body of *message* in a *body_format* from ``find_format``.

    Raises ``InvalidPayload``, ``ConfigurationError`` and ``SenderFault``.
    """
    writer = _find_writer(body_format)
    if writer is None:
        return payload.render(body_format, message)
    step = f"{type(writer).__name__}.body()"
    try:
        body = _ask(writer, "body", tell(message, body_format))
        content = body.encode() if isinstance(body, str) else body
    except UnicodeEncodeError:
        raise SenderFault(f"{step} returned a string that UTF-8 cannot hold.") from None
    except SenderFault as fault:
        if isinstance(fault.__cause__, InvalidPayload):
            raise fault.__cause__ from None
        raise
    if not isinstance(content, bytes) or not content:
        raise SenderFault(f"{step} must return bytes or a string, not an empty one, and not {type(body).__name__}.")
    if len(content) > SIZE_FACTOR * conf.PAYLOAD_LIMIT:
        raise PayloadTooLarge(f"{step} returned {len(content)} bytes, more than {SIZE_FACTOR} times DJWEBHOOKS_PAYLOAD_LIMIT.")
    return content


def tell(message: Message, body_format: str) -> Message:
    """Return *message* as a sender may know it: without its owner, if the format does not tell."""
    return message if payload.tells_owner(body_format) else replace(message, owner=None)


# -- sending -----------------------------------------------------------------------------------------------------------


@sensitive_variables()
def address(name: str, letter: Letter) -> str:
    """Return the URL that the sender *name* sends *letter* to. Raises ``SenderFault``, and ``ForbiddenAddress``."""
    sender = find(name)
    url = _ask(sender, "url", letter)
    if not isinstance(url, str):
        raise SenderFault(f"{type(sender).__name__}.url() must return a string, not {type(url).__name__}.")
    try:
        return network.check_url(url)
    except InvalidTarget as error:
        raise ForbiddenAddress(f"{type(sender).__name__}.url() returned a URL that cannot be sent to. {error.message}") from None


@sensitive_variables()
def write(name: str, letter: Letter) -> dict[str, str]:
    """Return the headers that the sender *name* gives *letter*, their names in lower case. Raises ``SenderFault``."""
    sender, written = find(name), dict[str, str]()
    for step in ("headers", "sign"):
        headers = _ask(sender, step, letter)
        try:
            written |= check_sender_headers(headers)
        except InvalidTarget as error:
            raise SenderFault(f"{type(sender).__name__}.{step}() returned what cannot be sent. {error.message}") from None
    return written


def follow_up(name: str, delivery: Delivery, attempt: Attempt) -> None:
    """Have the sender *name* do what it does after *attempt*. If it raises, that is logged and harms nothing."""
    try:
        _ask(find(name), "after", delivery, attempt)
    except (UnknownSender, SenderFault) as error:
        logger.error("delivery=%s: %s", delivery.pk, error)


@sensitive_variables()
def _ask(sender: Sender, step: str, *arguments: object) -> object:
    try:
        return getattr(sender, step)(*arguments)
    except BaseTimeoutException:
        raise
    except (Exception, SystemExit) as error:
        raise SenderFault(f"{type(sender).__name__}.{_locate(error, sender, step)}.") from error


def _locate(error: BaseException, sender: Sender, step: str) -> str:
    """Say which step raised, and where: the innermost that is the application's own, as those of the library ask for each other.

    What the error says may quote a secret or a payload, and is left out.
    """
    calls = list(traceback.walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in calls if not Path(frame.f_code.co_filename).is_relative_to(LIBRARY)]
    steps = [call for call in own if call[0].f_code.co_name in STEPS and call[0].f_locals.get("self") is sender]
    frame, line = (steps or own or calls)[-1]
    name = frame.f_code.co_name if steps else step
    return f"{name}() raised {type(error).__name__} in {frame.f_code.co_filename}, line {line}"
