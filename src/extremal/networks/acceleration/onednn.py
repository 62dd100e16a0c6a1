"""Run convolutions on a CPU, and the rectifiers after them, as single calls of oneDNN.

This module alone uses private operators of PyTorch. Everything it offers is optional: if an operator is missing, or one
gradient of the whole network differs from the one without it, the network runs without it.

- A convolution and the rectifier after it in one call save a pass over memory. The gradient of a rectifier needs its
  output only; if another convolution of this module produced that gradient, so that nothing else refers to it, it is
  masked in place.
- On one thread, PyTorch sends 1x1 convolutions of fewer than 16 rows to a kernel that first copies tensors in
  channels-last layout; oneDNN does not.
- Depthwise convolutions with TensorFlow's padding, as timm has them, copy their input in order to pad one side by one
  more than the other; here their kernel is padded instead (`pad_as_same`).

>>> module = nn.Conv2d(3, 4, 1).requires_grad_(False)
>>> x = torch.rand(2, 3, 8, 8).to(memory_format=torch.channels_last)
>>> convolve = Convolution(module, bounds=(0.0, 6.0))
>>> convolve.supports(x), torch.allclose(convolve(x), module(x).clamp(0, 6), atol=1e-6)
(True, True)
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from extremal.networks.acceleration.observe import Observation, Pair, has_hooks, outputs_match
from extremal.networks.acceleration.rectifiers import is_functorch_tensor
from extremal.networks.acceleration.same_padded import pads_like_tensorflow
from extremal.networks.forwards import Forward, Forwards, patched_forwards
from extremal.networks.outputs import find_tensors, to_channels_last
from extremal.networks.same_padding import pad_as_same

Bounds = tuple[float, float]

MIN_ROWS = 2  # with fewer, reordering the weights in each call costs as much time as is gained
DILATED_ROWS = range(4, 16)  # on one thread, PyTorch sends gradients of fewer than 16 rows to a kernel that copies
MIN_PLACES = 49  # of a row; with fewer (squeeze and excitation) the overhead of a call exceeds the gain
GRADIENT_TOLERANCE = 0.05  # of the norm of the gradient; rounding may move a few values across a rectifier's bound


class Convolution:
    """A convolution whose output is clamped to bounds, if it has any.

    Args:
        module: `nn.Conv2d`, or one that `pads_like_tensorflow`.
        bounds: of the rectifier after it; None: there is none.
        observable: other code may see tensors inside the network, so no gradient is masked in place.
    """

    def __init__(self, module: nn.Conv2d, bounds: Bounds | None = None, *, observable: bool = False) -> None:
        self.module, self.bounds, self.observable = module, bounds, observable
        self.pads_like_tensorflow = pads_like_tensorflow(module)

    def supports(self, x: Tensor) -> bool:
        """Return whether oneDNN is faster for this input."""
        weight = self.module.weight
        return (
            not is_functorch_tensor(x)
            and x.ndim == 4
            and len(x) >= MIN_ROWS
            and x.shape[2] * x.shape[3] >= MIN_PLACES
            and x.dtype == weight.dtype == torch.float32
            and x.device.type == weight.device.type == "cpu"
            and x.is_contiguous(memory_format=torch.channels_last)
            and not weight.requires_grad
            and bool(torch.backends.mkldnn.enabled)
            and not torch.is_autocast_enabled("cpu")
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W'), with a gradient if x requires one."""
        module, kernel, padding = self.module, self.module.weight, self.module.padding
        if self.pads_like_tensorflow:
            x, kernel, padding = pad_as_same(module, x)
        shape = padding, module.stride, module.dilation, module.groups
        if not (x.requires_grad and torch.is_grad_enabled()):
            return _convolve(x, kernel, module.bias, shape, self.bounds)
        output: Tensor = _ConvolutionFunction.apply(x, kernel, module.bias, shape, self.bounds, self.observable)
        return output


class _ConvolutionFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, shape: Any, bounds: Bounds | None, observable: bool
    ) -> Tensor:
        output = _convolve(x, kernel, bias, shape, bounds)
        ctx.shape, ctx.bounds, ctx.bias_sizes = shape, bounds, None if bias is None else [len(bias)]
        ctx.own_gradient = None  # of the output; set by another of these functions that produced it for this one alone
        ctx.producer = x.grad_fn if not observable and hasattr(x.grad_fn, "own_gradient") else None
        ctx.save_for_backward(x, kernel, *([] if bounds is None else [output]))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel, *output = ctx.saved_tensors
        (gradient,), own_gradient, ctx.own_gradient = gradients, ctx.own_gradient, None
        if output:
            # the same tensor: had the output other uses, autograd would have summed their gradients in a new one
            in_place = gradient is own_gradient and not torch.is_grad_enabled()
            options = {"grad_input": gradient} if in_place else {}
            gradient = torch.ops.aten.hardtanh_backward(gradient, output[0], *ctx.bounds, **options)
        padding, stride, dilation, groups = ctx.shape
        if kernel.shape[2:] == (1, 1) and len(x) in DILATED_ROWS and torch.get_num_threads() == 1:
            dilation = 2, 2  # has no effect on a 1x1 kernel, but makes PyTorch choose oneDNN
        arguments = ctx.bias_sizes, stride, padding, dilation, False, (0, 0), groups, (True, False, False)
        input_gradient: Tensor = torch.ops.aten.convolution_backward(gradient, x, kernel, *arguments)[0]
        if ctx.producer is not None:
            ctx.producer.own_gradient = input_gradient
        return input_gradient, None, None, None, None, None


def _convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, shape: Any, bounds: Bounds | None) -> Tensor:
    padding, stride, dilation, groups = shape
    pointwise: tuple[str, list[float]] = ("none", []) if bounds is None else ("hardtanh", list(bounds))
    output: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, kernel, bias, padding, stride, dilation, groups, *pointwise, ""
    )
    return output


def is_available() -> bool:
    """Return whether this build of PyTorch has oneDNN and its convolution with a rectifier."""
    has_onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return has_onednn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def find_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions that oneDNN can run, without those whose `forward` was replaced."""
    return [module for module in model.modules() if "forward" not in vars(module) and _is_supported(module)]


def get_onednn_forwards(
    model: nn.Module,
    evaluate: Callable[[Tensor], object],
    example: Tensor,
    convolutions: Sequence[nn.Conv2d],
    observation: Observation,
    clamps: Forwards,
    keep: Sequence[str] = (),
) -> Forwards:
    """Return faster forwards of convolutions, joined with those of the rectifiers.

    Convolutions are not merged with the rectifiers after them if that changes the output by more than rounding (other
    code uses a convolution's output). If one gradient of the network then still differs from the one without oneDNN,
    or an operator raises, the rectifiers' forwards are returned unchanged.

    Args:
        model: without parameter gradients.
        evaluate: runs it on inputs (B, C, *S); called once on the example if there are pairs, and twice on two rows.
        example: one input (1, C, *S).
        convolutions: those of the model that oneDNN can run.
        observation: pairs of a convolution and the rectifier that takes its output, and the model's output.
        clamps: forwards of the rectifiers alone.
        keep: names of modules that must keep their output and their gradient.
    """
    observable = bool(keep) or any(map(has_hooks, model.modules()))
    merged = _merge_pairs([pair for pair in observation.pairs if pair[1] in clamps], clamps, observable=observable)
    with torch.no_grad(), patched_forwards(merged):
        if merged and not outputs_match(observation.output, evaluate(example)):
            merged = {}
    single = {module: _convolution_forward(module, observable=observable) for module in convolutions if _gains(module)}
    forwards = single | clamps | merged
    if forwards.keys() == clamps.keys() or _gradients_match(evaluate, example, clamps, forwards):
        return forwards
    return clamps


def _gradients_match(
    evaluate: Callable[[Tensor], object], example: Tensor, expected: Forwards, forwards: Forwards
) -> bool:
    """Return whether two sets of forwards give the same gradient for two rows of the example."""
    x = example.detach().repeat_interleave(MIN_ROWS, 0)
    x = to_channels_last(x) if x.ndim == 4 else x
    gradients = []
    try:
        for patches in (expected, forwards):
            with patched_forwards(patches), torch.random.fork_rng([]), torch.enable_grad():
                leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
                outputs = [output for output in find_tensors(evaluate(leaf)) if output.requires_grad]
                gradients.append(torch.autograd.grad(outputs, leaf, [_gradient_like(output) for output in outputs])[0])
    except (RuntimeError, TypeError, AttributeError):
        return False
    return bool((gradients[1] - gradients[0]).norm() <= GRADIENT_TOLERANCE * gradients[0].norm())


def _gradient_like(output: Tensor) -> Tensor:
    """Return a gradient of an output that differs from place to place."""
    return torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)


def _merge_pairs(pairs: Sequence[Pair], clamps: Forwards, *, observable: bool) -> Forwards:
    """Return forwards of convolutions that include the rectifiers after them, which do nothing themselves."""
    forwards: Forwards = {}
    for convolution, rectifier in pairs:
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(rectifier, nn.Hardtanh)
        bounds = float(rectifier.min_val), float(rectifier.max_val)
        forwards[convolution] = _convolution_forward(convolution, bounds, clamps[rectifier], observable=observable)
        forwards[rectifier] = _identity
    return forwards


def _identity(x: Tensor) -> Tensor:
    return x


def _convolution_forward(
    module: nn.Conv2d, bounds: Bounds | None = None, rectify: Forward = _identity, *, observable: bool
) -> Forward:
    original = module.forward
    convolve = Convolution(module, bounds, observable=observable)
    return lambda x: convolve(x) if convolve.supports(x) else rectify(original(x))


def _is_supported(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Return whether oneDNN can run a module: a convolution of these classes, without subclasses."""
    if not pads_like_tensorflow(module) and type(module) is not nn.Conv2d:
        return False
    assert isinstance(module, nn.Conv2d)
    has_numeric_padding = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return has_numeric_padding and module.weight.device.type == "cpu" and is_available()


def _gains(module: nn.Conv2d) -> bool:
    """Return whether oneDNN is faster even without a rectifier."""
    pointwise = module.kernel_size == module.stride == (1, 1) and module.padding == (0, 0) and module.groups == 1
    return pointwise or (pads_like_tensorflow(module) and module.groups == module.in_channels)
