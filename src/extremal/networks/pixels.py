"""Pillow images as tensors, and scaled by their short side: as torchvision does it, which takes seconds to import."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(image: Image.Image) -> Tensor:
    """Return the pixels of an image with 8 bits for each channel: (C, H, W) in [0, 1].

    >>> to_pixels(Image.new("RGB", (5, 2), "white")).shape, to_pixels(Image.new("L", (5, 2))).shape
    (torch.Size([3, 2, 5]), torch.Size([1, 2, 5]))
    """
    pixels = torch.from_numpy(np.array(image))
    return pixels.view(*pixels.shape[:2], -1).movedim(-1, 0).contiguous().to(torch.float32).div(255)


def scale_short_side(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """Return an image whose short side has this length, px.

    >>> scale_short_side(Image.new("RGB", (9, 4)), 3, Image.Resampling.BILINEAR).size
    (6, 3)
    """
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    return image if image.size == (width, height) else image.resize((width, height), resampling)


def normalise_pixels(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (pixels − mean) / std, with a mean and a deviation for each channel: (..., C, H, W)."""
    column_mean, column_std = (pixels.new_tensor(values).view(-1, 1, 1) for values in (mean, std))
    return (pixels - column_mean) / column_std
