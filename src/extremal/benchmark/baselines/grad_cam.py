"""Grad-CAM: a layer's maps, weighted by their mean gradients (Selvaraju et al., 2017), by captum."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from extremal.benchmark.baselines.layer_choice import AttributionLayer, grad_cam_layer
from extremal.benchmark.baselines.method import Maps, ScoreModule, attribute_in_batches
from extremal.masking.grid import resize
from extremal.networks.network import Network
from extremal.scores.target import Target


@dataclass(frozen=True)
class GradCam:
    """max(0, Σ_k mean(dΦ/dA_k)·A_k), enlarged linearly."""

    layer: str = ""  # by rule if empty (`last_maps`)
    name: str = "grad-cam"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """One forward and backward pass an input."""
        from captum.attr import LayerGradCam

        spot = grad_cam_layer(network, x, self.layer)
        shape = tuple(x.shape[2:])

        def attribute(scores: ScoreModule, part: Tensor, classes: list[int]) -> Tensor:
            with output_as_maps(spot) as probe:
                cam = LayerGradCam(scores, probe)
                small = cam.attribute(part.requires_grad_(), target=classes, relu_attributions=True)
            assert isinstance(small, Tensor)
            return resize(small, shape)

        return attribute_in_batches(network, x, target, attribute, spot.name)


@contextmanager
def output_as_maps(spot: AttributionLayer) -> Iterator[nn.Module]:
    """A module whose output is the layer's as maps (B, K, *lattice), for the length of the block.

    Tokens (B, T, K) pass through it as maps and go on as tokens, those before the square untouched.
    """
    if not spot.tokens:
        yield spot.module
        return
    probe, first = nn.Identity(), math.prod(spot.lattice)

    def through(_: nn.Module, __: object, tokens: Tensor) -> Tensor:
        head, square = tokens[:, :-first], tokens[:, -first:]
        maps = square.transpose(1, 2).reshape(len(square), -1, *spot.lattice)
        return torch.cat([head, probe(maps).flatten(2).transpose(1, 2)], 1)

    handle = spot.module.register_forward_hook(through)
    try:
        yield probe
    finally:
        handle.remove()
