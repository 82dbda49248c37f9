"""Real workers for tests, and waiting for what they do."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Semaphore

from django.db import connection
from rq import Queue, SimpleWorker

from djwebhooks.testing.receiver import Answer, Conversation
from djwebhooks.worker import Worker

#: Seconds after which a test gives up: many, as a busy machine is not an error.
PATIENCE = 60.0
PROJECT = Path(__file__).parent.parent.parent


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Return once *condition* holds; fail with *what* was waited for."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


class SleepyWorker(Worker):
    """Polls once, and then only when it is called."""

    def _poll(self) -> None:
        super()._poll()
        self._next_poll = math.inf


def work_sleepily() -> None:
    """Be such a worker, with the transport of the settings."""
    SleepyWorker().run()


#: The connections that wait for notices on PostgreSQL.
LISTENERS = "FROM pg_stat_activity WHERE query = 'LISTEN djwebhooks' AND state = 'idle' AND datname = current_database()"


def list_listeners() -> list[int]:
    """Return the server's processes whose connections wait for notices."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pid {LISTENERS}")
        return [pid for (pid,) in cursor.fetchall()]


def terminate_listeners() -> int:
    """Cut these connections, and return how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        return len(cursor.fetchall())


class RQWorkerProcess:
    """A running ``manage.py rqworker``, its output in a file."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_ready(self) -> None:
        wait_until(lambda: "Listening on" in self.output, "the rqworker listens")

    def children(self) -> list[int]:
        """The processes that it forked: the one that runs a job, if no scheduler is asked for."""
        table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [line.split() for line in table.splitlines()]
        return [int(pid) for pid, parent in pairs if int(parent) == self.process.pid]

    def signal_all(self, number: signal.Signals) -> None:
        """Signal it and what it forked, as a service manager does; its own group first, as a terminal does."""
        for pid in (self.process.pid, *self.children()):
            with suppress(ProcessLookupError):  # A job may have ended since they were listed.
                os.kill(pid, number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)


@contextmanager
def rqworker(environment: dict[str, str], directory: Path, *options: str) -> Iterator[RQWorkerProcess]:
    """Run ``rqworker default`` with *options*; whatever of it is left at the end is killed."""
    log = directory / f"rqworker-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "django", "rqworker", "default", *options]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=environment, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        worker = RQWorkerProcess(process, log)
        try:
            yield worker
        except BaseException:
            sys.stderr.write(worker.output)  # pytest shows it with the failure
            raise
        finally:
            if process.poll() is None:
                worker.signal_all(signal.SIGKILL)
            process.wait()


def run_jobs(queue: Queue) -> None:
    """Run what is queued, in this process, until nothing is."""
    SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="WARNING")


def answer_after(gate: Event, *, but_first: int = 0) -> Answer:
    """Return what answers once *gate* is open, except that it answers some first requests at once.

    A sender trusts a target with few requests at a time until it has answered.
    """
    at_once = Semaphore(but_first)

    def answer_patiently(conversation: Conversation) -> None:
        if not at_once.acquire(blocking=False):
            while not gate.wait(0.05):
                if conversation.receiver.stopping.is_set():
                    return
        conversation.answer()

    return answer_patiently
