"""Maps of hidden layers: how much the activations at each place raise a score."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from extremal.networks.attribution_layers import AttributionLayer

Calls = list[list[Tensor]]  # for each layer its outputs, one for each evaluation of the network


@contextmanager
def recorded_outputs(layers: Sequence[AttributionLayer]) -> Iterator[Calls]:
    """Record the outputs of layers while the network is evaluated."""
    calls: Calls = [[] for _ in layers]
    with ExitStack() as hooks:
        for outputs, layer in zip(calls, layers, strict=True):

            def record(_: object, __: object, output: object, outputs: list[Tensor] = outputs) -> None:
                if isinstance(output, Tensor):
                    outputs.append(output)

            hooks.callback(layer.module.register_forward_hook(record).remove)
        yield calls


def compute_layer_map(layer: AttributionLayer, activations: Tensor, gradients: Tensor, is_last: bool) -> Tensor:
    """Return Σ_k w_k·A_k of a layer's output: (R, 1, *lattice).

    The weights of the last layer are the gradients' means over the places (Grad-CAM, Selvaraju et al., 2017), those of
    another are max(0, gradient) at each place (LayerCAM, Jiang et al., 2021).

    Args:
        layer: of maps (R, K, *lattice), or of tokens (R, T, K).
        activations: its output A.
        gradients: of a score with respect to it.
        is_last: whether it is the last layer of maps.
    """
    if layer.tokens:
        activations, gradients = (_tokens_as_maps(values, layer.lattice) for values in (activations, gradients))
    places = tuple(range(2, gradients.ndim))
    weights = gradients.mean(places, keepdim=True) if is_last else gradients.clamp_min(0.0)
    return (weights * activations).sum(1, keepdim=True)


def _tokens_as_maps(tokens: Tensor, lattice: tuple[int, ...]) -> Tensor:
    """Return the tokens of the lattice (R, T, K) as maps (R, K, *lattice); those before it are left out."""
    places = tokens[:, -torch.Size(lattice).numel() :]
    return places.transpose(1, 2).reshape(len(tokens), -1, *lattice)
