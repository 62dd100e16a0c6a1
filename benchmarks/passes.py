"""Record the evaluations of a network in some work, and time them with nothing around them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from extremal.networks.acceleration.rectifiers import overwrite_gradients
from extremal.networks.network import Network
from extremal.networks.run import Run


@dataclass
class Pass:
    """An evaluation of the network."""

    rows: int
    size: tuple[int, ...]
    has_backward: bool = False


def _note_backward(found: Pass, _gradient: Tensor) -> None:
    found.has_backward = True


def record_passes(network: Network, work: Callable[[], object]) -> list[Pass]:
    """Return the evaluations of the network in some work."""
    passes = list[Pass]()

    def note(_module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        passes.append(Pass(len(arguments[0]), tuple(arguments[0].shape[2:])))
        if output.requires_grad:
            output.register_hook(partial(_note_backward, passes[-1]))

    with network.model.register_forward_hook(note):
        work()
    return passes


def time_passes(network: Network, x: Tensor, passes: list[Pass]) -> float:
    """Return seconds per input of x (N, C, *S) of evaluations that were recorded, and nothing else."""
    start = perf_counter()
    with network.frozen() as run:
        run.accelerate(x)
        for one in passes:
            inputs = torch.nn.functional.interpolate(x[:1], size=one.size)
            with torch.set_grad_enabled(one.has_backward):
                run_passes(run, inputs, one.rows, 1, one.rows)
    return (perf_counter() - start) / len(x)


def run_passes(run: Run, x: Tensor, rows: int, times: int, most: int) -> None:
    """Run passes of `rows` rows per input, at most `most` at once; with gradient, except under no_grad."""
    for _ in range(times):
        for first in range(0, len(x) * rows, most):
            size = min(most, len(x) * rows - first)
            inputs = x[:1].repeat_interleave(size, 0).contiguous(memory_format=torch.channels_last)
            if torch.is_grad_enabled():
                score = run(inputs.requires_grad_())[:, 0].sum()
                overwrite_gradients(score, [inputs])
                torch.autograd.grad(score, inputs)
            else:
                run(inputs)
