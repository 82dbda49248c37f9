"""This project, with each of its transports, and with each of its engines."""

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks.systems.base import System

if TYPE_CHECKING:
    from benchmarks.notes.models import Note

#: The transports and what they are, as far as this environment has them, and how fast one worker is with each, roughly.
TRANSPORTS = {"requests": ("djwebhooks.transports.requests.RequestsTransport", 1200)}
if find_spec("djwebhooks.transports.curl") and find_spec("pycurl"):
    TRANSPORTS["curl"] = ("djwebhooks.transports.curl.CurlTransport", 3000)


class Djwebhooks(System):
    """``fire`` in the application's transaction, ``manage.py webhooks work`` beside it."""

    apps: Sequence[str] = ("djwebhooks",)
    worker = (sys.executable, "-m", "django", "webhooks", "work")

    def __init__(self, transport: str) -> None:
        path, self.pace = TRANSPORTS[transport]
        self.name = f"djwebhooks-{transport}"
        self.settings: Mapping[str, Any] = {
            "DJWEBHOOKS_ENGINE": "djwebhooks.engines.database.DatabaseEngine",
            "DJWEBHOOKS_TRANSPORT": path,
            "DJWEBHOOKS_ALLOW_HTTP": True,
            "DJWEBHOOKS_ALLOWED_NETWORKS": ["127.0.0.0/8"],
        }

    def subscribe(self, urls: Sequence[str]) -> None:
        from djwebhooks.models import WebhookTarget

        for url in urls:
            WebhookTarget.objects.register(url, ["note.saved"], owner=None)

    def save(self, note: "Note") -> None:
        from djwebhooks.events import fire

        note.save()
        fire("note.saved", {"id": note.pk, "text": note.text, "number": note.number, "fired_at": note.fired_at})

    def count_recorded(self) -> int:
        from djwebhooks.models import Delivery

        return Delivery.objects.filter(status="succeeded").count()


class DjwebhooksOnRQ(Djwebhooks):
    """The same, woken by a job on django-rq's queue."""

    apps = ("django_rq", "djwebhooks")
    worker = (sys.executable, "-m", "django", "rqworker", "default")

    def __init__(self, transport: str) -> None:
        super().__init__(transport)
        self.name = f"djwebhooks-{transport}-rq"
        self.settings = {**self.settings, "DJWEBHOOKS_ENGINE": "djwebhooks.engines.rq.RQEngine"}


class DjwebhooksInBreadth(Djwebhooks):
    """The same with a thousand requests in flight, for receivers that are slow."""

    def __init__(self, transport: str) -> None:
        super().__init__(transport)
        self.name = f"djwebhooks-{transport}-1000"
        self.settings = {**self.settings, "DJWEBHOOKS_CONCURRENCY": 1000}


OWN = tuple(make(transport) for make in (Djwebhooks, DjwebhooksOnRQ, DjwebhooksInBreadth) for transport in TRANSPORTS)
