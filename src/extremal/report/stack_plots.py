"""The part of a figure about clips and volumes: frames with their region, alone and as a strip."""

from typing import TYPE_CHECKING, Any

import numpy as np

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import OUTLINE_COLOURS, fade
from extremal.report.figure_style import hide_axes
from extremal.report.stack_frames import StackFrames, build_frames, choose_shown, find_peak

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_STRIP = 8  # frames of a strip

Array = np.ndarray[Any, np.dtype[Any]]


def show_frame(axes: "Axes", frames: StackFrames, index: int, cut: Array, keeps: bool) -> None:
    """Show one frame, faded where the network does not see it, with the outline of the region.

    Args:
        axes: of matplotlib.
        frames: of the input.
        index: of the frame.
        cut: (D, H, W) of zeros and ones.
        keeps: whether the region is kept, or removed.
    """
    picture, region = frames.pictures[index].numpy(), cut[index]
    visible = region if keeps else 1 - region
    axes.imshow(np.where(visible[..., None] > 0, picture, fade(picture)), aspect=1 / frames.ratio)
    if 0 < region.sum() < region.size:  # matplotlib warns about the contour of a constant
        axes.contour(region, levels=[0.5], colors=[OUTLINE_COLOURS[keeps]], linewidths=1.4)
    hide_axes(axes)


def choose_strip(explanation: Explanation, column: int, image: int = 0) -> list[int]:
    """Choose the frames of a strip: evenly over all, the one that has most of the region among them."""
    depth = explanation.inputs.shape[2]
    return choose_shown(depth, MAX_STRIP, find_peak(explanation, column, image))


def draw_strip(axes: "list[Axes]", explanation: Explanation, column: int, indices: list[int], image: int = 0) -> None:
    """Draw frames with the region of one area, each in its own axes.

    Args:
        axes: one per frame.
        explanation: of clips or volumes.
        column: index of the area.
        indices: of the frames.
        image: index of the input.
    """
    frames = build_frames(explanation, image)
    cut = explanation.binary(explanation.areas[column])[image, 0].numpy()
    for one, index in zip(axes, indices, strict=True):
        show_frame(one, frames, index, cut, explanation.keeps)
        one.set_title(f"{frames.noun} {index + 1}", size=8, loc="left")
        one.set_xlabel(frames.places[index], size=8, loc="left")
