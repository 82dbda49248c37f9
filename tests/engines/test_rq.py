"""The engine on django-rq: what a wake-up may cost, and that jobs send everything, whatever is killed."""

import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import django_rq
import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import connection, transaction
from redis import Redis
from rq import Queue
from rq.registry import FailedJobRegistry, ScheduledJobRegistry, StartedJobRegistry

from djwebhooks import engines
from djwebhooks.database import DatabaseNow, sql_now
from djwebhooks.decorators import hook
from djwebhooks.engines import jobs, rq
from djwebhooks.engines.rq import RQEngine, full_flag, run_job, wake_flag
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Event, Lane, WebhookTarget, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.testing.receiver import Conversation, Receiver, slow
from djwebhooks.wakeups import MOMENT
from djwebhooks.worker import work
from example_project.services import Service
from tests.builders import make_target, make_user
from tests.engines.processes import answer_after, rqworker, run_jobs, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

Environment = Callable[..., dict[str, str]]
ENGINE = "djwebhooks.engines.rq.RQEngine"


@pytest.fixture(autouse=True)
def engine(settings: LazySettings) -> Iterator[None]:
    settings.DJWEBHOOKS_ENGINE = ENGINE
    engines._make.cache_clear()
    yield
    engines._make.cache_clear()
    jobs._make_queue.cache_clear()


@pytest.fixture
def owner(receiver: Receiver, settings: LazySettings) -> User:
    """Somebody who wants every event; making the target wakes nobody here."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
    user = make_user()
    make_target(user, url=receiver.url)
    settings.DJWEBHOOKS_ENGINE = ENGINE
    return user


@pytest.fixture
def client(queue: Queue) -> Redis:
    return queue.connection


def ids(receiver: Receiver) -> list[str]:
    return [request.headers["webhook-id"] for request in receiver.requests]


def all_have_succeeded() -> bool:
    return not Event.objects.waiting().exists() and not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()


class Listener:
    """Accepts connections, counts them and never says a word."""

    def __init__(self) -> None:
        self.connections = 0
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(accepted)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in self._open:
            each.close()


@pytest.fixture
def silent_redis(settings: LazySettings) -> Iterator[Listener]:
    """A Redis that hangs."""
    listener = Listener()
    settings.RQ_QUEUES = {"default": {"URL": f"redis://127.0.0.1:{listener.port}/0"}}
    yield listener
    jobs.fast_queue("default").connection.close()
    listener.close()


# -- a wake-up when Redis fails ----------------------------------------------------------------------------------------


def test_a_refused_wake_up_harms_nobody(owner: User, caplog: pytest.LogCaptureFixture) -> None:
    """With Redis down the call that fires goes on, the log says so once, and the event is committed."""
    for number in range(3):
        fire("a.b", {"n": number}, owner=owner)

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Redis failed" in caplog.text
    assert Event.objects.count() == 3


def test_a_hanging_redis_is_given_up_and_left_alone(silent_redis: Listener) -> None:
    """The first wake-up gives up; the next ones do not even connect for a while."""
    engine = RQEngine()

    engine.wake("default")
    tried = silent_redis.connections
    for _ in range(5):
        engine.wake("default")
        engine.wake("default", datetime.now(UTC) + timedelta(seconds=9))

    assert tried >= 1
    assert silent_redis.connections == tried
    assert engine.bell._silent_until > 0


def test_after_the_pause_redis_is_tried_again(silent_redis: Listener) -> None:
    """A Redis that failed is not given up for ever."""
    engine = RQEngine()
    engine.wake("default")
    tried = silent_redis.connections

    engine.bell._silent_until = 0.0  # as if the pause were over
    engine.wake("default")

    assert silent_redis.connections > tried


@pytest.mark.parametrize(
    "config",
    [
        {"URL": "redis://127.0.0.1:1/0"},
        {"URL": "redis://127.0.0.1:1/0?socket_timeout=90"},
        {"HOST": "127.0.0.1", "PORT": 1, "REDIS_CLIENT_KWARGS": {"socket_timeout": 90}},
        {"SENTINELS": [("127.0.0.1", 1)], "MASTER_NAME": "main", "SOCKET_TIMEOUT": 90},
    ],
    ids=["url", "slow url", "host", "sentinel"],
)
def test_its_client_is_impatient_whatever_the_queue_says(settings: LazySettings, config: dict[str, Any]) -> None:
    """However the queue's own connection is set up, a wake-up's has short timeouts and no retries."""
    settings.RQ_QUEUES = {"default": config}

    pool = jobs.fast_queue("default").connection.connection_pool
    pools = [pool]
    if "SENTINELS" in config:
        pools += [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    for each in pools:
        connection = each.make_connection()
        timeouts = (connection.socket_timeout, connection.socket_connect_timeout, connection.retry._retries)
        assert timeouts == (jobs.REDIS_TIMEOUT, jobs.REDIS_TIMEOUT, 0)
    RQEngine().wake("default")  # refused, and harmless


def test_the_queues_own_client_is_left_alone(redis: str, queue: Queue) -> None:
    """The impatience is that of wake-ups: jobs of the application keep their client."""
    jobs.fast_queue("default")

    assert django_rq.get_connection("default").connection_pool.connection_kwargs.get("socket_timeout") != jobs.REDIS_TIMEOUT


def test_the_queue_follows_its_setting(settings: LazySettings, redis: str) -> None:
    """Another address in RQ_QUEUES is another client."""
    first = jobs.fast_queue("default")
    assert jobs.fast_queue("default") is first

    settings.RQ_QUEUES = {"default": {"URL": redis.replace("/0", "/1")}}

    assert jobs.fast_queue("default").connection.connection_pool.connection_kwargs["db"] == 1


def test_what_a_dead_redis_missed_comes_with_the_next_wake_up(
    redis_service: Service, queue: Queue, receiver: Receiver, owner: User
) -> None:
    """What was committed while Redis was dead is sent by the job that the next event wakes."""
    redis_service.kill()
    fire("a.b", {}, owner=owner)
    redis_service.start()
    engines._make.cache_clear()  # as if the pause were over

    fire("a.b", {}, owner=owner)
    run_jobs(queue)

    assert len(set(ids(receiver))) == 2
    assert all_have_succeeded()


def test_a_flush_of_redis_loses_nothing(client: Redis, receiver: Receiver, owner: User) -> None:
    """Without its wake-ups, what was committed is sent by any worker that looks, with no Redis at all."""
    fire("a.b", {}, owner=owner)
    client.flushall()

    work(burst=True)

    assert len(receiver.requests) == 1
    assert all_have_succeeded()


# -- one wake-up for many ----------------------------------------------------------------------------------------------


def test_one_job_stands_for_many_commits(queue: Queue, client: Redis, owner: User) -> None:
    """Until the job begins, no other is queued; the flag that says so has an end of its own."""
    for _ in range(5):
        fire("a.b", {}, owner=owner)

    assert len(queue) == 1
    assert 0 < client.ttl(wake_flag("default")) <= jobs.FLAG_SECONDS


def test_commits_shortly_after_one_another_ask_redis_once(long_moment: None, client: Redis, owner: User) -> None:
    """Each would cost the application a round trip."""
    before = count_evals(client)
    for _ in range(3):
        fire("a.b", {}, owner=owner)

    assert count_evals(client) == before + 1


def count_evals(client: Redis) -> int:
    stats = client.info("commandstats")
    return int(stats.get("cmdstat_eval", {"calls": 0})["calls"])


def test_a_job_looks_last_a_moment_after_others_may_be_woken(queue: Queue, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever woke nobody, as somebody else had just done it, has committed until then."""
    lowered_at, looked_at = [], []

    class Watched(rq.JobWorker):
        def lower_flag(self) -> None:
            super().lower_flag()
            lowered_at.append(time.monotonic())

    def note_time(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        looked_at.append(time.monotonic())
        return execute(sql, *arguments)

    monkeypatch.setattr(rq, "JobWorker", Watched)
    fire("a.b", {}, owner=owner)
    with connection.execute_wrapper(note_time):
        run_jobs(queue)

    first_look_after = min(at for at in looked_at if at > lowered_at[0])
    assert first_look_after - lowered_at[0] >= MOMENT


def test_a_rollback_queues_nothing(queue: Queue, owner: User) -> None:
    """An event that was not committed wakes nobody."""
    with transaction.atomic():
        fire("a.b", {}, owner=owner)
        assert len(queue) == 0
        transaction.set_rollback(True)

    assert len(queue) == 0


def test_a_wake_up_is_not_undone_by_another_transaction(queue: Queue) -> None:
    """The job is queued at once, even inside a transaction of the default database that is rolled back later."""
    with transaction.atomic():
        RQEngine().wake("other")
        assert len(queue) == 1
        transaction.set_rollback(True)

    assert queue.jobs[0].args == ("other",)


def test_a_job_says_nothing_but_where_to_look(queue: Queue, owner: User) -> None:
    """Its only argument is the database's alias; its time is the budget, an exchange and a minute; it leaves no result."""
    fire("a.b", {"secret": "x"}, owner=owner)

    job = queue.jobs[0]
    assert (job.func, job.args, job.kwargs) == (run_job, ("default",), {})
    assert job.timeout == int(rq.BUDGET + 15 + 60)
    assert job.result_ttl == 0
    assert not {"djwebhooks", "x"} & set(job.description.split('"'))


def test_a_failed_enqueue_lowers_the_flag(queue: Queue, client: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A flag without a job would keep others from waking a worker."""
    client.set(queue.key, "no list")  # whatever wants to push onto it fails

    RQEngine().wake("default")

    assert not client.exists(wake_flag("default"))
    assert "Redis failed" in caplog.text


def test_a_failed_plan_lowers_its_flag(queue: Queue, client: Redis) -> None:
    """The same for a wake-up in the future."""
    client.set(ScheduledJobRegistry(queue=queue).key, "no sorted set")

    RQEngine().wake("default", datetime.now(UTC) + timedelta(seconds=100))

    assert client.keys("djwebhooks:*") == []


def test_a_job_leaves_nothing_in_redis(queue: Queue, client: Redis, receiver: Receiver, owner: User) -> None:
    """No job, no result and no flag is left once everything is sent."""
    fire("a.b", {}, owner=owner)

    run_jobs(queue)

    assert len(receiver.requests) == 1
    assert [key for key in client.keys("*") if b"rq:job:" in key or b"rq:results" in key or b"djwebhooks" in key] == []
    assert not Worker.objects.exists()


def test_jobs_do_not_pile_up_behind_one_that_works(queue: Queue, client: Redis, receiver: Receiver, owner: User) -> None:
    """While a job works, commits wake no other, though it lowered the flag before it looked; it sends what they wrote."""
    seen: list[tuple[int, int]] = []

    def fire_meanwhile(conversation: Conversation) -> None:
        if b"first" in conversation.request.body:
            seen.append((client.exists(wake_flag("default")), client.exists(full_flag("default"))))
            for _ in range(3):
                RQEngine().wake("default")
            seen.append((client.exists(wake_flag("default")), len(queue)))
        conversation.answer()

    receiver.answers = [fire_meanwhile]
    fire("a.b", {"n": "first"}, owner=owner)

    run_jobs(queue)

    assert seen == [(0, 1), (0, 0)]
    assert not client.exists(full_flag("default"))


# -- planned wake-ups --------------------------------------------------------------------------------------------------


def planned(queue: Queue) -> list[int]:
    """The seconds for which jobs are planned."""
    registry = ScheduledJobRegistry(queue=queue)
    return sorted(int(registry.get_scheduled_time(job_id).timestamp()) for job_id in registry.get_job_ids())


def test_a_wake_up_is_planned_once_for_each_second(queue: Queue, redis: str) -> None:
    """A later one does not replace an earlier one, nor the other way round, and the same one is planned once."""
    engine, start = RQEngine(), datetime.now(UTC).replace(microsecond=0)

    for seconds in (300, 100, 300, 100, 200):
        engine.wake("default", start + timedelta(seconds=seconds))

    assert planned(queue) == [int(start.timestamp()) + seconds for seconds in (100, 200, 300)]
    assert len(queue) == 0


def test_a_planned_wake_up_is_never_early(queue: Queue, redis: str) -> None:
    """RQ knows whole seconds only: the next one is taken, as a job that is early finds nothing to do."""
    second = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=100)

    RQEngine().wake("default", second + timedelta(milliseconds=1))

    assert planned(queue) == [int(second.timestamp()) + 1]


def test_a_time_that_has_passed_is_now(queue: Queue, redis: str) -> None:
    """A wake-up for the past is queued, not planned."""
    RQEngine().wake("default", datetime.now(UTC) - timedelta(seconds=1))

    assert len(queue) == 1
    assert planned(queue) == []


def test_a_job_plans_the_retry(queue: Queue, receiver: Receiver, owner: User, settings: LazySettings) -> None:
    """After a failure one wake-up is planned for when the next attempt is due, however many events failed."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = [300]
    receiver.answers = [500]
    with transaction.atomic():
        for _ in range(3):
            fire("a.b", {}, owner=owner)

    run_jobs(queue)

    due_at = min(Delivery.objects.values_list("due_at", flat=True))
    assert len(planned(queue)) == 1
    assert due_at.timestamp() <= planned(queue)[0]


def test_a_slow_answer_of_the_database_makes_no_plan_too_early(queue: Queue, owner: User) -> None:
    """However long it takes to say what time it is: a job that comes before its time finds nothing to do."""
    at = datetime.now(UTC).replace(microsecond=1000) + timedelta(hours=1)
    fire("a.b", {}, owner=owner, deliver_at=at)

    def answer_late(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
        if sql == f"SELECT {sql_now('default')}":
            time.sleep(0.02)
        return execute(sql, *arguments)

    with connection.execute_wrapper(answer_late):
        run_jobs(queue)

    assert min(planned(queue)) > at.timestamp()


def test_a_missing_scheduler_is_said(queue: Queue, caplog: pytest.LogCaptureFixture) -> None:
    """A planned wake-up that nobody will carry out is worth a warning, once a minute."""
    engine = RQEngine()

    for seconds in (100, 200):
        engine.wake("default", datetime.now(UTC) + timedelta(seconds=seconds))

    assert not jobs.has_scheduler(queue)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "--with-scheduler" in caplog.text


# -- real rqworkers ----------------------------------------------------------------------------------------------------


def test_retries_need_nothing_but_an_rqworker_with_its_scheduler(
    redis: str, receiver: Receiver, owner: User, process_environment: Environment, tmp_path: Path
) -> None:
    """A failed delivery is tried again and arrives by `rqworker default --with-scheduler` alone, which reports nothing odd."""
    receiver.answers = [500, 200]
    environment = process_environment(DJWEBHOOKS_ENGINE=ENGINE, DJWEBHOOKS_RETRY_SCHEDULE=[1.5])
    with rqworker(environment, tmp_path, "--with-scheduler") as running:
        running.wait_ready()
        event = fire("a.b", {}, owner=owner)
        receiver.wait_for(2, timeout=60)
        wait_until(all_have_succeeded, "the success is recorded")
        assert jobs.has_scheduler(jobs.fast_queue("default"))
        running.process.terminate()
        assert running.wait() == 0

    assert ids(receiver) == [str(event.uid)] * 2
    assert [attempt.status_code for attempt in Attempt.objects.order_by("number")] == [500, 200]
    assert not re.search(r"warn|error|traceback|fail", running.output, re.IGNORECASE), running.output


def test_no_more_jobs_work_than_may(
    redis: str, queue: Queue, receiver: Receiver, owner: User, process_environment: Environment, tmp_path: Path
) -> None:
    """With six jobs for three rqworkers, two work, the others plan a wake-up and leave; the third rqworker stays free."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate)]
    # The first job waits for its answer until three rqworkers have started, and the others have run.
    environment = process_environment(DJWEBHOOKS_ENGINE=ENGINE, DJWEBHOOKS_RQ_JOBS=2, DJWEBHOOKS_TIMEOUT=300)
    fire("a.b", {}, owner=owner)
    for _ in range(5):
        queue.enqueue_call(run_job, args=("default",), **rq.job_options())
    with rqworker(environment, tmp_path), rqworker(environment, tmp_path), rqworker(environment, tmp_path):
        receiver.wait_for(1, timeout=60)
        started = StartedJobRegistry(queue=queue)
        jobs = Worker.objects.filter(name=rq.JOB_WORKER)
        # One sends, and so goes on; another may work until it has lingered; nobody else may begin.
        counts = []
        wait_until(lambda: counts.append(jobs.count()) or len(queue) == 0, "every job has begun")
        wait_until(lambda: counts.append(jobs.count()) or started.count == 1, "the surplus has left")
        assert planned(queue) != []
        gate.set()
        wait_until(all_have_succeeded, "the first job has sent all")

    assert max(counts) <= 2
    assert len(ids(receiver)) == len(set(ids(receiver))) == 1


def test_a_deploys_sigterm_loses_and_doubles_nothing(
    redis: str, queue: Queue, receiver: Receiver, owner: User, process_environment: Environment, tmp_path: Path
) -> None:
    """Told to stop, all processes at once, with requests in flight: these finish and are recorded; the rest is for the next."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate, but_first=5)]
    environment = process_environment(DJWEBHOOKS_ENGINE=ENGINE)
    with transaction.atomic():
        for number in range(100):
            fire("a.b", {"n": number}, owner=owner)
    with rqworker(environment, tmp_path) as running:
        in_flight = len(receiver.wait_for(7, timeout=60))
        running.signal_all(signal.SIGTERM)
        gate.set()
        assert running.wait() == 0

    sent = len(receiver.requests)
    assert in_flight <= sent < 100
    assert Delivery.objects.filter(status=Status.SUCCEEDED).count() == Attempt.objects.count() == sent
    assert not Worker.objects.exists()
    assert not Lane.objects.filter(holder__isnull=False).exists()
    assert len(queue) == 1
    assert FailedJobRegistry(queue=queue).count == 0
    with rqworker(environment, tmp_path):
        wait_until(all_have_succeeded, "another rqworker sends the rest")
    assert set(Counter(ids(receiver)).values()) == {1}
    assert len(receiver.requests) == 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_stops_with_its_rqworker(
    redis: str, receiver: Receiver, owner: User, process_environment: Environment, tmp_path: Path, number: signal.Signals
) -> None:
    """Where only the rqworker heeds a signal (a container's SIGTERM, a terminal's Ctrl-C), its job does not go on for long."""
    receiver.answers = [slow(0.1)]
    WebhookTarget.objects.update(concurrency_limit=1)
    with transaction.atomic():
        for count in range(600):
            fire("a.b", {"n": count}, owner=owner)
    with rqworker(process_environment(DJWEBHOOKS_ENGINE=ENGINE), tmp_path) as running:
        receiver.wait_for(3, timeout=60)
        if number == signal.SIGINT:
            running.signal_all(number)
        else:
            running.process.send_signal(number)
        assert running.wait() == 0

    assert Delivery.objects.pending().exists()
    assert Delivery.objects.filter(status=Status.SUCCEEDED).count() == len(set(ids(receiver))) == len(ids(receiver))
    assert not Worker.objects.exists()


def test_a_killed_job_is_made_good(
    queue: Queue, client: Redis, receiver: Receiver, owner: User, process_environment: Environment, tmp_path: Path
) -> None:
    """Kill the process of a job with a request in flight: RQ runs it again, and after its lease the same event arrives again."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate)]
    environment = process_environment(DJWEBHOOKS_ENGINE=ENGINE)
    event = fire("a.b", {"x": 1}, owner=owner)
    with rqworker(environment, tmp_path) as running:
        receiver.wait_for(1, timeout=60)
        os.kill(*running.children(), signal.SIGKILL)
        wait_until(lambda: planned(queue), "the job that came in its place waits for the lease")
        assert len(queue) == 0
        assert Worker.objects.count() == 1
        assert client.ttl(full_flag("default")) <= jobs.FLAG_SECONDS
        gate.set()
        # As if its flag and its lease were over.
        client.delete(full_flag("default"))
        Worker.objects.update(expires_at=DatabaseNow() - timedelta(seconds=1))
        RQEngine().wake("default")
        wait_until(all_have_succeeded, "another job sends it")

    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == str(event.uid)
    assert first.body == second.body
    assert Attempt.objects.count() == 1


def test_the_death_of_redis_in_the_middle_loses_nothing(
    redis_service: Service,
    queue: Queue,
    receiver: Receiver,
    owner: User,
    process_environment: Environment,
    tmp_path: Path,
) -> None:
    """Kill Redis while a job sends, start it empty: what was in flight is recorded, and the rest is sent, each once."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate)]
    environment = process_environment(DJWEBHOOKS_ENGINE=ENGINE)
    with transaction.atomic():
        for number in range(10):
            fire("a.b", {"n": number}, owner=owner)
    with rqworker(environment, tmp_path) as running:
        receiver.wait_for(1, timeout=60)
        redis_service.kill()
        fire("a.b", {"n": "meanwhile"}, owner=owner)
        gate.set()
        wait_until(all_have_succeeded, "the job sends all, Redis or not")
        redis_service.start()
        engines._make.cache_clear()  # as if the pause were over
        fire("a.b", {"n": "afterwards"}, owner=owner)
        if running.process.poll() is None:
            wait_until(lambda: all_have_succeeded() or running.process.poll() is not None, "it goes on, or it has ended")
    with rqworker(environment, tmp_path):
        wait_until(all_have_succeeded, "an rqworker sends what came after")

    assert len(receiver.requests) == 12
    assert set(Counter(ids(receiver)).values()) == {1}


def test_simple_workers_stop_as_well(
    redis: str, receiver: Receiver, owner: User, process_environment: Environment, tmp_path: Path
) -> None:
    """In RQ's worker without a process for each job, SIGTERM ends the job cleanly and then the worker."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate)]
    with transaction.atomic():
        for number in range(30):
            fire("a.b", {"n": number}, owner=owner)
    with rqworker(process_environment(DJWEBHOOKS_ENGINE=ENGINE), tmp_path, "--worker-class", "rq.SimpleWorker") as running:
        receiver.wait_for(1, timeout=60)
        running.process.terminate()
        gate.set()
        assert running.wait() == 0

    sent = len(receiver.requests)
    assert 1 <= sent < 30
    assert Delivery.objects.filter(status=Status.SUCCEEDED).count() == len(set(ids(receiver))) == sent
    assert not Worker.objects.exists()


# -- in this process ---------------------------------------------------------------------------------------------------


def test_the_sigterm_handler_of_the_caller_is_kept(queue: Queue, receiver: Receiver, owner: User) -> None:
    """A job puts back the handler that it found, and passes a signal on to it."""
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        own = signal.getsignal(signal.SIGTERM)
        receiver.answers = [lambda conversation: (os.kill(os.getpid(), signal.SIGTERM), conversation.answer())]
        fire("a.b", {}, owner=owner)
        run_job("default")
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)

    assert heard == [signal.SIGTERM]
    assert all_have_succeeded()


def test_a_job_may_run_in_a_thread(queue: Queue, receiver: Receiver, owner: User) -> None:
    """Where signals cannot be handled, they are not."""
    fire("a.b", {}, owner=owner)

    thread = threading.Thread(target=run_job_and_disconnect)
    thread.start()
    thread.join()

    assert all_have_succeeded()


def run_job_and_disconnect() -> None:
    try:
        run_job("default")
    finally:
        transaction.get_connection("default").close()


def test_rqs_own_timeout_is_not_swallowed(queue: Queue, receiver: Receiver, owner: User) -> None:
    """If RQ's timeout fires after all, the job fails by it, gives everything back, and the event is sent later."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate)]
    fire("a.b", {}, owner=owner)
    queue.empty()
    job = queue.enqueue_call(run_job, args=("default",), timeout=1)

    run_jobs(queue)

    assert job.is_failed
    assert "JobTimeoutException" in (job.latest_result().exc_string or "")
    assert not Worker.objects.exists()
    gate.set()
    RQEngine().wake("default")
    run_jobs(queue)
    assert all_have_succeeded()


def test_a_job_with_a_broken_database_is_followed_by_another(queue: Queue, receiver: Receiver, owner: User) -> None:
    """A job that cannot even begin fails, plans another, and the database's recovery is all that is needed."""
    fire("a.b", {}, owner=owner)
    rename_table("djw_worker", "djw_elsewhere")
    try:
        run_jobs(queue)
    finally:
        rename_table("djw_elsewhere", "djw_worker")
    assert FailedJobRegistry(queue=queue).count == 1
    assert planned(queue) != []

    RQEngine().wake("default")
    run_jobs(queue)

    assert all_have_succeeded()


def rename_table(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


# -- queues without workers --------------------------------------------------------------------------------------------


@hook("order.placed")
def order_placed(number: int, owner: User) -> dict[str, int]:
    """Fires something itself, in the worker."""
    fire("order.counted", {"count": number}, owner=owner)
    return {"number": number}


@pytest.fixture
def synchronous(redis: str, settings: LazySettings) -> Queue:
    settings.RQ_QUEUES = {"default": {"URL": redis, "ASYNC": False}}
    return django_rq.get_queue("default")


def test_a_synchronous_queue_sends_in_the_caller(synchronous: Queue, receiver: Receiver, owner: User) -> None:
    """With ASYNC False an event has arrived when the transaction's block ends."""
    with transaction.atomic():
        fire("a.b", {}, owner=owner)
        assert receiver.requests == []

    assert all_have_succeeded()
    assert len(receiver.requests) == 1


def test_a_synchronous_queue_does_not_recurse(synchronous: Queue, client: Redis, receiver: Receiver, owner: User) -> None:
    """What a hook fires while it builds is sent by the same call, without a job inside the job."""
    order_placed(7, owner)

    assert all_have_succeeded()
    assert len(receiver.requests) == 2
    assert client.keys("djwebhooks:*") == []


def test_a_synchronous_queue_does_not_wait_for_retries(synchronous: Queue, receiver: Receiver, owner: User) -> None:
    """A failure is left for later: nothing is queued and nothing planned."""
    receiver.answers = [500]

    fire("a.b", {}, owner=owner)

    assert Delivery.objects.get().attempt_count == 1
    assert (len(synchronous), planned(synchronous)) == (0, [])
