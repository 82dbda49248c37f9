"""Run the handlers of what was received: one message, one transaction, at a time."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import close_old_connections, connections, transaction
from rq.timeouts import BaseTimeoutException

from djwebhooks.database import DatabaseNow, check_autocommit, clean_text, lock_free_rows, run_transaction
from djwebhooks.exceptions import ConfigurationError, LostTransaction
from djwebhooks.inbox.handlers import Handler, find_handlers, run_handler
from djwebhooks.inbox.models import NAME_LENGTH, Message, MessageQuerySet, Status, count_attempt, describe_error, inbox_database
from djwebhooks.inbox.sources import Source, find_source, list_sources
from djwebhooks.retry import next_delay

logger = logging.getLogger(__name__)

#: Seconds between looks for messages when there are none.
POLL = 0.5
#: After how long a message whose handlers have neither ended nor failed is taken again: its worker has died. While they run,
#: the message is locked, so this need not be as long as handlers take.
LEASE = timedelta(seconds=30)
#: The first and the longest pause, in seconds, after an error of the database, or one of ours; each is twice the one before.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
#: What is said of a message whose last attempt has left no other trace.
KILLED = "The last attempt ended together with its worker."


class InboxWorker:
    """Runs handlers until it is told to stop.

    *using* is the messages' database. With *burst* it ends when nothing is due any more, with *budget* after about so many
    seconds. *sources* limits it to the messages of these sources. *has_drained* says that it has ended as there was nothing that
    it could take.
    """

    def __init__(
        self, *, using: str | None = None, burst: bool = False, budget: float | None = None, sources: Sequence[str] = ()
    ) -> None:
        self.using = using or inbox_database()
        self.burst = burst
        self.budget = budget
        self.sources = sources
        self.count = 0
        self.has_drained = False
        self._stopping = threading.Event()
        self._pause = 0.0

    def stop(self) -> None:
        """Let the handlers that run finish, and end. Safe in signal handlers and other threads."""
        self._stopping.set()

    def run(self) -> int:
        """Work until stopped, or as *burst* and *budget* say; return how many messages were worked on.

        Raises what the database raises when the worker has an end; without one, it goes on after a pause. Raises
        ``ConfigurationError`` for a connection with autocommit off, on which it could commit nothing.
        """
        started = time.monotonic()
        while not self._stopping.is_set():
            if self.budget is not None and time.monotonic() - started > self.budget:
                break
            if not self._turn():
                break
        return self.count

    def _turn(self) -> bool:
        """Work on one message, or wait for one; return whether to go on."""
        try:
            check_autocommit(self.using)
            if self.work_once():
                self.count += 1
            elif self.burst:
                self.has_drained = True
                return False
            else:
                close_old_connections()
                self._stopping.wait(POLL)
            self._pause = 0.0
        except ConfigurationError:
            raise
        except Exception:
            if self.burst or connections[self.using].in_atomic_block:
                raise
            self._pause = min(max(FIRST_PAUSE, self._pause * 2), LONGEST_PAUSE)
            logger.exception("The inbox failed; it goes on in %s seconds.", self._pause)
            connections[self.using].close()
            self._stopping.wait(self._pause)
        return True

    def work_once(self) -> bool:
        """Run the handlers of the message that has been due for longest; return whether there was one."""
        close_failed_connections()
        # Without a lock first: on SQLite nobody else can write during the transaction.
        if not find_due(self.using, self.sources).exists():
            return False
        message = run_transaction(self.using, partial(claim, self.using, self.sources))
        if message is None:
            return False
        if message.status == Status.NEW:
            attend(self.using, message)
        return True


def close_failed_connections() -> None:
    """Let handlers connect anew to where they have seen errors: a connection that broke would fail one message after the other.

    Not those that are merely old: to connect for each message costs more than the message.
    """
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()


# -- one message -------------------------------------------------------------------------------------------------------


def find_due(using: str, sources: Sequence[str]) -> MessageQuerySet:
    """The messages of these sources, or of all, that are due."""
    due = list_workable(using).due()
    return due.filter(source__in=sources) if sources else due


def list_workable(using: str) -> MessageQuerySet:
    """All messages but those of sources whose settings cannot work: they wait until these are mended."""
    messages = Message.objects.using(using)
    faulty = list(list_sources().faults)
    return messages.exclude(source__in=faulty) if faulty else messages.all()


def claim(using: str, sources: Sequence[str] = ()) -> Message | None:
    """Take the message that has been due for longest: its attempt is counted before it runs.

    A message whose attempts are all used up fails instead: the last one has killed its worker.
    """
    for message in lock_free_rows(find_due(using, sources)[:1], using):
        if message.attempt_count > len(list_pauses(message)):
            finish(using, message, Status.FAILED, error=KILLED)
            logger.warning("message=%s source=%s failed: %s", message.pk, message.source, KILLED)
        else:
            count_attempt(using, message, LEASE)
        return message
    return None


def attend(using: str, message: Message) -> None:
    """Run the handlers of a message that was claimed, in one transaction with its status; keep the error of one that raises."""
    # Handlers may do anything with the message, such as delete it.
    pk, number = message.pk, message.attempt_count
    try:
        handlers = choose_handlers(message)
        with transaction.atomic(using=using):
            run_handlers(using, message, handlers)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # Also sys.exit() in a handler: it must not end the worker of all.
        run_transaction(using, partial(fail, using, message, pk, number, error))
        # Its message may have parts of the body.
        logger.warning("message=%s source=%s attempt=%s failed: %s", pk, message.source, number, type(error).__name__)
        if isinstance(error, BaseTimeoutException):
            raise


def choose_handlers(message: Message) -> list[Handler]:
    """Return the functions that want the message, once its event is known.

    Raises ConfigurationError if its source is not: a worker of a newer version may know it.
    """
    source = find_source(message.source)
    if source is None:
        raise ConfigurationError(
            f"DJWEBHOOKS_INBOX has no source {message.source!r}, so nobody knows which handlers want its message: "
            "name the source there and replay the message, or delete it."
        )
    message.event = message.event or clean_text(source.scheme.read_event(message.headers, bytes(message.body)))[:NAME_LENGTH]
    return find_handlers(source.name, message.event, source.scheme.ping)


def run_handlers(using: str, message: Message, handlers: Sequence[Handler]) -> None:
    """Give the message its end, which locks it, and run its handlers; do nothing if somebody else has taken it meanwhile."""
    if not finish(using, message, Status.PROCESSED if handlers else Status.IGNORED):
        return
    for handler in handlers:
        run_handler(handler, message)
    if transaction.get_rollback(using):
        raise LostTransaction


def finish(using: str, message: Message, status: Status, **fields: str) -> bool:
    """End the message, if its latest attempt is the one that is known here; return whether it is."""
    mine = Message.objects.using(using).attempt(message.pk, message.attempt_count)
    end = {"status": status, "due_at": None, "finished_at": DatabaseNow(), "event": message.event, "error": ""} | fields
    for name, value in end.items():
        # A handler that saves the message must not undo its end.
        setattr(message, name, value)
    return bool(mine.update(**end))


def fail(using: str, message: Message, pk: int, number: int, error: BaseException) -> None:
    """Keep why the attempt *number* failed, and plan the next one; after the last one the message has failed."""
    pause = next_delay(number - 1, list_pauses(message))
    end: dict[str, Any] = {"status": Status.FAILED, "due_at": None, "finished_at": DatabaseNow()}
    if pause is not None:
        end = {"due_at": DatabaseNow() + timedelta(seconds=pause)}
    mine = Message.objects.using(using).attempt(pk, number)
    mine.update(error=describe_error(error), event=message.event, **end)


def list_pauses(message: Message) -> Sequence[float]:
    """Return the pauses between attempts, in seconds; those of every source if the settings do not have the message's."""
    return (find_source(message.source) or Source(name=message.source)).pauses


def next_due(using: str) -> datetime | None:
    """When there is something to do next, by the database's clock; None for never."""
    waiting = list_workable(using).filter(due_at__isnull=False).order_by("due_at")
    return waiting.values_list("due_at", flat=True).first()


@contextmanager
def working_beside(worker: InboxWorker) -> Iterator[None]:
    """Run *worker* in a thread during the block, and let it end after it: what handlers wait for delays nobody else."""
    with ThreadPoolExecutor(1, "djwebhooks-inbox") as pool:
        work = pool.submit(_run, worker)
        try:
            yield
        finally:
            if not worker.burst:
                worker.stop()
            work.result()


def _run(worker: InboxWorker) -> None:
    try:
        worker.run()
    except Exception:
        # Whoever waits for the thread hears of it only at the end.
        logger.exception("The inbox has ended; the rest goes on without it.")
        raise
    finally:
        connections.close_all()
