"""Figures of runs over data sets: of one, and of two beside each other.

>>> from extremal import jobs
>>> from extremal.jobs import figures
>>> figures.write(figures.of_summary(jobs.summary("out"), images), "summary.png")  # doctest: +SKIP
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.explanations.verdict import SHARE
from extremal.files import replacing
from extremal.jobs.run_comparison import MOVED_IOU, Comparison
from extremal.jobs.run_summary import ImageSummary, Summary
from extremal.report.comparison_page import headline as compared_headline
from extremal.report.plots import ACCENT_COLOUR, CONTROL_COLOUR, DPI, THRESHOLD_COLOUR, HIGHEST, LOWEST, UNSEEN_COLOUR
from extremal.report.run_page import headline, network_of
from extremal.report.text import area_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VERDICT_COLOURS = {"sufficient": THRESHOLD_COLOUR, "suspect": UNSEEN_COLOUR, "insufficient": CONTROL_COLOUR, "failed": "#b3261e"}
FIGURE_SIZE = (13.0, 4.6)  # inches


def summary_figure(found: Summary, images: Sequence[ImageSummary]) -> "Figure":
    """A run on a page: verdicts, for how many images each area is enough, and what unseen perturbations leave."""
    drawing, (verdicts, areas, unseen) = _new_figure(
        f"A run of {network_of(found.settings)}", headline(found), (1.0, 1.5, 1.3)
    )
    words = [word for word, count in found.verdicts.items() if count]
    _draw_bars(verdicts, words, [found.verdicts[word] for word in words], [VERDICT_COLOURS[word] for word in words])
    verdicts.set_title("verdicts", size=10, loc="left")
    _draw_areas(areas, found, images)
    _draw_unseen(unseen, images)
    return drawing


def comparison_figure(found: Comparison) -> "Figure":
    """Two runs on a page: how much the masks share at each area, smallest areas, and what changed."""
    drawing, (overlap, sizes, verdicts) = _new_figure(
        f"{found.first} – {found.second}", compared_headline(found), (1.4, 1.1, 1.2)
    )
    _draw_overlap(overlap, found)
    _draw_smallest_areas(sizes, found)
    changes = found.verdicts[:8]
    labels = [one if one == other else f"{one} → {other}" for one, other, _ in changes]
    colours = [CONTROL_COLOUR if one == other else ACCENT_COLOUR for one, other, _ in changes]
    _draw_bars(verdicts, labels, [count for *_, count in changes], colours)
    verdicts.set_title("verdicts", size=10, loc="left")
    return drawing


def write(drawing: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG; the file appears whole or not at all."""
    with replacing(Path(path)) as aside:
        drawing.savefig(aside, format="png")


def _new_figure(title: str, sentence: str, widths: tuple[float, ...]) -> "tuple[Figure, list[Axes]]":
    from matplotlib.figure import Figure

    drawing = Figure(figsize=FIGURE_SIZE, dpi=DPI, layout="constrained")
    drawing.get_layout_engine().set(rect=(0.01, 0.02, 0.98, 0.78), wspace=0.04)  # type: ignore[union-attr, call-arg]
    common: dict[str, Any] = {"va": "top", "parse_math": False}  # a folder's name may hold a dollar sign
    drawing.text(0.02, 0.965, title, size=15, weight="bold", **common)
    drawing.text(0.02, 0.885, sentence, size=11, **common)
    grid = drawing.add_gridspec(1, 3, width_ratios=widths)
    places = [drawing.add_subplot(grid[0, k]) for k in range(3)]
    for place in places:
        place.tick_params(labelsize=9)
        place.spines[["top", "right"]].set_visible(False)
        place.set_axisbelow(True)
    return drawing, places


def _draw_bars(axes: "Axes", labels: Sequence[str], counts: Sequence[int], colours: Sequence[str]) -> None:
    """Counts with their names, the first on top."""
    bars = axes.barh(range(len(labels)), counts, color=list(colours), alpha=0.8)
    axes.bar_label(bars, [f"{count:,}" for count in counts], size=9, padding=3)
    axes.set_yticks(range(len(labels)), list(labels))
    axes.invert_yaxis()
    axes.set_xlim(0, max([1, *counts]) * 1.2)
    axes.xaxis.set_visible(False)
    axes.spines[["bottom"]].set_visible(False)


def _draw_areas(axes: "Axes", found: Summary, images: Sequence[ImageSummary]) -> None:
    """For how many images each computed area is the smallest that is enough, and how many are served by then."""
    total = max(1, found.explained)
    shares = [count / total for _, count in found.smallest_counts]
    labels = [area_percent(area).replace("\xa0", " ") for area, _ in found.smallest_counts]
    places = np.arange(len(shares) + 1)
    axes.bar(places, [*shares, 1 - sum(shares)], color=[ACCENT_COLOUR] * len(shares) + [CONTROL_COLOUR], alpha=0.6, label="smallest")
    known = [image.area for image in images if image.area is not None]
    reached = [sum(area <= limit + 1e-9 for area in known) / total for limit, _ in found.smallest_counts]
    axes.plot(places[:-1], reached, color=THRESHOLD_COLOUR, marker="o", linewidth=1.8, markersize=4, label="this or less")
    axes.set_xticks(places, [*labels, "none"], size=8 if len(labels) > 6 else 9)
    axes.set_ylim(0, 1.05)
    _format_percent(axes.yaxis)
    axes.set_ylabel("explained images / %", size=9)
    axes.set_title("smallest area that is enough", size=10, loc="left")
    axes.grid(axis="y", color="0.9")
    axes.legend(fontsize=8.5, frameon=False)


def _draw_unseen(axes: "Axes", images: Sequence[ImageSummary]) -> None:
    """Effect under the run's perturbation and under unseen ones, a point an image."""
    points = [
        (one.effect, one.unseen, one.verdict) for one in images if one.effect is not None and one.unseen is not None
    ]
    every = np.array([point[:2] for point in points] or [(SHARE, SHARE)]).clip(LOWEST, HIGHEST)
    axes.plot([LOWEST, HIGHEST], [LOWEST, HIGHEST], color="0.7", linewidth=1)
    axes.axvline(SHARE, color=THRESHOLD_COLOUR, linewidth=1.2, linestyle=":")
    for word in ("sufficient", "suspect"):
        chosen = np.array([point[:2] for point in points if point[2] == word]).reshape(-1, 2)
        shown = chosen.clip(LOWEST, HIGHEST)
        size = 14 if len(points) < 500 else 4
        axes.scatter(shown[:, 0], shown[:, 1], s=size, color=VERDICT_COLOURS[word], alpha=0.5, linewidths=0, label=word)
    axes.set_xlim(SHARE - 0.05, max(1.1, every[:, 0].max()) + 0.03)
    axes.set_ylim(min(0.0, every[:, 1].min()) - 0.03, max(1.2, every[:, 1].max()) + 0.03)
    for axis in (axes.xaxis, axes.yaxis):
        _format_percent(axis)
    axes.set_xlabel("effect, cut / %", size=9)
    axes.set_ylabel("effect under unseen perturbations / %", size=9)
    axes.set_title("what unseen perturbations leave", size=10, loc="left")
    axes.grid(color="0.92")
    if points:
        axes.legend(fontsize=8.5, frameon=False, loc="lower right", markerscale=2)


def _draw_overlap(axes: "Axes", found: Comparison) -> None:
    """At each area, for which share of images the masks share so much or less."""
    shades = np.linspace(0.35, 1.0, len(found.areas))
    for k, (area, shade) in enumerate(zip(found.areas, shades, strict=True)):
        values = np.sort([pair.iou[k] for pair in found.pairs if pair.iou is not None])
        if len(values):
            ranks = np.arange(1, len(values) + 1) / len(values)
            line = axes.step([0, *values, 1], [0, *ranks, 1], where="post", color=ACCENT_COLOUR, alpha=shade, linewidth=1.8)
            line[0].set_label(area_percent(area).replace("\xa0", " "))
    axes.axvline(MOVED_IOU, color=UNSEEN_COLOUR, linewidth=1.2, linestyle=":")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.02)
    _format_percent(axes.yaxis)
    axes.set_xlabel("IoU of the cut masks", size=9)
    axes.set_ylabel("images with so much or less / %", size=9)
    axes.set_title("overlap", size=10, loc="left")
    axes.grid(color="0.92")
    if found.pairs:
        axes.legend(fontsize=8.5, frameon=False, title="area", title_fontsize=8.5)


def _draw_smallest_areas(axes: "Axes", found: Comparison) -> None:
    """The smallest area that is enough in both runs, a point an image."""
    none = 1.0  # where no area is enough
    points = np.array([[one.first.area or none, one.second.area or none] for one in found.pairs]).reshape(-1, 2)
    least = min([*points.flatten(), *found.areas]) / 1.4
    spots, counts = np.unique(points.round(9), axis=0, return_counts=True)
    sizes = 16 + 260 * counts / max([1, *counts])
    axes.plot([least, 1.4], [least, 1.4], color="0.7", linewidth=1)
    axes.scatter(spots[:, 0], spots[:, 1], s=sizes, color=ACCENT_COLOUR, alpha=0.5, linewidths=0)
    ticks = [*found.areas, none]
    axes.set(xscale="log", yscale="log", xlim=(least, 1.5), ylim=(least, 1.5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [*(f"{100 * area:.3g}" for area in found.areas), "none"])
        axis.set_ticks([], minor=True)
    axes.set_xlabel("first / %", size=9)
    axes.set_ylabel("second / %", size=9)
    axes.set_title("smallest area that is enough", size=10, loc="left")
    axes.grid(color="0.92")


def _format_percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=""))
