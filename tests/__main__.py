"""Run the whole suite on SQLite and then on PostgreSQL: ``python -m tests [options of pytest]``."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from example_project.services import postgres_server

ROOT = Path(__file__).resolve().parent.parent
WORKERS = ["-n", "2"]
#: Seconds for an interrupted suite to end in order.
PATIENCE = 15


def run_suite(database: str, arguments: list[str], environment: Mapping[str, str]) -> int:
    """Run pytest on one database and return its exit code."""
    sys.stdout.write(f"\n=== the suite on {database} ===\n")
    sys.stdout.flush()
    surroundings = {**os.environ, **environment, "DJWEBHOOKS_TEST_DATABASE": database}
    command = [sys.executable, "-m", "pytest", *WORKERS, *arguments]
    # In a session of its own, so that Ctrl-C reaches pytest once: from here.
    with subprocess.Popen(command, cwd=ROOT, env=surroundings, start_new_session=True) as suite:
        try:
            return suite.wait()
        except KeyboardInterrupt:
            end_group(suite)
            raise


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest and its workers, and kill who has not ended in time."""
    os.killpg(leader.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        leader.wait(PATIENCE)
    with suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)


def terminate(*_: object) -> NoReturn:
    """End as Ctrl-C does: pytest ends in order, and everything is taken away."""
    raise KeyboardInterrupt


def main(arguments: list[str]) -> int:
    """Run both, whatever the first gives, and return the worse exit code."""
    signal.signal(signal.SIGTERM, terminate)
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        # One directory for what the tests leave behind when they are interrupted; PostgreSQL as another user must get in.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="djwebhooks-tests-", ignore_cleanup_errors=True)))
        directory.chmod(0o755)
        temporary = {"TMPDIR": str(directory)}
        codes = [
            run_suite("sqlite", arguments, temporary),
            run_suite("postgresql", arguments, {**temporary, **postgres.environment}),
        ]
    return max(codes)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
