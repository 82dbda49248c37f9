"""The engine on django-rq: a wake-up is a job, and the job is a worker for a while."""

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import FrameType
from typing import Any

import django_rq
from django.db import DatabaseError
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool
from rq import Queue
from rq.scheduler import RQScheduler

from djwebhooks import dispatch, lanes
from djwebhooks.conf import conf
from djwebhooks.database import read_clock
from djwebhooks.engines.base import Engine
from djwebhooks.worker import Worker

logger = logging.getLogger(__name__)

#: Seconds that Redis may take, and for which it is left alone after it failed.
REDIS_TIMEOUT, REDIS_PAUSE = 0.3, 5.0
#: Seconds for which one wake-up stands for all.
FLAG_SECONDS = 5
#: Seconds that a job works at most, and goes on looking when there is nothing to do.
BUDGET, LINGER = 60.0, 1.0
#: The name of the workers that jobs are.
JOB_WORKER = "rq"


class RQEngine(Engine):
    """Wakes a worker by a job on the queue ``DJWEBHOOKS_QUEUE``. It never lets Redis' trouble become the caller's."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._warned_at = 0.0

    def wake(self, using: str, at: datetime | None = None) -> None:
        if time.monotonic() < self._silent_until or getattr(_here, "is_working", False):
            return
        try:
            queue = fast_queue(conf.QUEUE)
            if at is None:
                self._enqueue(queue, using)
            else:
                self._enqueue_at(queue, using, at)
        except RedisError as error:
            self._silent_until = time.monotonic() + REDIS_PAUSE
            logger.warning("Redis failed, so workers were not woken; what was committed is sent by the next one: %s", error)

    def _enqueue(self, queue: Queue, using: str) -> None:
        flag = wake_flag(using)
        if not queue.connection.set(flag, 1, nx=True, ex=FLAG_SECONDS):
            return
        try:
            queue.enqueue_call(run_job, args=(using,), **job_options())
        except RedisError:
            queue.connection.delete(flag)
            raise

    def _enqueue_at(self, queue: Queue, using: str, at: datetime) -> None:
        flag = f"djwebhooks:{using}:at:{int(at.timestamp())}"
        seconds = max(1, int((at - datetime.now(UTC)).total_seconds()) + 60)
        if not queue.connection.set(flag, 1, nx=True, ex=seconds):
            return
        options = job_options()
        job = queue.create_job(run_job, args=(using,), **options)
        queue.schedule_job(job, at)
        if not has_scheduler(queue) and time.monotonic() - self._warned_at > 60:
            self._warned_at = time.monotonic()
            logger.warning(
                "No RQ scheduler runs for the queue %r, so retries wait for new events: start rqworker with --with-scheduler.",
                queue.name,
            )


def job_options() -> dict[str, Any]:
    timeout = BUDGET + conf.seconds("TIMEOUT") + 60
    return {"timeout": int(timeout), "result_ttl": 0, "failure_ttl": 3600, "description": "djwebhooks: send what is due"}


def wake_flag(using: str) -> str:
    return f"djwebhooks:{using}:wake"


def has_scheduler(queue: Queue) -> bool:
    """Whether some ``rqworker --with-scheduler`` looks after the queue's planned jobs."""
    return bool(queue.connection.exists(RQScheduler.get_locking_key(queue.name)))


@lru_cache
def fast_queue(name: str) -> Queue:
    """Return the queue on a Redis client of our own, which gives up fast and enqueues at once."""
    client = django_rq.get_connection(name)
    pool = client.connection_pool
    fast = {"socket_timeout": REDIS_TIMEOUT, "socket_connect_timeout": REDIS_TIMEOUT, "retry": Retry(NoBackoff(), 0)}
    if isinstance(pool, SentinelConnectionPool):
        pool.connection_kwargs.update(fast)
    else:  # The pool may be a cache's as well.
        pool = ConnectionPool(connection_class=pool.connection_class, **(pool.connection_kwargs | fast))
    # django-rq's own default would wait for the default database's commit, and drop the job on its rollback.
    queue: Queue = django_rq.get_queue(name, connection=Redis(connection_pool=pool), commit_mode="auto")
    return queue


# -- the job -----------------------------------------------------------------------------------------------------------

_here = threading.local()


def run_job(using: str) -> int:
    """Be a worker until there is nothing to do, or the budget is spent, and see to it that another comes if need be.

    Returns how many outcomes were recorded.
    """
    engine = RQEngine()
    queue = fast_queue(conf.QUEUE)
    try:
        queue.connection.delete(wake_flag(using))
    except RedisError as error:
        logger.warning("Redis failed, but the work is in the database: %s", error)
    try:
        return _run(engine, using, is_async=queue.is_async)
    except DatabaseError:
        engine.wake(using, datetime.now(UTC) + timedelta(seconds=REDIS_PAUSE))
        raise


def _run(engine: RQEngine, using: str, *, is_async: bool) -> int:
    worker = Worker(using=using, budget=BUDGET, burst=not is_async, linger=LINGER, name=JOB_WORKER, most=conf.RQ_JOBS)
    with _stopping_on_sigterm(worker), _no_nested_jobs(is_async=is_async):
        recorded = worker.run()
    if is_async:
        at = worker.retry_enlisting_at or next_due(using)
        if at is not None:
            engine.wake(using, at if at > read_clock(using) else None)
    return recorded


def next_due(using: str) -> datetime | None:
    """When there is something to do next; a time that has passed for now."""
    if dispatch.has_waiting(using):
        return read_clock(using)
    times = [at for at in (lanes.next_due_lane(using), dispatch.next_planned(using)) if at is not None]
    return min(times, default=None)


@contextmanager
def _stopping_on_sigterm(worker: Worker) -> Iterator[None]:
    """Let a deploy's SIGTERM end the work cleanly: without a handler it would kill the job with requests in flight."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        worker.stop()
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _no_nested_jobs(*, is_async: bool) -> Iterator[None]:
    """On a queue with ``ASYNC: False`` a wake-up is run in its caller: what is fired by a build is sent by the same job."""
    _here.is_working = not is_async
    try:
        yield
    finally:
        _here.is_working = False
