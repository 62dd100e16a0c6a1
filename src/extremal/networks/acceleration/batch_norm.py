"""Fold batch normalisations into the convolutions before them while a run lasts: the same answer in less time.

>>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
>>> x = torch.rand(1, 3, 8, 8)
>>> before = model(x)
>>> with fused(model, lambda: model(x)) as pairs:
...     pairs, torch.allclose(model(x), before, atol=1e-5), type(model[1]).__name__
(1, True, 'Sequential')
>>> type(model[1]).__name__
'BatchNorm2d'
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from extremal.networks.acceleration.observe import is_from_timm, observed, same_output

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # these themselves, no classes made of them


@contextmanager
def fused(model: nn.Module, answer: Callable[[], object], *whole: str) -> Iterator[int]:
    """Batch norms folded into the convolutions before them; on exit the model is as it was, also after an exception.

    Only where the norm takes a convolution's output as it is, each is called once, and neither carries hooks. If the
    outputs then differ by more than rounding (something else used the convolution's output), nothing is folded.

    Args:
        model: in evaluation mode, without parameter gradients.
        answer: runs it on an example; called once or twice.
        whole: names of modules whose output is wanted as it is, and whose parts keep their names.

    Yields:
        How many pairs were folded.
    """
    with torch.no_grad():
        pairs, before = _pairs(model, answer, whole)
        with ExitStack() as undo:
            for convolution, name in pairs:
                _fold(model, convolution, name, undo)
            if pairs and not same_output(before, answer()):
                undo.close()
                pairs = []
            with torch.enable_grad():
                yield len(pairs)


def _pairs(
    model: nn.Module, answer: Callable[[], object], whole: Sequence[str]
) -> tuple[list[tuple[nn.Module, str]], object]:
    """Each convolution with the name of the batch norm that takes its output, and the model's output."""
    convolutions = {module for module in model.modules() if isinstance(module, _CONVOLUTIONS)}
    norms = {module: name for name, module in model.named_modules() if type(module) in _NORMS or _activates(module)}
    known = {norm for norm in norms if norm.running_mean is not None}
    seen = observed(model, answer, convolutions, known, *whole)
    return [(convolution, norms[norm]) for convolution, norm in seen.pairs], seen.output


def _activates(module: nn.Module) -> bool:
    """Whether it is timm's batch norm with dropout and activation in it."""
    return is_from_timm(module, "BatchNormAct2d")


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
