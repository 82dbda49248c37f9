"""What there is to send of each event: its exact bytes in each format, written once and for all."""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.apps import apps
from rq.timeouts import BaseTimeoutException

from djwebhooks import database, senders
from djwebhooks.exceptions import InvalidPayload, SenderFault
from djwebhooks.filters import judge
from djwebhooks.models import Body, Event, WebhookTarget
from djwebhooks.models.events import BUILD_TRIES
from djwebhooks.owners import name_of_owner, owner_model
from djwebhooks.payload import Message, split_format, tells_owner
from djwebhooks.versions import CURRENT, choose_version, list_built, read_texts

logger = logging.getLogger(__name__)

#: Stands for the body of an event whose payload does not fit the format.
UNFIT = b"unfit"
#: Stands for the body of an event that its sender cannot write.
FAULTY = b"faulty"
#: The body of an event whose data was erased.
ERASED = b""


def is_sendable(body: bytes) -> bool:
    """Whether *body* is one to send, and none of the three that stand for what cannot be.

    Two of them are told by identity, as a sender may write the same bytes.
    """
    return body is not UNFIT and body is not FAULTY and body != ERASED


@dataclass(slots=True)
class Content:
    """What there is to send of an event."""

    message_id: str
    only_key: str
    #: The name of the sender that it was fired with, if any.
    sender: str
    is_erased: bool
    #: Whether nobody will try to build again what is not built.
    is_given_up: bool
    #: What the current version is called, if anything.
    version: str
    #: Its versions that anybody asked for, and whether each is built.
    built: Mapping[str, bool]
    #: Its bodies by their formats; and the formats that somebody wants.
    bodies: dict[str, bytes] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    #: The event itself by its versions, where a sender wants to know more than its body.
    messages: Mapping[str, Message] | None = None

    def is_built(self, version: str) -> bool:
        """Whether there is a payload for who wants *version*."""
        return self.built[choose_version(version, self.built)]

    def is_awaited(self, version: str) -> bool:
        """Whether the payload for who wants *version* has yet to be built, and may be."""
        return not (self.is_built(version) or self.is_given_up or self.is_erased)

    def name_version(self, version: str) -> str:
        """Return what that is called which those get that want *version*; empty if it has no name."""
        return choose_version(version, self.built) or self.version

    def tell(self, body_format: str) -> Message:
        """Return the event in the version of *body_format*. Raises ``ValueError`` if it cannot be told of."""
        if self.messages is None:
            raise ValueError(f"The event {self.message_id} cannot be told of: the log says why.")
        return self.messages[split_format(body_format)[1]]


@dataclass(slots=True)
class Statement:
    """What an event says, for its targets' filters to judge."""

    name: str
    #: The targets that ``urls=`` named, which get it in any case.
    direct_targets: Collection[int]
    #: Its payload's JSON text by versions.
    texts: Mapping[str, str | None]
    _payloads: dict[str, Any] = field(default_factory=dict)

    def suits(self, target: WebhookTarget) -> bool:
        """Whether the target's filters let it through, in the version that the target gets; or cannot be held against it."""
        return self.judge(target) is not False

    def judge(self, target: WebhookTarget) -> bool | None:
        """Return what the target's filters say of it, ``None`` if that takes too many comparisons."""
        version = choose_version(target.version, self.texts)
        text = self.texts[version]
        if target.pk in self.direct_targets or not text:
            return True
        if version not in self._payloads:
            self._payloads[version] = json.loads(text)
        return judge(target.filters or {}, target.events, self.name, self._payloads[version])


def read_statements(using: str, event_ids: Collection[int]) -> dict[int, Statement]:
    """Return what each event says, by its id."""
    rows = database.read_many(using, Event, ("id", "name", "target_ids", "payload", "versions"), event_ids)
    return {
        pk: Statement(name, json.loads(target_ids or "[]"), {CURRENT: text} | read_texts(versions))
        for pk, name, target_ids, text, versions in rows
    }


def read_contents(using: str, event_ids: Collection[int], now: datetime, *, with_versions: bool) -> dict[int, Content]:
    """Return what there is to send of each event, by its id; those that were deleted are left out.

    *with_versions*: whether somebody wants another version than the current one.
    """
    contents: dict[int, Content] = {}
    select = f"{WITH_VERSIONS if with_versions else CONTENT} ({', '.join(['%s'] * len(event_ids))})"
    rows = database.execute(using, select, list(event_ids)) if event_ids else []
    for pk, uid, only_key, sender, erased_at, is_built, version, versions, attempts, due_at, body_format, body in rows:
        if pk not in contents:
            is_given_up = attempts >= BUILD_TRIES and (due_at is None or database.as_time(due_at) <= now)
            message_id, is_erased, built = str(database.as_uuid(uid)), erased_at is not None, list_built(is_built, versions)
            contents[pk] = Content(message_id, only_key, sender, is_erased, is_given_up, version, built)
        if body_format is not None:
            contents[pk].bodies[body_format] = bytes(body)
    return contents


#: An event has a row for each of its bodies, or one without any.
WITH_VERSIONS = """
    SELECT event.id, uid, only_key, sender, erased_at, payload <> '', version, versions,
        build_attempts, build_due_at, format, content
    FROM djw_event AS event LEFT JOIN djw_body AS body ON body.event_id = event.id WHERE event.id IN
"""
CONTENT = WITH_VERSIONS.replace(" versions,", " '',")


def write_bodies(using: str, contents: Mapping[int, Content], told: Collection[int] = ()) -> None:
    """Write the bodies that are wanted and that nobody has written yet, and keep the messages of the events *told*.

    Whoever writes first wins, and everybody sends what the database has.
    """
    missing = [(pk, body_format) for pk, content in contents.items() for body_format in content.wanted - content.bodies.keys()]
    if not missing and not told:
        return
    messages = _read_messages(using, contents, {pk for pk, _ in missing}.union(told))
    for pk in told:
        contents[pk].messages = messages.get(pk)
    rows = []
    for pk, body_format in missing:
        body = _render(pk, messages[pk], body_format) if pk in messages else ERASED
        if body is not None:
            contents[pk].bodies[body_format] = body
            if is_sendable(body):
                rows.append((pk, body_format, body))
    if not database.insert_many(using, Body, ("event", "format", "content"), rows):
        written = Body.objects.using(using).filter(event__in=messages).values_list("event_id", "format", "content")
        for pk, body_format, content in written:
            contents[pk].bodies[body_format] = bytes(content)


#: An event by its versions, or none if its owner has no name.
Messages = Mapping[str, Message] | None


def _read_messages(using: str, contents: Mapping[int, Content], ids: Collection[int]) -> dict[int, Messages]:
    """Return the events with these *ids*, but for those that were erased."""
    columns = ["id", "uid", "name", "created_at", "payload", "owner", "erased_at"]
    if any(split_format(body_format)[1] for pk in ids for body_format in contents[pk].wanted):
        columns.append("versions")
    sources = [source for source in database.read_many(using, Event, columns, ids) if source[6] is None]
    telling = {pk for pk in ids if any(map(tells_owner, contents[pk].wanted))}
    owners = _read_owners(using, {source[5] for source in sources if source[0] in telling})
    return {source[0]: _make_messages(source, contents[source[0]].version, owners) for source in sources}


def _read_owners(using: str, ids: Collection[Any]) -> dict[Any, Any]:
    known = set(ids) - {None}
    return apps.get_model(owner_model())._base_manager.using(using).in_bulk(list(known)) if known else {}


def _make_messages(source: Sequence[Any], current: str, owners: Mapping[Any, Any]) -> Messages:
    pk, uid, name, created_at, text, owner_id, _, *versions = source
    try:
        owner = owners.get(owner_id)
        owner_name = name_of_owner(owner) if owner is not None or owner_id is None else str(owner_id)
        messages = {CURRENT: Message(uid, name, created_at, text, owner_name, current)}
        for version, other in (read_texts(versions[0]) if versions else {}).items():
            messages[version] = Message(uid, name, created_at, other or "", owner_name, version)
        return messages
    except BaseTimeoutException:
        raise
    except Exception:
        logger.exception("event=%s cannot be written, as its owner has no name.", pk)
        return None


def _render(pk: int, messages: Messages, body_format: str) -> bytes | None:
    """Return the event's body, or ``None`` when it cannot be made for a reason that nobody thought of."""
    if messages is None:
        return None
    try:
        return senders.render(body_format, messages[split_format(body_format)[1]])
    except InvalidPayload:
        return UNFIT
    except SenderFault as error:
        logger.warning("event=%s cannot be written: %s", pk, error)
        return FAULTY
    except BaseTimeoutException:
        raise
    except Exception:
        logger.exception("event=%s cannot be written in the format %s.", pk, body_format)
        return None
