"""Measure what sending costs: ``make bench`` this project alone, ``make bench ARGS=--peers`` beside its peers."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import redis

from benchmarks.environments import ROOT, NotInstalled, find_python, list_versions
from benchmarks.plan import SCENARIOS, Scenario
from benchmarks.plots import draw_plots
from benchmarks.receiver import run_receiver
from benchmarks.report import Results, report
from benchmarks.systems import SYSTEMS
from example_project.services import postgres_server, redis_server

#: Where the tables go, besides standard output, and the plots, and what the workers have said.
OUTPUT = ROOT / "build" / "benchmarks"
TABLES, LOG = OUTPUT / "tables.rst", OUTPUT / "workers.log"
#: What the tables say the version of.
PACKAGES = ("celery", "django", "psycopg", "pycurl", "requests", "rq")


class Benchmark:
    """Trials by turns, on services that all of them share."""

    def __init__(self, environment: dict[str, str], scale: float) -> None:
        self.environment = environment
        self.scale = scale
        self.results: Results = {}
        self.pythons: dict[str, str] = {}
        self.unavailable: dict[str, str] = {}

    def install(self, names: Sequence[str]) -> None:
        """See to the systems' environments; note which cannot be had."""
        for name in names:
            try:
                self.pythons[name] = find_python(SYSTEMS[name].requirements)
            except NotInstalled as error:
                self.unavailable[name] = f"{name} could not be installed: {error}"

    def play(self, round_: int, scenario: Scenario, database: str, name: str) -> None:
        """Make one trial on a fresh database, and keep its figures if it has any."""
        if name not in self.pythons or database not in SYSTEMS[name].databases:
            return
        started = time.monotonic()
        with self.fresh_database(database) as where:
            environment = os.environ | self.environment | where
            environment |= {"BENCHMARK_SYSTEM": name, "BENCHMARK_DATABASE": database, "BENCHMARK_SCALE": str(self.scale)}
            command = [self.pythons[name], "-m", "benchmarks.trial", scenario.name]
            done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        figures = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
        took = time.monotonic() - started
        with LOG.open("a") as log:
            log.write(done.stderr)
        outcome = figures or done.stderr.strip().rpartition("\n")[2]
        say(f"round {round_}  {scenario.name:20}{database:12}{name:26}{took:5.0f} s  {outcome}")
        if figures:
            self.results[round_, scenario.name, database, name] = figures

    @contextmanager
    def fresh_database(self, kind: str) -> Iterator[dict[str, str]]:
        """A database, and a Redis with nothing in it, for one trial."""
        redis.Redis.from_url(self.environment["REDIS_URL"]).flushall()
        if kind == "sqlite":
            with tempfile.TemporaryDirectory() as folder:
                yield {"BENCHMARK_SQLITE": str(Path(folder, "benchmark.sqlite3"))}
            return
        self.run_sql("CREATE DATABASE benchmark")
        try:
            yield {"BENCHMARK_NAME": "benchmark"}
        finally:
            self.run_sql("DROP DATABASE benchmark WITH (FORCE)")

    def run_sql(self, statement: str) -> None:
        """Have PostgreSQL do something outside of any transaction."""
        where = self.environment
        with psycopg.connect(host=where["PGHOST"], user=where["PGUSER"], dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    def versions(self) -> list[str]:
        """What is compared: the packages of all environments."""
        names = {*PACKAGES, *(requirement.split("==")[0] for system in SYSTEMS.values() for requirement in system.requirements)}
        pythons = dict.fromkeys(self.pythons.values())
        return sorted({version for python in pythons for version in list_versions(python, names)})


@contextmanager
def running_services() -> Iterator[dict[str, str]]:
    """Start the receiver, Redis and a durable PostgreSQL; yield how to reach them."""
    with ExitStack() as stack:
        address = stack.enter_context(run_receiver())
        store = stack.enter_context(redis_server())
        postgres = stack.enter_context(postgres_server(durable=True))
        OUTPUT.mkdir(parents=True, exist_ok=True)
        LOG.unlink(missing_ok=True)
        services = {"DJANGO_SETTINGS_MODULE": "benchmarks.settings", "BENCHMARK_RECEIVER": address, "BENCHMARK_LOG": str(LOG)}
        services |= store.environment | postgres.environment
        # A hundred greenlets have a connection each.
        Benchmark(services, 1).run_sql("ALTER SYSTEM SET max_connections = 300")
        postgres.restart()
        yield services


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def choose(arguments: argparse.Namespace) -> list[Scenario]:
    """The scenarios that were asked for."""
    if arguments.scenario:
        return [scenario for scenario in SCENARIOS if scenario.name in arguments.scenario]
    return [scenario for scenario in SCENARIOS if arguments.peers or scenario.is_short]


def choose_systems(arguments: argparse.Namespace, scenario: Scenario) -> list[str]:
    """Who of the scenario's systems was asked for."""
    names = [*scenario.own, *(scenario.peers if arguments.peers else ())]
    return [name for name in names if not arguments.system or name in arguments.system]


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", action="store_true", help="with the peers, out of PyPI, and all scenarios")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--scenario", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument("--system", action="append", choices=SYSTEMS, help="only this one; repeatable")
    parser.add_argument("--database", action="append", choices=["sqlite", "postgresql"], help="only this one; repeatable")
    parser.add_argument("--rounds", type=int, help="how often each is played (default: what takes long, less often)")
    parser.add_argument("--scale", type=float, default=1.0, help="which part of the work is done; 0.1 is a quick look")
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    scenarios = choose(arguments)
    with running_services() as services:
        benchmark = Benchmark(services, arguments.scale)
        benchmark.install(list(dict.fromkeys(name for scenario in scenarios for name in choose_systems(arguments, scenario))))
        try:
            play_all(benchmark, arguments, scenarios)
        except KeyboardInterrupt:
            say("Interrupted: these are the trials until now.")
    text = report(benchmark.results, benchmark.versions(), benchmark.unavailable.values())
    TABLES.write_text(text)
    sys.stdout.write(text)
    for path in (TABLES, *draw_plots(benchmark.results, OUTPUT)):
        say(f"wrote {path.relative_to(ROOT)}")


def play_all(benchmark: Benchmark, arguments: argparse.Namespace, scenarios: Sequence[Scenario]) -> None:
    """Play round by round, and in each the systems by turns."""
    for round_ in range(1, 1 + (arguments.rounds or max(scenario.rounds for scenario in scenarios))):
        for scenario in (each for each in scenarios if round_ <= (arguments.rounds or each.rounds)):
            for database in (each for each in scenario.databases if not arguments.database or each in arguments.database):
                for name in choose_systems(arguments, scenario):
                    benchmark.play(round_, scenario, database, name)


if __name__ == "__main__":
    main()
