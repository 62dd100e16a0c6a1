"""Grad-CAM: the maps of a layer, weighted by their mean gradients (Selvaraju et al., 2017), by captum."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extremal.benchmark.baselines.method import FieldSettings, Maps, ScoreModule, attribute_in_batches
from extremal.masking.grid import resize
from extremal.networks.attribution_layers import AttributionLayer, grad_cam_layer
from extremal.networks.network import Network
from extremal.scores.target import Target


@dataclass(frozen=True)
class GradCam(FieldSettings):
    """max(0, Σ_k mean(dΦ/dA_k)·A_k), enlarged linearly."""

    layer: str = ""  # by rule if empty (`grad_cam_layer`)
    name: str = "grad-cam"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs one forward-backward pass per input."""
        from captum.attr import LayerGradCam

        layer = grad_cam_layer(network, x, self.layer)
        shape = tuple(x.shape[2:])

        def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
            with output_as_maps(layer) as probe:
                cam = LayerGradCam(scores, probe)
                coarse = cam.attribute(batch.requires_grad_(), target=classes, relu_attributions=True)
            assert isinstance(coarse, Tensor)
            return resize(coarse, shape)

        return attribute_in_batches(network, x, target, attribute, layer.name)


@contextmanager
def output_as_maps(layer: AttributionLayer) -> Iterator[nn.Module]:
    """Yield a module whose output is that of the layer as maps (B, K, *lattice).

    Tokens (B, T, K) pass through it as maps and continue as tokens; those before the lattice, such as the class token,
    are unchanged.
    """
    if not layer.tokens:
        yield layer.module
        return
    probe, n_places = nn.Identity(), math.prod(layer.lattice)

    def pass_through_probe(_: nn.Module, __: object, tokens: Tensor) -> Tensor:
        head, places = tokens[:, :-n_places], tokens[:, -n_places:]
        maps = places.transpose(1, 2).reshape(len(places), -1, *layer.lattice)
        return torch.cat([head, probe(maps).flatten(2).transpose(1, 2)], 1)

    handle = layer.module.register_forward_hook(pass_through_probe)
    try:
        yield probe
    finally:
        handle.remove()
