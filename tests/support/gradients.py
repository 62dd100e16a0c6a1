"""Gradients of models, and which of their modules were accelerated."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def output_and_gradient(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output, and the gradient of a sum that weights places differently."""
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    output = model(x)
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    return output.detach(), torch.autograd.grad((output * weights).sum(), x)[0]


def assert_equal_to_rounding(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Compare tensors to 1e-5 of the largest value of each."""
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.detach().abs().max()), rtol=0)


def patched_modules(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose `forward` is replaced."""
    return [module for module in model.modules() if "forward" in vars(module)]
