"""A virtual environment for each set of requirements, as two peers may have the same name for importing them."""

import hashlib
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".venv-peers"


class NotInstalled(Exception):
    """pip could not install what a system needs."""


def find_python(requirements: Sequence[str]) -> str:
    """Return the interpreter that has *requirements*: this one if there are none. Raises ``NotInstalled``."""
    if not requirements:
        return sys.executable
    folder = FOLDER / hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    python = str(folder / "bin" / "python")
    is_complete = folder / "is-complete"
    if not is_complete.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise NotInstalled(next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr[-500:]))
        is_complete.touch()
    return python


def list_versions(python: str, names: Collection[str]) -> list[str]:
    """Return which versions of these packages an environment has: those that it has at all."""
    code = "import sys\nfrom importlib.metadata import distributions as all\nfor d in all(): print(d.name.lower(), d.version)"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return sorted({line for line in done.stdout.splitlines() if line.split()[0] in names})
