"""Run the whole suite on SQLite, on PostgreSQL and, where it is installed, on MariaDB: ``python -m tests [options of pytest]``.

``DJWEBHOOKS_TEST_DATABASE`` names the databases, separated by commas, if it is not to be all of them.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from example_project.services import find_program, mariadb_server, postgres_server

ROOT = Path(__file__).resolve().parent.parent
#: More than two processors, as many tests wait for processes and servers. Who has nothing left takes from others.
WORKERS = ["-n", "3", "--dist", "worksteal"]
SERVERS = {"postgresql": postgres_server, "mariadb": mariadb_server}
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


def choose_databases() -> list[str]:
    """Return the databases to test, and say what is left out."""
    if chosen := os.environ.get("DJWEBHOOKS_TEST_DATABASE"):
        return chosen.split(",")
    if not find_program("mariadbd"):
        sys.stdout.write("MariaDB: not installed (apt-get install mariadb-server), so not tested\n")
        return ["sqlite", "postgresql"]
    if not find_spec("MySQLdb"):
        sys.stdout.write("MariaDB: no driver (apt-get install libmariadb-dev; pip install mysqlclient), so not tested\n")
        return ["sqlite", "postgresql"]
    return ["sqlite", "postgresql", "mariadb"]


def main(arguments: list[str]) -> int:
    """Run on each database, whatever the others give, and return the worst exit code."""
    signal.signal(signal.SIGTERM, terminate)
    codes = []
    with ExitStack() as stack:
        # One directory for what the tests leave behind when they are interrupted; servers as another user must get in.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="djwebhooks-tests-", ignore_cleanup_errors=True)))
        directory.chmod(0o755)
        for database in choose_databases():
            with ExitStack() as server:
                environment = {"TMPDIR": str(directory)}
                if database in SERVERS:
                    environment |= server.enter_context(SERVERS[database]()).environment
                codes.append(run_suite(database, arguments, environment))
    return max(codes)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
