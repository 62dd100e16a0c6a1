"""Take the gradient of in-place ReLU6 and Hardtanh from their output, and compute it in place where that is safe.

In place, `nn.ReLU6` and `nn.Hardtanh` copy their input for the gradient, although their output suffices: it lies
strictly within the bounds exactly where the input does. If a convolution alone uses that output, the gradient that
reaches the rectifier is a tensor that nothing else refers to, and is overwritten (`overwrite_gradients`).

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
        ctx.bounds, ctx.may_overwrite = (low, high), False
        x.clamp_(low, high)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (output,), (gradient,) = ctx.saved_tensors, gradients
        options = {"grad_input": gradient} if ctx.may_overwrite and not torch.is_grad_enabled() else {}
        return torch.ops.aten.hardtanh_backward(gradient, output, *ctx.bounds, **options), None, None


def overwrite_gradients(value: Tensor, wanted: Sequence[Tensor]) -> None:
    """Let rectifiers overwrite the gradients of a value, where a convolution alone takes a rectifier's output.

    The gradient graph of the value is read as it is now, and must not be used for another value later on.

    Args:
        value: whose gradient is computed next, once; it has one.
        wanted: the tensors with respect to which; the gradient of a rectifier's output that is one of them is kept.
    """
    kept = {tensor.grad_fn for tensor in wanted}
    users: dict[Any, list[Any]] = {}  # the nodes that take the output of a rectifier's node
    visited, pending = {value.grad_fn}, list[Any]([value.grad_fn])
    while pending:
        node = pending.pop()
        for source, _ in node.next_functions:
            if isinstance(source, _Clamp._backward_cls):
                users.setdefault(source, []).append(node)
            if source is not None and source not in visited:
                visited.add(source)
                pending.append(source)
    for rectifier, nodes in users.items():
        is_sole = [node.name() for node in nodes] == ["ConvolutionBackward0"]
        rectifier.may_overwrite = is_sole and rectifier not in kept
