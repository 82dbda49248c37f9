"""One system on a database of its own, its workers and the receiver: what the scenarios play on."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

from django.db import connections, transaction

from benchmarks.notes.models import BaseNote, Note
from benchmarks.processes import cpu_seconds, peak_memory
from benchmarks.receiver import Arrival, ReceiverClient
from benchmarks.systems.base import System
from example_project.services import Programs, wait_until

TEXT = "x" * 900
#: Seconds for which workers are waited for until they send, and for what they were given, before that counts as failed.
PATIENCE = 60.0


class TrialFailed(Exception):
    """What was to be measured did not take place, so nothing was."""


class Stage:
    """*scale* is how much of the full work is done: small for a quick look."""

    def __init__(self, system: System, receiver: ReceiverClient, programs: Programs, scale: float) -> None:
        self.system = system
        self.receiver = receiver
        self.programs = programs
        self.scale = scale
        self.workers: list[int] = []

    # -- the work -------------------------------------------------------------------------------------------------------

    def scaled(self, count: float, least: int = 1) -> int:
        """Return *count* as this run is to have it."""
        return max(least, round(count * self.scale))

    def subscribe(self, count: int, how: str = "0") -> None:
        """Have every note sent to so many endpoints that answer in this way."""
        self.system.subscribe(self.receiver.urls(count, how))

    def save(self, model: type[BaseNote] = Note) -> float:
        """Save one note in a transaction of its own, and have it sent if it is a ``Note``; return the seconds that took."""
        started = time.monotonic()
        with transaction.atomic():
            self._save(model, started)
        return time.monotonic() - started

    def save_many(self, count: int) -> float:
        """Save so many notes in one transaction; return when it had committed."""
        with transaction.atomic():
            for _ in range(count):
                self._save(Note, time.monotonic())
        return time.monotonic()

    def save_steadily(self, rate: float, seconds: float) -> float:
        """Save *rate* notes a second; return by how many seconds the latest of them was late."""
        started, latest = time.monotonic(), 0.0
        for number in range(round(rate * seconds)):
            due = started + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            latest = max(latest, time.monotonic() - due)
            self.save()
        return latest

    def _save(self, model: type[BaseNote], fired_at: float) -> None:
        if model is Note:
            self.system.save(Note(text=TEXT, fired_at=fired_at))
        else:
            model(text=TEXT, fired_at=fired_at).save()

    # -- the workers ----------------------------------------------------------------------------------------------------

    def start_workers(self, count: int = 1, *, targets: int) -> None:
        """Start workers and wait until they have sent two notes to the *targets* that there are."""
        log = Path(os.environ["BENCHMARK_LOG"])
        for _ in range(count if self.system.worker else 0):
            self.workers.append(self.programs.start(self.system.worker, dict(os.environ), log))
        before = self.receiver.count()
        in_fork(partial(self.save_many, 2)) if self.system.worker else self.save_many(2)
        self.wait_until(lambda: self.receiver.count() >= before + 2 * targets or self.has_lost_one(), PATIENCE, "no worker sends")
        if self.has_lost_one():
            raise TrialFailed(f"{self.system.name}: a worker ended; {log} says why.")
        time.sleep(1.0)  # What they still have to record, and to give back.

    def has_lost_one(self) -> bool:
        """Whether a worker has ended by itself."""
        return any(self.programs.has_ended(worker) for worker in self.workers)

    def stop_workers(self) -> None:
        """End all workers."""
        for worker in self.workers:
            self.programs.end(worker)
        self.workers.clear()

    def cpu(self) -> float:
        """Processor seconds that the workers and their children have used: of this process, where there are none."""
        return sum(map(cpu_seconds, self.workers)) if self.system.worker else time.process_time()

    def memory(self) -> float:
        """Megabytes that the workers and their children have had at most."""
        return sum(map(peak_memory, self.workers))

    # -- what came of it ------------------------------------------------------------------------------------------------

    def count(self) -> int:
        """How many deliveries are recorded; where nothing is, how many have arrived."""
        return self.system.count_recorded() if self.system.is_recording else self.receiver.count()

    def wait_until(self, is_true: Callable[[], bool], seconds: float, complaint: str) -> None:
        """Wait for something. Raises ``TrialFailed``."""
        if not wait_until(is_true, seconds):
            raise TrialFailed(f"{self.system.name}: {complaint} within {seconds:.0f} s.")

    def arrivals(self, since: float, how: str | None = None) -> list[Arrival]:
        """What was saved at *since* or later and has arrived, of those that answer in this way."""
        return [each for each in self.receiver.arrivals() if each.fired_at >= since and how in (None, each.how)]


def in_fork(measure: Callable[[], float]) -> float:
    """Return what *measure* finds in a child: some systems keep for a while in a process what they know of subscriptions."""
    connections.close_all()
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            os.write(writer, str(measure()).encode())
        finally:
            os._exit(0)  # Threads that still send, as drf-hooks' do, would keep it for ever.
    os.close(writer)
    os.wait()
    with os.fdopen(reader) as found:
        return float(found.read())


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that *percent* of all are not above; of nothing, infinity."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else float("inf")


def middle(values: Sequence[float]) -> float:
    """The median; of nothing, infinity."""
    return median(values) if values else float("inf")


def say(text: str) -> None:
    """Tell the person at the terminal; standard output is for figures."""
    sys.stderr.write(f"{text}\n")
