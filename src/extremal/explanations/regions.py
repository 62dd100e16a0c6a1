"""`SufficientRegion`: one cut mask that is enough, and the overlap of two."""

from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.masking.area import find_coverage


@dataclass(frozen=True)
class SufficientRegion:
    """The smallest computed area that is sufficient for one input."""

    area: float  # one of the computed areas
    mask: Tensor  # (1, *S) of zeros and ones
    effect: float  # of this mask
    source: int = 0  # 0: the explanation itself; j: its j-th alternative, which holds the evidence

    @property
    def coverage(self) -> float:
        """The share of places in the mask: the area, or less if whole units, or the places left, are fewer."""
        return find_coverage(self.area, int(self.mask.sum()), self.mask.numel())


def iou(a: Tensor, b: Tensor) -> float:
    """Return the intersection over union of two cut masks of one shape; NaN if both are empty."""
    return float((a * b).sum() / torch.maximum(a, b).sum())
