"""Make a process kill itself at a statement: what it has committed by then is all that is left of it."""

import os
import random
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

#: How a commit is named among the statements.
COMMIT = "COMMIT"
#: How the last line of a journal begins, if the process was killed.
KILLED = "killed "
#: At how many statements of a run a process is killed.
SAMPLE = int(os.environ.get("DJWEBHOOKS_TEST_SAMPLE", "15"))


@dataclass(frozen=True)
class Trap:
    """The *number*-th statement that begins with *statement* while *function* runs; what is empty is any.

    The process is killed right after it, or right *before* it is sent; *with_parent* kills an rqworker together with its job.
    """

    function: str = ""
    statement: str = ""
    number: int = 1
    before: bool = False
    with_parent: bool = False

    def is_at(self, statement: str) -> bool:
        if not statement.startswith(self.statement):
            return False
        return not self.function or any(name_function(frame) == self.function for frame in frames())


def choose(count: int) -> list[int]:
    """Draw at which of *count* statements a process is killed: at some of them, and at all in ``make soak``."""
    return random.sample(range(1, count + 1), min(SAMPLE, count))


class Gate:
    """Watches a process's statements, writes each into a journal, and springs a trap, once for all that share the journal."""

    def __init__(self, trap: Trap | None, journal: Path) -> None:
        self.trap = trap
        self.journal = journal
        self._passed = 0
        self._lock = threading.Lock()

    def install(self) -> None:
        """Watch every connection that this process makes from now on."""
        connection_created.connect(self.attach, weak=False)

    def attach(self, connection: BaseDatabaseWrapper, **_: Any) -> None:
        if self in connection.execute_wrappers:
            return  # It was closed and opened again.
        connection.execute_wrappers.append(self)
        commit = connection._commit
        connection._commit = lambda: self.watch(COMMIT, commit)

    def __call__(self, execute: Callable[..., Any], sql: object, params: Any, many: bool, context: dict[str, Any]) -> Any:
        return self.watch(normalize(str(sql)), lambda: execute(sql, params, many, context))

    def watch(self, statement: str, act: Callable[[], Any]) -> Any:
        is_here = self._count(statement)
        if is_here and self.trap.before:
            self.spring(statement)
        result = act()
        if is_here and not self.trap.before:
            self.spring(statement)
        return result

    def _count(self, statement: str) -> bool:
        with self._lock:
            self.write(f"{name_place()} {statement[:80]}")
            if self.trap is None or not self.trap.is_at(statement):
                return False
            self._passed += 1
            return self._passed == self.trap.number

    def spring(self, statement: str) -> None:
        if KILLED in self.journal.read_text():
            return  # RQ runs a job again whose process was killed.
        self.write(f"{KILLED}{'before' if self.trap.before else 'after'} {statement[:80]}")
        if self.trap.with_parent:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    def write(self, line: str) -> None:
        number = os.open(self.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(number, f"{line}\n".encode())
        os.close(number)


def normalize(sql: str) -> str:
    """The same statement reads alike on every database."""
    return re.sub(r"\s+", " ", re.sub(r'["`]', "", sql)).strip()


def frames() -> Iterator[FrameType]:
    """The functions that run, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def name_function(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}.{frame.f_code.co_qualname}"


def name_place() -> str:
    """The innermost function of the package that runs, but for what all statements go through."""
    names = (name_function(frame) for frame in frames())
    ours = (name for name in names if name.startswith("djwebhooks.") and not name.startswith("djwebhooks.database."))
    return next(ours, "-")


#: A trap that no run is long enough to reach.
NO_TRAP = Trap(number=1_000_000)
