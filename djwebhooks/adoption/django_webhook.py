"""django-webhook, and django-webhook2 with the same tables: endpoints that want topics, each with secrets of its own."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings
from django.views.decorators.debug import sensitive_variables

from djwebhooks import signing
from djwebhooks.adoption.packages import Package, Rename
from djwebhooks.adoption.tables import Found, OldSecret, Row, read_rows, read_time
from djwebhooks.database import as_uuid
from djwebhooks.hidden import HiddenBytes, HiddenText

#: What may become of a row, as its topics say it, and as it is said here.
HAPPENINGS = {"create": "created", "update": "updated", "delete": "deleted"}


def read(using: str, table: str) -> Iterator[Found]:
    app = table.removesuffix("_webhook")
    topics, secrets = read_topics(using, app), read_secrets(using, app)
    for row in _read(using, table, "url", "active", "uuid", "created"):
        of_row = secrets[row["id"]]
        usable = [secret for secret in of_row if secret.text]
        yield Found(
            row,
            url=row["url"],
            events=tuple(topics[row["id"]]),
            is_active=bool(row["active"]),
            secrets=tuple(usable),
            uid=as_uuid(row["uuid"]),
            created_at=read_time(row["created"]),
            remark=remark_on(of_row, usable),
        )


def read_topics(using: str, app: str) -> Mapping[int, list[str]]:
    """Return the topics that each endpoint wants, by its id."""
    names = {row["id"]: row["name"] for row in _read(using, f"{app}_webhooktopic", "name")}
    topics = defaultdict(list)
    for row in _read(using, f"{app}_webhook_topics", "webhook_id", "webhooktopic_id"):
        pk = row["webhooktopic_id"]
        topics[row["webhook_id"]].append(names.get(pk, f"number {pk}, which there is not"))
    return topics


@sensitive_variables()
def read_secrets(using: str, app: str) -> Mapping[int, list[OldSecret]]:
    """Return the secrets of each endpoint, by its id, the newest first."""
    secrets = defaultdict(list)
    for row in reversed(_read(using, f"{app}_webhooksecret", "webhook_id", "token", "created")):
        secrets[row["webhook_id"]].append(OldSecret(write_secret(row["token"]), read_time(row["created"])))
    return secrets


@sensitive_variables()
def write_secret(token: str) -> str:
    """Return the ``whsec_…`` that signs with *token*'s bytes; nothing, if they are too few or too many for one."""
    key = HiddenBytes(token.encode())
    fits = signing.LEAST_SECRET_BYTES <= len(key) <= signing.MOST_SECRET_BYTES
    return HiddenText(signing.SECRET_PREFIX + signing.encode_base64(key)) if fits else ""


def remark_on(secrets: Sequence[OldSecret], usable: Sequence[OldSecret]) -> str:
    if len(usable) == len(secrets) > 0:
        return ""
    if not secrets:
        return "It had no secret, and gets one."
    rest = "The others go on signing." if usable else "It gets a new one."
    return f"{len(secrets) - len(usable)} of its secrets cannot be kept, as a secret has 24 to 64 bytes. {rest}"


def _read(using: str, table: str, *columns: str) -> Sequence[Row]:
    return read_rows(using, table, columns, package=NAME)


def name_event(topic: str) -> str:
    """``shop.Order/create`` is called ``shop.Order.create``."""
    return topic.replace("/", ".")


def suggest(rename: Rename) -> Mapping[str, Any]:
    labels = getattr(settings, "DJANGO_WEBHOOK", {}).get("MODELS", ())
    entries = {
        rename(f"{label}/{word}"): {"on": f"{label}.{happening}", "owner": None}
        for label in labels
        for word, happening in HAPPENINGS.items()
    }
    return {"DJWEBHOOKS_EVENTS": {name: {} for name in entries}, "DJWEBHOOKS_MODEL_EVENTS": entries} if entries else {}


NAME = "django-webhook"
BODIES = 'Bodies are {"type": …, "timestamp": …, "data": …}, and data holds the primary key alone, unless "payload" names more.'
REMARKS = (
    "Requests are signed as Standard Webhooks says, in other headers; a kept secret is whsec_ and the old one in base64.",
    "What happens while a target is inactive is held for it; django-webhook sent it to nobody.",
    'Topics were nobody\'s. Where targets belong to owners, say with "owner" whose an event is, or "broadcast": True.',
)
DJANGO_WEBHOOK, DJANGO_WEBHOOK2 = (
    Package(
        name=name,
        table="django_webhook_webhook",
        other_tables=(
            "django_webhook_webhookevent",
            "django_webhook_webhooksecret",
            "django_webhook_webhook_topics",
            "django_webhook_webhooktopic",
        ),
        owner_column="",
        read=read,
        bodies=BODIES,
        name_event=name_event,
        suggest=suggest,
        remarks=REMARKS,
    )
    for name in (NAME, "django-webhook2")
)
