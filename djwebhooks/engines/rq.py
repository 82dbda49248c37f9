"""The engine on django-rq: a wake-up is a job, and the job is a worker for a while."""

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections
from redis import RedisError
from rq import Queue, Retry
from rq import Worker as RQWorker

from djwebhooks import lanes
from djwebhooks.conf import conf
from djwebhooks.engines.base import Engine
from djwebhooks.engines.jobs import (
    FLAG_SECONDS,
    REDIS_PAUSE,
    Bell,
    fast_queue,
    flag,
    has_own_process,
    tolerating_redis,
)
from djwebhooks.engines.shift import BUDGET, LINGER, inline, wake_next
from djwebhooks.engines.stopping import stopping_on_sigterm
from djwebhooks.worker import Worker

#: Seconds between a job's signs of life to Redis.
WATCH = 1.0
#: How often RQ runs a job again whose process was killed.
RETRIES = 2
#: The name of the workers that jobs are.
JOB_WORKER = "rq"


class RQEngine(Engine):
    """Wakes a worker by a job on the queue ``DJWEBHOOKS_QUEUE``. It never lets Redis' trouble become the caller's."""

    advice = "one begins with the next job, if an rqworker runs (see manage.py webhooks stats)"

    def __init__(self) -> None:
        self.bell = Bell(run_job, job_options, "")

    def wake(self, using: str, at: datetime | None = None) -> None:
        if inline.is_working:
            inline.run(using)
            return
        self.bell.ring(conf.QUEUE, using, at, unless=full_flag(using))


def wake_flag(using: str) -> str:
    """The bell's key that says: a job is on its way that has not looked for work yet."""
    return RQEngine().bell.wake_flag(conf.QUEUE, using)


def full_flag(using: str) -> str:
    """The key that says: as many jobs are at work as may be, and each of them will look once more before it ends."""
    return flag(conf.QUEUE, using, "full")


def job_options() -> dict[str, Any]:
    return {
        "timeout": int(BUDGET + conf.seconds("TIMEOUT") + 60),
        "result_ttl": 0,
        "failure_ttl": 3600,
        "retry": Retry(max=RETRIES),
        "description": "djwebhooks: send what is due",
    }


# -- the job -----------------------------------------------------------------------------------------------------------


def run_job(using: str) -> None:
    """Be a worker until there is nothing to do, or the budget is spent, and see to it that another comes if need be."""
    if has_own_process():
        # The first garbage collection after a fork would copy all that the rqworker has in memory: 100 ms.
        gc.freeze()
    queue = fast_queue(conf.QUEUE)
    with tolerating_redis():
        queue.connection.delete(wake_flag(using))
    if not queue.is_async:
        inline.run(using)
        return
    engine = RQEngine()
    try:
        close_old_connections()
        run_worker(engine, queue, using)
    except (DatabaseError, InterfaceError):
        engine.wake(using, datetime.now(UTC) + timedelta(seconds=REDIS_PAUSE))
        raise


def run_worker(engine: RQEngine, queue: Queue, using: str) -> None:
    worker = JobWorker(queue, using)
    with stopping_on_sigterm(worker.stop):
        try:
            with watching(worker):
                worker.run()
        finally:
            worker.lower_flag()
        wake_next(engine, using, worker.retry_enlisting_at)


class JobWorker(Worker):
    """The worker that a job is. When there are as many as may be, it keeps wake-ups from piling up behind it."""

    def __init__(self, queue: Queue, using: str) -> None:
        super().__init__(using=using, budget=BUDGET, linger=LINGER, name=JOB_WORKER, most=conf.RQ_JOBS)
        self.queue = queue
        self._is_full = False

    def enlist(self) -> bool:
        if not super().enlist():
            return False
        # Where there may be one, this is it.
        self._is_full = conf.RQ_JOBS == 1 or lanes.count_workers(self.using, JOB_WORKER) >= conf.RQ_JOBS
        with tolerating_redis():
            self.raise_flag()
        return True

    def raise_flag(self) -> None:
        """Say for some seconds that no other job is needed. Raises ``RedisError``."""
        if self._is_full:
            self.queue.connection.set(full_flag(self.using), 1, ex=FLAG_SECONDS)

    def lower_flag(self) -> None:
        """Let others be woken again, unless it is their flag."""
        if self._is_full:
            with tolerating_redis():
                self.queue.connection.delete(full_flag(self.using))


@contextmanager
def watching(worker: JobWorker) -> Iterator[None]:
    """Keep the worker's flag up while it works, and stop it when its rqworker is asked to stop.

    The rqworker waits for its job without a word, and whoever asked may lose patience and kill both.
    """
    has_ended = threading.Event()

    def watch() -> None:
        while not has_ended.wait(WATCH):
            with suppress(RedisError):
                worker.raise_flag()
                if is_rqworker_stopping(worker.queue):
                    worker.stop()

    thread = threading.Thread(target=watch, name="djwebhooks-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


def is_rqworker_stopping(queue: Queue) -> bool:
    """Whether the rqworker that made this process for a job was asked to stop."""
    if not has_own_process():
        return False
    key = RQWorker.redis_worker_namespace_prefix + os.environ["RQ_WORKER_ID"]
    return bool(queue.connection.hexists(key, "shutdown_requested_date"))
