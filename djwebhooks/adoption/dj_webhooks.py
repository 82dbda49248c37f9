"""dj-webhooks: a row for each event that somebody wants at an address."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings

from djwebhooks.adoption.packages import Package, Rename
from djwebhooks.adoption.tables import Found, read_rows, read_time


def read(using: str, table: str) -> Iterator[Found]:
    for row in read_rows(using, table, ["event", "target_url", "created"], package=NAME):
        yield Found(
            row,
            url=row["target_url"],
            events=(row["event"],),
            identifier=row.get("identifier", ""),  # Its last release had none.
            envelope="flat",
            created_at=read_time(row["created"]),
        )


def suggest(rename: Rename) -> Mapping[str, Any]:
    suggested: dict[str, Any] = {}
    if events := getattr(settings, "WEBHOOK_EVENTS", ()):
        suggested["DJWEBHOOKS_EVENTS"] = {rename(name): {} for name in events}
    if owner_field := getattr(settings, "WEBHOOK_OWNER_FIELD", ""):
        suggested["DJWEBHOOKS_OWNER_FIELD"] = owner_field
    attempts = getattr(settings, "WEBHOOK_ATTEMPTS", ())
    if attempts and isinstance(attempts, list | tuple):
        suggested["DJWEBHOOKS_RETRY_SCHEDULE"] = tuple(attempts[1:] if attempts[0] == 0 else attempts)
    return suggested


NAME = "dj-webhooks"
PACKAGE = Package(
    name=NAME,
    table="djwebhooks_webhooktarget",
    other_tables=("djwebhooks_delivery",),
    owner_column="owner_id",
    read=read,
    bodies="Bodies are JSON: the payload's keys, event and owner. dj-webhooks sent forms, as djwebhooks.senders.FormSender does.",
    suggest=suggest,
    remarks=(
        "A target without an identifier gets its owner's events with any; dj-webhooks sent it those without one alone.",
        "Retries go on for three days unless DJWEBHOOKS_RETRY_SCHEDULE says otherwise; dj-webhooks never read WEBHOOK_ATTEMPTS.",
    ),
)
