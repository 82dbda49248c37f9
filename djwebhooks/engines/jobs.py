"""What our jobs on django-rq have in common: a bell that rings for them, and a queue that gives up fast."""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import django_rq
from django_rq import settings as rq_settings
from redis import ConnectionPool, Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry as RedisRetry
from redis.sentinel import SentinelConnectionPool
from rq import Queue
from rq.scheduler import RQScheduler

from djwebhooks.wakeups import Spacing

logger = logging.getLogger(__name__)

#: Seconds that Redis may take, and for which it is left alone after it failed.
REDIS_TIMEOUT, REDIS_PAUSE = 0.3, 5.0
#: Seconds for which one wake-up, or a job at work, stands for all.
FLAG_SECONDS = 5


class Bell:
    """Rings for a *job*, which is called with a database; it never lets Redis' trouble become the caller's.

    *options* are the job's on its queue, and *name* tells its flags from those of other bells. As one ring stands for those of
    the next moment, a job's last look for work is to be a moment after its start, and after it lowers a flag.
    """

    def __init__(self, job: Callable[[str], None], options: Callable[[], dict[str, Any]], name: str) -> None:
        self.job = job
        self.options = options
        self.name = name
        self._spacing = Spacing()
        self._silent_until = 0.0
        self._warn_again_at = 0.0

    def ring(self, queue_name: str, using: str, at: datetime | None = None, *, unless: str = "") -> None:
        """Put a job on the queue, now or at a time, unless one is on its way already, or the flag *unless* is set."""
        if time.monotonic() < self._silent_until:
            return
        delay = 0.0 if at is None else (at - datetime.now(UTC)).total_seconds()
        try:
            queue = fast_queue(queue_name)
            if at is not None and delay > 0:
                self._enqueue_at(queue, using, at, delay)
            elif not queue.is_async or self._spacing.needs(using):
                key = self.wake_flag(queue_name, using)

                def enqueue() -> None:
                    queue.enqueue_call(self.job, args=(using,), **self.options())

                act_once(queue, key, FLAG_SECONDS, enqueue, unless=unless)
        except RedisError as error:
            self._silent_until = time.monotonic() + REDIS_PAUSE
            logger.warning("Redis failed, so workers were not woken; the next one does what was committed: %s", error)

    def _enqueue_at(self, queue: Queue, using: str, at: datetime, delay: float) -> None:
        # RQ plans by whole seconds, and would be early by a part of one.
        second = math.ceil(at.timestamp())
        job = queue.create_job(self.job, args=(using,), **self.options())
        act_once(
            queue,
            flag(queue.name, using, f"{self.name}at:{second}"),
            math.ceil(delay) + 1,
            lambda: queue.schedule_job(job, datetime.fromtimestamp(second, UTC)),
        )
        if time.monotonic() >= self._warn_again_at and not has_scheduler(queue):
            self._warn_again_at = time.monotonic() + 60
            logger.warning(
                "No RQ scheduler runs for the queue %r, so retries wait for new events: start rqworker with --with-scheduler.",
                queue.name,
            )

    def wake_flag(self, queue_name: str, using: str) -> str:
        """The key that says: a job is on its way that has not looked for work yet."""
        return flag(queue_name, using, f"{self.name}wake")


def flag(queue_name: str, using: str, name: str) -> str:
    """A key of ours. Several applications may share a Redis, each with a queue of its own."""
    return f"djwebhooks:{queue_name}:{using}:{name}"


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


def act_once(queue: Queue, key: str, seconds: int, act: Callable[[], object], *, unless: str = "") -> None:
    """Set *key* for some seconds and *act*, if neither it nor *unless* is set.

    Raises ``RedisError``, and then it is not set.
    """
    if not queue.connection.eval(SET_UNLESS, 2, key, unless or key, seconds):
        return
    try:
        act()
    except RedisError:
        queue.connection.delete(key)
        raise


#: Asks and sets in one round trip: every commit of the application waits for it.
SET_UNLESS = "return redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 and redis.call('SET', KEYS[1], 1, 'EX', ARGV[1])"


def has_scheduler(queue: Queue) -> bool:
    """Whether some ``rqworker --with-scheduler`` looks after the queue's planned jobs."""
    return bool(queue.connection.exists(RQScheduler.get_locking_key(queue.name)))


@contextmanager
def tolerating_redis() -> Iterator[None]:
    """Log that Redis failed: the work is in the database."""
    try:
        yield
    except RedisError as error:
        logger.warning("Redis failed, but the work is in the database: %s", error)


def has_own_process() -> bool:
    """Whether RQ made this process for the job; its simple worker makes none."""
    return "RQ_WORKER_ID" in os.environ
