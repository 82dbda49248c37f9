"""The inbox needs no other part of djwebhooks."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_the_inbox_can_be_used_alone(tmp_path: Path) -> None:
    """A project with it and without the sender migrates, receives, runs handlers, shows its admin and cleans up."""
    root = Path(__file__).parents[2]
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "DJWEBHOOKS_"))}
    command = [sys.executable, "-m", "tests.inbox.under_inbox_alone", str(tmp_path / "alone.sqlite3")]

    run = subprocess.run(command, cwd=root, env=surroundings, capture_output=True, text=True, timeout=120)

    assert (run.returncode, run.stderr) == (0, "")
    found = json.loads(run.stdout)
    assert found == {
        "labels": ["djwebhooks_inbox"],
        "models": [],
        "status": 200,
        "seen": ["main"],
        "message": "processed",
        "pages": [200, 200, 200],
        "output": [
            "System check identified no issues (0 silenced).",
            "Working on the inbox in database 'default', until nothing is due.",
            "Ended, with 1 message worked on.",
            "Deleted 0 messages from the inbox.",
            "Inbox       0 due, 0 to be tried again; within a day 1 came, 0 failed, 0 rejected",
            "Would erase 0 messages of the inbox.",
        ],
    }
