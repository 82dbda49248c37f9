"""Handlers run once: their effects and the message's status are kept together, or not at all."""

import logging
import threading
from asyncio import CancelledError
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import DatabaseError, connections, transaction
from django.db.models import F
from rq.timeouts import JobTimeoutException

from djwebhooks.events import fire
from djwebhooks.exceptions import ConfigurationError, DeletedMessage, RejectedMessage
from djwebhooks.inbox import handlers
from djwebhooks.inbox.handlers import receive
from djwebhooks.inbox.models import ERROR_LIMIT, Message, Status
from djwebhooks.inbox.worker import KILLED, InboxWorker, attend, claim, next_due, working_beside
from djwebhooks.models import WebhookTarget
from djwebhooks.testing import deliver
from tests.connections import Thread, manual_commits, postgresql_only, server_only
from tests.engines.processes import wait_until
from tests.inbox.senders import post, send, store
from tests.inbox.shop.models import Effect
from tests.inbox.shop.webhooks import break_down

pytestmark = pytest.mark.django_db
processes = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> None:
    """What fails is logged."""
    caplog.set_level(logging.INFO)


@pytest.fixture
def handling() -> Iterator[Callable[..., None]]:
    """A function that adds a handler for events of the shop, for this test."""
    before = handlers.list_receivers()

    def add(event: str, handler: handlers.Handler, source: str = "shop") -> None:
        receive(source, event)(handler)

    yield add
    handlers._receivers[:] = before


def drain() -> int:
    """Work until nothing is due."""
    return InboxWorker(burst=True).run()


def effects() -> list[tuple[str, str]]:
    return list(Effect.objects.order_by("pk").values_list("handler", "message_id"))


@processes
def test_a_worker_refuses_to_commit_nothing() -> None:
    """With autocommit off what handlers do would be undone, and done again and again."""
    send("order.paid")

    with manual_commits(), pytest.raises(ConfigurationError, match="autocommit off"):
        InboxWorker().run()

    assert effects() == []


def reload(message: Message) -> Message:
    return Message.objects.get(pk=message.pk)


def make_due() -> None:
    """Let the pauses be over."""
    Message.objects.filter(due_at__isnull=False).update(due_at=F("received_at"))


# -- once --------------------------------------------------------------------------------------------------------------


def test_the_handlers_of_a_message_run_in_their_order() -> None:
    """All that want it, and no others; then it is processed."""
    send("order.paid", message_id="msg_1")

    assert drain() == 1

    message = Message.objects.get()
    assert effects() == [("ship", "msg_1"), ("bill", "msg_1")]
    assert (message.status, message.event, message.attempt_count) == (Status.PROCESSED, "order.paid", 1)
    assert (message.due_at, message.error) == (None, "")
    assert message.finished_at is not None
    assert drain() == 0


def test_messages_are_worked_on_as_they_have_come() -> None:
    """The oldest first."""
    for number in range(5):
        store(message_id=f"msg_{number}")
    drain()

    assert [message_id for handler, message_id in effects() if handler == "ship"] == [f"msg_{number}" for number in range(5)]


def test_what_nobody_wants_is_ignored() -> None:
    """It stays, and says what it was."""
    message = store("order.forgotten")
    drain()

    assert (reload(message).status, reload(message).event) == (Status.IGNORED, "order.forgotten")


def test_an_event_may_hold_what_a_database_cannot() -> None:
    """It is replaced: no message may end the worker that looks at it."""
    message = store(body=b'{"type": "a\\u0000\\ud800' + b"x" * 300 + b'"}')

    assert drain() == 1
    assert reload(message).status == Status.IGNORED
    assert reload(message).event == "a\ufffd?" + "x" * 252


@pytest.mark.parametrize(
    ("envelope", "options"),
    [
        ("standard", {}),
        ("flat", {"event_field": "event"}),
        ("cloudevents", {}),
        ("cloudevents-binary", {"event_header": "ce-type"}),
    ],
)
def test_handlers_know_the_event_in_each_envelope(envelope: str, options: dict[str, str], settings: LazySettings) -> None:
    """As djwebhooks sends it, whatever the payload has under the names that others give to an event."""
    target = WebhookTarget.objects.create(
        event="order.paid", owner=User.objects.create(username="owner"), target_url="https://example.com/", envelope=envelope
    )
    settings.DJWEBHOOKS_INBOX = {"shop": {"scheme": "standard", "secrets": [target.secret], **options}}
    fire("order.paid", {"type": "book", "event": "print"}, owner=target.owner)

    [request] = deliver()
    assert post("shop", request.body, dict(request.headers)).status_code == 200
    drain()

    assert [handler for handler, _ in effects()] == ["ship", "bill"]
    assert Message.objects.get().event == "order.paid"


def test_pings_are_for_nobody_who_does_not_ask_for_them(handling: Callable[..., None]) -> None:
    """A handler of every event gets none; one that names it does."""
    ping, push = (store(source="github", event=event, message_id=event) for event in ("ping", "push"))
    test = store("webhook.test")
    drain()

    assert effects() == [("follow", "push")]
    assert [reload(message).status for message in (ping, push, test)] == [Status.IGNORED, Status.PROCESSED, Status.IGNORED]

    handling("webhook.test", lambda message: None)
    reload(test).replay()
    drain()

    assert reload(test).status == Status.PROCESSED


def test_a_handler_that_fails_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What it wrote is undone, why it failed is kept, and it is tried again later; the log has none of the body."""
    send("order.broken", "a private matter", "msg_1")

    with transaction.atomic():
        InboxWorker().work_once()

    message = Message.objects.get()
    assert effects() == []
    assert (message.status, message.attempt_count, message.event) == (Status.NEW, 1, "order.broken")
    assert message.due_at is not None
    assert message.error.startswith("Traceback")
    assert message.error.endswith("RuntimeError: a private matter\n")
    assert f"message={message.pk} source=shop attempt=1 failed: RuntimeError" in caplog.text
    assert "private" not in caplog.text


def test_a_message_fails_for_good_after_its_retries() -> None:
    """The first attempt, and one for each pause of the schedule."""
    message = store("order.broken")

    assert drain() == 4

    assert (reload(message).status, reload(message).attempt_count, reload(message).due_at) == (Status.FAILED, 4, None)
    assert "RuntimeError" in reload(message).error
    assert reload(message).finished_at is not None


def test_the_pauses_are_those_of_the_schedule(settings: LazySettings, handling: Callable[..., None]) -> None:
    """The source's own, or else the sender's; jittered by a fifth."""
    shop = {**settings.DJWEBHOOKS_INBOX["shop"], "retry_schedule": [100, timedelta(hours=1)]}
    settings.DJWEBHOOKS_INBOX = {"shop": shop, "elsewhere": {"scheme": "none"}}
    settings.DJWEBHOOKS_RETRY_SCHEDULE = [7000]
    handling("order.broken", break_down, source="elsewhere")
    pauses = []
    for source in ("shop", "shop", "elsewhere"):
        message = Message.objects.filter(source=source).first() or store("order.broken", source=source)
        make_due()
        InboxWorker(sources=[source]).work_once()
        planned = reload(message)
        assert planned.due_at is not None
        pauses.append((planned.due_at - message.received_at).total_seconds())

    for pause, expected in zip(pauses, (100, 3600, 7000), strict=True):
        assert expected * 0.8 - 1 <= pause <= expected * 1.2 + 60


def test_a_long_error_is_cut_at_its_beginning(handling: Callable[..., None]) -> None:
    """Its end says what happened; what a database cannot hold is replaced."""

    def fail(message: Message) -> None:
        raise ValueError("x" * ERROR_LIMIT + "\0 the end")

    handling("order.long", fail)
    message = store("order.long")
    InboxWorker().work_once()

    assert len(reload(message).error) == ERROR_LIMIT
    assert reload(message).error.endswith("\ufffd the end\n")


def test_a_handler_that_swallows_an_error_of_the_database_has_failed() -> None:
    """Its transaction can keep nothing any more, which must not pass for success."""
    message = store("order.swallowed")
    drain()

    assert effects() == []
    assert reload(message).status == Status.FAILED
    assert "LostTransaction" in reload(message).error


async def work_later() -> None:
    """Be what a wrapped asynchronous function returns."""


async def list_later() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("make", [work_later, list_later, lambda: (each for each in ())])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_handler_that_has_yet_to_run_has_failed(handling: Callable[..., None], make: Callable[[], object]) -> None:
    """What it returns is run by nobody, which must not pass for success."""
    handling("order.postponed", lambda message: make())
    message = store("order.postponed")
    drain()

    assert reload(message).status == Status.FAILED
    assert "returned something that has yet to run" in reload(message).error


def test_a_handler_cannot_undo_the_end_of_its_message() -> None:
    """To save the message, for whatever reason, does not make it run again."""
    message = store("order.saved", message_id="msg_1")

    assert drain() == 1
    assert effects() == [("save", "msg_1")]
    assert reload(message).status == Status.PROCESSED


def test_a_handler_that_deletes_its_message_can_fail(handling: Callable[..., None]) -> None:
    """Its error is kept: the deletion was undone."""

    def delete(message: Message) -> None:
        message.delete()
        raise RuntimeError("deleted")

    handling("order.deleted", delete)
    message = store("order.deleted")
    InboxWorker().work_once()

    assert "RuntimeError: deleted" in reload(message).error


@processes
def test_an_error_after_the_commit_changes_nothing() -> None:
    """What is committed has happened, whatever a callback makes of it."""
    message = store("order.later", message_id="msg_1")

    assert drain() == 1
    assert effects() == [("plan", "msg_1")]
    assert (reload(message).status, reload(message).error) == (Status.PROCESSED, "")


def test_a_message_of_an_unknown_source_waits_for_a_worker_that_knows_it(settings: LazySettings) -> None:
    """During a deploy, the application may have taken it in with settings that this worker does not have yet."""
    message = store("push", source="new", headers={"x-github-event": "push"})
    InboxWorker().work_once()

    assert (reload(message).status, reload(message).event) == (Status.NEW, "")
    assert "DJWEBHOOKS_INBOX has no source 'new'" in reload(message).error

    settings.DJWEBHOOKS_INBOX = {"new": settings.DJWEBHOOKS_INBOX["github"]}
    make_due()
    assert drain() == 1
    assert (reload(message).status, reload(message).event) == (Status.IGNORED, "push")


def test_a_message_of_a_source_that_is_gone_fails_in_the_end(settings: LazySettings) -> None:
    """Its source was taken out of the settings, and no worker knows it any more."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = [0]
    message = store(source="gone")

    assert drain() == 2
    assert reload(message).status == Status.FAILED
    assert "DJWEBHOOKS_INBOX has no source 'gone'" in reload(message).error


def test_a_source_that_cannot_work_holds_up_no_other(settings: LazySettings, caplog: pytest.LogCaptureFixture) -> None:
    """Its messages wait, with all their attempts, until its settings are mended; the log says so, and not each time."""
    shop = settings.DJWEBHOOKS_INBOX["shop"]
    settings.DJWEBHOOKS_INBOX = {"shop": shop, "bad": {"scheme": "github", "secrets": [""]}}
    message = store(source="bad")
    store()

    assert drain() == 1
    assert len(effects()) == 2
    assert (reload(message).status, reload(message).attempt_count) == (Status.NEW, 0)
    assert next_due("default") is None
    assert caplog.text.count("DJWEBHOOKS_INBOX['bad']: 'secrets' must be a list of texts") == 1

    settings.DJWEBHOOKS_INBOX = {"shop": shop, "bad": {"scheme": "github", "secrets": ["x"]}}
    assert drain() == 1


# -- attempts that end with their worker -------------------------------------------------------------------------------


def test_a_message_that_kills_its_workers_fails_in_the_end() -> None:
    """Attempts are counted before they run, so that it cannot go on for ever."""
    message = store()

    for number in range(1, 5):
        make_due()
        taken = claim("default")
        assert taken is not None
        assert taken.attempt_count == number
    make_due()
    assert drain() == 1

    assert effects() == []
    assert (reload(message).status, reload(message).error, reload(message).attempt_count) == (Status.FAILED, KILLED, 4)


def test_an_attempt_that_was_overtaken_does_nothing() -> None:
    """A worker that was suspended finds that another one has taken the message."""
    message = store()
    make_due()
    late = claim("default")
    make_due()
    drain()
    before = reload(message)
    assert late is not None
    attend("default", late)

    assert effects() == [("ship", message.message_id), ("bill", message.message_id)]
    assert reload(message).finished_at == before.finished_at


def test_a_replay_and_a_worker_that_was_suspended_run_it_once() -> None:
    """The count begins anew, and still only one of the two attempts with the same number has an effect."""
    message = store()
    late = claim("default")
    assert late is not None
    message.replay()
    again = claim("default")
    assert again is not None
    assert again.attempt_count == late.attempt_count

    attend("default", late)
    attend("default", again)

    assert len(effects()) == 2
    assert reload(message).status == Status.PROCESSED


@server_only
@processes
def test_a_message_that_is_worked_on_is_left_alone(handling: Callable[..., None]) -> None:
    """However long its handlers take: nobody else takes it, and nobody waits for it."""
    started, may_end = threading.Event(), threading.Event()

    def wait(message: Message) -> None:
        Effect.objects.create(handler="wait", message_id=message.message_id)
        started.set()
        assert may_end.wait(30)

    handling("order.slow", wait)
    store("order.slow", message_id="slow")
    with transaction.atomic():
        slow = claim("default")
    make_due()
    assert slow is not None
    thread = Thread(lambda: attend("default", slow))
    assert started.wait(30)
    store(message_id="msg_1")
    assert drain() == 1
    may_end.set()
    thread.result()

    assert sorted(effects()) == [("bill", "msg_1"), ("ship", "msg_1"), ("wait", "slow")]
    assert not Message.objects.exclude(status=Status.PROCESSED).exists()


@processes
def test_many_workers_share_the_messages() -> None:
    """Each of them is worked on once."""
    for number in range(40):
        store(message_id=f"msg_{number}")

    threads = [Thread(drain) for _ in range(4)]
    counts = [thread.result() for thread in threads]

    assert sum(counts) == 40
    assert sorted(effects()) == sorted((handler, f"msg_{number}") for number in range(40) for handler in ("ship", "bill"))


# -- again -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.PROCESSED, Status.FAILED, Status.IGNORED])
def test_a_message_can_be_replayed(status: Status) -> None:
    """Its handlers run once more, with all attempts before them."""
    message = store(status=status, attempt_count=4, error="an old one")
    message.replay()
    assert reload(message).attempt_count == 0

    assert drain() == 1
    assert len(effects()) == 2
    assert (reload(message).status, reload(message).error) == (Status.PROCESSED, "")


def test_what_was_rejected_cannot_be_replayed() -> None:
    """Nobody knows who sent it."""
    message = store(status=Status.REJECTED)
    store(status=Status.FAILED)

    with pytest.raises(RejectedMessage):
        message.replay()
    assert Message.objects.all().replay() == 1
    assert reload(message).status == Status.REJECTED


def test_what_was_deleted_cannot_be_replayed() -> None:
    """And it is said that this is why."""
    message = store(status=Status.FAILED)
    Message.objects.all().delete()

    with pytest.raises(DeletedMessage):
        message.replay()


# -- the loop ----------------------------------------------------------------------------------------------------------


def test_a_worker_may_be_for_some_sources() -> None:
    """Slow handlers of one source can have a worker of their own."""
    store(message_id="msg_1")
    store(source="github", event="push", message_id="msg_2")

    assert InboxWorker(burst=True, sources=["github"]).run() == 1
    assert effects() == [("follow", "msg_2")]


def test_a_worker_ends_when_its_budget_is_spent() -> None:
    """What is left is for the next one."""
    store()

    assert InboxWorker(budget=-1).run() == 0


@processes
def test_a_worker_waits_for_messages_until_it_is_stopped() -> None:
    """It finds what comes meanwhile."""
    worker = InboxWorker()
    thread = Thread(worker.run)
    store(message_id="msg_1")
    wait_until(lambda: len(effects()) == 2, "the message is worked on")
    worker.stop()

    assert thread.result() == 1


@processes
def test_a_worker_outlasts_a_database_that_fails(caplog: pytest.LogCaptureFixture, handling: Callable[..., None]) -> None:
    """It goes on as soon as that works again."""
    connection_is_bad = threading.Event()
    connection_is_bad.set()

    class FailingWorker(InboxWorker):
        def work_once(self) -> bool:
            if connection_is_bad.is_set():
                raise DatabaseError("gone")
            return super().work_once()

    worker = FailingWorker()
    thread = Thread(worker.run)
    wait_until(lambda: "it goes on in" in caplog.text, "the worker notices")
    connection_is_bad.clear()
    store()
    wait_until(lambda: len(effects()) == 2, "the message is worked on")
    worker.stop()
    thread.result()


@postgresql_only
@pytest.mark.django_db(databases=["default", "other"], transaction=True)
def test_a_connection_of_handlers_that_broke_fails_one_message(handling: Callable[..., None]) -> None:
    """The others connect anew, also without a pause between them."""

    def run_sql(sql: str) -> None:
        with connections["other"].cursor() as cursor:
            cursor.execute(sql)

    handling("order.cut", lambda message: run_sql("SELECT pg_terminate_backend(pg_backend_pid())"))
    handling("order.read", lambda message: run_sql("SELECT 1"))
    store("order.cut")
    others = [store("order.read") for _ in range(3)]
    drain()

    assert [reload(message).status for message in others] == [Status.PROCESSED] * 3


def test_a_burst_gives_up_when_the_database_fails() -> None:
    """Whoever started it is told."""

    class FailingWorker(InboxWorker):
        def work_once(self) -> bool:
            raise DatabaseError("gone")

    with pytest.raises(DatabaseError):
        FailingWorker(burst=True).run()


@processes
def test_a_worker_beside_others_ends_with_them() -> None:
    """A burst drains what is due; another one is stopped."""
    store()
    with working_beside(InboxWorker(burst=True)):
        pass
    assert len(effects()) == 2

    with working_beside(InboxWorker()):
        store()
        wait_until(lambda: len(effects()) == 4, "the message is worked on")


@processes
def test_a_worker_beside_others_that_fails_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it was, nobody looks at the thread: it is logged, and tried again."""
    store()

    class FailingWorker(InboxWorker):
        def work_once(self) -> bool:
            if "it goes on in" not in caplog.text:
                raise RuntimeError("a fault of ours")
            return super().work_once()

    with working_beside(FailingWorker()):
        wait_until(lambda: len(effects()) == 2, "the message is worked on")


def test_a_burst_beside_others_that_dies_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    """At once in the log, and at the end by whoever started it."""

    class DyingWorker(InboxWorker):
        def work_once(self) -> bool:
            raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError), working_beside(DyingWorker(burst=True)):
        wait_until(lambda: "The inbox has ended" in caplog.text, "the log says so")


@pytest.mark.parametrize("error", [SystemExit(3), CancelledError(), GeneratorExit()])
def test_a_handler_that_would_end_the_process_has_failed(handling: Callable[..., None], error: BaseException) -> None:
    """The messages of others are worked on all the same."""

    def end(message: Message) -> None:
        raise error

    handling("order.ending", end)
    message = store("order.ending")
    store()

    assert drain() == 5
    assert reload(message).status == Status.FAILED
    assert type(error).__name__ in reload(message).error
    assert len(effects()) == 2


def test_who_presses_ctrl_c_ends_the_worker(handling: Callable[..., None]) -> None:
    """The handler is not to blame: its message is tried again once the lease is over."""

    def interrupt(message: Message) -> None:
        raise KeyboardInterrupt

    handling("order.interrupted", interrupt)
    message = store("order.interrupted")

    with pytest.raises(KeyboardInterrupt):
        drain()
    assert (reload(message).status, reload(message).error) == (Status.NEW, "")


def test_a_job_that_runs_out_of_time_ends(handling: Callable[..., None]) -> None:
    """RQ interrupts its handler, which has failed; the job must not go on with the next message."""

    def hang(message: Message) -> None:
        raise JobTimeoutException("Task exceeded maximum timeout value (620 seconds)")

    handling("order.hanging", hang)
    message = store("order.hanging")
    store()

    with pytest.raises(JobTimeoutException):
        drain()
    assert "JobTimeoutException" in reload(message).error
    assert reload(message).attempt_count == 1
    assert effects() == []


def test_when_there_is_something_to_do_next() -> None:
    """The earliest time of all messages that wait."""
    assert next_due("default") is None

    message = store()

    assert next_due("default") == message.due_at
