"""Figures of a run over a data set, and of the comparison of two runs.

>>> from extremal import jobs
>>> from extremal.report import run_plots
>>> run_plots.summary_figure(jobs.summary("out"), images).savefig("summary.png")  # doctest: +SKIP
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.explanations.verdict import SUFFICIENT_EFFECT, VerdictLabel
from extremal.jobs.run_comparison import MOVED_IOU, Comparison
from extremal.jobs.run_summary import OPTIONAL_VERDICTS, ImageSummary, Summary
from extremal.report import comparison_page, run_page
from extremal.report.chart import MAX_DRAWN_EFFECT, MIN_DRAWN_EFFECT
from extremal.report.figure_style import ACCENT_COLOUR, CONTROL_COLOUR, DPI, THRESHOLD_COLOUR, UNSEEN_COLOUR
from extremal.report.fonts import fit_fonts
from extremal.report.text import area_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNSTABLE_COLOUR = "#8e6bbf"
CHANCE_COLOUR = "#5f8a8b"
VERDICT_COLOURS = {
    VerdictLabel.SUFFICIENT: THRESHOLD_COLOUR,
    VerdictLabel.UNSTABLE: UNSTABLE_COLOUR,
    VerdictLabel.CHANCE: CHANCE_COLOUR,
    VerdictLabel.SUSPECT: UNSEEN_COLOUR,
    VerdictLabel.INSUFFICIENT: CONTROL_COLOUR,
    "failed": "#b3261e",
}
FIGURE_SIZE = (13.0, 4.6)  # inches


def summary_figure(summary: Summary, images: Sequence[ImageSummary]) -> "Figure":
    """Draw the summary of a run: verdicts, smallest areas, and effects under unseen perturbations."""
    drawing, (verdicts, areas, unseen) = _new_figure(
        f"A run of {run_page.network_name(summary.settings)}", run_page.headline(summary), (1.0, 1.5, 1.3)
    )
    words = [word for word, count in summary.verdicts.items() if count]
    _draw_bars(verdicts, words, [summary.verdicts[word] for word in words], [VERDICT_COLOURS[word] for word in words])
    verdicts.set_title("verdicts", size=10, loc="left")
    _draw_areas(areas, summary, images)
    _draw_unseen_effects(unseen, images)
    fit_fonts(drawing)
    return drawing


def comparison_figure(comparison: Comparison) -> "Figure":
    """Draw the comparison of two runs: overlap at each area, smallest areas, and changes of verdicts."""
    drawing, (overlap, sizes, verdicts) = _new_figure(
        f"{comparison.first} – {comparison.second}", comparison_page.headline(comparison), (1.4, 1.1, 1.2)
    )
    _draw_overlap(overlap, comparison)
    _draw_smallest_areas(sizes, comparison)
    changes = comparison.verdicts[:8]
    labels = [first if first == second else f"{first} → {second}" for first, second, _ in changes]
    colours = [CONTROL_COLOUR if first == second else ACCENT_COLOUR for first, second, _ in changes]
    _draw_bars(verdicts, labels, [count for *_, count in changes], colours)
    verdicts.set_title("verdicts", size=10, loc="left")
    fit_fonts(drawing)
    return drawing


def _new_figure(title: str, sentence: str, widths: tuple[float, ...]) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    drawing = Figure(figsize=FIGURE_SIZE, dpi=DPI, layout="constrained")
    drawing.get_layout_engine().set(rect=(0.01, 0.02, 0.98, 0.78), wspace=0.04)  # type: ignore[union-attr, call-arg]
    common: dict[str, Any] = {"va": "top", "parse_math": False}  # a folder name may contain a dollar sign
    drawing.text(0.02, 0.965, title, size=15, weight="bold", **common)
    drawing.text(0.02, 0.885, sentence, size=11, **common)
    grid = drawing.add_gridspec(1, 3, width_ratios=widths)
    panels = [drawing.add_subplot(grid[0, k]) for k in range(3)]
    for panel in panels:
        panel.tick_params(labelsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_axisbelow(True)
    return drawing, panels


def _draw_bars(axes: "Axes", labels: Sequence[str], counts: Sequence[int], colours: Sequence[str]) -> None:
    """Draw labelled counts as horizontal bars, the first on top."""
    bars = axes.barh(range(len(labels)), counts, color=list(colours), alpha=0.8)
    axes.bar_label(bars, [f"{count:,}" for count in counts], size=9, padding=3)
    axes.set_yticks(range(len(labels)), list(labels))
    axes.invert_yaxis()
    axes.set_xlim(0, max([1, *counts]) * 1.2)
    axes.xaxis.set_visible(False)
    axes.spines[["bottom"]].set_visible(False)


def _draw_areas(axes: "Axes", summary: Summary, images: Sequence[ImageSummary]) -> None:
    """Draw for how many images each computed area is the smallest that is enough, and the cumulative count."""
    total = max(1, summary.explained)
    fractions = [count / total for _, count in summary.smallest_counts]
    labels = [area_percent(area).replace("\xa0", " ") for area, _ in summary.smallest_counts]
    positions = np.arange(len(fractions) + 1)
    axes.bar(
        positions,
        [*fractions, 1 - sum(fractions)],
        color=[ACCENT_COLOUR] * len(fractions) + [CONTROL_COLOUR],
        alpha=0.6,
        label="this area",
    )
    known = [image.area for image in images if image.area is not None]
    cumulative = [sum(area <= limit + 1e-9 for area in known) / total for limit, _ in summary.smallest_counts]
    axes.plot(
        positions[:-1],
        cumulative,
        color=THRESHOLD_COLOUR,
        marker="o",
        linewidth=1.8,
        markersize=4,
        label="this area or smaller",
    )
    axes.set_xticks(positions, [*labels, "none"], size=8 if len(labels) > 6 else 9)
    axes.set_ylim(0, 1.05)
    _format_percent(axes.yaxis)
    axes.set_ylabel("explained images / %", size=9)
    axes.set_title("smallest area that is enough", size=10, loc="left")
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize=8.5, frameon=False)


def _draw_unseen_effects(axes: "Axes", images: Sequence[ImageSummary]) -> None:
    """Draw the effect of each image under the run's perturbation and under unseen ones."""
    points = [
        (image.effect, image.unseen, image.verdict)
        for image in images
        if image.effect is not None and image.unseen is not None
    ]
    limits = (MIN_DRAWN_EFFECT, MAX_DRAWN_EFFECT)
    effects = np.array([point[:2] for point in points] or [(SUFFICIENT_EFFECT, SUFFICIENT_EFFECT)]).clip(*limits)
    axes.plot(limits, limits, color="0.7", linewidth=1)
    axes.axvline(SUFFICIENT_EFFECT, color=THRESHOLD_COLOUR, linewidth=1.2, linestyle=":")
    for word in (VerdictLabel.SUFFICIENT, *OPTIONAL_VERDICTS, VerdictLabel.SUSPECT):
        if word in OPTIONAL_VERDICTS and all(point[2] != word for point in points):
            continue
        selection = np.array([point[:2] for point in points if point[2] == word]).reshape(-1, 2)
        shown = selection.clip(*limits)
        size = 14 if len(points) < 500 else 4
        axes.scatter(shown[:, 0], shown[:, 1], s=size, color=VERDICT_COLOURS[word], alpha=0.5, linewidths=0, label=word)
    axes.set_xlim(SUFFICIENT_EFFECT - 0.05, max(1.1, effects[:, 0].max()) + 0.03)
    axes.set_ylim(min(0.0, effects[:, 1].min()) - 0.03, max(1.2, effects[:, 1].max()) + 0.03)
    for axis in (axes.xaxis, axes.yaxis):
        _format_percent(axis)
    axes.set_xlabel("effect, cut / %", size=9)
    axes.set_ylabel("effect, unseen perturbations / %", size=9)
    axes.set_title("effect under unseen perturbations", size=10, loc="left")
    axes.grid(color="0.92")
    if points:
        axes.legend(fontsize=8.5, frameon=False, loc="lower right", markerscale=2)


def _draw_overlap(axes: "Axes", comparison: Comparison) -> None:
    """Draw the cumulative distribution of the IoU over images at each area."""
    shades = np.linspace(0.35, 1.0, len(comparison.areas))
    for k, (area, shade) in enumerate(zip(comparison.areas, shades, strict=True)):
        values = np.sort([pair.iou[k] for pair in comparison.pairs if pair.iou is not None])
        if len(values):
            ranks = np.arange(1, len(values) + 1) / len(values)
            line = axes.step(
                [0, *values, 1], [0, *ranks, 1], where="post", color=ACCENT_COLOUR, alpha=shade, linewidth=1.8
            )
            line[0].set_label(area_percent(area).replace("\xa0", " "))
    axes.axvline(MOVED_IOU, color=UNSEEN_COLOUR, linewidth=1.2, linestyle=":")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    _format_percent(axes.yaxis)
    axes.set_xlabel("IoU of the cut masks", size=9)
    axes.set_ylabel("images up to this IoU / %", size=9)
    axes.set_title("overlap", size=10, loc="left")
    axes.grid(color="0.92")
    if comparison.pairs:
        axes.legend(fontsize=8.5, frameon=False, title="area", title_fontsize=8.5)


def _draw_smallest_areas(axes: "Axes", comparison: Comparison) -> None:
    """Draw the smallest area that is enough in both runs; the size of a point is its number of images."""
    none = 1.0  # if no area is enough
    points = np.array([[pair.first.area or none, pair.second.area or none] for pair in comparison.pairs]).reshape(-1, 2)
    lower = min([*points.flatten(), *comparison.areas]) / 1.4
    spots, counts = np.unique(points.round(9), axis=0, return_counts=True)
    sizes = 16 + 260 * counts / max([1, *counts])
    axes.plot([lower, 1.4], [lower, 1.4], color="0.7", linewidth=1)
    axes.scatter(spots[:, 0], spots[:, 1], s=sizes, color=ACCENT_COLOUR, alpha=0.5, linewidths=0)
    ticks = [*comparison.areas, none]
    axes.set(xscale="log", yscale="log", xlim=(lower, 1.5), ylim=(lower, 1.5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [*(f"{100 * area:.3g}" for area in comparison.areas), "none"])
        axis.set_ticks([], minor=True)
    axes.set_xlabel("first / %", size=9)
    axes.set_ylabel("second / %", size=9)
    axes.set_title("smallest area that is enough", size=10, loc="left")
    axes.grid(color="0.92")


def _format_percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
