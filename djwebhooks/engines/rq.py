"""The engine on django-rq: a wake-up is a job, and the job is a worker for a while."""

import gc
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import FrameType
from typing import Any

import django_rq
from django.db import DatabaseError, InterfaceError, close_old_connections
from django_rq import settings as rq_settings
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry
from redis.sentinel import SentinelConnectionPool
from rq import Queue, Retry
from rq import Worker as RQWorker
from rq.scheduler import RQScheduler

from djwebhooks import dispatch, lanes, replays
from djwebhooks.conf import conf
from djwebhooks.database import read_clock
from djwebhooks.engines.base import Engine
from djwebhooks.inline import Inline
from djwebhooks.worker import Worker

logger = logging.getLogger(__name__)

#: Seconds that Redis may take, and for which it is left alone after it failed.
REDIS_TIMEOUT, REDIS_PAUSE = 0.3, 5.0
#: Seconds for which one wake-up, or a job at work, stands for all.
FLAG_SECONDS = 5
#: Seconds that a job works at most, and goes on looking when there is nothing to do.
BUDGET, LINGER = 60.0, 1.0
#: Seconds between a job's signs of life to Redis.
WATCH = 1.0
#: How often RQ runs a job again whose process was killed.
RETRIES = 2
#: The name of the workers that jobs are.
JOB_WORKER = "rq"

#: For queues with ``ASYNC: False``, whose jobs are run by the caller.
_inline = Inline()


class RQEngine(Engine):
    """Wakes a worker by a job on the queue ``DJWEBHOOKS_QUEUE``. It never lets Redis' trouble become the caller's."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._warn_again_at = 0.0

    def wake(self, using: str, at: datetime | None = None) -> None:
        if _inline.is_working:
            _inline.is_asked = True
            return
        if time.monotonic() < self._silent_until:
            return
        delay = 0.0 if at is None else (at - datetime.now(UTC)).total_seconds()
        try:
            queue = fast_queue(conf.QUEUE)
            if at is not None and delay > 0:
                self._enqueue_at(queue, using, at, delay)
            else:
                enqueue(queue, using)
        except RedisError as error:
            self._silent_until = time.monotonic() + REDIS_PAUSE
            logger.warning("Redis failed, so workers were not woken; what was committed is sent by the next one: %s", error)

    def _enqueue_at(self, queue: Queue, using: str, at: datetime, delay: float) -> None:
        # RQ plans by whole seconds, and would be early by a part of one.
        second = math.ceil(at.timestamp())
        job = queue.create_job(run_job, args=(using,), **job_options())
        act_once(
            queue,
            flag(using, f"at:{second}"),
            math.ceil(delay) + 1,
            lambda: queue.schedule_job(job, datetime.fromtimestamp(second, UTC)),
        )
        if time.monotonic() >= self._warn_again_at and not has_scheduler(queue):
            self._warn_again_at = time.monotonic() + 60
            logger.warning(
                "No RQ scheduler runs for the queue %r, so retries wait for new events: start rqworker with --with-scheduler.",
                queue.name,
            )


def enqueue(queue: Queue, using: str) -> None:
    """Put a job on *queue*, unless one is there that has not begun, or as many are at work as may be."""
    if queue.connection.exists(full_flag(using)):
        return
    act_once(queue, wake_flag(using), FLAG_SECONDS, lambda: queue.enqueue_call(run_job, args=(using,), **job_options()))


def act_once(queue: Queue, key: str, seconds: int, act: Callable[[], object]) -> None:
    """Set *key* for some seconds and *act*, unless it is set already. Raises ``RedisError``, and then it is not set."""
    if not queue.connection.set(key, 1, nx=True, ex=seconds):
        return
    try:
        act()
    except RedisError:
        queue.connection.delete(key)
        raise


def flag(using: str, name: str) -> str:
    """A key of ours. Several applications may share a Redis, each with a queue of its own."""
    return f"djwebhooks:{conf.QUEUE}:{using}:{name}"


def wake_flag(using: str) -> str:
    """The key that says: a job is on its way that has not looked for work yet."""
    return flag(using, "wake")


def full_flag(using: str) -> str:
    """The key that says: as many jobs are at work as may be, and each of them will look once more before it ends."""
    return flag(using, "full")


def job_options() -> dict[str, Any]:
    return {
        "timeout": int(BUDGET + conf.seconds("TIMEOUT") + 60),
        "result_ttl": 0,
        "failure_ttl": 3600,
        "retry": Retry(max=RETRIES),
        "description": "djwebhooks: send what is due",
    }


def has_scheduler(queue: Queue) -> bool:
    """Whether some ``rqworker --with-scheduler`` looks after the queue's planned jobs."""
    return bool(queue.connection.exists(RQScheduler.get_locking_key(queue.name)))


def fast_queue(name: str) -> Queue:
    """Return the queue on a Redis client of our own, which gives up fast and enqueues at once."""
    return _make_queue(name, repr(rq_settings.QUEUES[name]))


@lru_cache
def _make_queue(name: str, _config: str) -> Queue:
    client = django_rq.get_connection(name)
    pool = client.connection_pool
    fast = {"socket_timeout": REDIS_TIMEOUT, "socket_connect_timeout": REDIS_TIMEOUT, "retry": RedisRetry(NoBackoff(), 0)}
    if isinstance(pool, SentinelConnectionPool):
        for each in (pool, *(sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels)):
            each.connection_kwargs.update(fast)
    else:  # The pool may be a cache's as well.
        pool = ConnectionPool(connection_class=pool.connection_class, **(pool.connection_kwargs | fast))
    # django-rq's own default would wait for the default database's commit, and drop the job on its rollback.
    queue: Queue = django_rq.get_queue(name, connection=Redis(connection_pool=pool), commit_mode="auto")
    return queue


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
        _inline.run(lambda: Worker(using=using, burst=True, threaded=False).run())
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
    with stopping_on_sigterm(worker):
        try:
            with watching(worker):
                worker.run()
        finally:
            worker.lower_flag()
        # Whoever committed until now saw a job at work and did not wake another: so look once more.
        at = worker.retry_enlisting_at or next_due(using)
        if at is not None:
            # The database says when; the scheduler goes by a clock like this machine's.
            engine.wake(using, datetime.now(UTC) + (at - read_clock(using)))


class JobWorker(Worker):
    """The worker that a job is. When there are as many as may be, it keeps wake-ups from piling up behind it."""

    def __init__(self, queue: Queue, using: str) -> None:
        super().__init__(using=using, budget=BUDGET, linger=LINGER, name=JOB_WORKER, most=conf.RQ_JOBS)
        self.queue = queue
        self._is_full = False

    def enlist(self) -> bool:
        if not super().enlist():
            return False
        self._is_full = lanes.count_workers(self.using, JOB_WORKER) >= conf.RQ_JOBS
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


def next_due(using: str) -> datetime | None:
    """When there is something to do next, by the database's clock; a time that has passed for now."""
    if dispatch.has_waiting(using):
        return read_clock(using)
    times = (lanes.next_due_lane(using), lanes.next_expiry(using), dispatch.next_planned(using), replays.next_replay(using))
    return min((at for at in times if at is not None), default=None)


@contextmanager
def tolerating_redis() -> Iterator[None]:
    """Log that Redis failed: the work is in the database."""
    try:
        yield
    except RedisError as error:
        logger.warning("Redis failed, but the work is in the database: %s", error)


@contextmanager
def stopping_on_sigterm(worker: Worker) -> Iterator[None]:
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
        # RQ's SimpleWorker has set one of its own if it was called, for a second SIGTERM.
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, previous)


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


def has_own_process() -> bool:
    """Whether RQ made this process for the job; its simple worker makes none."""
    return "RQ_WORKER_ID" in os.environ


def is_rqworker_stopping(queue: Queue) -> bool:
    """Whether the rqworker that made this process for a job was asked to stop."""
    if not has_own_process():
        return False
    key = RQWorker.redis_worker_namespace_prefix + os.environ["RQ_WORKER_ID"]
    return bool(queue.connection.hexists(key, "shutdown_requested_date"))
