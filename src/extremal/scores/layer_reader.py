"""Read the output of a layer along one axis; no later layer is evaluated."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.perturbations import ScaleChannels
from extremal.networks.layers import get_module, split_problem
from extremal.networks.run import Evaluator
from extremal.networks.split import compute_activations
from extremal.scores.query import as_split


@dataclass(frozen=True, eq=False)
class LayerReader:
    """Reads the output of one layer of a frozen network."""

    shape: tuple[int, ...]  # (K, *places) of one input
    read: Callable[[Tensor, Tensor], Tensor]  # inputs (B, C, *S), their input indices (B,) -> (B, K, *places)


def read_layer(run: Evaluator, layer: str, axis: int | None, x: Tensor) -> LayerReader:
    """Return a reader of a layer's output and gradient for inputs like x; evaluation ends at the layer.

    Costs one evaluation of the first input, for checks.

    Args:
        run: the frozen network.
        layer: name of the module.
        axis: of the output, along which the channels lie; None: 1, but 2 for (B, tokens, channels).
        x: (N, C, *S).

    Raises:
        ExtremalValueError: there is no such layer or axis, the layer is not called exactly once, does not return one
            floating tensor, or comes before the layer where the network is split.
    """
    module, split = get_module(run.network, layer), as_split(run)
    if split is not None and any(module is part for called, _ in split.cached_calls for part in called.modules()):
        raise ExtremalValueError(
            f"a query about channels of {split.layer.name!r} must use a later layer, {layer!r} comes before it; choose "
            "a later layer, or explain the input"
        )
    outputs: list[object] = []
    hook = module.register_forward_hook(lambda _, __, output: outputs.append(output))
    try:
        with torch.no_grad():
            run.evaluate(x[:1], torch.zeros(1, dtype=torch.int64, device=x.device))
    finally:
        hook.remove()
    problem = split_problem(outputs, x[:1])
    if problem:
        raise ExtremalValueError(
            f"a queried layer must be called once and return one floating tensor (B, K, ...), {layer!r} does not: "
            f"{problem}; extremal.layers(network) or `extremal layers` lists those that do"
        )
    (output,) = outputs
    assert isinstance(output, Tensor)
    channel_axis = ScaleChannels(axis).axis_of(output)

    def read(inputs: Tensor, input_index: Tensor) -> Tensor:
        activations = compute_activations(run, module, inputs, input_index)
        return activations.movedim(channel_axis, 1).to(inputs.dtype)  # autocast returns a lower precision

    return LayerReader(tuple(output.movedim(channel_axis, 1).shape[1:]), read)
