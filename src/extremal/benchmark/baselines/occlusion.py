"""Occlusion: the drop of the score when a square is covered (Zeiler and Fergus, 2014), by captum."""

from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.benchmark.baselines.method import FieldSettings, Maps, ScoreModule, attribute_in_batches
from extremal.masking.grid import scale_length
from extremal.networks.network import Network
from extremal.scores.target import Target

BATCH_SIZE = 32  # covered inputs evaluated at once


@dataclass(frozen=True)
class Occlusion(FieldSettings):
    """The drop of the score, averaged over all squares that cover a place, at least 0."""

    side: float = 32.0  # px at a short side of 224 px
    step: float = 16.0
    name: str = "occlusion"
    smooth: float = 0.0

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """Return the maps; costs one forward pass per square and input. Squares are 0, the mean of inputs."""
        from captum.attr import Occlusion as CaptumOcclusion

        shape = tuple(x.shape[2:])
        side, step = (max(1, round(scale_length(length, shape))) for length in (self.side, self.step))

        def attribute(scores: ScoreModule, batch: Tensor, classes: list[int]) -> Tensor:
            with torch.no_grad():
                drops = [
                    CaptumOcclusion(scores).attribute(
                        single,
                        sliding_window_shapes=(x.shape[1], *[min(side, size) for size in shape]),
                        strides=(x.shape[1], *[step] * len(shape)),
                        target=label,
                        perturbations_per_eval=BATCH_SIZE,
                    )
                    for single, label in zip(torch.split(batch, 1), classes, strict=True)
                ]
            return torch.cat(drops)[:, :1].clamp_min(0.0).to(batch)  # the same in every channel

        return attribute_in_batches(network, x, target, attribute)
