"""What a worker does with lanes, one step at a time, on rows of tests."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User

from djwebhooks import lanes
from djwebhooks.database import DatabaseNow, read_clock
from djwebhooks.dispatch import dispatch
from djwebhooks.events import fire
from djwebhooks.lanes import Held, Outcome, Sent, Work
from djwebhooks.models import Delivery, Lane, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from tests.builders import make_target, make_user

DB = "default"
SECOND = timedelta(seconds=1)


def now() -> datetime:
    return read_clock(DB)


def enlist(name: str = "test") -> int:
    worker_id = lanes.enlist(DB, name, "here:1")
    assert isinstance(worker_id, int)
    return worker_id


def make_owner() -> User:
    return User.objects.filter(username="ada").first() or make_user("ada")


def make_work(count: int = 1, *, keys: Iterable[str] = ("",), name: str = "a", **fields: Any) -> WebhookTarget:
    """Make a target called *name* with *count* deliveries of each key."""
    target = make_target(make_owner(), event=f"for.{name}", url=f"http://127.0.0.1/{name}", **fields)
    for _ in range(count):
        for key in keys:
            fire(f"for.{name}", 1, owner=make_owner(), ordering_key=key)
    dispatch(DB)
    return target


def hold(worker_id: int, limit: int = 100) -> dict[int, Held]:
    return {held.target_id: held for held in lanes.lease(DB, worker_id, limit)}


def take(held: dict[int, Held], limit: int = 100, at: datetime | None = None) -> list[Work]:
    return lanes.take(DB, dict.fromkeys(held, limit), held, at or now())


def take_one(worker_id: int) -> Work:
    works = take(hold(worker_id))
    assert len(works) == 1
    return works[0]


def exchange(status: int | None = 200, **fields: Any) -> Sent:
    values: dict[str, Any] = {
        "url": "http://127.0.0.1/a", "started_at": now(), "duration": 0.1, "status_code": status, "response_headers": {},
        "response_body": "", "error": "", "detail": "", "address": "127.0.0.1",
    }  # fmt: skip
    return Sent(**(values | fields))


def success(work: Work) -> Outcome:
    return Outcome(work, Status.SUCCEEDED, sent=exchange())


def failure(work: Work, status: Status = Status.PENDING, **fields: Any) -> Outcome:
    due_at = now() + timedelta(hours=1) if status == Status.PENDING else None
    return Outcome(work, status, "http_500", **({"due_at": due_at, "sent": exchange(500)} | fields))


def own_fault(work: Work) -> Outcome:
    sent = exchange(None, error="network_unreachable")
    return Outcome(work, Status.PENDING, "network_unreachable", due_at=now() + SECOND, sent=sent, counts=False)


def record(worker_id: int, *outcomes: Outcome, at: datetime | None = None) -> lanes.Recorded:
    return lanes.record(DB, worker_id, outcomes, at or now())


def delivery_of(work: Work) -> Delivery:
    return Delivery.objects.get(pk=work.delivery_id)


def lane_of(work: Work | Held | WebhookTarget) -> Lane:
    return Lane.objects.get(pk=work.pk if isinstance(work, WebhookTarget) else work.target_id)


def due_sequences(target: WebhookTarget) -> list[int]:
    due = Delivery.objects.filter(target=target, due_at__isnull=False).order_by("sequence")
    return list(due.values_list("sequence", flat=True))


def kill(worker_id: int) -> None:
    Worker.objects.filter(pk=worker_id).update(expires_at=DatabaseNow() - SECOND)
