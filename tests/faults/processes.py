"""Processes of the test project that can be killed by the hundred: forked from one that has imported everything."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from tests.engines.processes import PROJECT, wait_until
from tests.faults.traps import KILLED, Trap


@dataclass
class Child:
    """A process that was forked, its output and the journal of its statements in files."""

    launcher: "Launcher"
    pid: int
    log: Path
    journal: Path
    code: int | None = field(default=None, init=False)

    @property
    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    @property
    def statements(self) -> list[str]:
        """What it has asked the database, each line with the function that asked; the last line says where it was killed."""
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    @property
    def was_trapped(self) -> bool:
        """Whether it, or a process that it forked, reached its trap."""
        return any(line.startswith(KILLED) for line in self.statements)

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.launcher.ask({"poll": self.pid})
        return self.code

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        wait_until(lambda: self.poll() is not None, f"process {self.pid} ends; it says: {self.output}")
        assert self.code is not None
        return self.code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:  # Until it is asked for, its number is not given to another process.
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        self.send_signal(signal.SIGKILL)
        self.wait()

    def stop(self) -> None:
        """Ask a worker to stop, and return when it has heard of it: it does not catch a second SIGTERM."""
        self.send_signal(signal.SIGTERM)
        wait_until(lambda: not self._catches(signal.SIGTERM), f"process {self.pid} has heard that it must stop")

    def _catches(self, number: signal.Signals) -> bool:
        command = ["ps", "-o", "caught=", "-p", str(self.pid)]
        mask = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return bool(int(mask, 16) >> (number - 1) & 1)

    def family(self) -> list[int]:
        """The processes of its session: itself, and what it forked."""
        table = subprocess.run(["ps", "-A", "-o", "pid=,sess="], capture_output=True, text=True, check=True).stdout
        pairs = [line.split() for line in table.splitlines()]
        return [int(pid) for pid, session in pairs if session == str(self.pid)]


class Launcher:
    """Starts processes, each with settings and a trap of its own."""

    def __init__(self, process: "subprocess.Popen[str]", directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._numbers = count(1)
        self._children: list[Child] = []

    def ask(self, order: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(order)}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the launcher has ended"
        return json.loads(answer)

    def call(self, function: str, *arguments: object, trap: Trap | None = None, clock: float = 0, **settings: object) -> Child:
        """Start a process that calls the function with this dotted path; its machine's clock is *clock* seconds ahead."""
        number = next(self._numbers)
        log, journal = self._directory / f"{number}.log", self._directory / f"{number}.journal"
        order = {
            "call": function,
            "arguments": arguments,
            "settings": settings,
            "trap": asdict(trap) if trap else None,
            "clock": clock,
            "log": str(log),
            "journal": str(journal),
        }
        child = Child(self, self.ask(order), log, journal)
        self._children.append(child)
        return child

    def command(self, *words: str, trap: Trap | None = None, clock: float = 0, **settings: object) -> Child:
        """Start ``manage.py`` with these words."""
        execute = "django.core.management.execute_from_command_line"
        return self.call(execute, ["manage.py", *words], trap=trap, clock=clock, **settings)

    def end_all(self) -> None:
        """Kill what still runs, with all that it forked, and take away what the processes wrote."""
        for child in self._children:
            if child.poll() is None:
                for pid in child.family():
                    os.kill(pid, signal.SIGKILL)
                child.wait()
            child.log.unlink(missing_ok=True)
            child.journal.unlink(missing_ok=True)
        self._children.clear()


@contextmanager
def launching(environment: dict[str, str], directory: Path, cwd: Path = PROJECT) -> Iterator[Launcher]:
    """Run a launcher on the databases and servers that *environment* names, with the package that is in *cwd*."""
    command = [sys.executable, "-m", "tests.faults.launcher"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, cwd=cwd, start_new_session=True, **pipes) as process:
        launcher = Launcher(process, directory)
        try:
            yield launcher
        finally:
            launcher.end_all()
            process.stdin.close()
