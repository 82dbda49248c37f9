"""Wake a worker on django-rq once a message is committed, where ``DJWEBHOOKS_INBOX_QUEUE`` names a queue for it."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from django.db import close_old_connections, transaction
from rq import Retry

from djwebhooks.conf import conf
from djwebhooks.database import is_manual, read_clock
from djwebhooks.engines.jobs import REDIS_PAUSE, Bell, fast_queue, tolerating_redis
from djwebhooks.engines.stopping import stopping_on_sigterm
from djwebhooks.inbox.worker import InboxWorker, next_due
from djwebhooks.inline import Inline
from djwebhooks.wakeups import MOMENT

#: Seconds for which a job takes new messages, and which the handlers of the last one may take besides.
BUDGET, PATIENCE = 20, 600
#: Seconds after which another job looks whether what this one could not take, as somebody works on it, was left undone.
HELD_PAUSE = 5
#: How often RQ runs a job again whose process was killed.
RETRIES = 2

#: For queues with ``ASYNC: False``, whose jobs are run by the caller.
_inline = Inline(lambda using: InboxWorker(using=using, burst=True).run())


def ring(sender: Any, *, using: str, **_: Any) -> None:
    """Wake a worker once the transaction commits: receives ``messages_due``. What fails of it costs latency only."""
    if conf.INBOX_QUEUE is not None and not is_manual(using):
        transaction.on_commit(partial(wake, using), using=using, robust=True)


def wake(using: str, at: datetime | None = None) -> None:
    """Have a worker look for messages, now or at a time."""
    if conf.INBOX_QUEUE is not None:
        _bell.ring(conf.INBOX_QUEUE, using, at)


def job_options() -> dict[str, Any]:
    return {
        "timeout": BUDGET + PATIENCE,
        "result_ttl": 0,
        "failure_ttl": 3600,
        "retry": Retry(max=RETRIES),
        "description": "djwebhooks: run the inbox's handlers",
    }


def run_job(using: str, budget: float = BUDGET) -> None:
    """Be a worker until nothing is due, or the budget is spent, and see to it that another comes if need be."""
    queue = fast_queue(conf.INBOX_QUEUE or conf.QUEUE)
    with tolerating_redis():
        queue.connection.delete(_bell.wake_flag(queue.name, using))
    if not queue.is_async:
        _inline.run(using)
        return
    worker = InboxWorker(using=using, burst=True, budget=budget)
    try:
        close_old_connections()
        with stopping_on_sigterm(worker.stop):
            worker.run()
            # Whoever committed within this moment had just woken this job, and did not wake another: so look once more.
            time.sleep(MOMENT)
            at = next_due(using)
            if at is not None:
                now = read_clock(using)
                if at <= now and worker.has_drained:
                    at = now + timedelta(seconds=HELD_PAUSE)
                # The database says when; the scheduler goes by a clock like this machine's.
                wake(using, datetime.now(UTC) + (at - now))
    except BaseException:
        # The next job looks what there is to do: the database may be what failed, or a handler have used up all time.
        wake(using, datetime.now(UTC) + timedelta(seconds=REDIS_PAUSE))
        raise


_bell = Bell(run_job, job_options, "inbox:")
