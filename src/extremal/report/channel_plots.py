"""Figures of channels: an explanation by channels, and the channels that a class needs most often.

>>> from extremal.report import channel_plots
>>> channel_plots.write_channel_figure(explanation, "channels.png")  # doctest: +SKIP
"""

import os
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING

from extremal.explanations.channels.class_ranking import ClassChannels
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.channels.values import ChannelCurve
from extremal.explanations.validation import validate_image
from extremal.report.channel_page import MAX_CHANNEL_EFFECT, render_maps, summarise_channels
from extremal.report.class_page import channel_bars, headline
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
from extremal.report.plots import TILE_SIZE
from extremal.report.text import percent, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANKING_COLOURS = (UNSEEN_COLOUR, THRESHOLD_COLOUR, "#8a4b00")  # one colour per ranking


def channel_figure(
    explanation: ChannelExplanation, image: int = 0, create: "Callable[..., Figure] | None" = None
) -> "Figure":
    """Draw one input: the image, effect against count with all controls, and the map of each count.

    Args:
        explanation: of N inputs.
        image: index of the input, 0..N − 1.
        create: makes the figure, e.g. `pyplot.figure`; None: one outside of pyplot's state.

    Raises:
        ExtremalValueError: if there is no such input.
    """
    from matplotlib.figure import Figure

    validate_image(image, len(explanation.masks))
    summary, curve = summarise_channels(explanation, image), explanation.curve(image)
    maps = render_maps(explanation, image)
    columns, has_maps = max(4, len(curve.counts), len(maps)), bool(maps)
    width, height = columns * (TILE_SIZE + 0.3) + 0.4, 1.5 + TILE_SIZE + 0.9 + (TILE_SIZE + 0.6 if has_maps else 0)
    drawing = (create or Figure)(figsize=(width, height), dpi=DPI)

    def add_axes(column: float, row: int, axes_width: float = TILE_SIZE) -> "Axes":
        left, top = 0.25 + column * (TILE_SIZE + 0.3), 1.4 + row * (TILE_SIZE + 0.9)
        return drawing.add_axes((left / width, 1 - (top + TILE_SIZE) / height, axes_width / width, TILE_SIZE / height))

    target = explanation.target[image]
    name = show_name(summary.name, target if isinstance(target, int) else None)
    title = f"{textwrap.shorten(name, 40, placeholder='…')} – channels of {summary.layer}"
    drawing.text(0.25 / width, 1 - 0.22 / height, title, size=15, weight="bold", va="top", parse_math=False)
    lines = textwrap.fill(f"{summary.headline} {summary.caution}".strip(), int(width * 11), max_lines=3)
    drawing.text(0.25 / width, 1 - 0.56 / height, lines, size=11, va="top", linespacing=1.3, parse_math=False)
    input_axes = add_axes(0, 0)
    if explanation.pictures.numel():
        input_axes.imshow(explanation.pictures[image].numpy())
    input_axes.set_title("input", size=10, loc="left")
    hide_axes(input_axes)
    _draw_curve(add_axes(1.25, 0, (columns - 2.2) * (TILE_SIZE + 0.3)), curve, explanation.share, explanation.keeps)
    smallest, rows = explanation.smallest(image), {row.count: row for row in summary.rows}
    for k, (count, shown) in enumerate(maps.items()):
        tile, row = add_axes(k, 1), rows.get(count)
        tile.imshow(shown.numpy())
        label = "the smallest set" if row is None else row.verdict.label
        effect = smallest.effect if row is None else row.binary
        weight = "bold" if count == smallest.count else "normal"
        tile.set_title(f"{plural(count, 'channel')} – {label}", size=10, loc="left", weight=weight)
        tile.set_xlabel(f"effect {percent(effect)}", size=9, loc="left")
        hide_axes(tile)
    fit_fonts(drawing)
    return drawing


def _draw_curve(axes: "Axes", curve: ChannelCurve, threshold: float, keeps: bool) -> None:
    """Draw effect against count: of the exact sets, of the masks as found, and of all controls."""
    counts = list(curve.counts)
    axes.fill_between(
        *(counts, curve.random, curve.random_best),
        color=CONTROL_COLOUR,
        alpha=0.25,
        linewidth=0,
        label="random, to best",
    )
    axes.plot(counts, curve.random, color=CONTROL_COLOUR, linewidth=1.2, marker="_")
    for (name, values), colour in zip(curve.ranked.items(), RANKING_COLOURS, strict=True):
        axes.plot(counts, values, color=colour, linewidth=1.2, marker="s", markersize=3, label=f"by {name}")
    axes.plot(counts, curve.soft, color=ACCENT_COLOUR, linewidth=1.2, linestyle="--", marker=".", label="as found")
    axes.plot(counts, curve.binary, color=ACCENT_COLOUR, linewidth=2.2, marker="o", markersize=5, label="exactly")
    axes.axhline(threshold, color=THRESHOLD_COLOUR, linewidth=1.2, linestyle=":", label=f"enough, {percent(threshold)}")
    effects = [*curve.soft, *curve.binary, *curve.random, *curve.random_best, *sum(curve.ranked.values(), ())]
    format_effect_axes(axes, counts, effects, str, MAX_CHANNEL_EFFECT)
    axes.set_xlabel(f"channels {'kept' if keeps else 'removed'}", size=9)


def write_channel_figure(explanation: ChannelExplanation, path: str | os.PathLike[str]) -> None:
    """Write the figure of the first input as PNG, atomically."""
    save_png(channel_figure(explanation), path)


def class_figure(ranking: ClassChannels) -> "Figure":
    """Draw the channels that a class needs most often, with their intervals."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    rows = channel_bars(ranking)
    drawing = Figure(figsize=(8.0, 1.6 + 0.24 * len(rows)), dpi=DPI, layout="constrained")
    axes = drawing.add_subplot()
    positions, means = range(len(rows)), [row.mean for row in rows]
    below, above = [row.mean - row.low for row in rows], [row.high - row.mean for row in rows]
    axes.barh(positions, means, color=ACCENT_COLOUR, alpha=0.75, xerr=(below, above), ecolor="0.2", capsize=2)
    axes.set_yticks(positions, [str(row.channel) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("channel", size=9)
    axes.set_xlabel("images whose smallest sufficient set contains it, with 95 % interval", size=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{textwrap.shorten(ranking.target_name, 40, placeholder='…')} – channels of {ranking.layer}"
    drawing.suptitle(title, x=0.01, ha="left", size=13, weight="bold", parse_math=False)
    axes.set_title(textwrap.fill(headline(ranking), 100), size=9.5, loc="left", parse_math=False)
    fit_fonts(drawing)
    return drawing


def write_class_figure(ranking: ClassChannels, path: str | os.PathLike[str]) -> None:
    """Write the figure of a class as PNG, atomically."""
    save_png(class_figure(ranking), path)
