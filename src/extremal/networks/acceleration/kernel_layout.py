"""Keep the kernels of convolutions in the layout that channels-last inputs need, which each pass would copy them to."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from extremal.networks.acceleration.same_padded import pads_like_tensorflow


@contextmanager
def channels_last_kernels(model: nn.Module) -> Iterator[None]:
    """Replace the kernels of 2D convolutions by copies in channels-last layout; on exit the model is as it was.

    Kernels that are in this layout anyway, such as those of 1x1 and depthwise convolutions, stay.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3)).requires_grad_(False)
    >>> kernel = model[0].weight
    >>> with channels_last_kernels(model):
    ...     model[0].weight.is_contiguous(memory_format=torch.channels_last), torch.equal(model[0].weight, kernel)
    (True, True)
    >>> model[0].weight is kernel
    True

    Args:
        model: without parameter gradients.
    """
    with ExitStack() as undo:
        for module in filter(_is_plain_convolution, model.modules()):
            kernel = module._parameters.get("weight")
            if kernel is None or not _needs_copy(kernel):
                continue
            undo.callback(module._parameters.__setitem__, "weight", kernel)
            copy = kernel.detach().contiguous(memory_format=torch.channels_last)
            module._parameters["weight"] = nn.Parameter(copy, requires_grad=False)
        yield


def _is_plain_convolution(module: nn.Module) -> bool:
    """Return whether a module is a 2D convolution whose forward uses its kernel in no other way."""
    is_known = type(module) is nn.Conv2d or pads_like_tensorflow(module)
    return is_known and "forward" not in vars(module)


def _needs_copy(kernel: Tensor) -> bool:
    """Return whether a kernel (C', C, H, W) is an ordinary tensor in another layout, without a gradient."""
    is_ordinary = type(kernel) is nn.Parameter and type(kernel.data) is Tensor and kernel.layout == torch.strided
    is_wanted = is_ordinary and kernel.ndim == 4 and not kernel.requires_grad
    return is_wanted and not kernel.is_contiguous(memory_format=torch.channels_last)
