"""Bisection between a sufficient and an insufficient area, with masks optimised in between."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from extremal.explanations.objective import Objective
from extremal.explanations.verdict import compute_effects
from extremal.masking.solvers.path import Descent, masks_at_areas
from extremal.masking.solvers.problem import Problem

STEPS_PER_AREA = 6  # at most, for each area that is tried
MAX_STARTS = 4  # compared for each area that is tried; the best is optimised
TEMPERATURE = 0.1  # of the level, in deviations of the field
LEARNING_RATE = 0.06  # Adam's, as in the polish of `path`
SEARCH_FACTOR = 8.0  # how far to search below the smallest computed area if that is already sufficient

OnProgress = Callable[[int, int], None]  # passes done, and at most in all
_Candidate = tuple[float, float, Tensor]  # area, effect, mask (1, *S) of zeros and ones


@dataclass(frozen=True, eq=False)
class Certificate:
    """The smallest area found sufficient for one input, and the largest area below it found insufficient."""

    area: float  # share of places
    mask: Tensor  # (1, *S) of zeros and ones, exactly this area
    effect: float  # of this mask, at least the share
    below_area: float  # tried and insufficient; 0 if everything that was tried is sufficient
    below_effect: float  # of the best mask found there; NaN if there is none
    share: float  # required share of the whole effect


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
    scores = objective.evaluate(objective.game.kept_part(cuts))
    low, high = objective.score_destroyed.view(-1, 1), objective.score_input.view(-1, 1)
    effects = compute_effects(scores, low, high, objective.game.keeps)
    return effects.masked_fill(~effects.isfinite(), -math.inf).cpu()


class Bisection:
    """Bisection between a sufficient and an insufficient area of each input.

    Args:
        problem, objective: that were solved.
        masks: (N, A, 1, *S) of the explanation.
        areas: of the masks, rising.
        effects: (N, A) of the cut masks.
        share: required share of the whole effect.
        on_progress: called before each pass.
        rankings: further orders of places to start from; None: the masks on both sides alone.
    """

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        masks: Tensor,
        areas: tuple[float, ...],
        effects: Tensor,
        share: float,
        on_progress: OnProgress | None = None,
        rankings: Rankings | None = None,
    ) -> None:
        self.problem, self.objective, self.share, self.rankings = problem, objective, share, rankings
        self._on_progress, self._passes, self._max_passes = on_progress, 0, 0
        self.total = problem.domain.n_places
        self.family = problem.domain.exact_area_family(problem.like)
        cuts = self.family.cut(masks, areas)  # (N, A, 1, *S)
        self.found = (effects >= share).any(1).tolist()
        self.sufficient, self.insufficient = [], []  # of each input: area, effect, mask (1, *S)
        for n, row in enumerate(effects.tolist()):
            k = next((k for k, effect in enumerate(row) if effect >= share), len(areas) - 1)
            self.sufficient.append((areas[k], row[k], cuts[n, k]))
            nothing = (areas[0] / SEARCH_FACTOR, math.nan, cuts[n, 0])
            self.insufficient.append((areas[k - 1], row[k - 1], cuts[n, k - 1]) if k else nothing)

    def run(self, tolerance: float) -> tuple[Certificate | None, ...]:
        """Bisect until no two areas differ by more than this factor, or a place; return a certificate per input."""
        self._max_passes = (1 + self._count_rounds(tolerance)) * (STEPS_PER_AREA + 1)
        while self.ratio() > 1 + tolerance:
            self.step()
        return self.certificates()

    def _is_open(self, n: int) -> bool:
        """Return whether there is a number of places between the two areas of an input."""
        upper, lower = self.sufficient[n][0], self.insufficient[n][0]
        return self.found[n] and round(upper * self.total) - round(lower * self.total) > 1

    def _middle(self, n: int) -> float:
        """Return the geometric middle of an input's two areas, as a whole number of places if there is one."""
        lower, upper = self.insufficient[n][0], self.sufficient[n][0]
        middle = math.sqrt(lower * upper)
        if not self._is_open(n):
            return middle
        smallest, largest = round(lower * self.total) + 1, round(upper * self.total) - 1
        return min(largest, max(smallest, round(middle * self.total))) / self.total

    def ratio(self) -> float:
        """Return the largest ratio of the two areas over the inputs."""
        ratios = (
            self.sufficient[n][0] / self.insufficient[n][0] for n in range(self.problem.count) if self._is_open(n)
        )
        return max(ratios, default=1.0)

    def _count_rounds(self, tolerance: float) -> int:
        """Return the number of halvings after which all areas are within the tolerance, or one place."""
        places = [
            round(self.sufficient[n][0] * self.total) - round(self.insufficient[n][0] * self.total)
            for n in range(self.problem.count)
            if self._is_open(n)
        ]
        halvings = math.log2(max(places, default=1))
        if tolerance > 0:
            halvings = min(halvings, math.log2(max(1.0, math.log(self.ratio()) / math.log1p(tolerance))))
        return math.ceil(halvings)

    def step(self) -> None:
        """Try the geometric middle of each input's areas, all inputs in one batch."""
        middle = [self._middle(n) for n in range(self.problem.count)]
        starts = self._find_starts(middle)  # (N, K, 1, *lattice)
        areas = torch.tensor(middle, dtype=starts.dtype, device=starts.device).unsqueeze(1)  # (N, 1)
        best = [(area, -math.inf, mask[2]) for area, mask in zip(middle, self.sufficient, strict=True)]
        columns = self._keep_best(best, starts, areas)
        start = torch.stack([starts[n, column] for n, column in enumerate(columns)])
        descent = Descent(self.problem, self.family, start.unsqueeze(1), LEARNING_RATE)
        for _ in range(STEPS_PER_AREA):
            if all(effect >= self.share or not self._is_open(n) for n, (_, effect, _) in enumerate(best)):
                break
            descent.step(areas, TEMPERATURE)
            self._keep_best(best, descent.parameters.detach(), areas)
        for n, candidate in enumerate(best):
            if self._is_open(n):
                side = self.sufficient if candidate[1] >= self.share else self.insufficient
                side[n] = candidate

    def _find_starts(self, areas: Sequence[float]) -> Tensor:
        """Return parameters (N, K, 1, *lattice) to start from, of the masks on both sides first."""
        upper, lower = (torch.stack([side[2] for side in sides]) for sides in (self.sufficient, self.insufficient))
        starts = [self.family.fit(upper + lower)]  # of (N, 1, *S)
        if self.rankings is not None:
            starts += [self.family.fit(upper), *self.rankings.find_starts(areas)]
        return torch.stack(starts, 1)

    def _keep_best(self, best: list[_Candidate], parameters: Tensor, areas: Tensor) -> list[int]:
        """Cut the masks of parameters (N, K, 1, *lattice); keep each input's best, and return its column."""
        self._report_pass()
        masks = masks_at_areas(self.family, parameters, areas, TEMPERATURE)
        count = masks.shape[1]
        cuts = torch.cat([self.family.cut(masks[n : n + 1], (area,) * count) for n, (area, _, _) in enumerate(best)])
        effects, columns = evaluate_effects(self.objective, cuts).max(1)
        for n, (effect, column) in enumerate(zip(effects.tolist(), columns.tolist(), strict=True)):
            if effect > best[n][1]:
                best[n] = (best[n][0], effect, cuts[n, column])
        return columns.tolist()

    def _report_pass(self) -> None:
        if self._on_progress is not None:
            self._on_progress(min(self._passes, self._max_passes), self._max_passes)
        self._passes += 1

    def certificates(self) -> tuple[Certificate | None, ...]:
        """Return the certificate of each input, or None."""
        return tuple(
            Certificate(
                area=high[0],
                mask=high[2].cpu(),
                effect=high[1],
                below_area=0.0 if math.isnan(low[1]) else low[0],
                below_effect=low[1],
                share=self.share,
            )
            if found
            else None
            for found, high, low in zip(self.found, self.sufficient, self.insufficient, strict=True)
        )
