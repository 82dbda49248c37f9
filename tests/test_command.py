"""``manage.py webhooks``: its verbs as a shell and a service manager use them."""

import gc
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import requests
import trustme
from django.conf import LazySettings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

import djwebhooks
from djwebhooks import signing
from djwebhooks.database import DatabaseNow, execute
from djwebhooks.events import fire
from djwebhooks.management.commands.webhooks import Command, collecting_seldom, name_user, stopping
from djwebhooks.management.listen import DevelopmentReceiver, Received, describe
from djwebhooks.management.reencrypt import reencrypt_secrets
from djwebhooks.management.report import report
from djwebhooks.models import Delivery, Event, Lane, Replay, WebhookTarget, Worker
from djwebhooks.models.replays import make_criteria
from djwebhooks.stats import QueueStats, Stats, TargetStats, WorkerStats
from djwebhooks.testing import deliver
from djwebhooks.testing.receiver import Receiver
from djwebhooks.transports.base import Reply
from tests.engines.processes import answer_after
from tests.inbox.senders import store
from tests.keys import make_certificate

PAGE = Path(djwebhooks.__file__).parent.parent / "docs" / "reference" / "commands.rst"

MakeEnvironment = Callable[..., dict[str, str]]
processes = pytest.mark.django_db(transaction=True)


def run(*arguments: str) -> str:
    """Run a verb in this process and return what it writes."""
    output = StringIO()
    call_command("webhooks", *arguments, stdout=output, no_color=True)
    return output.getvalue()


@contextmanager
def start(env: dict[str, str], *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a verb in a process of its own, which is gone afterwards."""
    command = [sys.executable, "-m", "django", "webhooks", *arguments]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait for a process to end well and in silence; return the lines that it wrote."""
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def make_owner(name: str = "owner") -> User:
    return User.objects.create(username=name)


def make_target(owner: User, url: str, **fields: object) -> WebhookTarget:
    return WebhookTarget.objects.register(url, ["a"], owner=owner, **fields)


# -- work --------------------------------------------------------------------------------------------------------------


@processes
def test_work_drains_and_exits_in_a_burst(process_environment: MakeEnvironment) -> None:
    """Every event arrives once, signed, and the process ends by itself with a line at each end."""
    with Receiver() as receiver:
        target = make_target(make_owner(), receiver.url)
        events = [fire("a", {"number": number}, owner=target.owner) for number in range(5)]
        with start(process_environment(), "work", "--burst", "--concurrency", "2") as process:
            lines = finish(process)

    assert lines == [
        "Working on database 'default', 2 requests at a time, until nothing is due.",
        "Ended, with 5 results recorded.",
    ]
    assert sorted(request.headers["webhook-id"] for request in receiver.requests) == sorted(str(event.uid) for event in events)
    for request in receiver.requests:
        request.verify(target.secret)
    assert set(Delivery.objects.values_list("status", flat=True)) == {"succeeded"}
    assert not Worker.objects.exists()


@processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_work_finishes_what_is_in_flight_when_it_is_asked_to_stop(
    process_environment: MakeEnvironment, number: signal.Signals
) -> None:
    """A request that a slow receiver holds is finished and recorded, nothing new is begun, and the exit code is 0."""
    gate = threading.Event()
    with Receiver(answer_after(gate)) as receiver:
        target = make_target(make_owner(), receiver.url, concurrency_limit=1)
        first, second = (fire("a", {}, owner=target.owner) for _ in range(2))
        with start(process_environment(), "work") as process:
            receiver.wait_for(1, timeout=60)
            process.send_signal(number)
            gate.set()
            lines = finish(process)

        assert lines[-1] == "Ended, with 1 result recorded."
        assert [request.headers["webhook-id"] for request in receiver.requests] == [str(first.uid)]
        statuses = Delivery.objects.order_by("sequence").values_list("event__uid", "status", "attempt_count")
        assert list(statuses) == [(first.uid, "succeeded", 1), (second.uid, "pending", 0)]
        assert Lane.objects.get().holder is None
        assert not Worker.objects.exists()

        with start(process_environment(), "work", "--burst") as process:
            finish(process)

        assert [request.headers["webhook-id"] for request in receiver.requests] == [str(first.uid), str(second.uid)]


@processes
def test_a_killed_worker_is_replaced_when_its_lease_ends(process_environment: MakeEnvironment) -> None:
    """What was in flight is sent again with the same id and the same bytes, and not before the lease has ended."""
    gate = threading.Event()
    with Receiver(answer_after(gate)) as receiver:
        target = make_target(make_owner(), receiver.url)
        fire("a", {"x": 1}, owner=target.owner)
        with start(process_environment(), "work") as process:
            receiver.wait_for(1, timeout=60)
            process.kill()
            process.wait()
        gate.set()
        with start(process_environment(), "work", "--burst") as process:
            assert finish(process)[-1] == "Ended, with 0 results recorded."
        execute("default", "UPDATE djw_worker SET expires_at = '2020-01-01 00:00:00'")
        with start(process_environment(), "work", "--burst") as process:
            assert finish(process)[-1] == "Ended, with 1 result recorded."

    first, again = receiver.requests
    assert (again.headers["webhook-id"], again.body) == (first.headers["webhook-id"], first.body)
    assert Delivery.objects.get().status == "succeeded"


@processes
def test_work_can_be_limited_to_targets(process_environment: MakeEnvironment) -> None:
    """Others wait."""
    with Receiver() as receiver:
        owner = make_owner()
        targets = [make_target(owner, f"{receiver.url}/{number}") for number in range(3)]
        fire("a", {}, owner=owner)
        chosen = [argument for target in targets[:2] for argument in ("--target", str(target.uid))]
        with start(process_environment(), "work", "--burst", *chosen) as process:
            finish(process)

    assert {request.path[-2:] for request in receiver.requests} == {"/0", "/1"}
    assert Delivery.objects.get(target=targets[2]).status == "pending"


@pytest.mark.django_db
def test_work_is_silent_when_told() -> None:
    """Cron mails what a job writes."""
    output = StringIO()
    call_command("webhooks", "work", "--burst", verbosity=0, stdout=output)
    assert output.getvalue() == ""


def test_a_second_signal_is_not_caught() -> None:
    """The first one asks; from then on, and afterwards, signals do what they did before."""
    before, before_term = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    calls: list[str] = []
    with stopping(lambda: calls.append("stop")):
        os.kill(os.getpid(), signal.SIGINT)
        assert calls == ["stop"]
        assert signal.getsignal(signal.SIGINT) == before
    with stopping(lambda: calls.append("never")):
        assert signal.getsignal(signal.SIGTERM) != before_term
    assert signal.getsignal(signal.SIGTERM) == before_term
    assert calls == ["stop"]


def test_other_threads_leave_signals_alone() -> None:
    """Python lets only the main thread handle signals; a worker may run in another."""
    before = signal.getsignal(signal.SIGTERM)
    handlers = []

    def work() -> None:
        with stopping(lambda: None):
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert handlers == [before]


@pytest.mark.parametrize("threshold", [0, 700, 50_000])
def test_garbage_is_looked_for_seldom_only_meanwhile(threshold: int) -> None:
    """A process that works collects no more often than it was told to, and as before when it has ended."""
    before = gc.get_threshold()
    gc.set_threshold(threshold, 11, 12)
    try:
        with collecting_seldom():
            meanwhile = gc.get_threshold()
        after = gc.get_threshold()
    finally:
        gc.set_threshold(*before)

    assert meanwhile == ({700: 20_000}.get(threshold, threshold), 11, 12)
    assert after == (threshold, 11, 12)


# -- replay ------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_replay_tries_again_what_failed(settings: LazySettings) -> None:
    """It counts first if asked to, and then does what it counted."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = ()
    target = make_target(make_owner(), "http://127.0.0.1:9/")
    for _ in range(2):
        fire("a", {}, owner=target.owner)
    deliver(500)
    uid = str(target.uid)

    would = run("replay", "--target", uid, "--dry-run")
    assert would == f"2 would be sent again: failed deliveries to target {uid}.\n"
    assert run("replay", "--target", uid, "--until", "2020-01-01").startswith("0 will be sent again: failed")
    assert run("replay", "--target", uid, "--status", "expired").startswith("0 will be sent again: expired")
    assert run("replay", "--target", uid, "--event", "b.*").startswith("0 will be sent again")
    since = f"{timezone.now():%Y-%m-%d}T00:00+14:00"
    said = run("replay", "--target", uid, "--since", since, "--event", "a", "--rate", "5")
    replay = Replay.objects.first()

    assert said.startswith("2 will be sent again: failed deliveries to target")
    assert said.endswith(f"Replay {replay.uid}, 5 a second: workers send them.\n")
    assert (replay.requested_through, replay.requested_by) == ("command", name_user())
    assert len(deliver()) == 2


@pytest.mark.django_db
def test_replay_is_for_several_targets_for_an_owner_or_for_everybody(settings: LazySettings) -> None:
    """Whose deliveries are meant must be said."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = ()
    targets = [make_target(make_owner(name), f"http://127.0.0.1:9/{name}") for name in ("a", "b", "c")]
    for target in targets:
        fire("a", {}, owner=target.owner)
    deliver(500)
    several = run("replay", "--target", str(targets[0].uid), "--target", str(targets[1].uid), "--dry-run")
    owner = run("replay", "--owner", str(targets[2].owner.pk), "--dry-run")

    assert several == "2 would be sent again: failed deliveries to 2 targets.\n"
    assert owner == f"1 would be sent again: failed deliveries to the targets of owner {targets[2].owner.pk}.\n"
    assert run("replay", "--all", "--dry-run") == "3 would be sent again: failed deliveries to everybody's targets.\n"
    assert run("replay", "--all", "--status", "failed", "--status", "succeeded", "--dry-run").startswith("3 would be sent")


@pytest.mark.django_db
def test_replay_says_what_it_leaves_out(settings: LazySettings) -> None:
    """Events that have expired, and what cannot be sent any more."""
    settings.DJWEBHOOKS_RETRY_SCHEDULE = ()
    target, gone = make_target(make_owner("a"), "http://127.0.0.1:9/a"), make_target(make_owner("b"), "http://127.0.0.1:9/b")
    fire("a", {}, owner=target.owner)
    fire("a", {}, owner=gone.owner)
    deliver(500)
    Event.objects.filter(owner=target.owner).update(expires_at=DatabaseNow())
    gone.delete()

    assert run("replay", "--all", "--dry-run").splitlines() == [
        "0 would be sent again: failed deliveries to everybody's targets.",
        "Left out: 1 whose events have expired; --status expired takes them, too.",
        "Left out: 1 whose target or event was deleted.",
    ]


@pytest.mark.django_db
def test_replay_can_be_cancelled() -> None:
    """By its uid, once."""
    target = make_target(make_owner(), "http://127.0.0.1:9/")
    replay = Delivery.objects.replay(make_criteria(targets=[target], status="failed"))
    Replay.objects.update(finished_at=None)

    assert run("replay", "--cancel", str(replay.uid)).startswith("Cancelled: 0 of 0 had been made pending;")
    with pytest.raises(CommandError, match="it was cancelled already"):
        run("replay", "--cancel", str(replay.uid))


# -- prune -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_prune_says_what_it_deleted() -> None:
    """Or would delete; days may be fractions."""
    target = make_target(make_owner(), "http://127.0.0.1:9/")
    fire("a", {}, owner=target.owner)
    deliver()
    counts = "1 event, 1 body, 1 delivery, 1 attempt."
    store(status="processed", received_at=timezone.now() - timedelta(days=2))
    Delivery.objects.update(finished_at=timezone.now() - timedelta(days=2))
    Event.objects.update(created_at=timezone.now() - timedelta(days=2), dispatched_at=timezone.now() - timedelta(days=2))

    none, one = "0 messages from the inbox.", "1 message from the inbox."
    assert run("prune") == f"Deleted 0 events, 0 bodies, 0 deliveries, 0 attempts.\nDeleted {none}\n"
    assert run("prune", "--older-than", "1.5", "--dry-run") == f"Would delete {counts}\nWould delete {one}\n"
    assert run("prune", "--older-than", "1.5") == f"Deleted {counts}\nDeleted {one}\n"


@pytest.mark.django_db
def test_prune_says_what_became_of_targets() -> None:
    """What waited for one that was deleted by SQL is mentioned apart, and so are those that it deletes."""
    target = make_target(make_owner(), "http://127.0.0.1:9/")
    target.pause()
    fire("a", {}, owner=target.owner)
    deliver()
    fire("a", {}, owner=target.owner, urls="http://127.0.0.1:9/direct")
    deliver()
    Delivery.objects.exclude(target=target).delete()
    for sql in ("djw_subscription WHERE target_id", "djw_lane WHERE target_id", "djw_target WHERE id"):
        execute("default", f"DELETE FROM {sql} = %s", [target.pk])

    said = run("prune", "--older-than", "0", "--dry-run")
    assert "1 target that fire(urls=…) made and nothing is left of: would be deleted." in said
    said = run("prune", "--older-than", "0")
    assert "1 target that fire(urls=…) made and nothing is left of: deleted." in said
    assert "1 delivery of deleted targets: cancelled." in said


# -- erase -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_erase_says_what_it_did() -> None:
    """A dry run says the same in other words, and erases nothing; the row itself may be gone."""
    owner = make_owner()
    make_target(owner, "http://127.0.0.1:9/")
    fire("a", {"name": "Crusoe"}, owner=owner)
    deliver(lambda request: Reply(request.key, status=500, body=b"Crusoe"))
    key = str(owner.pk)

    dry = run("erase", "auth.User", key, "--dry-run")
    assert Event.objects.get().payload

    assert dry == "Would erase the payloads of 1 event and the answers to 1 attempt.\nWould cancel 1 delivery that waited.\n"
    assert run("erase", "auth.user", key) == (
        "Erased the payloads of 1 event and the answers to 1 attempt.\nCancelled 1 delivery that waited.\n"
    )
    assert Event.objects.get().payload == ""
    assert run("erase", "auth.user", "99") == "Erased the payloads of 0 events and the answers to 0 attempts.\n"


@pytest.mark.parametrize(
    ("model", "pk", "message"),
    [
        ("auth.Nobody", "1", "'auth.Nobody' is no model: App 'auth' doesn't have a 'Nobody' model"),
        ("user", "1", r"'user' is no model\. Write app_label\.ModelName"),
        ("auth.User", "ada", "'ada' cannot be the primary key of auth.User"),
        ("auth.User", "9" * 20, "'9{20}' cannot be the primary key of auth.User"),
    ],
)
def test_erase_says_what_it_cannot_find(model: str, pk: str, message: str) -> None:
    """A mistyped model or key erases nothing in silence."""
    with pytest.raises(CommandError, match=message):
        run("erase", model, pk)


# -- explain -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_explain_takes_a_name_an_event_or_a_delivery() -> None:
    """One word is enough to be understood, and every line is indented below its heading."""
    owner = make_owner()
    make_target(owner, "http://127.0.0.1:9/")
    event = fire("a", {}, owner=owner)
    deliver(503)

    assert run("explain", "a").startswith("Event a of any owner\nSubscribed\n  http://127.0.0.1:9/ (owner ")
    assert run("explain", "a", "--owner", str(owner.pk), "--identifier", "x").startswith(
        f"Event a of owner {owner.pk} with identifier 'x'\nWould get it\n"
    )
    assert run("explain", "a", "--owner", "none").startswith("Event a of no owner\nWould get it\n  Nobody.\n")
    assert run("explain", str(event.uid)).startswith(f"Event a {event.uid}\nWhat happened\n  Committed: ")
    delivery = Delivery.objects.get()
    assert run("explain", str(delivery.uid)).startswith(f"Delivery {delivery.uid}: pending\nWhat it is\n")


@pytest.mark.django_db(databases=["default", "other"])
def test_explain_looks_into_another_database() -> None:
    """Where the routers do not point to, too."""
    event = fire("a", {}, using="other")

    assert str(event.uid) in run("explain", str(event.uid), "--database", "other")
    with pytest.raises(CommandError, match="No event and no delivery in database 'default'"):
        run("explain", str(event.uid))


# -- stats -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_stats_are_text_or_json() -> None:
    """The same numbers for people and for machines."""
    fire("a", {}, owner=make_owner())

    assert run("stats").startswith("Events      1 waiting (for ")
    assert json.loads(run("stats", "--format", "json"))["events_waiting"] == 1


@pytest.mark.django_db
def test_stats_warn_of_a_redis_that_is_down(settings: LazySettings) -> None:
    """A mark stands before what should be done."""
    settings.DJWEBHOOKS_ENGINE = "djwebhooks.engines.rq.RQEngine"
    text = run("stats")

    assert "Queue       default: Redis does not answer\n" in text
    assert "\n! Redis does not answer (" in text


#: Something of everything, with numbers that have reached the limit.
STATS = Stats(
    limit=1000, events_waiting=1000, events_planned=2, events_failing=3, oldest_waiting_age=3.0, deliveries_pending=4,
    deliveries_due=5, deliveries_held=6, failed_lately=7, oldest_due_age=600.0, lanes_leased=8, lanes_due=9, targets_paused=10,
    targets_disabled=11, targets_suspended=12, targets_healthy=13, targets_degraded=14, engine="path.Engine",
    queue=QueueStats("q", has_scheduler=True, workers=1),
    workers=[WorkerStats("rq", "host:1", 60.0, 2.0, True, 3), WorkerStats("rq", "host:2", 7200.0, 200.0, False, 0)],
    targets=[TargetStats("u-1", "http://x/\x1b", "healthy", 1000, 20, 30, None)], notices=["Do this."],
)  # fmt: skip


def test_the_report_has_a_line_for_everything() -> None:
    """All parts of it at once."""
    assert list(report(STATS)) == [
        "Events      1000+ waiting (for 3.0 s), 2 planned, 3 failing to build",
        "Deliveries  4 pending: 5 due (for 10 min), 6 held; 7 failed within a day",
        "Targets     10 paused, 11 disabled, 12 suspended; lanes: 8 leased by workers, 9 due",
        "Engine      path.Engine",
        "Queue       q: Redis answers; 1 rqworker, with a scheduler",
        "Workers",
        "  rq at host:1: alive, last beat 2.0 s ago, started 60 s ago, holds 3 lanes",
        "  rq at host:2: DEAD, its lanes are freed by the next one, last beat 3 min ago, started 2 h ago, holds 0 lanes",
        "Targets with most to do or most failures",
        "   pending      due   failed  oldest   state      target",
        "     1000+       20       30  -        healthy    http://x/  (u-1)",
        "! Do this.",
    ]


def test_what_is_counted_among_some_has_a_plus() -> None:
    """Where not all pending deliveries were looked at, there may be due ones among the others, though none was found."""
    lines = list(report(replace(STATS, deliveries_pending=1000, deliveries_due=0, deliveries_held=1000)))

    assert "Deliveries  1000+ pending: 0+ due (for 10 min), 1000+ held; 7 failed within a day" in lines
    assert "     1000+      20+       30  -        healthy    http://x/  (u-1)" in lines


# -- listen ------------------------------------------------------------------------------------------------------------


def sign(secret: str, body: bytes) -> dict[str, str]:
    now = int(time.time())
    return {"webhook-id": "m1", "webhook-timestamp": str(now), "webhook-signature": signing.sign(secret, "m1", now, body)}


@processes
def test_listen_shows_and_verifies_until_it_is_interrupted(process_environment: MakeEnvironment) -> None:
    """As a developer uses it: one process listens, the other sends, Ctrl-C ends it well. No secret is shown."""
    secret = signing.new_secret()
    body = b'{"type": "a"}'
    with start(process_environment(), "listen", "--port", "0", "--secret", secret, "--status", "503") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        url = re.search(r"http://\S+/", line)
        assert url is not None, line
        assert requests.post(url[0] + "hook", data=body, headers=sign(secret, body), timeout=10).status_code == 503
        head = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read().splitlines()
        assert process.wait(timeout=60) == 0

    assert head.endswith("POST /hook: signature verified\n")
    assert rest[0] == "  webhook-id: m1"
    assert rest[-3:] == ["  {", '    "type": "a"', "  }"]
    assert secret.removeprefix("whsec_") not in line + head + "".join(rest)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A terminal: the ends of who types, and of who reads."""
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


@processes
def test_listen_asks_for_a_secret(process_environment: MakeEnvironment, terminal: tuple[int, int]) -> None:
    """With ``--secret -`` it is typed without being shown, and is no argument that other users could see."""
    typing, reading = terminal
    secret, body = signing.new_secret(), b"1"
    with start(process_environment(), "listen", "--port", "0", "--secret", "-", stdin=reading, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.read(len("Secret: ")) == "Secret: "
        os.write(typing, f"{secret}\n".encode())
        url = process.stdout.readline().split()[2].rstrip(",")
        requests.post(url, data=body, headers=sign(secret, body), timeout=10)
        head = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read() + process.stderr.read()

    assert head.endswith("POST /: signature verified\n")
    assert secret not in head + rest
    os.write(reading, b"end")
    assert os.read(typing, 1024) == b"end", "what is typed is not echoed"


@pytest.fixture
def listener() -> Iterator[tuple[DevelopmentReceiver, list[str]]]:
    """A listener in a thread, and what it has shown."""
    shown: list[str] = []
    with DevelopmentReceiver(shown.append) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, shown
        server.shutdown()
        thread.join()


def test_the_listener_reads_no_body_without_end(listener: tuple[DevelopmentReceiver, list[str]]) -> None:
    """What is too long, or of no length that can be, is refused unread."""
    server, shown = listener
    for length in ("1048577", "²", "-1"):
        request = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode("latin-1")
        with socket.create_connection(server.server_address, timeout=10) as sock:
            sock.sendall(request)
            assert sock.makefile("rb").readline().split()[1] == b"413"

    assert shown == []
    assert requests.post(server.url, data=b"plain", timeout=10).status_code == 200
    assert shown[0].endswith("\n  plain")


def test_what_the_listener_shows() -> None:
    """Without a secret, with a wrong one, without headers, with what a sender adds to them; nothing harms the terminal."""
    secret = signing.new_secret()
    body = b"\x1b[2J\xff"
    right = Received("POST", "/\x1b", sign(secret, body) | {"webhook-attempt": "2\x07"}, body)

    assert "POST /�: not verified, as no --secret was given" in describe(right, [])
    assert "signature verified" in describe(right, [signing.key(secret)])
    assert "WRONG SIGNATURE. No signature matches" in describe(right, [signing.key(signing.new_secret())])
    two = [signing.key(signing.new_secret()), signing.key(secret)]
    assert "signature verified with --secret number 2" in describe(right, two)
    assert describe(right, []).endswith("\n  webhook-id: m1\n  webhook-attempt: 2�\n  �[2J�")
    added = {
        "x-shop": "7",
        "host": "h",
        "content-type": "text/plain",
        "webhook-version": "2026-09",
        "webhook-coalesced": "3",
        "authorization": "Bearer t",
    }
    assert describe(Received("POST", "/", sign(secret, body) | added, b""), []).splitlines()[1:-1] == [
        "  webhook-id: m1",
        "  webhook-coalesced: 3",
        "  webhook-version: 2026-09",
        "  content-type: text/plain",
        "  not shown: authorization, x-shop",
    ]
    nothing = Received("POST", "/", {}, b"")
    assert "WRONG SIGNATURE. The header webhook-id is missing." in describe(nothing, [signing.key(secret)])
    assert describe(nothing, []).endswith("\n  webhook-id: missing\n  (no body)")
    assert describe(Received("POST", "/", {}, b"[" * 5000), []).endswith("\n  " + "[" * 5000)


def test_listen_verifies_with_public_keys(listener: tuple[DevelopmentReceiver, list[str]]) -> None:
    """A receiver of v1a signatures is tried out without any secret."""
    pair = signing.new_key_pair()
    with DevelopmentReceiver(listener[1].append, secrets=[signing.public_key(pair)]) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        requests.post(server.url, data=b"1", headers=sign(pair, b"1"), timeout=10)
        thread.join()

    assert "POST /: signature verified\n" in listener[1][0]


def test_listen_says_what_is_wrong_before_it_starts(listener: tuple[DevelopmentReceiver, list[str]]) -> None:
    """A port that is taken, and a secret that is none; the secret is not shown."""
    with pytest.raises(CommandError, match="choose another with --port"):
        run("listen", "--port", str(listener[0].server_port))
    with pytest.raises(CommandError, match="--secret cannot be used: ") as caught:
        run("listen", "--port", "0", "--secret", "whsec_short")
    assert "short" not in str(caught.value)
    pair = signing.new_key_pair()
    with pytest.raises(CommandError, match="--secret cannot be used: whsk_ marks a key pair") as caught:
        run("listen", "--port", "0", "--secret", pair)
    assert pair[5:] not in str(caught.value)


# -- reencrypt ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_reencrypt_makes_old_keys_superfluous(settings: LazySettings) -> None:
    """Afterwards the newest key alone opens every secret and key pair, and they are the same."""
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["old"]
    owner = make_owner()
    fields = {
        "headers": {"x": "1"},
        "authentication": {"type": "bearer", "token": "t"},
        "client_certificate": make_certificate(trustme.CA()),
    }
    targets = [make_target(owner, f"http://127.0.0.1:9/{number}", **fields) for number in range(3)]
    Lane.objects.create(target=targets[0], access_token={"text": "t"})
    keyrings = [target.keyring for target in targets]
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["new", "old"]

    assert run("reencrypt") == "The secrets of 3 targets are encrypted with the newest key.\n"

    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["new"]
    again = [WebhookTarget.objects.get(pk=target.pk) for target in targets]
    assert [target.keyring for target in again] == keyrings
    assert all(getattr(target, name) == value for target in again for name, value in fields.items())
    assert Lane.objects.get().access_token == {}
    assert reencrypt_secrets(page=1).count == 3


@pytest.mark.django_db
def test_reencrypt_names_what_no_key_opens(settings: LazySettings) -> None:
    """The others are encrypted all the same, and so is what can be read of that target."""
    owner = make_owner()
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["lost"]
    lost = make_target(owner, "http://127.0.0.1:9/lost")
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["old"]
    WebhookTarget.objects.update(headers={"x": "1"})
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["new", "old"]
    make_target(owner, "http://127.0.0.1:9/")

    output = StringIO()
    with pytest.raises(CommandError, match=f"No key opens the secrets of 1 target: {lost.uid}. Add the key"):
        call_command("webhooks", "reencrypt", stdout=output)
    assert output.getvalue() == "The secrets of 1 target are encrypted with the newest key.\n"
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = ["new"]
    assert WebhookTarget.objects.get(pk=lost.pk).headers == {"x": "1"}
    settings.DJWEBHOOKS_ENCRYPTION_KEYS = "one string"
    with pytest.raises(CommandError, match="is a list of keys"):
        run("reencrypt")


# -- errors ------------------------------------------------------------------------------------------------------------

UNKNOWN = "00000000-0000-7000-8000-000000000000"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Say what to do: work, replay, prune, erase, events, explain, stats, listen, reencrypt, adopt, inbox. Each"),
        (("dance",), "invalid choice: 'dance'"),
        (("work", "--target", UNKNOWN), f"There is no target with the uid '{UNKNOWN}' in database 'default'"),
        (("work", "--target", "one"), "There is no target with the uid 'one'"),
        (("work", "--target", "not-one"), "'not-one' is neither the name of an event nor a uid."),
        (("work", "--concurrency", "0"), "'0' is not a number above 0."),
        (("work", "--database", "nowhere"), "invalid choice: 'nowhere'"),
        (("replay",), "one of the arguments --target --owner --all --cancel is required"),
        (("replay", "--all", "--owner", "1"), "argument --owner: not allowed with argument --all"),
        (("replay", "--all", "--rate", "0"), "The rate is a number of deliveries per second from 0.001 to 10000, not 0.0."),
        (("replay", "--all", "--event", "no name"), "'no name' is neither the name of an event, nor a pattern"),
        (("replay", "--owner", "none"), "--owner none: name the system's targets with --target, or use --all."),
        (("replay", "--cancel", UNKNOWN), f"There is no replay with the uid '{UNKNOWN}' in database 'default'"),
        (("replay", "--cancel", "x"), "There is no replay with the uid 'x'"),
        (("replay", "--target", UNKNOWN, "--status", "pending"), "invalid choice: 'pending'"),
        (("replay", "--target", UNKNOWN, "--since", "yesterday"), "'yesterday' is not a time: write 2026-09-21"),
        (("replay", "--target", UNKNOWN, "--since", "2026-02-30"), "'2026-02-30' is not a possible time"),
        (
            ("replay", "--all", "--since", "0001-01-01"),
            "which is too far away: leave it out.",
        ),
        (("prune", "--older-than", "week"), "'week' is not a number of days."),
        (("prune", "--older-than=-1"), "'-1' is not a possible number of days."),
        (("prune", "--older-than", "nan"), "'nan' is not a number of days."),
        (("explain", "no name"), "'no name' is no event name"),
        (("explain", UNKNOWN), f"No event and no delivery in database 'default' has the uid {UNKNOWN}"),
        (("explain", UNKNOWN, "--owner", "1"), "--owner and --identifier go with the name of an event"),
        (("explain", "a", "--identifier", "x"), "--identifier needs --owner"),
        (("explain", "a", "--owner", "me"), "--owner 'me' cannot be the primary key of auth.User"),
        (("explain", "a", "--owner", "9" * 20), f"--owner '{'9' * 20}' cannot be the primary key of auth.User"),
        (("explain", "a", "--owner", "999999"), "--owner '999999': there is no auth.User with this primary key."),
        (("listen", "--port", "70000"), "'70000' is not a port"),
        (("listen", "--status", "100"), "'100' is not a final HTTP status"),
    ],
)
def test_errors_say_what_is_wrong(arguments: tuple[str, ...], message: str) -> None:
    """Which value, and what to do instead; before that, nothing is said of what will not be done."""
    output = StringIO()
    with pytest.raises(CommandError, match=re.escape(message)):
        call_command("webhooks", *arguments, stdout=output)

    assert output.getvalue() == ""


# -- the documentation -------------------------------------------------------------------------------------------------


def known_verbs() -> dict[str, set[str]]:
    """Each verb with its options and arguments, as the parser has them."""
    parser = Command().create_parser("manage.py", "webhooks")
    [action] = parser._subparsers._group_actions
    return {name: known_of(verb) for name, verb in action.choices.items()}


def known_of(verb: object) -> set[str]:
    return {
        action.option_strings[-1] if action.option_strings else action.metavar
        for action in verb._actions
        if action.dest != "help"
    }


def documented_verbs() -> dict[str, set[str]]:
    """Each verb with its options and arguments, as the reference has them."""
    found: dict[str, set[str]] = {}
    for directive, text in re.findall(r"^\.\. (program|option):: (.+)$", PAGE.read_text(), re.MULTILINE):
        if directive == "program":
            options = found.setdefault(text.split()[-1], set())
        else:
            options.add(text.split()[0])
    return found


def test_every_verb_and_option_is_documented_and_the_reverse() -> None:
    """The reference page and the parser agree."""
    assert documented_verbs() == known_verbs()


def test_every_documented_verb_has_a_section() -> None:
    """A heading for each verb."""
    headings = re.findall(r"^(\w+)\n-+$", PAGE.read_text(), re.MULTILINE)

    assert headings == list(known_verbs())
