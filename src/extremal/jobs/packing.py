"""Tensors as a few bytes and back: a fixed format without a head, for a column of a table.

The first byte of every value, then the second of every value and so on (little endian), compressed by zlib: bytes of
one significance are alike. Shape and kind stand elsewhere.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 2**20  # steps of a share: half of one is 5e-7


def packed(values: Tensor) -> bytes:
    """The bytes of a tensor of any shape and dtype, without loss.

    >>> unpacked(packed(torch.tensor([[0.5, -1.0]])), torch.float32, (1, 2))
    tensor([[ 0.5000, -1.0000]])
    """
    flat = values.detach().cpu().contiguous().flatten()
    planes = flat.view(torch.uint8).view(len(flat), flat.element_size()).T.contiguous()
    return zlib.compress(planes.numpy().tobytes(), 9)


def unpacked(data: bytes, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """What `packed` took, of this dtype and shape; one length may be −1.

    Raises:
        zlib.error, RuntimeError: the bytes are broken, or of another shape.
    """
    planes = torch.from_numpy(np.frombuffer(bytearray(zlib.decompress(data)), np.uint8))  # writable
    size = torch.empty(0, dtype=dtype).element_size()
    return planes.view(size, -1).T.contiguous().flatten().view(dtype).view(tuple(shape))


def packed_shares(values: Tensor, columns: int) -> bytes:
    """The bytes of values (T,) in [0, 1] or NaN, to half a step of `GRID`.

    What comes again every `columns` values is told by how it departs from the straight line through the last two: for a
    slow descent that is half of the bytes.

    >>> unpacked_shares(packed_shares(torch.tensor([0.5, torch.nan, 1.0]), 2), torch.float32, 2)
    tensor([0.5000,    nan, 1.0000])
    """
    steps = (values.detach().cpu().double() * GRID).round().nan_to_num(-1.0).to(torch.int32)
    rows = F.pad(steps, (0, -len(steps) % columns)).view(-1, columns)
    for _ in range(2):
        rows = rows.diff(dim=0, prepend=rows.new_zeros(1, columns))
    flat = rows.flatten()[: len(steps)]
    return packed((flat << 1) ^ (flat >> 31))  # small of either sign -> small


def unpacked_shares(data: bytes, dtype: torch.dtype, columns: int) -> Tensor:
    """What `packed_shares` took: (T,).

    Raises:
        zlib.error, RuntimeError: the bytes are broken.
    """
    flat = unpacked(data, torch.int32, (-1,))
    rows = F.pad((flat >> 1) ^ -(flat & 1), (0, -len(flat) % columns)).view(-1, columns)
    steps = rows.cumsum(0).cumsum(0).flatten()[: len(flat)]
    return torch.where(steps < 0, torch.nan, steps.to(dtype) / GRID)
