"""Tensors of any device, made and chosen in such a way that the program does not wait for the device."""

from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor


def select_columns(x: Tensor, columns: Sequence[int]) -> Tensor:
    """Return columns of x (N, K, ...) in this order, repeated ones included: (N, len(columns), ...).

    The same as `x[:, columns]`, which would copy the numbers to the device and wait for it.

    >>> select_columns(torch.tensor([[10, 20, 30]]), [2, 0])
    tensor([[30, 10]])
    """
    if list(columns) == list(range(x.shape[1])):
        return x
    parts = torch.split(x, 1, 1)
    return parts[columns[0]] if len(columns) == 1 else torch.cat([parts[column] for column in columns], 1)


def fill_columns(values: Sequence[float], like: Tensor) -> Tensor:
    """Return numbers as a tensor (K,) of the dtype and device of another.

    The same as `like.new_tensor(values)`, which would copy the numbers to the device and wait for it.

    >>> fill_columns([0.1, 0.5], torch.zeros(3))
    tensor([0.1000, 0.5000])
    """
    if len(set(values)) == 1:
        return like.new_full((len(values),), values[0])
    return torch.cat([like.new_full((1,), value) for value in values])


def copy_to(x: Tensor, like: Tensor) -> Tensor:
    """Return a tensor in the dtype and on the device of another; a GPU copies it from pinned memory in its own time."""
    if x.device.type != "cpu" or like.device.type == "cpu":
        return x.to(like)
    x = x.to(like.dtype)  # before it is copied: not every device has every dtype
    if like.device.type in ("cuda", "xpu"):
        with suppress(RuntimeError):  # pinned memory is limited
            x = x.pin_memory()
    return x.to(like.device, non_blocking=True)
