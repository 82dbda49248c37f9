"""Run functions in processes forked from one that is ready: ``python -m tests.faults.launcher`` takes orders, one a line."""

import json
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.utils.module_loading import import_string

from tests.faults.clocks import shift_machine
from tests.faults.traps import Gate, Trap

#: What forked processes need not import again.
READY = (
    "djwebhooks.engines.rq",
    "djwebhooks.management.commands.webhooks",
    "djwebhooks.transports.requests",
    "django_rq.management.commands.rqworker",
    "tests.faults.world",
)


def serve() -> None:
    """Carry out orders until there are no more, which is when whoever gives them has ended; then kill what is left."""
    django.setup()
    for name in READY:
        import_module(name)
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        answer = poll(order["poll"], alive) if "poll" in order else start(order, alive)
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def start(order: dict[str, Any], alive: set[int]) -> int:
    pid = os.fork()
    if pid == 0:
        run(order)
    alive.add(pid)
    return pid


def poll(pid: int, alive: set[int]) -> int | None:
    """The exit code of a process, negative for a signal; None while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return None
    alive.discard(pid)
    return os.waitstatus_to_exitcode(status)


def run(order: dict[str, Any]) -> None:
    """Be the process that was ordered, and end."""
    os.setsid()
    redirect(order["log"])
    code = 1
    try:
        for name, value in order["settings"].items():
            setattr(settings, name, value)
        if order["clock"]:
            shift_machine(order["clock"])
        Gate(Trap(**order["trap"]) if order["trap"] else None, Path(order["journal"])).install()
        import_string(order["call"])(*order["arguments"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 (this is the end of the process)
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def redirect(log: str) -> None:
    """Read from nothing, and write into a file."""
    numbers = (os.open(os.devnull, os.O_RDONLY), *[os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)] * 2)
    for wanted, number in enumerate(numbers):
        os.dup2(number, wanted)


if __name__ == "__main__":
    serve()
