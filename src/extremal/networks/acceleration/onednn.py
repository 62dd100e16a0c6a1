"""A convolution on a processor, with the rectifier after it: one call of oneDNN instead of a call and a pass.

The gradient of a rectifier needs its output only. Where the convolution that took this output made the gradient, which
then belongs to nobody else, it is masked where it lies.

>>> module = nn.Conv2d(3, 4, 1).requires_grad_(False)
>>> x = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
>>> convolve = Convolution(module, bounds=(0.0, 6.0))
>>> convolve.suits(x), torch.allclose(convolve(x), module(x).clamp(0, 6), atol=1e-6)
(True, True)
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extremal.networks.acceleration.observe import is_from_timm

Bounds = tuple[float, float]

LEAST_ROWS = 2  # with fewer, ordering the weights anew in each call costs what is gained
DILATED = range(4, 16)  # rows: on one thread, PyTorch leaves gradients of fewer than 16 to a kernel that copies first
PLACES = 49  # of a row; with fewer (squeeze and excitation) the start of a call costs more than it gains


class Convolution:
    """The output of a convolution within bounds, where these have any.

    Args:
        module: `nn.Conv2d`, or timm's `Conv2dSame`.
        bounds: of the rectifier; None: there is none.
        seen: somebody else may look at tensors inside of the network, so nothing is masked where it lies.
    """

    def __init__(self, module: nn.Conv2d, bounds: Bounds | None = None, *, seen: bool = False) -> None:
        self.module, self.bounds, self.seen = module, bounds, seen
        self.same = pads_as_tensorflow(module)

    def suits(self, x: Tensor) -> bool:
        """Whether there is a quick way for an input."""
        weight = self.module.weight
        return (
            not is_wrapped(x)
            and x.ndim == 4
            and len(x) >= LEAST_ROWS
            and x.shape[2] * x.shape[3] >= PLACES
            and x.dtype == weight.dtype == torch.float32
            and x.device.type == weight.device.type == "cpu"
            and x.is_contiguous(memory_format=torch.channels_last)
            and not weight.requires_grad
            and bool(torch.backends.mkldnn.enabled)
            and not torch.is_autocast_enabled("cpu")
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), with a gradient for x where one is wanted."""
        module, kernel, padding = self.module, self.module.weight, self.module.padding
        if self.same:
            x, kernel, padding = self._padded(x)
        shape = padding, module.stride, module.dilation, module.groups
        if not (x.requires_grad and torch.is_grad_enabled()):
            return _convolve(x, kernel, module.bias, shape, self.bounds)
        output: Tensor = _Convolution.apply(x, kernel, module.bias, shape, self.bounds, self.seen)
        return output

    def _padded(self, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Input, kernel and the padding on both sides, which together do what TensorFlow's padding does.

        Depthwise, a row and a column of zeros ahead in the kernel take the place of a copy of the input, where one side
        must be padded by one more than the other.
        """
        module, kernel = self.module, self.module.weight
        axes = zip(x.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
        (above, below), (left, right) = (_same_padding(*axis) for axis in axes)
        if (above, left) == (below, right):
            return x, kernel, (above, left)
        if module.groups == module.in_channels and module.dilation == (1, 1):
            return x, F.pad(kernel, (right - left, 0, below - above, 0)), (below, right)
        return F.pad(x, (left, right, above, below)), kernel, (0, 0)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, shape: Any, bounds: Bounds | None, seen: bool
    ) -> Tensor:
        output = _convolve(x, kernel, bias, shape, bounds)
        ctx.shape, ctx.bounds, ctx.biased = shape, bounds, None if bias is None else [len(bias)]
        ctx.mine = None  # the gradient of the output that another of these made, and nobody else has
        ctx.maker = x.grad_fn if not seen and hasattr(x.grad_fn, "mine") else None
        ctx.save_for_backward(x, kernel, *([] if bounds is None else [output]))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, *output = ctx.saved_tensors
        (gradient,), mine, ctx.mine = gradients, ctx.mine, None
        if output:
            # an equal identity: with gradients of other uses, autograd would have made a new tensor of their sum
            place = {"grad_input": gradient} if gradient is mine and not torch.is_grad_enabled() else {}
            gradient = torch.ops.aten.hardtanh_backward(gradient, output[0], *ctx.bounds, **place)
        padding, stride, dilation, groups = ctx.shape
        if kernel.shape[2:] == (1, 1) and len(x) in DILATED and torch.get_num_threads() == 1:
            dilation = 2, 2  # means nothing to a kernel of one place, but leads to oneDNN
        options = ctx.biased, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        slope: Tensor = torch.ops.aten.convolution_backward(gradient, x, kernel, *options)[0]
        if ctx.maker is not None:
            ctx.maker.mine = slope
        return slope, None, None, None, None, None


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, shape: Any, bounds: Bounds | None) -> Tensor:
    padding, stride, dilation, groups = shape
    last: tuple[str, list[float]] = ("none", []) if bounds is None else ("hardtanh", list(bounds))
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, kernel, bias, padding, stride, dilation, groups, *last, ""
    )
    return output


def available() -> bool:
    """Whether this build of PyTorch has oneDNN and its convolution with a rectifier."""
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def is_wrapped(x: Tensor) -> bool:
    """Whether a transform of `torch.func` (vmap, jvp) is at work on it; it knows only the layers' own ways."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def pads_as_tensorflow(module: nn.Module) -> bool:
    """Whether it is timm's convolution that does."""
    return is_from_timm(module, "Conv2dSame")


def bounds_of(module: nn.Module) -> Bounds | None:
    """Of a rectifier's output; None: it is something else, also where it is a class made of one."""
    if type(module) is nn.ReLU6 or type(module) is nn.Hardtanh:
        return float(module.min_val), float(module.max_val)
    return None


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Places that the rule "same" adds ahead of an axis and behind it, for ceil(size / stride) outputs (TensorFlow)."""
    whole = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return whole // 2, whole - whole // 2
