"""Crops of an image that are shifted by a few places of the network's input, and masks of them brought back."""

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def shift_image(image: Image.Image, down: float, right: float) -> Image.Image:
    """Return the part of an image that a camera moved by these pixels would see, with replicated borders.

    Whole pixels are copied; fractions of them are interpolated bicubically.

    >>> pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    >>> np.asarray(shift_image(Image.fromarray(pixels), 1, 0)).tolist()
    [[4, 5, 6, 7], [8, 9, 10, 11], [8, 9, 10, 11]]
    """
    pixels = np.asarray(image)
    margin = math.ceil(max(abs(down), abs(right))) + 2  # of the bicubic kernel
    padded = np.pad(pixels, [(margin, margin), (margin, margin), *[(0, 0)] * (pixels.ndim - 2)], mode="edge")
    coefficients = (1, 0, margin + right, 0, 1, margin + down)
    return Image.fromarray(padded).transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)


def shifted_iou(mask: Tensor, shifted: Tensor, down: int, right: int) -> Tensor:
    """Return the IoU of masks with those of shifted crops, brought back, on the part that both show.

    Args:
        mask: (..., H, W) bool.
        shifted: (..., H, W) bool, of the crop shifted by these places: its place (i, j) is (i + down, j + right).
        down: places, negative for up.
        right: places, negative for left.

    Returns:
        (...,), NaN where both are empty on that part.
    """
    height, width = mask.shape[-2:]
    rows, columns = _common(height, down), _common(width, right)
    own = mask[..., rows[0], columns[0]]
    other = shifted[..., rows[1], columns[1]]
    both, either = (own & other).flatten(-2).sum(-1), (own | other).flatten(-2).sum(-1)
    return torch.where(either > 0, both / either.clamp_min(1), torch.nan)


def _common(size: int, offset: int) -> tuple[slice, slice]:
    """Return the places of an axis that both crops show: in the original, and in the shifted one."""
    first, last = max(0, offset), min(size, size + offset)
    return slice(first, last), slice(first - offset, last - offset)
