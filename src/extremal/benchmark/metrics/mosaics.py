"""Mosaics of the grid pointing game (Böhle, Fritz, Schiele, 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.number_checks import format_no_whole, format_value, is_whole, read_whole_numbers, validate_whole

MAX_SIDE = 1000  # cells along a side


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
        ExtremalValueError, ExtremalTypeError: the number of inputs, the side or the size does not fit.
    """
    side = validate_whole(side, "side", 1, MAX_SIDE, "e.g. 2")
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or len(inputs) != side**2:
        kind = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise ExtremalValueError(
            f"a mosaic of {side} × {side} must have {side**2} inputs (C, H, W), got {kind}; pass one tensor of them"
        )
    if size is not None:
        cell = [length // side for length in _read_size(size, side)]
        inputs = F.interpolate(inputs, cell, mode="bilinear", align_corners=False, antialias=True)
    rows = [torch.cat(list(inputs[first : first + side]), 2) for first in range(0, len(inputs), side)]
    return torch.cat(rows, 1)[None]


def cell_mask(cell: int, side: int, shape: tuple[int, int]) -> Tensor:
    """Return the places of a cell of a mosaic of this shape: (H, W) bool.

    Raises:
        ExtremalValueError, ExtremalTypeError: the grid has no such cell, or the shape no such grid.
    """
    side = validate_whole(side, "side", 1, MAX_SIDE, "e.g. 2")
    if not is_whole(cell):
        raise ExtremalTypeError(f"a cell must be a whole number, got {format_no_whole(cell)}; e.g. 0")
    if not 0 <= cell < side**2:
        raise ExtremalValueError(f"a cell must lie in 0..{side**2 - 1} of a grid of {side} × {side}, got {cell}")
    lengths = _read_size(shape, side)
    mask = torch.zeros(lengths, dtype=torch.bool)
    row, column = divmod(cell, side)
    height, width = (length // side for length in lengths)
    mask[row * height : (row + 1) * height, column * width : (column + 1) * width] = True
    return mask


def _read_size(size: object, side: int) -> tuple[int, int]:
    """Return height and width of a mosaic, multiples of its number of cells along a side."""
    lengths = read_whole_numbers(size, "a mosaic's size", "(448, 448)")
    if len(lengths) != 2 or any(length < 1 or length % side for length in lengths):
        raise ExtremalValueError(
            f"a mosaic's size must be a multiple of {side}, height and width, got {format_value(lengths)}; e.g. "
            f"({side * 224}, {side * 224})"
        )
    return lengths[0], lengths[1]
