"""Take the gradient of in-place ReLU6 and Hardtanh from their output.

In place, `nn.ReLU6` and `nn.Hardtanh` copy their input for the gradient, although their output suffices: it lies
strictly within the bounds exactly where the input does.

>>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True)).requires_grad_(False)
>>> forwards = get_clamp_forwards(find_rectifiers(model))
>>> x = torch.rand(2, 3, 8, 8, requires_grad=True)
>>> torch.equal(forwards[model[1]](model[0](x)), model(x))
True
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from extremal.networks.forwards import Forward, Forwards


def find_rectifiers(model: nn.Module) -> list[nn.Hardtanh]:
    """Return the ReLU6 and Hardtanh modules, without subclasses and modules whose `forward` was replaced."""
    modules = (module for module in model.modules() if "forward" not in vars(module))
    return [module for module in modules if type(module) in (nn.ReLU6, nn.Hardtanh)]  # type: ignore[misc]


def get_clamp_forwards(rectifiers: Sequence[nn.Hardtanh]) -> Forwards:
    """Return a forward for each rectifier that saves memory and gives the same output and gradient."""
    return {module: _memory_saving_clamp(module) for module in rectifiers}


def is_functorch_tensor(x: Tensor) -> bool:
    """Return whether a transform of `torch.func` (vmap, jvp) is at work; these support built-in layers only."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def _memory_saving_clamp(rectifier: nn.Hardtanh) -> Forward:
    original = rectifier.forward

    def forward(x: Tensor) -> Tensor:
        if is_functorch_tensor(x) or not (rectifier.inplace and x.requires_grad and torch.is_grad_enabled()):
            return original(x)
        clamped: Tensor = _Clamp.apply(x, rectifier.min_val, rectifier.max_val)
        return clamped

    return forward


class _Clamp(torch.autograd.Function):
    """Clamp in place; the gradient passes where the output lies strictly within the bounds."""

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
