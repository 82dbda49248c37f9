"""Bars on a logarithmic scale, as the systems differ by orders of magnitude."""

from math import ceil, floor, log10
from pathlib import Path
from statistics import median

import pygal
from pygal.style import CleanStyle

from benchmarks.report import Results, series

#: The figures that are drawn: of which scenario, on PostgreSQL, and what they are.
PLOTS = {
    ("worker", "cpu_s_per_1000"): "The worker's processor seconds for 1000 recorded deliveries",
    ("worker", "per_second"): "Deliveries per second of one worker",
    ("caller", "ms_at_10"): "Milliseconds added to a save with ten endpoints",
}


def draw_plots(results: Results, folder: Path) -> list[Path]:
    """Write an SVG file for each of the figures that *results* have; return the files."""
    return [path for (scenario, figure), title in PLOTS.items() if (path := draw(results, folder, scenario, figure, title))]


def draw(results: Results, folder: Path, scenario: str, figure: str, title: str) -> Path | None:
    """Write a bar for each system, with the medians."""
    systems = dict.fromkeys(key[3] for key in results if key[1:3] == (scenario, "postgresql"))
    found = {system: series(results, scenario, "postgresql", system, figure) for system in systems}
    # A logarithm has no room for what cannot be told from nothing.
    values = {system: median(each) for system, each in found.items() if each and median(each) > 0}
    if not values:
        return None
    least, most = floor(log10(min(values.values()))), ceil(log10(max(values.values())))
    chart = pygal.HorizontalBar(
        logarithmic=True,
        show_legend=False,
        print_values=True,
        style=CleanStyle,
        height=60 * len(values) + 100,
        range=(10**least / 2, 10**most),
        zero=10**least / 2,
        y_labels=[10**power for power in range(least, most + 1)],
    )
    chart.title = title
    chart.x_labels = list(values)[::-1]  # from below
    chart.add(figure, list(values.values())[::-1], formatter="{:.3g}".format)
    path = folder / f"{scenario}-{figure}.svg"
    chart.render_to_file(str(path))
    return path
