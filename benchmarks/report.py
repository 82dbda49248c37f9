"""Tables in reStructuredText: medians with their spread, ratios taken within each round, and which goals were reached."""

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from statistics import median

from benchmarks.plan import GOALS, Goal

#: Figures whose ratio to another system's says nothing.
INCOMPARABLE = ("receiver_share", "arrived", "saved_late_s", "p50_ratio", "p99_ratio")

#: What one trial found, by round, scenario, database and system.
Results = dict[tuple[int, str, str, str], dict[str, float]]


def report(results: Results, versions: Iterable[str], unavailable: Iterable[str]) -> str:
    """Return all tables of *results*."""
    rounds = len({key[0] for key in results})
    lines = [f"Python {platform.python_version()}, {os.cpu_count()} cores, {rounds} rounds; {', '.join(versions)}.", ""]
    lines += [line for text in unavailable for line in (text, "")]
    for scenario in dict.fromkeys(key[1] for key in results):
        lines += [scenario, "-" * len(scenario), "", *table_of(results, scenario), ""]
    goals = [row for goal in GOALS for row in rows_of(results, goal)]
    if goals:
        lines += ["goals", "-----", "", *draw_table(("goal", "database", "bound", "found", "reached"), goals)]
    return "\n".join(lines) + "\n"


def table_of(results: Results, scenario: str) -> list[str]:
    """One scenario: a row for each database and system; each figure's median and spread, and its ratio to the first system."""
    found = {key: figures for key, figures in results.items() if key[1] == scenario}
    names = list(dict.fromkeys(name for figures in found.values() for name in figures))
    first = next(iter(found))[3]
    compared = {name for name in names if name not in INCOMPARABLE} if any(key[3] != first for key in found) else set()
    rows = []
    for database, system in dict.fromkeys((key[2], key[3]) for key in found):
        row = [system, database]
        for name in names:
            row.append(spread(series(results, scenario, database, system, name)))
            if name in compared:
                row.append(spread(ratios(results, scenario, database, system, name, against=first)) if system != first else "")
        rows.append(row)
    heads = [head for name in names for head in ((name, "ratio") if name in compared else (name,))]
    return draw_table(("system", "database", *heads), rows)


def rows_of(results: Results, goal: Goal) -> Iterator[list[str]]:
    """A goal on each database on which it was played."""
    for database in goal.databases:
        if goal.against:
            values = ratios(results, goal.scenario, database, goal.system, goal.figure, against=goal.against)
        else:
            values = series(results, goal.scenario, database, goal.system, goal.figure)
        if values:
            is_reached = median(values) <= goal.bound if goal.is_most else median(values) >= goal.bound
            text = f"{goal.scenario}: {goal.figure} of {goal.system}" + (f" / {goal.against}" if goal.against else "")
            bound = f"{'≤' if goal.is_most else '≥'} {number(goal.bound)}"
            yield [text, database, bound, spread(values), "yes" if is_reached else "**no**"]


def series(results: Results, scenario: str, database: str, system: str, name: str) -> list[float]:
    """The values of one figure, round by round."""
    wanted = (scenario, database, system)
    return [figures[name] for key, figures in sorted(results.items()) if key[1:] == wanted and name in figures]


def ratios(results: Results, scenario: str, database: str, system: str, name: str, *, against: str) -> list[float]:
    """The figure divided by another system's in the same round, or by the same system's figure *against*."""
    found = []
    for key, figures in sorted(results.items()):
        if key[1:] != (scenario, database, system) or name not in figures:
            continue
        divisor = figures.get(against, results.get((key[0], scenario, database, against), {}).get(name))
        if divisor:
            found.append(figures[name] / divisor)
    return found


def spread(values: Sequence[float]) -> str:
    """The median, with the least and the most."""
    if len(values) < 2:
        return number(values[0]) if values else ""
    return f"{number(median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three significant digits."""
    if value == 0 or abs(value) == float("inf"):
        return str(value)
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def draw_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A simple table."""
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (heads, *rows)]
    return [rule, lines[0], rule, *lines[1:], rule]
