"""Exclude regions from the search for alternative explanations."""

from dataclasses import replace

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Objective
from extremal.masking.domain import Domain
from extremal.masking.solvers.problem import Orientation, RewardMasks, WayIndex


class ExcludeRegion:
    """A reward for the part of a mask outside of an excluded region: (N, K, 1, *S) -> (N, K).

    It has no maps of layers, which would also show the excluded region: solvers take its gradient alone.

    Args:
        reward: of masks.
        excluded: (*S) bool.
    """

    rewards_whole_masks = False

    def __init__(self, reward: RewardMasks, excluded: Tensor) -> None:
        self.reward, self.excluded = reward, excluded

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        """Return the rewards (N, K)."""
        return self.reward(masks * ~self.excluded, mirrored, way)

    def at_scale(self, scale: float) -> "ExcludeRegion | None":
        """Return the rewards of the same masks on inputs enlarged or reduced by a scale; None if there are none."""
        find = getattr(self.reward, "at_scale", None)
        reward = find(scale) if find else None
        return None if reward is None else ExcludeRegion(reward, self.excluded)


def exclude_others(reward: RewardMasks, domain: Domain) -> ExcludeRegion:
    """Return the reward of an alternative: of what lies within its domain."""
    assert domain.within is not None
    return ExcludeRegion(reward, ~domain.within)


def region_of(explanation: Explanation) -> Tensor:
    """Return the smallest sufficient region of each input, or that of the smallest area: (N, *S) bool."""
    regions = []
    for image in range(len(explanation.masks)):
        sufficient = explanation.smallest(image=image)
        mask = sufficient.mask if sufficient else explanation.binary(explanation.areas[0])[image]
        regions.append(mask[0] > 0)
    return torch.stack(regions)


def restrict_objective(objective: Objective, n: int, excluded: Tensor) -> Objective:
    """Return the objective of one input, whose masks lie outside of an excluded region (*S) bool."""
    part = objective.subset(n, n + 1)
    allowed = ~excluded if part.domain.within is None else part.domain.within & ~excluded
    return replace(part, domain=replace(part.domain, within=allowed))
