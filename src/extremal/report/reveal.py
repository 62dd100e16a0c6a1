"""The reveal: photographs and orders of importance, small enough for a page and exact at the computed areas."""

import base64
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.masking.area import places

STEPS = 254  # between two computed areas; bytes 0 and 255 are taken
PALE, PALE_GREY = 0.4, 190.0  # what is not shown: contrast that is left, grey towards which it fades
Array = np.ndarray[Any, np.dtype[Any]]


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


def masked(explanation: Explanation, mask: Tensor, image: int = 0) -> Tensor:
    """The photograph under a cut mask, what the network does not get pale: (H, W, 3) uint8.

    Args:
        explanation: of N pictures.
        mask: (1, H, W) of zeros and ones.
        image: which of them, 0..N − 1.
    """
    given = mask if explanation.keeps else 1 - mask
    picture = explanation.pictures[image]
    return torch.where(given.movedim(0, -1) > 0, picture, torch.from_numpy(pale(picture.numpy())))


def grey(picture: Array) -> Array:
    """The brightness of a picture (H, W, 3): (H, W)."""
    brightness: Array = picture @ np.array([0.299, 0.587, 0.114])
    return brightness


def pale(picture: Array) -> Array:
    """The picture without colour, near a middle grey: (H, W, 3) uint8."""
    faded = PALE * grey(picture) + (1 - PALE) * PALE_GREY
    return np.repeat(faded[..., None], 3, axis=2).astype(np.uint8)


def encoded(level: Tensor) -> str:
    """A map of levels (*S) as base64 of its bytes in raster order.

    Not a picture: browsers that guard against fingerprinting change the pixels that a script reads from a canvas.
    """
    return base64.b64encode(level.contiguous().numpy().tobytes()).decode("ascii")


def jpeg(picture: Array, side: int, quality: int) -> bytes:
    """A picture (H, W, 3) uint8 as a JPEG, its longer side at most so many pixels."""
    from PIL import Image

    small = Image.fromarray(picture)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def data_uri(picture: Tensor) -> str:
    """A picture (H, W, 3) uint8 as a data URI, without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture.contiguous().numpy()).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
