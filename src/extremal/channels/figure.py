"""The figure of an explanation of channels: the image, the map of each count, and score against count.

>>> from extremal.channels import figure
>>> figure.write_figure(explanation, "channels.png")  # doctest: +SKIP
"""

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from extremal.channels.explanation import ChannelCurve, ChannelExplanation
from extremal.files import replacing
from extremal.plots import ACCENT, CONTROL, DPI, ENOUGH, UNSEEN, bare, effect_axes, grey
from extremal.report.channels import HIGHEST, summarise
from extremal.report.summary import percent
from extremal.terms import checked_image

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
    drawing = figure(explanation, image)
    with replacing(Path(path)) as aside:
        drawing.savefig(aside, format="png")
