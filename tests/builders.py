"""Plain functions that make rows for tests."""

from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db.models.signals import pre_save
from django.utils import timezone

from djwebhooks.events import fire
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget
from djwebhooks.models.deliveries import Status
from djwebhooks.testing import deliver

URL = "http://127.0.0.1:9/hook"


def make_user(name: str = "ada", **fields: Any) -> User:
    return User.objects.create(username=name, **fields)


def make_target(owner: User | None = None, *, event: str = "*", url: str = URL, **fields: Any) -> WebhookTarget:
    return WebhookTarget.objects.create(owner=owner, event=event, target_url=url, **fields)


def live_secrets(target: WebhookTarget, at: datetime | None = None) -> list[str]:
    """The secrets that sign now, or *at* a time."""
    return [key.secret for key in target.keyring.live(at or timezone.now())]


def is_reached(target: WebhookTarget, name: str, **options: Any) -> bool:
    """Whether an event is delivered to *target*."""
    fire(name, 1, **options)
    return target.target_url in [request.url for request in deliver()]


def make_deliveries(target: WebhookTarget, count: int, status: Status, **fields: Any) -> list[Delivery]:
    """Make deliveries, one event each, as after some time of work."""
    Lane.objects.create(target=target, tail=count)
    events = Event.objects.bulk_create([Event(name="a.b", payload="1", dispatched_at="2026-01-01T00:00Z") for _ in range(count)])
    return Delivery.objects.bulk_create(
        [
            Delivery(event=event, target=target, sequence=number, status=status, **fields)
            for number, event in enumerate(events, start=1)
        ]
    )


def rotate_before_save() -> list[str]:
    """Have the next target that is saved get a new secret before that, from somebody else; return a list of it."""
    made: list[str] = []

    def rotate(instance: WebhookTarget, **_: object) -> None:
        pre_save.disconnect(rotate, WebhookTarget)
        made.append(WebhookTarget.objects.get(pk=instance.pk).rotate_secret())

    pre_save.connect(rotate, WebhookTarget, weak=False)
    return made
