"""Evaluate a frozen network in less time and memory, with the same output up to rounding.

- The kernels of convolutions are copied to channels-last layout once, and not in each pass (`kernel_layout`).
- Batch norms are folded into the preceding convolutions (`batch_norm`).
- In-place ReLU6 and Hardtanh take their gradient from their output, and in place where they may (`rectifiers`).
- Depthwise convolutions of timm with TensorFlow's padding pad their kernel instead of their input (`same_padded`).
- On a CPU, on request, convolutions and the rectifiers after them are single calls of oneDNN (`onednn`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.networks.acceleration.batch_norm import fused_batch_norms
from extremal.networks.acceleration.kernel_layout import channels_last_kernels
from extremal.networks.acceleration.observe import Observation, observe
from extremal.networks.acceleration.onednn import find_convolutions, get_onednn_forwards
from extremal.networks.acceleration.rectifiers import find_rectifiers, get_clamp_forwards
from extremal.networks.acceleration.same_padded import find_same_padded, get_same_padded_forwards
from extremal.networks.forwards import Forwards, patched_forwards

Acceleration = Literal["portable", "onednn", "off"]
ACCELERATIONS: tuple[Acceleration, ...] = get_args(Acceleration)


@contextmanager
def accelerated(
    model: nn.Module,
    evaluate: Callable[[Tensor], object],
    example: Tensor,
    keep: Sequence[str] = (),
    *,
    level: Acceleration = "portable",
    channels_last: bool = True,
) -> Iterator[None]:
    """Replace parts of a model by faster equivalents; on exit the model is as it was, also after an exception.

    The changes are checked on the example. Those that alter the output by more than rounding are undone: something else
    in the model used a tensor that no longer exists. With "onednn" the gradient is checked as well.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().requires_grad_(False)
    >>> x = torch.rand(1, 3, 8, 8)
    >>> before = model(x)
    >>> with accelerated(model, model, x):
    ...     type(model[1]).__name__, torch.allclose(model(x), before, atol=1e-5)
    ('Sequential', True)
    >>> type(model[1]).__name__
    'BatchNorm2d'

    Args:
        model: in evaluation mode, without parameter gradients.
        evaluate: runs the model on inputs (B, C, *S). It is called on the example up to twice, and once more for each
            change of batch norms or layout that is undone; with "onednn" once more, and twice on two rows.
        example: one input (1, C, *S).
        keep: names of modules that must give the output and the gradient they give without acceleration.
        level: "portable": layout, batch norms and rectifiers; "onednn": convolutions on a CPU as well; "off": nothing.
        channels_last: whether images are evaluated in this layout.
    """
    with ExitStack() as stack:
        if level != "off":
            layout = stack.enter_context(ExitStack())
            if channels_last:
                layout.enter_context(channels_last_kernels(model))

            def evaluate_first() -> object:
                try:
                    return evaluate(example)
                except (RuntimeError, ExtremalValueError):  # e.g. a kernel is read by a view
                    layout.close()
                    return evaluate(example)

            checks = _Checks(model, lambda: evaluate(example), keep, level)
            folding = fused_batch_norms(model, evaluate_first, keep, checks.observe)
            if not stack.enter_context(folding):
                checks.observed = None  # of the model with norms folded, if of any
            stack.enter_context(patched_forwards(_find_forwards(checks, evaluate, example)))
        yield


@dataclass
class _Checks:
    """Evaluations of the example by a model whose norms may be folded, observed once."""

    model: nn.Module
    evaluate: Callable[[], object]
    keep: Sequence[str]
    level: Acceleration
    observed: Observation | None = None

    def observe(self) -> object:
        """Return the model's output, and keep the pairs of a convolution and the rectifier after it."""
        rectifiers, convolutions = find_rectifiers(self.model), self.find_convolutions()
        self.observed = observe(self.model, self.evaluate, convolutions, rectifiers, self.keep)
        return self.observed.output

    def find_convolutions(self) -> list[nn.Conv2d]:
        """Return the convolutions that oneDNN can run, if it is wanted."""
        return find_convolutions(self.model) if self.level == "onednn" else []


def _find_forwards(checks: _Checks, evaluate: Callable[[Tensor], object], example: Tensor) -> Forwards:
    """Return the faster forwards of rectifiers and convolutions."""
    model, convolutions = checks.model, checks.find_convolutions()
    rectifiers = find_rectifiers(model)
    if rectifiers and checks.observed is None:
        with torch.no_grad():
            checks.observe()
    observation = checks.observed or Observation([], set(), None)
    # an output that is overwritten later cannot give the gradient
    forwards = get_clamp_forwards([module for module in rectifiers if module not in observation.overwritten])
    if convolutions:
        forwards = get_onednn_forwards(model, evaluate, example, convolutions, observation, forwards, checks.keep)
    return get_same_padded_forwards(find_same_padded(model)) | forwards
