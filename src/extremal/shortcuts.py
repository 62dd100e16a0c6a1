"""Layers in less time and memory while a run lasts, on the same weights: rectifiers with a ceiling, 1x1 convolutions.

- In place, `nn.ReLU6` and `nn.Hardtanh` copy their input for the gradient, which can be told from the output as well.
- On one thread, PyTorch leaves 1x1 convolutions of fewer than 16 rows to a kernel that first copies what lies with the
  channels last; a dilation, which means nothing to a kernel of one place, leads to oneDNN as with more threads.

>>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True))
>>> x = torch.rand(1, 3, 8, 8)
>>> before = model(x)
>>> with shortened(model) as layers:
...     layers, torch.equal(model(x), before)
(2, True)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = range(4, 16)  # with fewer, oneDNN orders the weights for too little; with more, PyTorch takes it by itself
PLACES = 49  # of a row; with fewer (squeeze and excitation) its start costs more than it gains


@contextmanager
def shortened(model: nn.Module) -> Iterator[int]:
    """The layers' own `forward` covered by a quicker one; on exit the model is as it was, also after an exception.

    The output of a rectifier is the same, that of a convolution to rounding. Hooks are called as ever.

    Args:
        model: any; modules whose `forward` was replaced by hand are left alone.

    Yields:
        How many layers have a quicker way.
    """
    covered = []
    try:
        for module in model.modules():
            quicker = _quicker(module)
            if quicker is not None and "forward" not in vars(module):
                module.forward = quicker
                covered.append(module)
        yield len(covered)
    finally:
        for module in covered:
            del module.forward


def _quicker(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Another way to the same output; None where there is none. Only of these classes, none that are made of them."""
    if type(module) is nn.ReLU6 or type(module) is nn.Hardtanh:
        return _clamp(module)
    if type(module) is nn.Conv2d and _is_pointwise(module):
        return _pointwise(module)
    return None


def _clamp(module: nn.Hardtanh) -> Callable[[Tensor], Tensor]:
    usual = module.forward

    def forward(x: Tensor) -> Tensor:
        if not (module.inplace and x.requires_grad and torch.is_grad_enabled()):
            return usual(x)
        clamped: Tensor = _Clamp.apply(x, module.min_val, module.max_val)
        return clamped

    return forward


class _Clamp(torch.autograd.Function):
    """Clamps in place; the gradient passes where the output is within the bounds, as it does where the input is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.mark_dirty(x)
        ctx.bounds = low, high
        x.clamp_(low, high)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradients[0], output, *ctx.bounds), None, None


def _is_pointwise(module: nn.Conv2d) -> bool:
    """Whether each place of the output sees all channels of one place of the input, and there is one for each."""
    return module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0) and module.groups == 1


def _pointwise(module: nn.Conv2d) -> Callable[[Tensor], Tensor]:
    usual = module.forward

    def forward(x: Tensor) -> Tensor:
        if (
            x.ndim == 4
            and len(x) in ROWS
            and x.shape[2] * x.shape[3] >= PLACES
            and x.dtype == torch.float32  # else a dilation leads away from oneDNN
            and x.device.type == "cpu"
            and torch.get_num_threads() == 1
        ):
            return F.conv2d(x, module.weight, module.bias, dilation=2)
        return usual(x)

    return forward
