"""Exclude regions from the search for alternative explanations."""

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation
from extremal.masking.solvers.problem import Orientation, RewardMasks, WayIndex


class ExcludeRegion:
    """A reward for the part of a mask outside of an excluded region: (N, K, 1, *S) -> (N, K).

    It has no maps of layers, which would also show the excluded region: solvers take its gradient alone.

    Args:
        reward: of masks.
        excluded: (N, 1, 1, *S) of zeros and ones.
    """

    rewards_whole_masks = False

    def __init__(self, reward: RewardMasks, excluded: Tensor) -> None:
        self.reward, self.allowed = reward, 1 - excluded

    def __call__(self, masks: Tensor, mirrored: Orientation, way: WayIndex = None) -> Tensor:
        """Return the rewards (N, K)."""
        return self.reward(masks * self.allowed, mirrored, way)

    def at_scale(self, scale: float) -> "ExcludeRegion | None":
        """Return the rewards of the same masks on inputs enlarged or reduced by a scale; None if there are none."""
        find = getattr(self.reward, "at_scale", None)
        reward = find(scale) if find else None
        return None if reward is None else ExcludeRegion(reward, 1 - self.allowed)

    def at_input(self, n: int) -> "ExcludeRegion | None":
        """Return the rewards of one of the inputs, of masks (1, K, 1, *S); None if there are none."""
        find = getattr(self.reward, "at_input", None)
        return ExcludeRegion(find(n), 1 - self.allowed[n : n + 1]) if find else None


def region_of(explanation: Explanation) -> Tensor:
    """Return the smallest sufficient region of each input, or that of the smallest area: (N, 1, 1, *S)."""
    regions = []
    for image in range(len(explanation.masks)):
        sufficient = explanation.smallest(image=image)
        mask = sufficient.mask if sufficient else explanation.binary(explanation.areas[0])[image]
        regions.append(mask)
    return torch.stack(regions).unsqueeze(1)
