"""Tensors as a few bytes and back, without loss: a fixed format without a head, for a column of a table.

The first byte of every value, then the second of every value and so on (little endian), compressed by zlib: bytes of
one significance are alike. Shape and kind stand elsewhere.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def packed(values: Tensor) -> bytes:
    """The bytes of a tensor of any shape and dtype.

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
