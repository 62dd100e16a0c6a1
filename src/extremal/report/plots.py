"""Figures of an explanation: the image, its saliency map, the evidence curve, and a mask for each area.

>>> from extremal import plots
>>> plots.write_figure(explanation, "cat.png")  # doctest: +SKIP
"""

import math
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import OUTLINE_COLOURS, fade, has_image, luminance
from extremal.explanations.validation import validate_image
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.report.figure_style import (
    ACCENT_COLOUR,
    CONTROL_COLOUR,
    DPI,
    THRESHOLD_COLOUR,
    UNSEEN_COLOUR,
    format_effect_axes,
    hide_axes,
    save_png,
)
from extremal.report.fonts import fit_fonts, show_name
from extremal.report.stack_frames import build_frames, find_peak, is_stack
from extremal.report.stack_plots import choose_strip, draw_strip, show_frame
from extremal.report.text import AreaRow, ExplanationSummary, percent, summarise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE_SIZE, GAP, MARGIN, HEADING_HEIGHT, CAPTION_HEIGHT, LEGEND_WIDTH = 2.4, 0.3, 0.25, 1.4, 0.75, 1.9  # inches
STRIP_HEIGHT = 1.8  # inches, of the strip of frames
CORE_COLOUR = "#ffd60a"  # of the places that all copies with noise keep

Array = np.ndarray[Any, np.dtype[Any]]
Box = tuple[float, float, float, float]


def figure(explanation: Explanation, image: int = 0, create: "Callable[..., Figure] | None" = None) -> "Figure":
    """Draw one input: image, saliency map, evidence curve, and the cut mask of each area.

    The region of a mask is shown in full colour if masks keep it, and faded if they delete it.

    Args:
        explanation: of N inputs; without images the masks themselves are drawn.
        image: index of the input, 0..N − 1.
        create: makes the figure, e.g. `pyplot.figure`; None: one outside of pyplot's state.

    Returns:
        A figure outside of pyplot's global state: save it, or show it in a notebook.

    Raises:
        ExtremalValueError: if there is no such input.
    """
    from matplotlib.figure import Figure

    validate_image(image, len(explanation.masks))
    summary = summarise(explanation, image)
    columns = count_columns(len(summary.rows))
    n_rows = 1 + math.ceil(len(summary.rows) / columns)
    page = _PageLayout(columns, n_rows, STRIP_HEIGHT if is_stack(explanation) else 0.0)
    drawing = (create or Figure)(figsize=(page.width, page.height), dpi=DPI)
    target = explanation.target[image]
    _draw_heading(drawing, summary, page, show_name(summary.name, target if isinstance(target, int) else None))
    _draw_input(drawing.add_axes(page.tile(0, 0)), explanation, image)
    _draw_saliency(drawing.add_axes(page.tile(0, 1)), explanation, image)
    _draw_curve(drawing.add_axes(page.curve()), summary)
    for k, row in enumerate(summary.rows):
        axes = drawing.add_axes(page.tile(1 + k // columns, k % columns))
        draw_mask(axes, explanation, image, k)
        _draw_caption(axes, row, summary, enough=k == summary.smallest)
    if is_stack(explanation):
        indices = choose_strip(explanation, summary.headline_row, image)
        strip = [drawing.add_axes(page.frame(k, len(indices))) for k in range(len(indices))]
        draw_strip(strip, explanation, summary.headline_row, indices, image)
    fit_fonts(drawing)
    return drawing


@dataclass(frozen=True)
class _PageLayout:
    """Layout in inches from the top left; all tiles have the same size, regardless of their text."""

    columns: int
    rows: int
    strip: float  # height of a strip of frames below all tiles

    @property
    def width(self) -> float:
        return 2 * MARGIN + self.columns * TILE_SIZE + (self.columns - 1) * GAP

    @property
    def height(self) -> float:
        return HEADING_HEIGHT + self.rows * (TILE_SIZE + CAPTION_HEIGHT) + self.strip - MARGIN

    def tile(self, row: int, column: int) -> Box:
        """Return the box of a tile for matplotlib: left, bottom, width, height as fractions of the page."""
        return self._box(
            MARGIN + column * (TILE_SIZE + GAP),
            HEADING_HEIGHT + row * (TILE_SIZE + CAPTION_HEIGHT),
            TILE_SIZE,
            TILE_SIZE,
        )

    def curve(self) -> Box:
        """Return the box of the evidence curve: the rest of the first row, less its axis labels and its legend."""
        left = MARGIN + 2 * (TILE_SIZE + GAP) + 0.45
        return self._box(left, HEADING_HEIGHT, self.width - MARGIN - LEGEND_WIDTH - left, TILE_SIZE)

    def frame(self, index: int, count: int) -> Box:
        """Return the box of one of the frames of the strip."""
        size = (self.width - 2 * MARGIN + GAP / 2) / count
        top = self.height - self.strip
        return self._box(MARGIN + index * size, top, size - GAP / 2, self.strip - 2 * GAP)

    def _box(self, left: float, top: float, width: float, height: float) -> Box:
        bottom = self.height - top - height
        return left / self.width, bottom / self.height, width / self.width, height / self.height


def write_figure(explanation: Explanation, path: str | os.PathLike[str], image: int = 0) -> None:
    """Write the figure of one input as PNG, atomically.

    Args:
        explanation: of N inputs.
        path: of the PNG file; an existing file is replaced.
        image: index of the input, 0..N − 1.
    """
    save_png(figure(explanation, image), path)


def count_columns(areas: int) -> int:
    """Choose the number of columns: one row for up to six areas, else as few empty tiles as possible.

    >>> [count_columns(n) for n in range(1, 10)]
    [4, 4, 4, 4, 5, 6, 4, 4, 5]
    """
    if areas <= 6:
        return max(4, areas)
    return min((4, 5, 6), key=lambda columns: (math.ceil(areas / columns), -areas % columns))


def _draw_heading(drawing: "Figure", summary: ExplanationSummary, page: _PageLayout, name: str) -> None:
    name = textwrap.shorten(name, 44, placeholder="…")
    network = textwrap.shorten(summary.network, 40, placeholder="…")
    sentences = " ".join([summary.headline, summary.caution]).strip()
    lines = textwrap.fill(sentences, int(page.width * 11.5), max_lines=3, placeholder=" …")
    left, right, line = MARGIN / page.width, 1 - MARGIN / page.width, 1 / page.height
    common: dict[str, Any] = {"va": "top", "parse_math": False}  # a class name may hold a dollar sign
    drawing.text(left, 1 - 0.22 * line, f"{name} – {network}", size=15, weight="bold", **common)
    drawing.text(right, 1 - 0.27 * line, f"{summary.game} game", size=10, color="0.35", ha="right", **common)
    drawing.text(left, 1 - 0.56 * line, lines, size=11, linespacing=1.3, **common)


def _draw_caption(axes: "Axes", row: AreaRow, summary: ExplanationSummary, enough: bool) -> None:
    verb = "kept" if summary.keeps else "removed"
    axes.set_title(
        f"{row.label} {verb} – {row.verdict.label}", size=10, loc="left", weight="bold" if enough else "normal"
    )
    lines = [f"effect {percent(row.soft)} as found, {percent(row.binary)} cut"]
    if row.stable_iou is not None and row.core_share is not None:
        lines.append(f"stable IoU {row.stable_iou:.2f}, core {percent(row.core_share)} (dashed)")
    axes.set_xlabel("\n".join(lines), size=9, loc="left")


def _draw_input(axes: "Axes", explanation: Explanation, image: int) -> None:
    values, label = explanation.inputs[image], ""
    if has_image(explanation):
        axes.imshow(explanation.pictures[image].numpy())
    elif values.ndim == 2:
        axes.plot(values.T.numpy(), linewidth=0.8)
    elif is_stack(explanation):
        frames, index = build_frames(explanation, image), _find_frame(explanation, image)
        axes.imshow(frames.pictures[index].numpy(), aspect=1 / frames.ratio)
        label = f", {frames.noun} {index + 1}"
    else:
        axes.imshow(values.mean(0).numpy(), cmap="gray")
    axes.set_title("input" + label, size=10, loc="left")
    hide_axes(axes)


def _draw_saliency(axes: "Axes", explanation: Explanation, image: int) -> None:
    values, label = explanation.saliency()[image, 0].numpy(), ""
    if values.ndim == 1:
        axes.fill_between(np.arange(len(values)), values, color=ACCENT_COLOUR, alpha=0.5, linewidth=0)
        axes.set_ylim(0, 1.05)
    elif has_image(explanation):
        axes.imshow(luminance(explanation.pictures[image].numpy()), cmap="gray", vmin=0, vmax=255)
        axes.imshow(values, cmap="inferno", alpha=0.65, vmin=0, vmax=max(1e-9, float(values.max())))
    elif is_stack(explanation):
        frames, index = build_frames(explanation, image), _find_frame(explanation, image)
        axes.imshow(luminance(frames.pictures[index].numpy()), cmap="gray", vmin=0, vmax=255, aspect=1 / frames.ratio)
        shown, top = values[index], max(1e-9, float(values.max()))
        axes.imshow(shown, cmap="inferno", alpha=0.65, vmin=0, vmax=top, aspect=1 / frames.ratio)
        label = f", {frames.noun} {index + 1}"
    else:
        axes.imshow(values, cmap="inferno", vmin=0, vmax=1)
    axes.set_title("saliency" + label, size=10, loc="left")
    hide_axes(axes)


def draw_mask(axes: "Axes", explanation: Explanation, image: int, column: int) -> None:
    """Draw the cut mask over the image, or by itself if there is no image."""
    cut = explanation.binary(explanation.areas[column])[image, 0].numpy()
    mask = explanation.masks[image, column, 0].numpy()
    colour = OUTLINE_COLOURS[explanation.keeps]
    core = None if explanation.stability is None else explanation.stability.core[image, column, 0].numpy().astype(float)
    if cut.ndim == 1:
        positions = np.arange(len(cut))
        axes.fill_between(positions, cut, step="mid", color=colour, alpha=0.3, linewidth=0)
        axes.plot(positions, mask, color=ACCENT_COLOUR, linewidth=1)
        axes.set_ylim(-0.02, 1.05)
        if core is not None:
            axes.step(positions, core, where="mid", color=CORE_COLOUR, linewidth=1, linestyle="--")
    elif has_image(explanation):
        picture = explanation.pictures[image].numpy()
        shown = cut if explanation.keeps else 1 - cut
        axes.imshow(np.where(shown[..., None] > 0, picture, fade(picture)))
        _draw_outline(axes, cut, colour)
    elif is_stack(explanation):
        frames, index = build_frames(explanation, image), find_peak(explanation, column, image)
        show_frame(axes, frames, index, cut, explanation.keeps)
        core = None if core is None else core[index]
    else:
        axes.imshow(mask, cmap="gray", vmin=0, vmax=1)
        _draw_outline(axes, cut, colour)
    if core is not None and core.ndim > 1:
        _draw_outline(axes, core, CORE_COLOUR, "dashed", 1.0)
    hide_axes(axes)


def _draw_outline(axes: "Axes", cut: Array, colour: str, style: str = "solid", width: float = 1.4) -> None:
    if 0 < cut.sum() < cut.size:  # matplotlib warns about the contour of a constant
        axes.contour(cut, levels=[0.5], colors=[colour], linewidths=width, linestyles=style)


def _find_frame(explanation: Explanation, image: int) -> int:
    """Return the frame of a clip or volume at which input and saliency are shown: that with most of the support."""
    return int(explanation.saliency()[image, 0].flatten(1).sum(1).argmax())


def _draw_curve(axes: "Axes", summary: ExplanationSummary) -> None:
    rows = summary.rows
    areas = [row.area for row in rows]
    best, median = [row.control_best for row in rows], [row.control for row in rows]
    axes.fill_between(
        areas, median, best, color=CONTROL_COLOUR, alpha=0.25, linewidth=0, label="random, median to best"
    )
    axes.plot(areas, median, color=CONTROL_COLOUR, linewidth=1.2, marker="_")
    axes.plot(
        areas,
        [row.soft for row in rows],
        color=ACCENT_COLOUR,
        linewidth=1.2,
        linestyle="--",
        marker=".",
        label="as found",
    )
    axes.plot(
        areas,
        [row.unseen for row in rows],
        color=UNSEEN_COLOUR,
        linewidth=1.2,
        marker="s",
        markersize=4,
        label="unseen",
    )
    axes.plot(
        areas, [row.binary for row in rows], color=ACCENT_COLOUR, linewidth=2.2, marker="o", markersize=5, label="cut"
    )
    axes.axhline(
        SUFFICIENT_EFFECT,
        color=THRESHOLD_COLOUR,
        linewidth=1.2,
        linestyle=":",
        label=f"enough, {percent(SUFFICIENT_EFFECT)}",
    )
    format_effect_axes(
        axes, areas, [effect for row in rows for effect in row.effects], lambda area: f"{100 * area:.3g}"
    )
    verb = "kept" if summary.keeps else "removed"
    axes.set_xlabel(f"area {verb} / %", size=9)
