"""Layers in less time and memory while a run lasts, on the same weights: rectifiers, and convolutions on a processor.

- In place, `nn.ReLU6` and `nn.Hardtanh` copy their input for the gradient, which can be told from the output as well.
- A convolution and the rectifier after it are one call of oneDNN, which saves a pass over memory (`convolution`).
- On one thread, PyTorch leaves 1x1 convolutions of fewer than 16 rows to a kernel that first copies what lies with the
  channels last; asked by name, oneDNN takes them.
- timm's depthwise convolutions with TensorFlow's padding copy their input, to pad one side more than the other; a
  kernel with a row and a column of zeros ahead needs no more on one side than on the other.

>>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True)).requires_grad_(False)
>>> x = torch.rand(2, 3, 8, 8)
>>> before = model(x)
>>> with shortened(model, lambda: model(x)) as layers:
...     layers, torch.allclose(model(x), before, atol=1e-6)
(2, True)
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from extremal.networks.acceleration.observe import Pair, is_watched, observed, same_output
from extremal.networks.acceleration.onednn import Convolution, available, bounds_of, is_wrapped, pads_as_tensorflow

Forward = Callable[[Tensor], Tensor]
Ways = dict[nn.Module, Forward]


@contextmanager
def shortened(model: nn.Module, answer: Callable[[], object], *whole: str) -> Iterator[int]:
    """The layers' own `forward` covered by a quicker one; on exit the model is as it was, also after an exception.

    The output of a rectifier is the same, that of a convolution to rounding. Hooks are called as ever.

    Args:
        model: without parameter gradients; modules whose `forward` was replaced by hand are left alone.
        answer: runs it on an example; called once where there are rectifiers, twice where they follow convolutions. If
            the outputs then differ by more than rounding (something else used a convolution's output), these stay
            apart.
        whole: names of modules whose output is wanted as it is, and whose gradient may be.

    Yields:
        How many layers have a quicker way.
    """
    ways = _ways(model, answer, whole)
    with _covered(ways):
        yield len(ways)


def _ways(model: nn.Module, answer: Callable[[], object], whole: tuple[str, ...]) -> Ways:
    """Each layer's quicker way."""
    free = [module for module in model.modules() if "forward" not in vars(module)]
    convolutions = [module for module in free if _is_convolution(module)]
    rectifiers = [module for module in free if bounds_of(module) is not None]
    seen = bool(whole) or any(map(is_watched, model.modules()))
    joined: Ways = {}
    if rectifiers:
        with torch.no_grad():
            watched = observed(model, answer, convolutions, rectifiers, *whole)
            # an output that is changed in place leaves nothing to tell the gradient from
            rectifiers = [module for module in rectifiers if module not in watched.changed]
            joined = _joined([pair for pair in watched.pairs if pair[1] in rectifiers], seen)
            with _covered(joined):
                if joined and not same_output(watched.output, answer()):
                    joined = {}
    ways: Ways = {module: _convolved(module, seen) for module in convolutions if _is_slow(module)}
    return ways | {module: _clamp(module) for module in rectifiers} | joined


@contextmanager
def _covered(ways: Ways) -> Iterator[None]:
    try:
        for module, way in ways.items():
            module.forward = way
        yield
    finally:
        for module in ways:
            vars(module).pop("forward", None)


def _joined(pairs: list[Pair], seen: bool) -> Ways:
    """Convolutions that do what the rectifiers after them do, and these."""
    ways: Ways = {}
    for convolution, rectifier in pairs:
        assert isinstance(convolution, nn.Conv2d)
        ways[convolution] = _convolved(convolution, seen, rectifier)
        ways[rectifier] = _as_it_is
    return ways


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _convolved(module: nn.Conv2d, seen: bool, rectifier: nn.Module | None = None) -> Forward:
    usual = module.forward
    rectify = _as_it_is if rectifier is None else _clamp(rectifier)
    bounds = None if rectifier is None else bounds_of(rectifier)
    convolve = Convolution(module, bounds, seen=seen)
    return lambda x: convolve(x) if convolve.suits(x) else rectify(usual(x))


def _is_convolution(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether oneDNN takes it; only of these classes, none that are made of them."""
    if not pads_as_tensorflow(module) and type(module) is not nn.Conv2d:
        return False
    assert isinstance(module, nn.Conv2d)
    plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return plain and module.weight.device.type == "cpu" and available()


def _is_slow(module: nn.Conv2d) -> bool:
    """Whether there is something to gain also without a rectifier."""
    pointwise = module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0) and module.groups == 1
    return pointwise or (pads_as_tensorflow(module) and module.groups == module.in_channels)


def _clamp(rectifier: nn.Module) -> Forward:
    assert isinstance(rectifier, nn.Hardtanh)
    usual = rectifier.forward

    def forward(x: Tensor) -> Tensor:
        if is_wrapped(x) or not (rectifier.inplace and x.requires_grad and torch.is_grad_enabled()):
            return usual(x)
        clamped: Tensor = _Clamp.apply(x, rectifier.min_val, rectifier.max_val)
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
