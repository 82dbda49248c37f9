"""Erase what messages said of somebody; that they came stays on record."""

import json
import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

from djwebhooks.inbox.models import Message, inbox_database

#: Messages that are read at once: few, as each may be as large as ``body_limit``.
PAGE = 20
#: What stands for other characters inside a text of JSON.
ESCAPES = re.compile(r'(?:\\u[0-9a-fA-F]{4}|\\["\\/bfnrt])+')


def erase_messages(text: str, *, source: str | None = None, dry_run: bool = False, using: str | None = None) -> int:
    """Erase all messages that say *text*, such as an e-mail address or a customer's id; return how many.

    It is looked for in bodies and headers, in upper and lower case, and however JSON, URLs and forms write it. *source* limits
    it to the messages of one sender. With *dry_run* nothing is written. Raises ValueError for an empty text, which every message
    says.
    """
    if not text.strip():
        raise ValueError("Every message says an empty text: give one that the person's messages alone have, such as an address.")
    alias = using or inbox_database()
    messages = Message.objects.using(alias).filter(erased_at__isnull=True)
    if source is not None:
        messages = messages.filter(source=source)
    wanted = text.casefold()
    count = after = 0
    while rows := list(messages.filter(pk__gt=after).order_by("pk").only("body", "headers")[:PAGE]):
        found = [row.pk for row in rows if any(wanted in reading.casefold() for reading in list_readings(row))]
        count += len(found) if dry_run else Message.objects.using(alias).filter(pk__in=found).erase()
        after = rows[-1].pk
    return count


def list_readings(message: Message) -> Iterator[str]:
    """All that a message may say: its texts as they stand, and with what stands for other characters read as these."""
    for text in (bytes(message.body).decode(errors="replace"), *message.headers.values()):
        # JSON may be in a form, or in a text of other JSON.
        for decoded in {text, unquote(text), unquote_plus(text)}:
            unescaped = unescape(decoded)
            yield from {decoded, unescaped, unescape(unescaped)}


def unescape(text: str) -> str:
    """Return *text* with the escapes of JSON read as the characters that they stand for."""
    return ESCAPES.sub(lambda escapes: json.loads(f'"{escapes[0]}"'), text) if "\\" in text else text
