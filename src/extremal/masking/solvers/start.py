"""The start of `consensus`: the places on which gradients and maps of hidden layers agree under all ways."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.masking.grid import gaussian_blur, resize, scale_lengths
from extremal.masking.scaling import FLOOR, rank_shares, standardise
from extremal.masking.solvers.problem import Attribution, Problem, Recorder, gradient
from extremal.masking.support import combine_gradients

GRADIENT_BLUR = 14.0  # px at a short side of 224 px, of the Gaussian over the mask gradients
LEAST_SIZE = 0.02  # of the largest of the ways' maps, below which one is not scaled to 1
SUPPORT_POWER = 4  # of the share of places with a lower rank, by which the support of each place is weighted


@dataclass(frozen=True)
class Start:
    """The places of N inputs that constant masks show to support the reward."""

    ranks: Tensor  # (N, 1, *S) sum of the standardised ranks of all maps
    gradients: Tensor  # (N, 1, *S) ≥ 0, sum of the mask gradients of all ways in full detail (`combine_gradients`)

    @property
    def support(self) -> Tensor:
        """The gradients where the ranks are high: (N, 1, *S) ≥ 0."""
        return self.gradients * rank_shares(self.ranks) ** SUPPORT_POWER

    def __add__(self, other: "Start") -> "Start":
        """Return what both starts, of inputs of different sizes, agree on."""
        return Start(self.ranks + other.ranks, self.gradients + other.gradients)


def find_start(problem: Problem, draws: int, recorder: Recorder | None = None) -> Start:
    """Find out where the maps of a problem agree, from constant masks of values (k + ½)/draws.

    The maps are the reward's gradient with respect to the masks, smoothed, and those of hidden layers from the same
    passes. Maps of different ways are brought to one scale and added up before they are ranked. Costs one
    forward-backward pass per value, orientation, way and input, all in one batch.
    """
    values = (torch.arange(draws, dtype=problem.dtype, device=problem.device) + 0.5) / draws
    asked = list(itertools.product(range(problem.ways), problem.orientations(), range(draws)))
    ways, mirrored, _ = zip(*asked, strict=True)
    columns = values.repeat(len(asked) // draws).view(1, -1, *[1] * (1 + len(problem.shape)))
    masks = columns.expand(problem.count, -1, 1, *problem.shape)
    found = _attribute(problem, masks, mirrored, ways)
    if recorder is not None:
        recorder.record("start", masks, found.rewards)
    by_way = [  # of each map the sums (N, 1, ...) for each way, the gradient first
        [part.sum(1) for part in torch.chunk(values, problem.ways, 1)] for values in (found.gradients, *found.maps)
    ]
    slopes, *maps = (_add_scaled(parts) for parts in by_way)
    if problem.domain.is_smooth:
        slopes = gaussian_blur(slopes, scale_lengths(GRADIENT_BLUR, problem.shape, problem.domain.spacing))
    unranked = torch.stack([slopes, *(resize(values, problem.shape).clamp_min(0.0) for values in maps)])
    shares = rank_shares(unranked.flatten(0, 1)).view_as(unranked)  # the rows of all maps are sorted at once
    ranks = torch.stack([standardise(values, floor=FLOOR) for values in shares])
    return Start(ranks.sum(0), combine_gradients(by_way[0], problem.domain.spacing))


def _add_scaled(parts: list[Tensor]) -> Tensor:
    """Return the sum of maps (N, ...), each divided by its mean absolute value; those near zero stay small."""
    sizes = torch.stack([part.abs().flatten(1).mean(1) for part in parts])
    sizes = sizes.clamp_min(LEAST_SIZE * sizes.amax(0, keepdim=True) + FLOOR)
    scaled = [part / size.view(-1, *[1] * (part.ndim - 1)) for part, size in zip(parts, sizes, strict=True)]
    return torch.stack(scaled).sum(0)


def _attribute(problem: Problem, masks: Tensor, mirrored: Sequence[bool], ways: Sequence[int]) -> Attribution:
    """Return the attribution of a problem, or one that consists of the reward's gradient."""
    if problem.attribute is not None:
        return problem.attribute(masks, mirrored, ways)
    masks = masks.detach().requires_grad_()
    rewards = problem.reward(masks, mirrored, ways)
    return Attribution(rewards.detach(), gradient(rewards, masks))
