"""Run timm's convolutions with TensorFlow's padding without a copy of their input, where their kernel can be padded."""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from extremal.networks.acceleration.observe import is_from_timm
from extremal.networks.forwards import Forwards
from extremal.networks.same_padding import SamePaddedConv2d, pad_as_same


def pads_like_tensorflow(module: nn.Module) -> bool:
    """Return whether a module is a convolution with TensorFlow's padding: `SamePaddedConv2d`, or timm's."""
    return type(module) is SamePaddedConv2d or is_from_timm(module, "Conv2dSame")


def find_same_padded(model: nn.Module) -> list[nn.Conv2d]:
    """Return timm's depthwise convolutions with TensorFlow's padding, without those whose `forward` was replaced."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and is_from_timm(module, "Conv2dSame") and "forward" not in vars(module)
    ]


def get_same_padded_forwards(modules: Sequence[nn.Conv2d]) -> Forwards:
    """Return a forward for each of these convolutions that gives the same output and gradient."""
    return {module: partial(_convolve, module) for module in modules}


def _convolve(module: nn.Conv2d, x: Tensor) -> Tensor:
    x, kernel, padding = pad_as_same(module, x)
    return F.conv2d(x, kernel, module.bias, module.stride, padding, module.dilation, module.groups)
