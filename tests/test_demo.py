"""The demo, as ``make demo`` runs it: from a comment to a recorded delivery, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from example_project.services import pick_free_port
from tests.test_project import PROJECT
from tests.test_services import is_listening, wait_until

COMMAND = [sys.executable, str(PROJECT / "example_project" / "demo.py")]
#: Seconds that the demo allows itself for each of its steps are generous, so this is too; it takes about five.
PATIENCE = 240


def surroundings(directory: Path, **variables: str) -> dict[str, str]:
    """The environment of a user who has neither a Redis nor settings of Django, and whose temporary files can be counted."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", "REDIS_URL")}
    return {**inherited, "TMPDIR": str(directory), **variables}


def run_demo(directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = surroundings(directory, **variables)
    return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def find_processes(directory: Path) -> list[int]:
    """The processes that were started with *directory* for their temporary files: the demo's own and all of theirs."""
    mark = f"TMPDIR={directory}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # It has ended meanwhile, or is somebody else's.
            continue
    return found


def assert_nothing_is_left(directory: Path) -> None:
    assert find_processes(directory) == []
    assert list(directory.iterdir()) == []


def test_a_comment_becomes_a_recorded_delivery(tmp_path: Path) -> None:
    """One command shows the delivery, its attempt and what the receiver's handler made of it, and cleans up."""
    done = run_demo(tmp_path, "--once")

    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"event +guestbook\.comment\.created  [0-9a-f-]{36}\n", done.stdout)
    assert "delivery   succeeded, sequence 1, attempts: 1" in done.stdout
    assert re.search(r"attempt 1 .+ to 127\.0\.0\.1, [\d.]+ s: 200\n", done.stdout)
    assert "message    verified, stored and processed, attempt 1, sequence 1" in done.stdout
    assert "handler    printed 'Daisy: What a lovely guestbook!" in done.stdout
    assert_nothing_is_left(tmp_path)


def test_a_redis_of_the_users_own_is_left_as_it_was(tmp_path: Path, redis: str) -> None:
    """The demo uses a queue of its own there and removes it; what RQ and the bell note besides expires soon."""
    done = run_demo(tmp_path, "--once", REDIS_URL=redis)

    assert done.returncode == 0, done.stdout + done.stderr
    with Redis.from_url(redis) as client:
        assert [key for key in client.scan_iter() if client.ttl(key) == -1] == []
    assert_nothing_is_left(tmp_path)


def test_a_redis_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """The message says what is wrong and what to do, and shows no password."""
    done = run_demo(tmp_path, "--once", REDIS_URL="redis://:hunter2@127.0.0.1:1/0")

    assert done.returncode == 1
    assert "There is no Redis at redis://127.0.0.1:1/0, which REDIS_URL names" in done.stderr
    assert "unset it" in done.stderr
    assert "hunter2" not in done.stdout + done.stderr
    assert_nothing_is_left(tmp_path)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Before anything is started, so that nobody else's server is taken for the guestbook."""
    done = run_demo(tmp_path, "--once", "--port", "99999")

    assert done.returncode == 1
    assert "Port 99999 of 127.0.0.1 cannot be used" in done.stderr
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_stays_up_until_it_is_told_to_end(tmp_path: Path, end: signal.Signals) -> None:
    """The addresses answer until Ctrl-C or SIGTERM, and then everything goes."""
    port, receiver_port = pick_free_port(), pick_free_port()
    command = [*COMMAND, "--port", str(port), "--receiver-port", str(receiver_port)]
    with subprocess.Popen(command, env=surroundings(tmp_path), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        lines = list(iter(demo.stdout.readline, "Ctrl-C ends it, and takes everything away.\n"))
        assert any(f"http://127.0.0.1:{receiver_port}/admin/" in line for line in lines)
        assert is_listening(port)
        demo.send_signal(end)
        demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0
    assert wait_until(lambda: not is_listening(port))
    assert_nothing_is_left(tmp_path)


def test_a_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    """Nobody can clean up after SIGKILL but the guards, and they do, once everything has ended in order."""
    with subprocess.Popen([*COMMAND], env=surroundings(tmp_path), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert "Ctrl-C ends it, and takes everything away.\n" in iter(demo.stdout.readline, "")
        # The demo, the guards of Redis and of the programs, Redis, two servers and the worker of each.
        assert len(find_processes(tmp_path)) >= 8
        demo.kill()

    assert wait_until(lambda: find_processes(tmp_path) == [], PATIENCE)
    assert list(tmp_path.iterdir()) == []


def test_a_guard_that_is_ended_is_named(tmp_path: Path) -> None:
    """It takes everything away, and the demo says why it cannot go on."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND], env=surroundings(tmp_path), stdout=pipe, stderr=pipe, text=True) as demo:
        assert demo.stdout is not None
        assert "Ctrl-C ends it, and takes everything away.\n" in iter(demo.stdout.readline, "")
        [guard] = [pid for pid in find_processes(tmp_path) if Path(f"/proc/{pid}/cmdline").read_bytes().endswith(b"\0programs\0")]
        os.kill(guard, signal.SIGTERM)
        complaint = demo.communicate(timeout=PATIENCE)[1]

    assert demo.returncode == 1
    assert "The demo failed. The guard ended without a word" in complaint
    assert "Traceback" not in complaint
    assert_nothing_is_left(tmp_path)


def test_an_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    """Who has seen enough at once is obeyed, too."""
    with subprocess.Popen([*COMMAND], env=surroundings(tmp_path), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stdout.readline().startswith("Starting")
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 130
    assert_nothing_is_left(tmp_path)
