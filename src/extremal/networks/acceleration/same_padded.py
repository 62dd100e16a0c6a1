"""Run timm's convolutions with TensorFlow's padding without a copy of their input, where their kernel can be padded."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from extremal.networks.acceleration.observe import is_from_timm
from extremal.networks.forwards import Forwards
from extremal.networks.same_padding import SamePaddedConv2d, convolve_as_same


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
    return {module: partial(convolve_as_same, module) for module in modules}
