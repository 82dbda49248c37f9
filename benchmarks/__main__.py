"""Run every scenario several times on SQLite and PostgreSQL and print the medians: ``make bench``."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from example_project.services import postgres_server

SCENARIOS = ("fire", "worker")


@contextmanager
def receiver() -> Iterator[str]:
    """Start the receiver in a process of its own; yield its URL."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.receiver"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/"
        finally:
            process.terminate()


def measure(scenario: str, database: str, url: str) -> dict[str, float]:
    """Run one scenario on a fresh database; return its figures."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "benchmarks.settings",
            "BENCHMARK_DATABASE": database,
            "BENCHMARK_SQLITE": str(Path(folder, "benchmark.sqlite3")),
        }
        if database == "postgresql":
            environment |= stack.enter_context(postgres_server(durable=True)).environment
        command = [sys.executable, "-m", "benchmarks.scenarios", scenario, url]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        figures: dict[str, float] = json.loads(done.stdout)
        return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each scenario is run (default: 5)")
    rounds = parser.parse_args().rounds
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with receiver() as url:
        for _ in range(rounds):
            for scenario in SCENARIOS:
                for database in ("sqlite", "postgresql"):
                    for name, value in measure(scenario, database, url).items():
                        found[scenario, database, name].append(value)
    sys.stdout.write(f"Python {platform.python_version()}, {os.cpu_count()} cores, {rounds} rounds\n")
    sys.stdout.write(f"{'scenario':10}{'database':12}{'figure':24}{'median':>10}{'min':>10}{'max':>10}\n")
    for (scenario, database, name), values in found.items():
        numbers = "".join(f"{value:10.3f}" for value in (statistics.median(values), min(values), max(values)))
        sys.stdout.write(f"{scenario:10}{database:12}{name:24}{numbers}\n")


if __name__ == "__main__":
    main()
