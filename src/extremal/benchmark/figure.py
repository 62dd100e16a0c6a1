"""Figures of a run: its table as bars with intervals, and the sanity curves."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.benchmark.table import Table
from extremal.files import atomic_file
from extremal.report.figure_style import ACCENT_COLOUR, CONTROL_COLOUR, DPI

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HIGHLIGHTED_METHODS = ("consensus", "path", "penalty")
ROW_HEIGHT, PANEL_WIDTH, HEADER_HEIGHT = 0.27, 2.9, 0.95  # inches: per method, per column, for heading and axis


def draw_bars(table: Table, title: str) -> "Figure":
    """Draw one panel per column, and in it one bar per method with its 95 % interval."""
    from matplotlib.figure import Figure

    table = table.select(lambda column: column.in_figure)
    panels = len(table.columns)
    columns = min(panels, 3)
    rows = math.ceil(panels / columns)
    height = HEADER_HEIGHT + ROW_HEIGHT * len(table.methods)
    figure = Figure(figsize=(1.6 + PANEL_WIDTH * columns, 0.35 + height * rows), dpi=DPI, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", size=12, weight="bold")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for index, panel in enumerate(axes):
        if index < panels:
            _draw_panel(panel, table, index, named=index % columns == 0)
        else:
            panel.set_visible(False)
    return figure


def _draw_panel(axes: "Axes", table: Table, index: int, named: bool) -> None:
    """Draw the bars of one column; `named` writes the methods on the axis."""
    column = table.columns[index]
    scale = 100.0 if column.unit == "%" else 1.0
    for place, scores in enumerate(table.methods):
        estimate = scores.values[index]
        if math.isnan(estimate.value):
            continue
        axes.barh(
            place,
            scale * estimate.value,
            color=ACCENT_COLOUR if scores.method in HIGHLIGHTED_METHODS else CONTROL_COLOUR,
            alpha=0.85,
            height=0.7,
        )
        axes.plot([scale * estimate.low, scale * estimate.high], [place, place], color="0.15", linewidth=1.2)
    axes.set_yticks(range(len(table.methods)), [scores.method for scores in table.methods] if named else [])
    axes.invert_yaxis()
    axes.set_title(column.full_title + (f" / {column.unit}" if column.unit else ""), size=9, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def draw_curves(
    stages: Sequence[str], lines: dict[str, Sequence[tuple[float, float, float]]], title: str, level: float
) -> "Figure":
    """Draw each method's similarity to the original map at each stage of re-initialisation, with intervals.

    Args:
        stages: names, from the top of the network down.
        lines: (value, low, high) at each stage, by method.
        title: of the figure.
        level: similarity below which a map counts as changed.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.62 * len(stages) + 3.6), 4.2), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    places = list(range(len(stages)))
    for index, (method, values) in enumerate(lines.items()):
        colour = ACCENT_COLOUR if method == "path" else f"C{index % 10}"
        axes.plot(
            places,
            [v for v, _, _ in values],
            label=method,
            color=colour,
            marker="o",
            markersize=3.5,
            linewidth=2.2 if method in HIGHLIGHTED_METHODS else 1.2,
        )
        axes.fill_between(
            places, [low for _, low, _ in values], [high for _, _, high in values], color=colour, alpha=0.12
        )
    axes.axhline(level, color="0.4", linewidth=1, linestyle=":")
    axes.axhline(0, color="0.8", linewidth=0.8)
    axes.set_xticks(places, list(stages), rotation=35, ha="right", size=8)
    axes.set_ylabel("rank correlation with the original map", size=9)
    axes.set_xlabel("re-initialised down to", size=9)
    axes.set_title(title, size=11, loc="left", weight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def write_png(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, atomically."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png")
