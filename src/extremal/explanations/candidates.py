"""Masks among which a search for the smallest area chooses, and where it may start from."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from extremal.explanations.objective import Objective
from extremal.explanations.verdict import is_supported
from extremal.masking.area import find_coverage


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cut mask of one input, with what it has of the whole effect."""

    area: float  # share of places
    mask: Tensor  # (1, *S) of zeros and ones
    effect: float = -math.inf
    unseen: float = math.nan  # under unseen perturbations; NaN: they say nothing about it, or were not evaluated
    field: Tensor | None = None  # (1, *lattice) parameters of the mask; None: unknown

    def with_coverage(self) -> "Candidate":
        """Return the candidate with the share of places that its mask has: whole units may have fewer than asked."""
        return replace(self, area=find_coverage(self.area, int(self.mask.sum()), self.mask.numel()))

    def order(self, share: float) -> tuple[int, float]:
        """Return a key that is larger for better masks, and starts with 2 for sufficient ones.

        A mask is sufficient if it has the share of the effect, and half of it remains under unseen perturbations: the
        rule of the verdict (`is_supported`).
        """
        if not self.effect >= share:
            return 0, self.effect
        return (2, self.effect) if is_supported(self.unseen, share) else (1, self.unseen)

    def is_sufficient(self, share: float) -> bool:
        """Return whether the mask is sufficient."""
        return self.order(share)[0] == 2


def build_candidates(
    cuts: Tensor, areas: Sequence[float], effects: Tensor, unseen: Tensor | None = None
) -> list[list[Candidate]]:
    """Return the candidates of each input.

    Args:
        cuts: (N, A, 1, *S) cut masks.
        areas: (A,) of them.
        effects: (N, A).
        unseen: (N, A) typical effects under unseen perturbations; None: there are none.
    """
    unseen = torch.full_like(effects, math.nan) if unseen is None else unseen
    rows = zip(cuts, effects.tolist(), unseen.tolist(), strict=True)
    return [[Candidate(*values) for values in zip(areas, *row, strict=True)] for row in rows]


@dataclass(frozen=True, eq=False)
class Bounds:
    """The best masks found at the smallest sufficient area of one input, and at the largest insufficient one below."""

    sufficient: Candidate
    insufficient: Candidate | None  # None: everything that was tried is sufficient


def list_bounds(candidates: Sequence[Candidate], share: float) -> list[Bounds]:
    """Return the sufficient candidates of one input, the first one with the candidate below it.

    Args:
        candidates: by rising area.
        share: required share of the whole effect.
    """
    sufficient = [k for k, one in enumerate(candidates) if one.is_sufficient(share)]
    return [Bounds(candidates[k], candidates[k - 1] if k and k == sufficient[0] else None) for k in sufficient]


@dataclass(frozen=True, eq=False)
class Rankings:
    """Orders of the places of N inputs, from which masks between the areas of an explanation may start."""

    saliency: Tensor  # (N, 1, *lattice) standardised parameters of the explanation's map
    areas: tuple[float, ...]  # A, rising
    fields: Tensor | None  # (N, A, 1, *lattice) standardised parameters of the masks at these areas; None: unknown

    def find_starts(self, areas: Sequence[float]) -> list[Tensor]:
        """Return parameters (N, 1, *lattice) for an area of each input: of the map, and of the fields in between."""
        starts = [self.saliency]
        if self.fields is not None:
            columns = [self._interpolate(fields, area) for fields, area in zip(self.fields, areas, strict=True)]
            starts.append(torch.stack(columns))
        return starts

    def _interpolate(self, fields: Tensor, area: float) -> Tensor:
        """Interpolate fields (A, 1, *lattice) linearly in the logarithm of the area; outside, the nearest counts."""
        k = bisect_left(self.areas, area)
        if k in (0, len(self.areas)):
            return fields[min(k, len(self.areas) - 1)]
        below, above = self.areas[k - 1 : k + 1]
        return torch.lerp(fields[k - 1], fields[k], math.log(area / below) / math.log(above / below))


@torch.no_grad()
def evaluate_effects(objective: Objective, cuts: Tensor) -> Tensor:
    """Return the effects (N, K) of cut masks (N, K, 1, *S), on the CPU; those that are not finite are −inf."""
    effects = objective.compute_effects(objective.evaluate(objective.game.kept_part(cuts)))
    return effects.masked_fill(~effects.isfinite(), -math.inf).cpu()
