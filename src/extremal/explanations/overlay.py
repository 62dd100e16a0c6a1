"""Images of inputs with a mask applied, and their encoding."""

import base64
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation

PALE, PALE_GREY = 0.4, 190.0  # what is not shown: contrast that is left, grey towards which it fades
Array = np.ndarray[Any, np.dtype[Any]]


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


def has_picture(explanation: Explanation) -> bool:
    """Whether there is a photograph whose pixels are the masks' places."""
    return explanation.pictures.shape[1:3] == explanation.masks.shape[3:] and explanation.pictures.numel() > 0
