"""The parts of the benchmarks that can be told right from wrong without measuring anything."""

import ast
import os
import subprocess
import sys

import pytest

from benchmarks.environments import ROOT, find_python
from benchmarks.plan import GOALS, SCENARIOS, Goal
from benchmarks.processes import cpu_seconds, list_tree, peak_memory
from benchmarks.report import Results, number, ratios, report, rows_of, spread
from benchmarks.systems import SYSTEMS

#: Two rounds on a machine that was twice as slow in the second one.
RESULTS: Results = {
    (1, "worker", "postgresql", "djwebhooks-requests"): {"cpu_s_per_1000": 0.5},
    (1, "worker", "postgresql", "rq-job"): {"cpu_s_per_1000": 50.0},
    (2, "worker", "postgresql", "djwebhooks-requests"): {"cpu_s_per_1000": 1.0},
    (2, "worker", "postgresql", "rq-job"): {"cpu_s_per_1000": 100.0},
}


def read_functions() -> dict[str, str | None]:
    """The functions of the scenarios' module with their docstrings; it can only be imported in the benchmarks' own project."""
    tree = ast.parse((ROOT / "benchmarks" / "scenarios.py").read_text())
    return {node.name: ast.get_docstring(node) for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_of_the_plan_is_a_function_that_explains_itself(scenario):
    """Whoever reads a table finds out what was measured."""
    assert read_functions().get(scenario.name)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_who_plays_is_a_system(scenario):
    """The plan names systems that there are."""
    assert {*scenario.own, *scenario.peers} <= SYSTEMS.keys()


def test_a_goal_is_of_a_scenario_of_the_plan():
    """A goal that nobody plays for would never be missed."""
    assert {goal.scenario for goal in GOALS} <= {scenario.name for scenario in SCENARIOS}


def test_ratios_are_taken_within_a_round():
    """Times of different rounds are not compared: the machine may have been busier in one of them."""
    found = ratios(RESULTS, "worker", "postgresql", "djwebhooks-requests", "cpu_s_per_1000", against="rq-job")

    assert found == [0.01, 0.01]


def test_a_figure_can_be_held_against_another_of_the_same_trial():
    """What grows with the work shows within one trial."""
    results: Results = {(1, "caller", "sqlite", "rq-job"): {"ms_at_1": 2.0, "ms_at_100": 3.0}}

    assert ratios(results, "caller", "sqlite", "rq-job", "ms_at_100", against="ms_at_1") == [1.5]


@pytest.mark.parametrize(("bound", "word"), [(0.02, "yes"), (0.005, "**no**")])
def test_a_goal_is_held_against_the_median(bound, word):
    """A report says of each goal whether it was reached."""
    (row,) = rows_of(RESULTS, Goal("worker", "djwebhooks-requests", "cpu_s_per_1000", bound, "rq-job"))

    assert row[-1] == word


def test_a_goal_that_was_not_played_for_is_left_out():
    """A single scenario's report says nothing of the others."""
    assert list(rows_of(RESULTS, Goal("slow", "djwebhooks-requests", "last_late_s", 3))) == []


def test_a_report_is_a_table_of_all_systems():
    """Each system has its median, its spread and its ratio to this project."""
    text = report(RESULTS, ["django 5.2"], ["drf-hooks could not be installed: no such package"])

    assert "0.750 (0.500 to 1.00)" in text
    assert "100 (100 to 100)" in text
    assert "drf-hooks could not be installed" in text


@pytest.mark.parametrize(("values", "text"), [([], ""), ([2.0], "2.00"), ([1.0, 3.0, 2.0], "2.00 (1.00 to 3.00)")])
def test_a_spread_is_a_median_with_its_bounds(values, text):
    """One value has no spread."""
    assert spread(values) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (12345.6, "12,346"), (float("inf"), "inf")],
)
def test_a_number_has_about_three_digits(value, text):
    """More would be noise."""
    assert number(value) == text


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_children_use_is_counted():
    """A worker that forks for each job, or has processes of its own, does not hide what they cost."""
    before = cpu_seconds(os.getpid())
    code = "import time\nwhile time.process_time() < 0.3: pass"
    child = subprocess.Popen([sys.executable, "-c", code])

    assert child.pid in list_tree(os.getpid())

    child.wait()

    # It is counted in hundredths.
    assert cpu_seconds(os.getpid()) - before > 0.25
    assert peak_memory(os.getpid()) > 1


def test_this_project_runs_in_this_environment():
    """Only peers have environments of their own."""
    assert find_python(SYSTEMS["djwebhooks-requests"].requirements) == sys.executable
    assert all(system.requirements for name, system in SYSTEMS.items() if not name.startswith("djwebhooks"))
