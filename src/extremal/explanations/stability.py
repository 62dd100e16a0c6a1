"""`Stability`: how much masks, effects and areas differ between copies of an input with one grey level of noise."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from extremal.explanations.concatenation import COUNT_FIELD, SHARED_FIELD
from extremal.tensor_files import fields_equal


@dataclass(frozen=True, eq=False)
class Stability:
    """Masks of N inputs at A areas, compared with those of R copies of each input.

    Each copy differs from its input by at most one grey level in every place and channel, which is invisible.
    """

    areas: tuple[float, ...] = field(metadata=SHARED_FIELD)  # (A,) rising, shares of places
    ious: Tensor  # (N, A, R) intersection over union of each copy's cut mask with that of the input
    core: Tensor  # (N, A, 1, *S) bool: places of the cut masks of the input and all copies
    core_shares: Tensor  # (N, A) places of the core, as a share of those of the input's cut mask
    effects: Tensor  # (N, A, R) of each copy's cut mask on the copy; 1 is the whole effect
    unseen_effects: Tensor  # (N, A, R) median over unseen perturbations; NaN if all are uninformative
    smallest_areas: Tensor  # (N, R) smallest area of each copy with the verdict sufficient; NaN if there is none
    seed: int = field(metadata=SHARED_FIELD)  # of the noise
    evaluations: int = field(metadata=COUNT_FIELD)  # of the network, for all copies

    @property
    def copies(self) -> int:
        """R, the number of copies of each input."""
        return self.ious.shape[2]

    @property
    def median_iou(self) -> Tensor:
        """The median of the IoUs over copies: (N, A)."""
        return self.ious.quantile(0.5, dim=2)

    @property
    def mean_iou(self) -> Tensor:
        """The mean of the IoUs over copies: (N, A)."""
        return self.ious.mean(2)

    @property
    def effect_range(self) -> Tensor:
        """The smallest and the largest effect over copies: (N, A, 2)."""
        return _range(self.effects)

    @property
    def unseen_effect_range(self) -> Tensor:
        """The smallest and the largest effect under unseen perturbations over copies: (N, A, 2)."""
        return _range(self.unseen_effects)

    @property
    def smallest_area_factors(self) -> tuple[float | None, ...]:
        """The largest of the smallest sufficient areas of the copies divided by the smallest, for each input: (N,).

        None if no copy has a sufficient area, infinite if only some of them have one.
        """
        factors: list[float | None] = []
        for row in self.smallest_areas.tolist():
            known = [area for area in row if not math.isnan(area)]
            factors.append((max(known) / min(known) if len(known) == len(row) else math.inf) if known else None)
        return tuple(factors)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stability):
            return NotImplemented
        return fields_equal(self, other)

    __hash__ = None  # type: ignore[assignment]


def _range(values: Tensor) -> Tensor:
    """Return minimum and maximum over the last axis, without NaN: (..., R) -> (..., 2)."""
    missing = values.isnan()
    low = values.masked_fill(missing, math.inf).amin(-1)
    high = values.masked_fill(missing, -math.inf).amax(-1)
    return torch.stack([low, high], -1).masked_fill(missing.all(-1, keepdim=True), math.nan)
