"""What a layer says of each input: its output along one axis, and nothing behind it is evaluated."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.network import Evaluates
from extremal.scores.query import as_split


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads a layer of a frozen network."""

    shape: tuple[int, ...]  # (K, *places) of one input
    read: Callable[[Tensor, Tensor], Tensor]  # inputs (B, C, *S), of which image each is (B,) -> (B, K, *places)


def reader(run: Evaluates, layer: str, axis: int | None, x: Tensor) -> Reader:
    """A layer's output for inputs like x (N, C, *S), read with its gradient; the evaluation ends at the layer.

    Costs one evaluation of the first input, for checks.

    Args:
        axis: of the output, along which the channels lie; None: 1, but 2 of (B, tokens, channels).

    Raises:
        ExtremalValueError: there is no such layer or axis, it is called more or less than once, gives something else
            than one floating tensor, or lies before the one where the network is split.
    """
    from extremal.networks.layers import module_named, problem_of  # they come to this module by way of the terms
    from extremal.networks.split import activations_at

    module, made = module_named(run.network, layer), as_split(run)
    if made is not None and any(module is part for done, _ in made.before for part in done.modules()):
        raise ExtremalValueError(
            f"a question about channels of {made.layer.name!r} must look at a layer behind it, {layer!r} is before it; "
            "choose one behind, or ask about the input"
        )
    outputs: list[object] = []
    hook = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        with torch.no_grad():
            run.raw(x[:1], torch.zeros(1, dtype=torch.int64, device=x.device))
    finally:
        hook.remove()
    problem = problem_of(outputs, x[:1])
    if problem:
        raise ExtremalValueError(
            f"a layer that is asked about must be called once and give one floating tensor (B, K, ...), {layer!r} does "
            f"not: {problem}; extremal.layers(network) lists those that do"
        )
    (output,) = outputs
    assert isinstance(output, Tensor)
    along = ScaleChannels(axis).axis_of(output)

    def read(inputs: Tensor, images: Tensor) -> Tensor:
        found = activations_at(run, module, inputs, images)
        return found.movedim(along, 1).to(inputs.dtype)  # autocast's would be rounded

    return Reader(tuple(output.movedim(along, 1).shape[1:]), read)
