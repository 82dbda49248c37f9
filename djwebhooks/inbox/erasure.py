"""Erase what messages said of somebody; that they came stays on record."""

import json
from collections.abc import Iterator
from urllib.parse import quote_plus

from djwebhooks.inbox.models import Message, inbox_database

#: Messages that are read at once.
PAGE = 200


def erase_messages(text: str, *, source: str | None = None, dry_run: bool = False, using: str | None = None) -> int:
    """Erase all messages that say *text*, such as an e-mail address or a customer's id; return how many.

    It is looked for in bodies and headers, in upper and lower case, and as JSON and forms write it. *source* limits it to the
    messages of one sender. With *dry_run* nothing is written. Raises ValueError for an empty text, which every message says.
    """
    if not text.strip():
        raise ValueError("Every message says an empty text: give one that the person's messages alone have, such as an address.")
    alias = using or inbox_database()
    messages = Message.objects.using(alias).filter(erased_at__isnull=True)
    if source is not None:
        messages = messages.filter(source=source)
    forms = {form.casefold() for form in (text, json.dumps(text)[1:-1], quote_plus(text))}
    count = after = 0
    while rows := list(messages.filter(pk__gt=after).order_by("pk").only("body", "headers")[:PAGE]):
        found = [row.pk for row in rows if any(form in said for said in list_texts(row) for form in forms)]
        count += len(found) if dry_run else Message.objects.using(alias).filter(pk__in=found).erase()
        after = rows[-1].pk
    return count


def list_texts(message: Message) -> Iterator[str]:
    yield bytes(message.body).decode(errors="replace").casefold()
    yield from (value.casefold() for value in message.headers.values())
