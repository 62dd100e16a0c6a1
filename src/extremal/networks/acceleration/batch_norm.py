"""Fold batch normalisations into the preceding convolutions: the same output in less time.

>>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
>>> x = torch.rand(1, 3, 8, 8)
>>> before = model(x)
>>> with fused_batch_norms(model, lambda: model(x)) as n_pairs:
...     n_pairs, torch.allclose(model(x), before, atol=1e-5), type(model[1]).__name__
(1, True, 'Sequential')
>>> type(model[1]).__name__
'BatchNorm2d'
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from extremal.networks.acceleration.observe import is_from_timm, observe, outputs_match

_CONVOLUTION_CLASSES = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORM_CLASSES = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)  # without subclasses


@contextmanager
def fused_batch_norms(
    model: nn.Module,
    evaluate: Callable[[], object],
    keep: Sequence[str] = (),
    evaluate_folded: Callable[[], object] | None = None,
) -> Iterator[int]:
    """Fold batch norms into the preceding convolutions; on exit the model is as it was, also after an exception.

    A norm is folded only if it takes the unchanged output of a convolution, both are called once, and neither carries
    hooks. If the outputs then differ by more than rounding (other code used the convolution's output), none is folded.

    Args:
        model: in evaluation mode, without parameter gradients.
        evaluate: runs it on an example; called once or twice.
        keep: names of modules that must keep their output and the names of their parts.
        evaluate_folded: the same, once norms are folded, if that is another function.

    Yields:
        The number of folded pairs.
    """
    with torch.no_grad():
        pairs, before = _find_pairs(model, evaluate, keep)
        with ExitStack() as undo:
            for convolution, name in pairs:
                _fold(model, convolution, name, undo)
            if pairs and not outputs_match(before, (evaluate_folded or evaluate)()):
                undo.close()
                pairs = []
            with torch.enable_grad():
                yield len(pairs)


def _find_pairs(
    model: nn.Module, evaluate: Callable[[], object], keep: Sequence[str]
) -> tuple[list[tuple[nn.Module, str]], object]:
    """Return each convolution with the name of the batch norm that takes its output, and the model's output."""
    convolutions = {module for module in model.modules() if isinstance(module, _CONVOLUTION_CLASSES)}
    names = {
        module: name
        for name, module in model.named_modules()
        if (type(module) in _NORM_CLASSES or _has_activation(module)) and module.running_mean is not None
    }
    observation = observe(model, evaluate, convolutions, names.keys(), keep)
    return [(convolution, names[norm]) for convolution, norm in observation.pairs], observation.output


def _has_activation(module: nn.Module) -> bool:
    """Return whether a module is timm's batch norm that includes dropout and activation."""
    return is_from_timm(module, "BatchNormAct2d")


def _fold(model: nn.Module, convolution: nn.Module, name: str, undo: ExitStack) -> None:
    """Give the norm's scale and shift to the convolution, and replace the norm by its dropout and activation."""
    parent, _, child = name.rpartition(".")
    owner, norm = model.get_submodule(parent), model.get_submodule(name)
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = convolution._parameters["weight"], convolution._parameters["bias"]
    assert weight is not None
    values = fuse_conv_bn_weights(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    undo.callback(owner._modules.__setitem__, child, norm)
    undo.callback(convolution._parameters.update, {"weight": weight, "bias": bias})
    for part, value in zip(("weight", "bias"), values, strict=True):
        convolution._parameters[part] = nn.Parameter(value, requires_grad=False)
    remainder = [getattr(norm, name) for name in ("drop", "act")] if _has_activation(norm) else []
    owner._modules[child] = nn.Sequential(*remainder).eval()
