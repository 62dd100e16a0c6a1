"""Occlusion: how much the score falls when a square is covered (Zeiler and Fergus, 2014), by captum."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.benchmark.baselines.method import Maps, ScoreModule, attribute_in_batches
from extremal.masking.grid import scale_length
from extremal.networks.network import Network
from extremal.scores.target import Target

BATCH_SIZE = 32  # covered inputs evaluated at once


@dataclass(frozen=True)
class Occlusion:
    """The fall of the score, averaged over all squares that cover a place, never below 0."""

    side: float = 32.0  # px at a short side of 224 px
    step: float = 16.0
    name: str = "occlusion"
    smooth: float = 0.0

    def settings(self) -> dict[str, Any]:
        """The settings as plain values."""
        return asdict(self)

    def __call__(self, network: Network, x: Tensor, target: Target) -> Maps:
        """One forward pass a square and input; squares are of zeros, the mean of normalised inputs."""
        from captum.attr import Occlusion as Captum

        shape = tuple(x.shape[2:])
        side, step = (max(1, round(scale_length(length, shape))) for length in (self.side, self.step))

        def attribute(scores: ScoreModule, part: Tensor, classes: list[int]) -> Tensor:
            with torch.no_grad():
                falls = [
                    Captum(scores).attribute(
                        one,
                        sliding_window_shapes=(x.shape[1], *[min(side, size) for size in shape]),
                        strides=(x.shape[1], *[step] * len(shape)),
                        target=label,
                        perturbations_per_eval=BATCH_SIZE,
                    )
                    for one, label in zip(torch.split(part, 1), classes, strict=True)
                ]
            return torch.cat(falls)[:, :1].clamp_min(0.0).to(part)  # the same in every channel

        return attribute_in_batches(network, x, target, attribute)
