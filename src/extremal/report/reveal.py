"""The reveal: photographs and orders of importance, small enough for a page and exact at the computed areas."""

import base64

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.masking.area import places

STEPS = 254  # between two computed areas; bytes 0 and 255 are taken


def lower_area(explanation: Explanation) -> float:
    """Where the reveal begins: half of the smallest computed area."""
    return explanation.areas[0] / 2


def levels(explanation: Explanation, image: int = 0) -> Tensor:
    """For each area, when each place is revealed on the way to it from the area before: (A, *S) uint8.

    0 from the beginning, 1 to 254 in equal numbers of places, 255 not at all: so the places of level ≤ 254 are
    exactly the cut mask that was scored, and one byte a place is enough whatever the size of the input.
    """
    order = explanation.order(image)
    starts = (lower_area(explanation), *explanation.areas[:-1])
    maps = []
    for ranks, start, area in zip(order, starts, explanation.areas, strict=True):
        first, last = places(start, ranks.numel()), places(area, ranks.numel())
        steps = 1 + (ranks - first) * STEPS // max(1, last - first)
        maps.append(torch.where(ranks < first, 0, torch.where(ranks < last, steps, STEPS + 1)).to(torch.uint8))
    return torch.stack(maps)


def encoded(level: Tensor) -> str:
    """A map of levels (*S) as base64 of its bytes in raster order.

    Not a picture: browsers that guard against fingerprinting change the pixels that a script reads from a canvas.
    """
    return base64.b64encode(level.contiguous().numpy().tobytes()).decode("ascii")
