"""The Retro Guestbook keeps working: its own tests, run as whoever starts from it would run them."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.test_project import PROJECT

#: Each app, how many tests it has at least, and whose settings it has.
SITES = (("guestbook", 8, ()), ("receiver", 5, ("--settings", "example_project.receiver.settings")))


def run_manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the example's ``manage.py`` from another directory, with its own settings."""
    command = [sys.executable, "-W", "error", str(PROJECT / "example_project" / "manage.py"), *arguments]
    inherited = {name: value for name, value in os.environ.items() if name not in ("DJANGO_SETTINGS_MODULE", "REDIS_URL")}
    return subprocess.run(
        command, cwd=PROJECT.parent, env={**inherited, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


def test_the_tests_of_the_guestbook_pass() -> None:
    """The guestbook and the receiver, each a project of its own, do what their tests say, and there are such tests."""
    for app, count, options in SITES:
        done = run_manage("test", f"example_project.{app}", *options)

        assert done.returncode == 0, done.stderr
        assert int(re.findall(r"Ran (\d+) tests", done.stderr)[0]) >= count


def test_the_guestbook_is_set_up_rightly() -> None:
    """Django and djwebhooks find nothing to complain about, and no migration is missing."""
    for _, _, options in SITES:
        assert run_manage("check", *options).stdout.startswith("System check identified no issues")
        done = run_manage("makemigrations", "--check", "--dry-run", *options)
        assert done.returncode == 0, done.stdout


def test_a_new_guestbook_has_its_tables(tmp_path: Path) -> None:
    """Every migration runs on an empty database, in the file that the environment names."""
    for app, _, options in SITES:
        database = tmp_path / f"{app}.sqlite3"

        done = run_manage("migrate", "--verbosity", "0", *options, **{f"{app.upper()}_DATABASE": str(database)})

        assert done.returncode == 0, done.stderr
        assert database.exists()
