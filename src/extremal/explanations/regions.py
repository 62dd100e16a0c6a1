"""`SufficientRegion`: one cut mask that is enough, and the overlap of two."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SufficientRegion:
    """The smallest computed area that is sufficient for one input."""

    area: float  # share of places
    mask: Tensor  # (1, *S) of zeros and ones, exactly this area
    effect: float  # of this mask
    source: int = 0  # 0: the explanation itself; j: its j-th alternative, which holds the evidence


def iou(a: Tensor, b: Tensor) -> float:
    """Return the intersection over union of two cut masks of one shape; NaN if both are empty."""
    return float((a * b).sum() / torch.maximum(a, b).sum())
