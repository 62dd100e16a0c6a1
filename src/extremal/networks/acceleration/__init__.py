"""Evaluate a frozen network in less time and memory, with the same output up to rounding.

- Batch norms are folded into the preceding convolutions (`batch_norm`).
- In-place ReLU6 and Hardtanh take their gradient from their output instead of from a copy of their input (`relu6`).
- On a CPU, on request, convolutions and the rectifiers after them are single calls of oneDNN (`onednn`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from extremal.networks.acceleration.batch_norm import fused_batch_norms
from extremal.networks.acceleration.observe import Observation, observe
from extremal.networks.acceleration.onednn import find_convolutions, get_onednn_forwards
from extremal.networks.acceleration.relu6 import find_rectifiers, get_clamp_forwards
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
        evaluate: runs the model on inputs (B, C, *S). It is called on the example up to three times; with "onednn" up
            to four times, and twice more on two rows.
        example: one input (1, C, *S).
        keep: names of modules that must give the output and the gradient they give without acceleration.
        level: "portable": batch norms and rectifiers; "onednn": convolutions on a CPU as well; "off": nothing.
    """
    with ExitStack() as stack:
        if level != "off":
            stack.enter_context(fused_batch_norms(model, lambda: evaluate(example), keep))
            stack.enter_context(patched_forwards(_find_forwards(model, evaluate, example, keep, level)))
        yield


def _find_forwards(
    model: nn.Module, evaluate: Callable[[Tensor], object], example: Tensor, keep: Sequence[str], level: Acceleration
) -> Forwards:
    """Return the faster forwards of rectifiers and convolutions."""
    rectifiers = find_rectifiers(model)
    convolutions = find_convolutions(model) if level == "onednn" else []
    observation = Observation([], set(), None)
    if rectifiers:
        with torch.no_grad():
            observation = observe(model, lambda: evaluate(example), convolutions, rectifiers, keep)
    # an output that is overwritten later cannot give the gradient
    forwards = get_clamp_forwards([module for module in rectifiers if module not in observation.overwritten])
    if convolutions:
        forwards = get_onednn_forwards(model, evaluate, example, convolutions, observation, forwards, keep)
    return forwards
