"""Limits of one target, kept by several workers together, some of which are killed."""

import threading
from collections.abc import Callable
from itertools import combinations

import pytest
from django.contrib.auth.models import User

from djwebhooks.events import fire
from djwebhooks.models import Attempt, Lane, Worker
from djwebhooks.testing.receiver import Conversation, Receiver
from tests.builders import make_target, make_user
from tests.engines.processes import wait_until
from tests.faults.ledger import Ledger
from tests.faults.processes import Launcher

pytestmark = pytest.mark.django_db(transaction=True)

WORKERS, EVENTS = 3, 45


@pytest.fixture
def owner() -> User:
    return make_user()


def run_workers(launcher: Launcher, count: int, is_over: Callable[[], bool] = lambda: True) -> None:
    """Run workers side by side until all is sent; whoever holds the lane is killed, twice.

    The lease of the dead ends when what they had sent *is_over*, as it does when its time has passed.
    """
    workers = [launcher.command("webhooks", "work", "--concurrency", "16") for _ in range(WORKERS)]
    for part in (1, 2):
        wait_until(lambda part=part: Attempt.objects.count() >= count * part // 3, "a third more is sent")
        holder = Lane.objects.get().holder
        place = Worker.objects.filter(pk=holder).values_list("place", flat=True).first()
        for worker in workers:
            if place is not None and place.endswith(f":{worker.pid}"):
                worker.kill()
                wait_until(is_over, "what the dead worker had sent is over")
                Worker.objects.filter(pk=holder).update(expires_at="2026-01-01T00:00Z")
    wait_until(lambda: Attempt.objects.count() >= count, "all is sent")


def test_workers_keep_to_a_rate_together(launcher: Launcher, owner: User) -> None:
    """No span of time has more requests than the rate allows."""
    rate = 20
    with Ledger() as ledger:
        make_target(owner, url=ledger.url_for("/limited"), rate_limit=60 * rate, rate_period="minute")
        for number in range(EVENTS):
            fire("a.b", number, owner=owner)
        run_workers(launcher, EVENTS)

    starts = sorted(Attempt.objects.values_list("started_at", flat=True))
    for first, last in combinations(range(len(starts)), 2):
        # Two workers' ideas of the database's time differ by milliseconds.
        assert last - first + 1 <= (starts[last] - starts[first]).total_seconds() * rate + 1.5


def test_workers_keep_to_a_number_of_requests_together(launcher: Launcher, owner: User) -> None:
    """A lane has one worker at a time, which counts; the next one comes when what the dead had sent is over."""
    counter = Counter()
    with Receiver(counter.answer) as receiver:
        make_target(owner, url=receiver.url, concurrency_limit=3)
        for number in range(EVENTS):
            fire("a.b", number, owner=owner)
        run_workers(launcher, EVENTS, lambda: counter.now == 0)

    assert counter.most == 3


class Counter:
    """A receiver that counts how many requests it has at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = 0

    def answer(self, conversation: Conversation) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            conversation.receiver.stopping.wait(0.05)
            conversation.answer(200)
        finally:
            with self.lock:
                self.now -= 1
