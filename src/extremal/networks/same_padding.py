"""Convolutions with TensorFlow's padding "same"."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SamePaddedConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding "same": ceil(size / stride) outputs along each axis."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        return convolve_as_same(self, x)


def convolve_as_same(module: nn.Conv2d, x: Tensor) -> Tensor:
    """Return the output of a convolution with TensorFlow's padding: (B, C, H, W) -> (B, C', H', W')."""
    x, kernel, padding = pad_as_same(module, x)
    return F.conv2d(x, kernel, module.bias, module.stride, padding, module.dilation, module.groups)


class SymmetricPadding(NamedTuple):
    """Arguments of an ordinary convolution for the output of one with TensorFlow's padding."""

    x: Tensor  # (B, C, H, W)
    kernel: Tensor
    padding: tuple[int, int]  # on both sides of the rows and of the columns


def pad_as_same(module: nn.Conv2d, x: Tensor) -> SymmetricPadding:
    """Return input, kernel and symmetric padding that together are equivalent to TensorFlow's padding of a convolution.

    Where one side of the input must be padded by one more than the other, the kernel of a depthwise convolution gets a
    leading row or column of zeros instead: the same sums, without a copy of the input. Other kernels have too many
    channels for zeros to be cheaper than a copy. In a graph that is traced or exported, inputs are always padded.

    Args:
        module: a convolution with TensorFlow's padding.
        x: (B, C, H, W) its input.
    """
    is_traced = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined,no-untyped-call]
    axes = zip(x.shape[-2:], module.kernel_size, module.stride, module.dilation, strict=True)
    (top, bottom), (left, right) = (same_padding(*axis) for axis in axes)
    if not is_traced and (top, left) == (bottom, right):
        return SymmetricPadding(x, module.weight, (top, left))
    if not is_traced and module.groups == module.in_channels and module.dilation == (1, 1):
        return SymmetricPadding(x, F.pad(module.weight, (right - left, 0, bottom - top, 0)), (bottom, right))
    return SymmetricPadding(F.pad(x, (left, right, top, bottom)), module.weight, (0, 0))


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding before and after an axis for ceil(size / stride) outputs, by TensorFlow's rule "same".

    >>> same_padding(224, kernel=3, stride=2, dilation=1)
    (0, 1)
    """
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
