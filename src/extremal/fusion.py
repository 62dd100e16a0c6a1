"""Fold batch normalisations into the convolutions before them while a run lasts: the same answer in less time.

>>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
>>> x = torch.rand(1, 3, 8, 8)
>>> before = model(x)
>>> with fused(model, x) as pairs:
...     pairs, torch.allclose(model(x), before, atol=1e-5), type(model[1]).__name__
(1, True, 'Sequential')
>>> type(model[1]).__name__
'BatchNorm2d'
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

TOLERANCE = 1e-4  # of the largest score, by which the outputs may differ; more, and nothing is folded

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # these themselves, no classes made of them


@contextmanager
def fused(model: nn.Module, example: Tensor, *whole: str) -> Iterator[int]:
    """Batch norms folded into the convolutions before them; on exit the model is as it was, also after an exception.

    Only where the norm takes a convolution's output as it is, each is called once, and neither carries hooks. If the
    outputs for `example` then differ by more than rounding (something else used the convolution's output), nothing is
    folded.

    Args:
        model: in evaluation mode, without parameter gradients.
        example: (B, C, *S), run twice or three times.
        whole: names of modules whose output is wanted as it is, and whose parts keep their names.

    Yields:
        How many pairs were folded.
    """
    with torch.no_grad():
        pairs, before = _pairs(model, example)
        for layer in whole:
            asked = model.get_submodule(layer)
            pairs = [(c, name) for c, name in pairs if c is not asked and not f"{layer}.".startswith(f"{name}.")]
        with ExitStack() as undo:
            for convolution, name in pairs:
                _fold(model, convolution, name, undo)
            if pairs and not _same(before, model(example)):
                undo.close()
                pairs = []
            with torch.enable_grad():
                yield len(pairs)


def _pairs(model: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Module, str]], object]:
    """Each convolution with the name of the batch norm that takes its output, and the model's output."""
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # by identity of the output, which is held so that it stays unique
    found: list[tuple[nn.Module, str]] = []
    calls: Counter[nn.Module] = Counter()
    norms = {module: name for name, module in model.named_modules() if type(module) in _NORMS or _activates(module)}

    def after(module: nn.Module, _: Any, output: Tensor) -> None:
        calls[module] += 1
        made[id(output)] = module, output

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[module] += 1
        if inputs and id(inputs[0]) in made:
            found.append((made[id(inputs[0])][0], norms[module]))

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, _CONVOLUTIONS) and _plain(module):
                hooks.callback(module.register_forward_hook(after).remove)
            elif module in norms and _plain(module) and module.running_mean is not None:
                hooks.callback(module.register_forward_pre_hook(before).remove)
        output = model(example)
    once = [(convolution, name) for convolution, name in found if calls[convolution] == 1]
    return [(c, name) for c, name in once if calls[model.get_submodule(name)] == 1], output


def _activates(module: nn.Module) -> bool:
    """Whether it is timm's batch norm with dropout and activation in it; where timm was not imported none is."""
    layers = sys.modules.get("timm.layers")
    return layers is not None and type(module) is layers.BatchNormAct2d


def _plain(module: nn.Module) -> bool:
    """Whether nothing watches the module or computes its weights."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn.utils.parametrize.is_parametrized(module)
    )


def _fold(model: nn.Module, convolution: nn.Module, name: str, undo: ExitStack) -> None:
    """Give the convolution the norm's scale and shift, and put what is left of the norm in its place."""
    parent, _, child = name.rpartition(".")
    owner, norm = model.get_submodule(parent), model.get_submodule(name)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = convolution._parameters["weight"], convolution._parameters["bias"]
    assert weight is not None
    folded = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    undo.callback(owner._modules.__setitem__, child, norm)
    undo.callback(convolution._parameters.update, {"weight": weight, "bias": bias})
    for part, value in zip(("weight", "bias"), folded, strict=True):
        convolution._parameters[part] = nn.Parameter(value, requires_grad=False)
    rest = [getattr(norm, name) for name in ("drop", "act")] if _activates(norm) else []
    owner._modules[child] = nn.Sequential(*rest).eval()


def _same(before: object, after: object) -> bool:
    """Whether two outputs are equal to rounding; only tensors, and what holds them, can be compared."""
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        if before.shape != after.shape or not before.numel():
            return before.shape == after.shape
        scale = before.abs().max().clamp_min(1e-6)
        return bool((before - after).abs().max() <= TOLERANCE * scale)
    if isinstance(before, dict) and isinstance(after, dict):
        return before.keys() == after.keys() and all(_same(before[key], after[key]) for key in before)
    if isinstance(before, tuple | list) and isinstance(after, tuple | list):
        return len(before) == len(after) and all(map(_same, before, after))
    return False
