"""Figures of channels: of an explanation the image, a map a count, and score against count; of a class its channels.

>>> from extremal.channels import figure
>>> figure.write_figure(explanation, "channels.png")  # doctest: +SKIP
"""

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.explanations.channels.class_ranking import ClassChannels
from extremal.explanations.channels.explanation import ChannelCurve, ChannelExplanation
from extremal.explanations.overlay import grey
from extremal.explanations.settings import checked_image
from extremal.files import replacing
from extremal.report.channel_page import HIGHEST, summarise
from extremal.report.class_page import bars, headline
from extremal.report.plots import ACCENT, CONTROL, DPI, ENOUGH, UNSEEN, bare, effect_axes
from extremal.report.text import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE = 2.4  # inches
RANKED = (UNSEEN, ENOUGH, "#8a4b00")  # one colour a ranking


def figure(explanation: ChannelExplanation, image: int = 0) -> "Figure":
    """One input on a page: the image, score against count with every control, and the map of each count.

    Raises:
        ExtremalValueError: there is no such input.
    """
    from matplotlib.figure import Figure

    checked_image(image, len(explanation.masks))
    summary, curve = summarise(explanation, image), explanation.curve(image)
    columns = max(4, len(curve.counts))
    mapped = bool(explanation.maps.numel() and explanation.pictures.numel())
    width, height = columns * (TILE + 0.3) + 0.4, 1.5 + TILE + 0.9 + (TILE + 0.6 if mapped else 0)
    drawing = Figure(figsize=(width, height), dpi=DPI)

    def axes(column: float, row: int, wide: float = TILE) -> "Axes":
        left, top = 0.25 + column * (TILE + 0.3), 1.4 + row * (TILE + 0.9)
        return drawing.add_axes((left / width, 1 - (top + TILE) / height, wide / width, TILE / height))

    title = f"{textwrap.shorten(summary.name, 40, placeholder='…')} – channels of {summary.layer}"
    drawing.text(0.25 / width, 1 - 0.22 / height, title, size=15, weight="bold", va="top", parse_math=False)
    lines = textwrap.fill(f"{summary.headline} {summary.caution}".strip(), int(width * 11), max_lines=3)
    drawing.text(0.25 / width, 1 - 0.56 / height, lines, size=11, va="top", linespacing=1.3, parse_math=False)
    first = axes(0, 0)
    if explanation.pictures.numel():
        first.imshow(explanation.pictures[image].numpy())
    first.set_title("input", size=10, loc="left")
    bare(first)
    draw_curve(axes(1.25, 0, (columns - 2.2) * (TILE + 0.3)), curve, explanation.share, explanation.keeps)
    for k, row in enumerate(summary.rows if mapped else ()):
        tile = axes(k, 1)
        tile.imshow(grey(explanation.pictures[image].numpy()), cmap="gray", vmin=0, vmax=255)
        tile.imshow(explanation.map(row.count, image).numpy(), cmap="inferno", alpha=0.6)
        tile.set_title(f"{row.count} channels – {row.verdict.word}", size=10, loc="left")
        tile.set_xlabel(f"effect {percent(row.binary)}", size=9, loc="left")
        bare(tile)
    return drawing


def draw_curve(axes: "Axes", curve: ChannelCurve, share: float, keeps: bool) -> None:
    """Effect against count: what was found, as it was found, and every control."""
    counts = list(curve.counts)
    axes.fill_between(
        *(counts, curve.random, curve.random_best), color=CONTROL, alpha=0.25, linewidth=0, label="random, to best"
    )
    axes.plot(counts, curve.random, color=CONTROL, linewidth=1.2, marker="_")
    for (name, values), colour in zip(curve.ranked.items(), RANKED, strict=True):
        axes.plot(counts, values, color=colour, linewidth=1.2, marker="s", markersize=3, label=f"by {name}")
    axes.plot(counts, curve.soft, color=ACCENT, linewidth=1.2, linestyle="--", marker=".", label="as found")
    axes.plot(counts, curve.binary, color=ACCENT, linewidth=2.2, marker="o", markersize=5, label="exactly")
    axes.axhline(share, color=ENOUGH, linewidth=1.2, linestyle=":", label=f"enough, {percent(share)}")
    every = [*curve.soft, *curve.binary, *curve.random, *curve.random_best, *sum(curve.ranked.values(), ())]
    effect_axes(axes, counts, every, str, HIGHEST)
    axes.set_xlabel(f"channels {'kept' if keeps else 'removed'}", size=9)


def write_figure(explanation: ChannelExplanation, path: str | os.PathLike[str], image: int = 0) -> None:
    """Write the figure of one input as PNG; the file appears whole or not at all."""
    _write(figure(explanation, image), path)


def class_figure(found: ClassChannels) -> "Figure":
    """The channels that a class needs most often, with their intervals."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    rows = bars(found)
    drawing = Figure(figsize=(8.0, 1.6 + 0.24 * len(rows)), dpi=DPI, layout="constrained")
    axes = drawing.add_subplot()
    places, means = range(len(rows)), [row.mean for row in rows]
    below, above = [row.mean - row.low for row in rows], [row.high - row.mean for row in rows]
    axes.barh(places, means, color=ACCENT, alpha=0.75, xerr=(below, above), ecolor="0.2", capsize=2)
    axes.set_yticks(places, [str(row.channel) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel("channel", size=9)
    axes.set_xlabel("images whose smallest sufficient set holds it, with 95 % interval", size=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{textwrap.shorten(found.target_name, 40, placeholder='…')} – channels of {found.layer}"
    drawing.suptitle(title, x=0.01, ha="left", size=13, weight="bold", parse_math=False)
    axes.set_title(textwrap.fill(headline(found), 100), size=9.5, loc="left", parse_math=False)
    return drawing


def write_class_figure(found: ClassChannels, path: str | os.PathLike[str]) -> None:
    """Write the figure of a class as PNG; the file appears whole or not at all."""
    _write(class_figure(found), path)


def _write(drawing: "Figure", path: str | os.PathLike[str]) -> None:
    with replacing(Path(path)) as aside:
        drawing.savefig(aside, format="png")
