"""Kill workers and applications at random while people change their minds, and then check the books."""

import json
import os
import random
import signal
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from django.contrib.auth.models import User

from djwebhooks.database import DatabaseNow
from djwebhooks.models import Delivery, Event, Lane, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from tests.faults.books import Books, check_books, unrecorded
from tests.faults.ledger import Answer, Arrival, Key, Ledger
from tests.faults.processes import Child, Launcher
from tests.faults.recovery import run_fresh_worker
from tests.faults.world import LOOSE, ON_RQ, make_world
from tests.library.models import Author

SETTINGS = {**ON_RQ, "DJWEBHOOKS_GIVE_UP_ON": [422]}
WORK = ("webhooks", "work", "--concurrency", "8")
#: What runs at once: two workers of the database engine and one of RQ, and as many applications.
WORKERS = (WORK, WORK, ("rqworker", "default", "--with-scheduler"))
APPLICATIONS = 2
#: Events that one application fires before it ends, and another takes its place.
SHIFT = 200


@dataclass(frozen=True)
class Report:
    """What was tried, and what was found."""

    seed: int
    kills: int
    applications_killed: int
    words: int
    in_flight: int
    books: Books

    def __str__(self) -> str:
        lines = (
            f"seed {self.seed}: {self.kills} workers and {self.applications_killed} applications killed",
            f"{self.words} words of people",
            f"{self.books.events} events, {self.books.deliveries} deliveries, {self.books.arrivals} requests",
            f"{self.in_flight} in flight at a kill, {self.books.repeated.total()} repeated",
        )
        return "; ".join(lines)


def answer_by_lot(arrival: Arrival) -> Answer:
    """Answer an attempt always alike: mostly well, sometimes not, sometimes so that it is given up, and at its own pace."""
    lot = zlib.crc32(repr(arrival.key).encode())
    status = 422 if lot % 50 == 0 else 500 if lot % 10 == 1 else 200
    return Answer(status, after=lot % 10 / 1000)


class Chaos:
    """One soak: the processes that run, and what has been done to them."""

    def __init__(self, launcher: Launcher, ledger: Ledger, seed: int) -> None:
        self.launcher = launcher
        self.ledger = ledger
        self.lots = random.Random(seed)
        self.owner: User = make_world(ledger)
        self.workers: list[Child] = [self.start_worker(words) for words in WORKERS]
        self.applications: list[Child] = [self.start_application() for _ in range(APPLICATIONS)]
        self.kills = self.applications_killed = self.words = 0
        #: What was in flight at each kill, summed up: nothing else may arrive again.
        self.in_flight: Counter[Key] = Counter()

    def start_worker(self, words: tuple[str, ...]) -> Child:
        return self.launcher.command(*words, **SETTINGS)

    def start_application(self) -> Child:
        arguments = (self.lots.randrange(10**9), self.lots.randrange(10**9), SHIFT)
        return self.launcher.call("tests.faults.world.be_an_application", *arguments, **SETTINGS)

    # -- what happens ---------------------------------------------------------------------------------------------------

    def go_on(self, seconds: float, events: int) -> None:
        """Let things happen for so many seconds, or until so many events were fired."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and Event.objects.count() < events:
            self.lots.choices(*zip(*self.happenings, strict=True))[0]()
            self.replace_ended()
            time.sleep(0.3 * self.lots.random())

    @property
    def happenings(self) -> tuple[tuple[Callable[[], None], int], ...]:
        """What may happen, and how often."""
        return (
            (self.kill_worker, 6),
            (self.kill_application, 2),
            (self.pause, 1),
            (self.resume, 4),
            (self.change_order, 1),
            (self.retry, 2),
            (self.replay, 2),
        )

    def kill_worker(self) -> None:
        """Kill a worker, or a job alone; its lanes are free at once for others, as if its lease were over."""
        place = self.lots.randrange(len(self.workers))
        worker = self.workers[place]
        family = worker.family()
        if len(family) > 1 and self.lots.random() < 0.5:
            family.remove(worker.pid)
        for pid in family:
            kill_if_there(pid)
        if worker.pid in family:
            worker.wait()
        self.note_kill(family)

    def note_kill(self, pids: list[int]) -> None:
        self.kills += 1
        self.in_flight.update(unrecorded(self.ledger))
        places = [f"{socket.gethostname()}:{pid}" for pid in pids]
        Worker.objects.filter(place__in=places).update(expires_at=DatabaseNow() - timedelta(seconds=1))

    def kill_application(self) -> None:
        self.lots.choice(self.applications).kill()
        self.applications_killed += 1

    def replace_ended(self) -> None:
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                assert worker.code == -signal.SIGKILL, worker.output
                self.workers[place] = self.start_worker(WORKERS[place])
        for place, application in enumerate(self.applications):
            if application.poll() is not None:
                assert application.code in (0, -signal.SIGKILL), application.output
                self.applications[place] = self.start_application()

    # -- what people say ------------------------------------------------------------------------------------------------

    def choose_target(self) -> WebhookTarget:
        self.words += 1
        return self.lots.choice(list(WebhookTarget.objects.all()))

    def pause(self) -> None:
        self.choose_target().pause()

    def resume(self) -> None:
        for target in WebhookTarget.objects.filter(is_active=False):
            target.resume()
            self.words += 1

    def change_order(self) -> None:
        target = WebhookTarget.objects.get(target_url=self.ledger.url_for(LOOSE))
        target.is_ordered = not target.is_ordered
        target.save()
        self.words += 1

    def retry(self) -> None:
        """Retry some that have failed, or are pending still."""
        for delivery in Delivery.objects.filter(status__in=[Status.FAILED, Status.PENDING]).order_by("?")[:3]:
            delivery.retry()
            self.words += 1

    def replay(self) -> None:
        self.choose_target().replay()

    # -- the end --------------------------------------------------------------------------------------------------------

    def end(self) -> Books:
        """Kill everybody, let one fresh worker do the rest, and check the books."""
        for child in self.workers + self.applications:
            for pid in child.family():
                kill_if_there(pid)
            child.wait()
        self.note_kill([])
        self.resume()
        # Nobody waits here for a cool-down to end, or for the rate to rise again.
        Lane.objects.update(suspended_at=None, held_until=None, recovering_since=None, next_free_at=None)
        Lane.objects.exclude(due_at=None).update(due_at=DatabaseNow())
        run_fresh_worker(lambda: self.launcher.command(*WORK, "--burst", **SETTINGS))
        books = check_books(self.ledger)
        assert books.repeated <= self.in_flight, "only what was in flight at a kill is sent again"
        told = {json.loads(payload)["number"] for payload in Event.objects.values_list("payload", flat=True)}
        assert told == set(Author.objects.values_list("pk", flat=True)), "an event is there if and only if its change is"
        return books


def kill_if_there(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def soak(launcher: Launcher, *, seconds: float, events: int, seed: int) -> Report:
    """Kill at random for so many seconds, or until so many events were fired; say what was tried. A failure names the seed."""
    try:
        with Ledger(answer_by_lot) as ledger:
            chaos = Chaos(launcher, ledger, seed)
            chaos.go_on(seconds, events)
            books = chaos.end()
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return Report(seed, chaos.kills, chaos.applications_killed, chaos.words, chaos.in_flight.total(), books)
