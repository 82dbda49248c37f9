"""Redis fails in every way that it has, and RQ's jobs and workers do: firing goes on, and nothing is lost or doubled."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.db import transaction
from redis import Redis, RedisError
from rq import Queue
from rq.registry import FailedJobRegistry

from djwebhooks import engines
from djwebhooks.engines import jobs
from djwebhooks.engines.rq import run_job, wake_flag
from djwebhooks.events import fire
from djwebhooks.models import Attempt, Delivery, Dispatcher, Event, Lane, Worker
from djwebhooks.models.deliveries import Status
from djwebhooks.testing.receiver import Receiver
from djwebhooks.wakeups import MOMENT
from djwebhooks.worker import work
from tests.builders import make_target, make_user
from tests.connections import postgresql_only, second_connection
from tests.engines.processes import answer_after, rqworker, run_jobs, wait_until
from tests.faults.books import check_books
from tests.faults.ledger import Ledger
from tests.faults.processes import Launcher
from tests.faults.proxy import Link, Proxy
from tests.faults.world import fire_some, make_world

pytestmark = pytest.mark.django_db(transaction=True)

ENGINE = "djwebhooks.engines.rq.RQEngine"
#: Round trips to Redis that a wake-up may take: to connect and be greeted, to raise the flag, and to enqueue.
ROUND_TRIPS = 10


@pytest.fixture
def owner(receiver: Receiver, settings: LazySettings) -> User:
    with unheard(settings):
        user = make_user()
        make_target(user, url=receiver.url)
    return user


@contextmanager
def unheard(settings: LazySettings) -> Iterator[None]:
    """Make targets without waking anybody."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.database.DatabaseEngine"
    yield
    settings.DJWEBHOOKS_ENGINE = ENGINE


@pytest.fixture(autouse=True)
def engine(settings: LazySettings, redis: str) -> Iterator[None]:
    """The engine of RQ, which nobody has woken yet."""
    settings.DJWEBHOOKS_ENGINE = ENGINE
    forget_the_pause()
    yield
    forget_the_pause()


def forget_the_pause() -> None:
    """Go on as if Redis had been left alone for long enough."""
    engines._make.cache_clear()
    jobs._make_queue.cache_clear()


@pytest.fixture
def client(redis: str) -> Iterator[Redis]:
    """What breaks Redis and mends it, over a connection that is there before."""
    with Redis.from_url(redis) as connected:
        connected.ping()
        yield connected


def all_have_succeeded() -> bool:
    return not Event.objects.waiting().exists() and not Delivery.objects.exclude(status=Status.SUCCEEDED).exists()


def check_each_arrived_once(receiver: Receiver, count: int) -> None:
    assert all_have_succeeded()
    assert Delivery.objects.count() == Attempt.objects.count() == count
    assert list(Counter(request.headers["webhook-id"] for request in receiver.requests).values()) == [1] * count


# -- Redis -------------------------------------------------------------------------------------------------------------


@contextmanager
def full(client: Redis) -> Iterator[None]:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def read_only(client: Redis) -> Iterator[None]:
    client.replicaof("127.0.0.1", 1)
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def without_replicas(client: Redis) -> Iterator[None]:
    client.config_set("min-replicas-to-write", 1)
    yield
    client.config_set("min-replicas-to-write", 0)


@contextmanager
def closed_to_us(client: Redis) -> Iterator[None]:
    client.config_set("requirepass", "another one")
    yield
    client.config_set("requirepass", "")


@contextmanager
def paused(client: Redis) -> Iterator[None]:
    client.client_pause(60_000, all=False)  # What writes: the rest would hold up the end as well.
    yield
    client.client_unpause()


@contextmanager
def frozen(client: Redis) -> Iterator[None]:
    pid = client.info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    yield
    os.kill(pid, signal.SIGCONT)


@contextmanager
def busy(client: Redis) -> Iterator[None]:
    client.config_set("busy-reply-threshold", 1)
    with Redis(connection_pool=client.connection_pool) as other:
        script = threading.Thread(target=run_until_killed, args=(other,))
        script.start()
        wait_until(lambda: is_busy(client), "the script keeps it busy")
        yield
        client.script_kill()
        script.join()


def run_until_killed(client: Redis) -> None:
    with pytest.raises(RedisError, match="killed"):
        client.eval("while true do end", 0)


def is_busy(client: Redis) -> bool:
    try:
        return not client.ping()
    except RedisError as error:
        return "BUSY" in str(error)


@pytest.mark.parametrize("broken", [full, read_only, without_replicas, closed_to_us, paused, frozen, busy])
def test_a_redis_that_fails_is_asked_once(
    broken: Callable[[Redis], Iterator[None]],
    client: Redis,
    queue: Queue,
    receiver: Receiver,
    owner: User,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever is wrong with Redis, firing goes on, tries it once and then not for a while; any worker sends what was fired."""
    before = client.info("stats")["total_connections_received"]
    with broken(client):
        for number in range(5):
            fire("a.b", {"n": number}, owner=owner)
        assert len(caplog.records) == 1
        assert "Redis failed" in caplog.text
        work(burst=True)
        check_each_arrived_once(receiver, 5)

    # To connect, and once more to take back the flag of a job that could not be enqueued.
    assert client.info("stats")["total_connections_received"] - before <= 3
    forget_the_pause()
    client.delete(wake_flag("default"))  # As if its time were over.
    fire("a.b", {"n": 5}, owner=owner)
    run_jobs(queue)
    check_each_arrived_once(receiver, 6)


def test_a_wrong_password_is_not_told(
    settings: LazySettings, redis: str, client: Redis, owner: User, caplog: pytest.LogCaptureFixture
) -> None:
    """Where Redis refuses our password, the log says that it failed, and not with which password."""
    client.config_set("requirepass", "the right one")
    settings.RQ_QUEUES = {"default": {"URL": redis.replace("//", "//:the-wrong-one@")}}
    fire("a.b", {}, owner=owner)
    client.config_set("requirepass", "")

    assert "Redis failed" in caplog.text
    assert "the-wrong-one" not in caplog.text
    assert Event.objects.count() == 1


@pytest.fixture
def proxy(redis: str, settings: LazySettings) -> Iterator[Proxy]:
    """Stands between the application and Redis."""
    port = urlsplit(redis).port
    with Proxy(lambda: socket.create_connection(("127.0.0.1", port))) as running:
        settings.RQ_QUEUES = {"default": {"URL": f"redis://127.0.0.1:{running.port}/0"}}
        yield running
        settings.RQ_QUEUES = {"default": {"URL": redis}}


class Delay:
    """Delays each answer of a server by so many seconds, and counts them."""

    def __init__(self, seconds: float) -> None:
        self.answers = 0
        self._seconds = seconds
        self._never = threading.Event()

    def __call__(self, link: Link, data: bytes) -> bool:
        self.answers += 1
        self._never.wait(self._seconds)
        return True


def test_a_slow_redis_delays_by_a_few_answers(proxy: Proxy, client: Redis, owner: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a Redis that is not too slow, the first wake-up waits for a few answers, and those behind it for one each."""
    monkeypatch.setattr(jobs, "REDIS_TIMEOUT", 60.0)
    delay = proxy.on_answer = Delay(2 * MOMENT)
    fire("a.b", {}, owner=owner)
    first, delay.answers = delay.answers, 0
    client.expire(wake_flag("default"), 60)  # A busy machine may take longer than it stands.
    for _ in range(3):
        fire("a.b", {}, owner=owner)

    assert 4 <= first <= ROUND_TRIPS
    assert delay.answers == 3
    assert client.llen("rq:queue:default") == 1


def test_a_redis_that_is_too_slow_is_left_alone(proxy: Proxy, owner: User, caplog: pytest.LogCaptureFixture) -> None:
    """An answer that takes longer than the timeout is the last that is waited for."""
    delay = proxy.on_answer = Delay(jobs.REDIS_TIMEOUT * 3)
    for _ in range(5):
        fire("a.b", {}, owner=owner)

    assert delay.answers <= 2
    assert len(caplog.records) == 1


# -- jobs --------------------------------------------------------------------------------------------------------------


def test_a_job_that_is_lost(client: Redis, queue: Queue, receiver: Receiver, owner: User) -> None:
    """A job that vanishes before it has begun takes a few seconds' wake-ups with it, and no event."""
    fire("a.b", 1, owner=owner)
    queue.empty()
    fire("a.b", 2, owner=owner)
    assert len(queue) == 0
    assert 0 < client.ttl(wake_flag("default")) <= jobs.FLAG_SECONDS

    forget_the_pause()
    client.delete(wake_flag("default"))  # As if its time were over.
    fire("a.b", 3, owner=owner)
    run_jobs(queue)

    check_each_arrived_once(receiver, 3)


def test_a_job_that_is_queued_five_times_for_five_workers(
    client: Redis, queue: Queue, launcher: Launcher, settings: LazySettings, redis: str
) -> None:
    """The same job, run by five rqworkers at once, sends everything once and in order."""
    with Ledger() as ledger:
        with unheard(settings):
            sender = make_world(ledger)
        with transaction.atomic():
            fire_some(sender, 10)
        [job] = queue.jobs
        client.rpush(queue.key, *[job.id] * 4)
        environment = {"DJWEBHOOKS_ENGINE": ENGINE, "DJWEBHOOKS_RQ_JOBS": 5, "RQ_QUEUES": {"default": {"URL": redis}}}
        children = [launcher.command("rqworker", "default", "--burst", **environment) for _ in range(5)]
        assert [child.wait() for child in children] == [0] * 5
        work(burst=True)
        books = check_books(ledger)

    assert books.deliveries > 0
    assert not books.repeated


@postgresql_only  # MariaDB's driver hears of it when the statement ends.
def test_rqs_timeout_hits_in_the_middle_of_a_statement(queue: Queue, receiver: Receiver, owner: User) -> None:
    """A job whose time is over while the database keeps it waiting leaves nothing behind, and the next one sends everything."""
    fire("a.b", 1, owner=owner)
    queue.empty()
    with second_connection() as application, transaction.atomic(using=application):
        Dispatcher.wait_for_lock(application)  # A job waits for it to enlist.
        job = queue.enqueue_call(run_job, args=("default",), timeout=1)
        run_jobs(queue)

    assert job.is_failed
    assert "JobTimeoutException" in (job.latest_result().exc_string or "")
    assert not Worker.objects.exists()
    queue.enqueue_call(run_job, args=("default",))
    run_jobs(queue)
    check_each_arrived_once(receiver, 1)


def test_an_rqworker_is_killed_and_its_job_is_not(
    receiver: Receiver, owner: User, process_environment: Callable[..., dict[str, str]], tmp_path: Path, queue: Queue
) -> None:
    """A job that has lost its rqworker sends and records what there is, and gives everything back."""
    gate = threading.Event()
    receiver.answers = [answer_after(gate)]
    with transaction.atomic():
        for number in range(20):
            fire("a.b", number, owner=owner)
    with rqworker(process_environment(DJWEBHOOKS_ENGINE=ENGINE), tmp_path) as running:
        receiver.wait_for(1, timeout=60)
        [job] = running.children()
        running.process.kill()
        gate.set()
        wait_until(lambda: not Worker.objects.exists(), "the job has ended")
        wait_until(lambda: not Path(f"/proc/{job}").exists(), "its process, too")

    check_each_arrived_once(receiver, 20)
    assert not Lane.objects.exclude(holder=None).exists()
    assert FailedJobRegistry(queue=queue).count == 0
