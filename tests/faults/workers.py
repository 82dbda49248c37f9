"""Workers in threads of the test's own process, and what they have sent."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import OperationalError, connection, transaction

from djwebhooks.database import DatabaseNow
from djwebhooks.decorators import hook
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event, Lane, WebhookTarget
from djwebhooks.models import Worker as WorkerRow
from djwebhooks.models.deliveries import Status
from djwebhooks.transports.base import Reply, Request
from djwebhooks.transports.memory import MemoryTransport
from djwebhooks.worker import Worker
from example_project.services import Service
from tests.connections import Thread, other_way, swapped
from tests.engines.processes import wait_until

#: The ordering keys of what ``fire_some`` fires.
KEYS = 5


@hook("thing.built", ordering_key=lambda number, owner: str(number % KEYS))
def thing_built(number: int, owner: User) -> dict[str, int]:
    return {"number": number}


def make_owner() -> User:
    """Somebody who wants everything, at an ordered target and at another one."""
    owner = User.objects.create(username="owner")
    WebhookTarget.objects.register("http://127.0.0.1:9/ordered", ["*"], owner=owner, is_ordered=True)
    WebhookTarget.objects.register("http://127.0.0.1:9/loose", ["*"], owner=owner)
    return owner


def fire_some(owner: User, count: int = 2, *, with_hooks: bool = True) -> None:
    """Fire *count* events, and as many whose payload is built by a worker."""
    for number in range(count):
        fire("thing.happened", {"number": number}, owner=owner, ordering_key=str(number % KEYS))
        if with_hooks:
            thing_built(number, owner)


def fire_at_once(owner: User, count: int) -> None:
    with transaction.atomic():
        fire_some(owner, count)


class Sent:
    """What any number of workers have sent, in its order; all of it is answered with *status*."""

    def __init__(self, status: int = 200) -> None:
        self.requests: list[Request] = []
        self._status = status
        self._lock = threading.Lock()

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self._answer)

    def _answer(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
        return Reply(request.key, status=self._status)

    def check_each_once(self) -> None:
        """Every delivery has succeeded by one request, ordered ones in their order, and nobody holds a lane."""
        assert not Event.objects.waiting().exists()
        assert list(Delivery.objects.exclude(status=Status.SUCCEEDED).values("status", "reason", "due_at")) == []
        assert Attempt.objects.count() == Delivery.objects.count() == len(self.requests)
        assert set(Counter(request.key for request in self.requests).values()) == {1}
        assert not Lane.objects.exclude(holder=None).exists()
        self._check_order()

    def _check_order(self) -> None:
        ordered = Delivery.objects.filter(target__is_ordered=True).order_by("event_id")
        keys = dict(ordered.values_list("pk", "ordering_key"))
        sent = [request.key for request in self.requests if request.key in keys]
        for key in set(keys.values()):
            assert [pk for pk in sent if keys[pk] == key] == [pk for pk in keys if keys[pk] == key]


def run_worker(sent: Sent, using: str = "other", **options: Any) -> None:
    """Work until nothing is due."""
    Worker(using=using, transport=sent.transport(), burst=True, **options).run()


def work_till_done(sent: Sent) -> None:
    """Run workers, with the leases of builds that nobody gave back at their end, until there is nothing to do."""
    with suppress(OperationalError):  # One that cannot even begin gives up.
        run_worker(sent)
    while not all_is_done():
        expire_builds()
        run_worker(sent)


@contextmanager
def working(sent: Sent, count: int = 1, using: str = "other") -> Iterator[list[Worker]]:
    """Have *count* workers at work, until all is done at the end of the block; none of them may end before."""
    workers = [Worker(using=using, transport=sent.transport()) for _ in range(count)]
    threads = [Thread(worker.run) for worker in workers]
    try:
        yield workers
        wait_until(lambda: all_is_done() or expire_builds(), "all is done")
    finally:
        assert all(thread.is_alive() for thread in threads)
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.result()
    assert not WorkerRow.objects.exists()


def all_is_done() -> bool:
    return not Event.objects.waiting().exists() and not Delivery.objects.pending().exists()


def expire_builds() -> None:
    """Let the leases of builds end that nobody gave back."""
    Event.objects.filter(payload="", build_due_at__isnull=False).update(build_due_at=DatabaseNow())


def count_failures(caplog: pytest.LogCaptureFixture) -> int:
    """How often a worker said that the database failed."""
    return sum("The database failed; the worker goes on" in record.getMessage() for record in caplog.records)


def wait_for_failures(caplog: pytest.LogCaptureFixture, count: int) -> None:
    before = count_failures(caplog)
    wait_until(lambda: count_failures(caplog) >= before + count, f"the database fails {count} times more")


def wait_for_more(sent: Sent, count: int = 1) -> None:
    """Return when *count* more requests were made, or all are."""
    wanted = len(sent.requests) + count
    wait_until(lambda: len(sent.requests) >= wanted or all_is_done(), "more is sent")


def work_through_restarts(sent: Sent, server: Service, **place: str) -> None:
    """Have two workers at work on the empty database of *server* at *place* while that is shut down, and while it crashes."""
    with other_way(**place) as alias, swapped(alias):
        call_command("migrate", verbosity=0)
        owner = make_owner()
        with working(sent, 2):
            for stop in (server.stop, server.kill):
                fire_at_once(owner, 50)
                wait_for_more(sent)
                stop()
                server.start()
                connection.close()
            fire_some(owner)
        sent.check_each_once()
