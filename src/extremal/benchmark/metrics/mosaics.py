"""Mosaics of the grid pointing game (Böhle, Fritz, Schiele, 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalValueError


def mosaic(inputs: Tensor, side: int, size: tuple[int, int] | None = None) -> Tensor:
    """Place n × n inputs side by side, in raster order: (n², C, H, W) -> (1, C, n·H, n·W).

    >>> mosaic(torch.arange(4.0).view(4, 1, 1, 1), 2)
    tensor([[[[0., 1.],
              [2., 3.]]]])

    Args:
        inputs: (n², C, H, W), prepared.
        side: n.
        size: of the mosaic; its cells are resized to fit (bilinear, antialiased). None: cells keep their size.

    Raises:
        ExtremalValueError: the number of inputs or the size does not fit.
    """
    if len(inputs) != side**2 or inputs.ndim != 4:
        raise ExtremalValueError(
            f"a mosaic of {side} × {side} must have {side**2} inputs (C, H, W), got {tuple(inputs.shape)}"
        )
    if size is not None:
        if any(length % side for length in size):
            raise ExtremalValueError(f"a mosaic's size must be a multiple of {side}, got {size}")
        cell = [length // side for length in size]
        inputs = F.interpolate(inputs, cell, mode="bilinear", align_corners=False, antialias=True)
    rows = [torch.cat(list(inputs[first : first + side]), 2) for first in range(0, len(inputs), side)]
    return torch.cat(rows, 1)[None]


def cell_mask(cell: int, side: int, shape: tuple[int, int]) -> Tensor:
    """Return the places of a cell of a mosaic of this shape: (H, W) bool.

    Raises:
        ExtremalValueError: the grid has no such cell.
    """
    if not 0 <= cell < side**2:
        raise ExtremalValueError(f"a cell must lie in 0..{side**2 - 1} of a grid of {side} × {side}, got {cell}")
    mask = torch.zeros(shape, dtype=torch.bool)
    row, column = divmod(cell, side)
    height, width = (length // side for length in shape)
    mask[row * height : (row + 1) * height, column * width : (column + 1) * width] = True
    return mask
