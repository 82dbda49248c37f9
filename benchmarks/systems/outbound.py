"""django-outbound-webhooks: an outbox with a relay, on django-domain-events."""

import base64
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.systems.base import System

if TYPE_CHECKING:
    from benchmarks.notes.models import Note


class OutboundWebhooks(System):
    """One relay, which sends one delivery after the other."""

    name = "django-outbound-webhooks"
    requirements = ("django-outbound-webhooks==0.4.0", "django~=5.2.0", "psycopg[binary]>=3.2.2")
    pace = 12
    databases = ("postgresql",)
    apps = ("django_domain_events", "django_outbound_webhooks")
    settings = {"DJANGO_OUTBOUND_WEBHOOKS": {"ALLOW_PRIVATE_ADDRESSES": True}}
    worker = (sys.executable, "-m", "django", "deliver_events")

    def subscribe(self, urls: Sequence[str]) -> None:
        from django_outbound_webhooks import register_endpoint

        secret = f"whsec_{base64.b64encode(b'only for benchmarks 24+').decode()}"
        for url in urls:
            register_endpoint(name=url, url=url, secret=secret, event_names=["notes.NoteSaved"])

    def save(self, note: "Note") -> None:
        from django_domain_events import fire

        from benchmarks.notes.events import NoteSaved

        note.save()
        fire(NoteSaved(note.pk, note.text, note.number, note.fired_at))

    def count_recorded(self) -> int:
        from django_domain_events.models import DeliveryRecord

        return int(DeliveryRecord.objects.filter(status="succeeded").count())
