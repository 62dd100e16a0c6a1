"""Figures of an explanation: the photograph, a mask for each area, the evidence curve, the saliency map.

>>> from extremal import plots
>>> plots.write_figure(explanation, "cat.png")  # doctest: +SKIP
"""

import math
import os
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import grey, has_picture, pale
from extremal.explanations.settings import checked_image
from extremal.explanations.verdict import SHARE
from extremal.files import replacing
from extremal.report.text import Row, Summary, percent, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE, GAP, MARGIN, HEAD, TEXT, LEGEND = 2.4, 0.3, 0.25, 1.4, 0.75, 1.9  # inches
DPI = 120
ACCENT, UNSEEN, CONTROL, ENOUGH = "#0a5ca8", "#a8480a", "#77818c", "#17663a"
OUTLINE = {True: "#00c2ff", False: "#ff3b30"}  # of what is kept, of what is removed
LOWEST, HIGHEST = -0.5, 2.0  # effects drawn

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[float, float, float, float]


def figure(explanation: Explanation, image: int = 0) -> "Figure":
    """One input on a page: photograph, saliency, evidence curve, and the cut mask of each area.

    A mask's region stands in full colour where masks keep; where they delete, it is what is missing.

    Args:
        explanation: of N inputs; without pictures the masks themselves are drawn.
        image: which of them, 0..N − 1.

    Returns:
        A figure that belongs to no global state: save it, or show it in a notebook.

    Raises:
        ExtremalValueError: there is no such input.
    """
    from matplotlib.figure import Figure

    checked_image(image, len(explanation.masks))
    summary = summarise(explanation, image)
    columns = columns_for(len(summary.rows))
    page = _Page(columns, 1 + math.ceil(len(summary.rows) / columns))
    drawing = Figure(figsize=(page.width, page.height), dpi=DPI)
    _heading(drawing, summary, page)
    _input(drawing.add_axes(page.tile(0, 0)), explanation, image)
    _saliency(drawing.add_axes(page.tile(0, 1)), explanation, image)
    _curve(drawing.add_axes(page.curve()), summary)
    for k, row in enumerate(summary.rows):
        axes = drawing.add_axes(page.tile(1 + k // columns, k % columns))
        overlay(axes, explanation, image, k)
        _caption(axes, row, summary, enough=k == summary.smallest)
    return drawing


@dataclass(frozen=True)
class _Page:
    """Where things stand, in inches from the top left; every tile has the same size whatever its text."""

    columns: int
    rows: int

    @property
    def width(self) -> float:
        return 2 * MARGIN + self.columns * TILE + (self.columns - 1) * GAP

    @property
    def height(self) -> float:
        return HEAD + self.rows * (TILE + TEXT) - MARGIN

    def tile(self, row: int, column: int) -> Box:
        """The box of a tile, as matplotlib takes it: left, bottom, width, height in shares of the page."""
        return self._box(MARGIN + column * (TILE + GAP), HEAD + row * (TILE + TEXT), TILE, TILE)

    def curve(self) -> Box:
        """The evidence curve: the rest of the first row, with room for its axis on the left and its legend."""
        left = MARGIN + 2 * (TILE + GAP) + 0.45
        return self._box(left, HEAD, self.width - MARGIN - LEGEND - left, TILE)

    def _box(self, left: float, top: float, width: float, height: float) -> Box:
        bottom = self.height - top - height
        return left / self.width, bottom / self.height, width / self.width, height / self.height


def write_figure(explanation: Explanation, path: str | os.PathLike[str], image: int = 0) -> None:
    """Write the figure of one input as PNG; the file appears whole or not at all.

    Args:
        explanation: of N inputs.
        path: of the PNG file; an existing one is replaced.
        image: which of the inputs, 0..N − 1.
    """
    drawing = figure(explanation, image)
    with replacing(Path(path)) as aside:
        drawing.savefig(aside, format="png")


def columns_for(areas: int) -> int:
    """Columns that leave few places empty: one row up to six areas, then as even as can be.

    >>> [columns_for(n) for n in range(1, 10)]
    [4, 4, 4, 4, 5, 6, 4, 4, 5]
    """
    if areas <= 6:
        return max(4, areas)
    return min((4, 5, 6), key=lambda columns: (math.ceil(areas / columns), -areas % columns))


def _heading(drawing: "Figure", summary: Summary, page: _Page) -> None:
    name = textwrap.shorten(summary.name, 44, placeholder="…")
    network = textwrap.shorten(summary.network, 24, placeholder="…")
    sentences = " ".join([summary.headline, summary.caution]).strip()
    lines = textwrap.fill(sentences, int(page.width * 11.5), max_lines=3, placeholder=" …")
    left, right, line = MARGIN / page.width, 1 - MARGIN / page.width, 1 / page.height
    common: dict[str, Any] = {"va": "top", "parse_math": False}  # a class name may hold a dollar sign
    drawing.text(left, 1 - 0.22 * line, f"{name} – {network}", size=15, weight="bold", **common)
    drawing.text(right, 1 - 0.27 * line, f"{summary.game} game", size=10, color="0.35", ha="right", **common)
    drawing.text(left, 1 - 0.56 * line, lines, size=11, linespacing=1.3, **common)


def _caption(axes: "Axes", row: Row, summary: Summary, enough: bool) -> None:
    verb = "kept" if summary.keeps else "removed"
    axes.set_title(
        f"{row.label} {verb} – {row.verdict.word}", size=10, loc="left", weight="bold" if enough else "normal"
    )
    axes.set_xlabel(f"effect {percent(row.soft)} as found, {percent(row.binary)} cut", size=9, loc="left")


def bare(axes: "Axes") -> None:
    """A tile without axes."""
    axes.set_anchor("NW")  # pictures that are not square begin at the top left of their tile
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _input(axes: "Axes", explanation: Explanation, image: int) -> None:
    values = explanation.inputs[image]
    if has_picture(explanation):
        axes.imshow(explanation.pictures[image].numpy())
    elif values.ndim == 2:
        axes.plot(values.T.numpy(), linewidth=0.8)
    else:
        axes.imshow(_slice(values.mean(0).numpy()), cmap="gray")
    axes.set_title("input", size=10, loc="left")
    bare(axes)


def _saliency(axes: "Axes", explanation: Explanation, image: int) -> None:
    values = explanation.saliency()[image, 0].numpy()
    if values.ndim == 1:
        axes.fill_between(np.arange(len(values)), values, color=ACCENT, alpha=0.5, linewidth=0)
        axes.set_ylim(0, 1.05)
    elif has_picture(explanation):
        axes.imshow(grey(explanation.pictures[image].numpy()), cmap="gray", vmin=0, vmax=255)
        axes.imshow(values, cmap="inferno", alpha=0.65, vmin=0, vmax=max(1e-9, float(values.max())))
    else:
        axes.imshow(_slice(values), cmap="inferno", vmin=0, vmax=1)
    axes.set_title("saliency" + _where(values), size=10, loc="left")
    bare(axes)


def overlay(axes: "Axes", explanation: Explanation, image: int, column: int) -> None:
    """The cut mask: over the photograph, or by itself where there is none."""
    cut = explanation.binary(explanation.areas[column])[image, 0].numpy()
    mask = explanation.masks[image, column, 0].numpy()
    colour = OUTLINE[explanation.keeps]
    if cut.ndim == 1:
        places = np.arange(len(cut))
        axes.fill_between(places, cut, step="mid", color=colour, alpha=0.3, linewidth=0)
        axes.plot(places, mask, color=ACCENT, linewidth=1)
        axes.set_ylim(-0.02, 1.05)
    elif has_picture(explanation):
        picture = explanation.pictures[image].numpy()
        shown = cut if explanation.keeps else 1 - cut
        axes.imshow(np.where(shown[..., None] > 0, picture, pale(picture)))
        _outline(axes, cut, colour)
    else:
        axes.imshow(_slice(mask), cmap="gray", vmin=0, vmax=1)
        _outline(axes, _slice(cut), colour)
    bare(axes)


def _outline(axes: "Axes", cut: Array, colour: str) -> None:
    if 0 < cut.sum() < cut.size:  # a contour of a constant is a warning, not a line
        axes.contour(cut, levels=[0.5], colors=[colour], linewidths=1.4)


def _slice(values: Array) -> Array:
    """The middle slice of a volume; a picture is itself."""
    return values[values.shape[0] // 2] if values.ndim == 3 else values


def _where(values: Array) -> str:
    return f", slice {values.shape[0] // 2}" if values.ndim == 3 else ""


def _curve(axes: "Axes", summary: Summary) -> None:
    rows = summary.rows
    areas = [row.area for row in rows]
    best, median = [row.control_best for row in rows], [row.control for row in rows]
    axes.fill_between(areas, median, best, color=CONTROL, alpha=0.25, linewidth=0, label="random, median to best")
    axes.plot(areas, median, color=CONTROL, linewidth=1.2, marker="_")
    axes.plot(
        areas, [row.soft for row in rows], color=ACCENT, linewidth=1.2, linestyle="--", marker=".", label="as found"
    )
    axes.plot(
        areas, [row.unseen for row in rows], color=UNSEEN, linewidth=1.2, marker="s", markersize=4, label="unseen"
    )
    axes.plot(areas, [row.binary for row in rows], color=ACCENT, linewidth=2.2, marker="o", markersize=5, label="cut")
    axes.axhline(SHARE, color=ENOUGH, linewidth=1.2, linestyle=":", label=f"enough, {percent(SHARE)}")
    effect_axes(axes, areas, [effect for row in rows for effect in row.effects], lambda area: f"{100 * area:.3g}")
    verb = "kept" if summary.keeps else "removed"
    axes.set_xlabel(f"area {verb} / %", size=9)


def effect_axes(
    axes: "Axes",
    sizes: Sequence[float],
    effects: Sequence[float],
    name: Callable[[Any], str],
    highest: float = HIGHEST,
) -> None:
    """The axes of an evidence curve over areas or counts, and its legend beside it.

    Args:
        sizes: rising, marked on a logarithmic axis.
        effects: all that are drawn; those far out are cut off.
        name: how a size is written.
        highest: effect that is drawn.
    """
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

    finite = [effect for effect in effects if math.isfinite(effect)]
    axes.set_ylim(max(LOWEST, min([0.0, *finite])) - 0.03, min(highest, max([1.0, *finite])) + 0.05)
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25 if sizes[-1] >= 1 else min(1.0, sizes[-1] * 1.25))
    axes.xaxis.set_major_locator(FixedLocator(_spaced(list(sizes))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda size, _: name(size))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_ylabel("effect / %", size=9)
    axes.set_title("evidence", size=10, loc="left")
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _spaced(areas: list[float]) -> list[float]:
    """The areas whose marks do not run into each other, from the largest down."""
    least = max(1.12, (areas[-1] / areas[0]) ** 0.09)
    chosen = [areas[-1]]
    for area in reversed(areas):
        if chosen[-1] / area >= least:
            chosen.append(area)
    return chosen[::-1]
