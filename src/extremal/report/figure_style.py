"""Style of all figures: colours, resolution, axes without frames, and the axes of an evidence curve."""

import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from extremal.file_checks import to_path
from extremal.files import atomic_file
from extremal.report.chart import MAX_DRAWN_EFFECT, MIN_DRAWN_EFFECT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 120
ACCENT_COLOUR, UNSEEN_COLOUR, CONTROL_COLOUR, THRESHOLD_COLOUR = "#0a5ca8", "#a8480a", "#77818c", "#17663a"


def save_png(drawing: "Figure", path: str | os.PathLike[str]) -> None:
    """Save a figure as PNG, atomically."""
    with atomic_file(to_path(path, "a figure")) as temporary:
        drawing.savefig(temporary, format="png")


def hide_axes(axes: "Axes") -> None:
    """Remove ticks and spines from a tile."""
    axes.set_anchor("NW")  # images that are not square are aligned with the top left of their tile
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def format_effect_axes(
    axes: "Axes",
    sizes: Sequence[float],
    effects: Sequence[float],
    to_text: Callable[[Any], str],
    max_effect: float = MAX_DRAWN_EFFECT,
) -> None:
    """Format the axes of an evidence curve over areas or counts, and add its legend to the right.

    Args:
        axes: of the curve, with all lines drawn.
        sizes: in ascending order, the ticks of a logarithmic axis.
        effects: all that are drawn; those outside the limits are clipped.
        to_text: formats a size.
        max_effect: the highest effect that can be drawn.
    """
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

    finite = [effect for effect in effects if math.isfinite(effect)]
    axes.set_ylim(max(MIN_DRAWN_EFFECT, min([0.0, *finite])) - 0.03, min(max_effect, max([1.0, *finite])) + 0.05)
    axes.set_xscale("log")
    axes.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25 if sizes[-1] >= 1 else min(1.0, sizes[-1] * 1.25))
    axes.xaxis.set_major_locator(FixedLocator(_select_ticks(list(sizes))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda size, _: to_text(size))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    axes.set_ylabel("effect / %", size=9)
    axes.set_title("evidence", size=10, loc="left")
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _select_ticks(areas: list[float]) -> list[float]:
    """Select the areas whose tick labels do not overlap, starting with the largest."""
    min_ratio = max(1.12, (areas[-1] / areas[0]) ** 0.09)
    selection = [areas[-1]]
    for area in reversed(areas):
        if selection[-1] / area >= min_ratio:
            selection.append(area)
    return selection[::-1]
