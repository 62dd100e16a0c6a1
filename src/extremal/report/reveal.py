"""The order in which the slider of a report reveals an image, exact at the computed areas."""

import base64

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.masking.area import count_kept

N_LEVELS = 254  # between two computed areas; the bytes 0 and 255 are reserved


def start_area(explanation: Explanation) -> float:
    """Return the area at which the reveal starts: half of the smallest computed area."""
    return explanation.areas[0] / 2


def reveal_levels(explanation: Explanation, image: int = 0) -> Tensor:
    """Compute for each area the step at which each place is revealed: (A, *S) uint8.

    The steps lead from the previous area to this one.

    Level 0 is shown from the start, levels 1 to 254 have equal numbers of places, and level 255 is never shown. The
    places of level ≤ 254 are exactly the cut mask that was scored, and one byte per place suffices for any input size.
    """
    order = explanation.order(image)
    starts = (start_area(explanation), *explanation.areas[:-1])
    maps = []
    for ranks, start, area in zip(order, starts, explanation.areas, strict=True):
        first, last = count_kept(start, ranks.numel()), count_kept(area, ranks.numel())
        steps = 1 + (ranks - first) * N_LEVELS // max(1, last - first)
        maps.append(torch.where(ranks < first, 0, torch.where(ranks < last, steps, N_LEVELS + 1)).to(torch.uint8))
    return torch.stack(maps)


def encode_levels(level: Tensor) -> str:
    """Encode a map of levels (*S) as base64 of its bytes in raster order.

    It is not an image, since browsers that resist fingerprinting change the pixels that a script reads from a canvas.
    """
    return base64.b64encode(level.contiguous().numpy().tobytes()).decode("ascii")
