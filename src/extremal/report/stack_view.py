"""The part of a report that shows clips and volumes: frames as JPEG, masks as run lengths, shares of frames."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.explanations.overlay import OUTLINE_COLOURS, image_data_uri
from extremal.report.html import finite_or_none
from extremal.report.stack_frames import build_frames, choose_shown, find_peak

MAX_SHOWN = 32  # frames
MAX_SIDE = 256  # px of a frame
MIN_SIDE = 128  # px, to which smaller ones are enlarged
JPEG_QUALITY = 80
DIRECTIONS = dict(zip("RLAPSI", ("right", "left", "anterior", "posterior", "superior", "inferior"), strict=True))
CHART_WIDTH, CHART_HEIGHT = 440, 64


@dataclass(frozen=True)
class StackView:
    """The viewer as variables of the template and of its script."""

    heading: str
    noun: str
    width: int  # px of a frame
    height: int
    first: int  # index of the frame that is shown first
    count: int  # of shown frames
    picture: str  # data URI of that frame
    name: str
    orientation: str
    hidden: str  # sentence on frames that are not shown
    line: str  # points of the shares of the first area
    data: dict[str, Any]


def build_view(explanation: Explanation, column: int, image: int = 0) -> StackView:
    """Build the viewer of one input.

    Args:
        explanation: of clips or volumes.
        column: index of the area that is shown first.
        image: index of the input, 0..N − 1.
    """
    frames, peak = build_frames(explanation, image), find_peak(explanation, column, image)
    depth, height, width = frames.pictures.shape[:3]
    shown = choose_shown(depth, MAX_SHOWN, peak)
    size = _fit(width * frames.ratio, height)
    grid = min(width, size[0]), min(height, size[1])
    cuts = [explanation.binary(area)[image, 0] for area in explanation.areas]  # (D, H, W) each
    shares = [cut.flatten(1).mean(1).tolist() for cut in cuts]
    uris = [_encode(frames.pictures[k], size) for k in shown]
    noun, plural = frames.noun, f"{frames.noun}s"
    data: dict[str, Any] = {
        "noun": noun,
        "keeps": explanation.keeps,
        "total": depth,
        "first": shown.index(peak),
        "frames": uris,
        "names": [frames.name(k) for k in shown],
        "indices": shown,
        "grid": grid,
        "runs": [[_to_runs(cut[k], grid) for k in shown] for cut in cuts],
        "shares": [[finite_or_none(round(share, 5)) for share in row] for row in shares],
        "lines": [chart_line(row) for row in shares],
        "colour": OUTLINE_COLOURS[explanation.keeps],
        "chart": {"width": CHART_WIDTH, "height": CHART_HEIGHT},
    }
    stack = explanation.settings.get("stack", {})
    hidden = "" if len(shown) == depth else f"{len(shown)} of {depth} {plural} are in this page; the masks cover all."
    return StackView(
        heading=f"The region, {noun} by {noun}",
        noun=noun,
        width=size[0],
        height=size[1],
        first=data["first"],
        count=len(shown),
        picture=uris[data["first"]],
        name=frames.name(peak),
        orientation=orientation_sentence(str(stack.get("orientation", ""))),
        hidden=hidden,
        line=data["lines"][column],
        data=data,
    )


def orientation_sentence(orientation: str) -> str:
    """Describe the directions of a volume's axes.

    >>> orientation_sentence("SPL")
    'Slices go towards superior, rows towards posterior, columns towards left.'
    """
    if len(orientation) != 3 or not all(letter in DIRECTIONS for letter in orientation):
        return ""
    slices, rows, columns = (DIRECTIONS[letter] for letter in orientation)
    return f"Slices go towards {slices}, rows towards {rows}, columns towards {columns}."


def chart_line(shares: list[float]) -> str:
    """Return the points of a line through shares of frames, scaled to the largest.

    >>> chart_line([0.0, 0.5])
    '0,62 440,2'
    """
    largest, steps = max(*shares, 1e-12), max(1, len(shares) - 1)
    room = CHART_HEIGHT - 4
    points = [(CHART_WIDTH * k / steps, 2 + room * (1 - share / largest)) for k, share in enumerate(shares)]
    return " ".join(f"{x:.4g},{y:.4g}" for x, y in points)


def _fit(width: float, height: float) -> tuple[int, int]:
    """Return the size of a frame in the page, within the largest side, with square pixels."""
    longest = max(width, height)
    scale = min(MAX_SIDE / longest, max(1.0, MIN_SIDE / longest))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _encode(picture: Tensor, size: tuple[int, int]) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.numpy()).resize(size).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return image_data_uri("jpeg", buffer.getvalue())


def _to_runs(mask: Tensor, grid: tuple[int, int]) -> list[int]:
    """Return the lengths of runs of 0 and 1 in turn, in raster order, 0 first, of a mask (H, W) on a grid."""
    width, height = grid
    if mask.shape != (height, width):
        mask = F.interpolate(mask[None, None].float(), (height, width), mode="nearest-exact")[0, 0]
    places = (mask > 0).flatten().numpy()
    ends = np.concatenate([np.flatnonzero(places[1:] != places[:-1]) + 1, [places.size]])
    lengths: list[int] = np.diff(ends, prepend=0).tolist()
    return [0, *lengths] if places[0] else lengths
