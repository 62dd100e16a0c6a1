"""Controls: masks of the same area that explain nothing, with which a mask's score is compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from extremal.explanations.effort import Effort
from extremal.explanations.objective import Objective
from extremal.masking.device_tensors import copy_to, select_columns
from extremal.masking.domain import Domain

UNDECIDED_EFFECTS = (0.2, 1.0)  # of the best of an area's first controls, from and below which the others are scored


class ScoreControls(Protocol):
    """The scores of controls, some of which may be left out."""

    def __call__(self, masks: Tensor, numbers: Sequence[int], wanted: Tensor | None, /) -> Tensor:
        """Return scores (N, K), NaN where they are not wanted.

        Args:
            masks: (N or 1, K, *S).
            numbers: of the K controls, each among those of its area.
            wanted: (N, K) bool on the CPU; None: all.
        """
        ...


@dataclass(frozen=True)
class Controls:
    """R controls of each of A areas; the later ones of an area may be scored only if the first leave it undecided."""

    masks: Tensor  # (N or 1, A, R, *S) of zeros and ones
    n_first: int | None = None  # of each area, which are always scored; None: all
    is_undecided: Callable[[Tensor], Tensor] | None = None  # scores of the first (N, A, R') -> (N, A) bool; None: all

    def score(self, score: ScoreControls) -> Tensor:
        """Return the scores (N, A, R): NaN of controls that are left out, infinite where the score is NaN."""
        count = self.masks.shape[2]
        n_first = count if self.n_first is None or self.is_undecided is None else min(self.n_first, count)
        first = self._score(score, range(n_first), range(self.masks.shape[1]))
        first = first.masked_fill(first.isnan(), torch.inf)
        if n_first == count or self.is_undecided is None:
            return first
        wanted = self.is_undecided(first)
        on_cpu = wanted.cpu()  # the only wait for the device
        scores = torch.cat([first, first.new_full((*first.shape[:2], count - n_first), torch.nan)], 2)
        areas = [k for k, is_wanted in enumerate(on_cpu.any(0).tolist()) if is_wanted]
        if areas:
            rest = self._score(score, range(n_first, count), areas, on_cpu)
            is_broken = rest.isnan() & select_columns(wanted, areas).unsqueeze(2)
            for k, column in zip(areas, rest.masked_fill(is_broken, torch.inf).unbind(1), strict=True):
                scores[:, k, n_first:] = column
        return scores

    def _score(
        self, score: ScoreControls, numbers: range, areas: Sequence[int], wanted: Tensor | None = None
    ) -> Tensor:
        """Return the scores (N, A', R') of some controls of some areas, where wanted: (N, A) bool; None: everywhere."""
        masks = select_columns(self.masks, areas)[:, :, numbers.start : numbers.stop]
        # the first control of every area, then the second: equal ways follow one another
        asked = None if wanted is None else wanted[:, list(areas)].repeat(1, len(numbers))
        scores = score(masks.transpose(1, 2).flatten(1, 2), [number for number in numbers for _ in areas], asked)
        return scores.view(len(scores), len(numbers), len(areas)).transpose(1, 2)


def draw_controls(objective: Objective, areas: tuple[float, ...], effort: Effort, seed: int, like: Tensor) -> Controls:
    """Return random masks of each area as controls of an objective.

    The later ones of an area are scored where the best effect of the first ones lies in `UNDECIDED_EFFECTS`.

    Args:
        objective: of N inputs.
        areas: of the masks.
        effort: says how many there are of each area.
        seed: of the masks.
        like: a tensor of the dtype and device of the masks.
    """

    def is_undecided(scores: Tensor) -> Tensor:  # (N, A, R) -> (N, A)
        best = objective.compute_effects(scores).amax(2)
        return (best >= UNDECIDED_EFFECTS[0]) & (best < UNDECIDED_EFFECTS[1])

    masks = random_masks(objective.domain, areas, effort.controls, seed, like)
    return Controls(masks, effort.first_controls, is_undecided)


@torch.no_grad()
def find_control_effect(objective: Objective, area: float, effort: Effort, seed: int) -> float:
    """Return the best effect of random masks of an area, of an objective of one input.

    Args:
        objective: of one input.
        area: of the masks.
        effort, seed: as for `draw_controls`.
    """
    counting = replace(objective, ways=objective.ways.counting)

    def score(masks: Tensor, numbers: Sequence[int], wanted: Tensor | None) -> Tensor:
        return counting.evaluate_way(objective.game.kept_part(masks.unsqueeze(2)), numbers, wanted=wanted)

    scores = draw_controls(objective, (area,), effort, seed, objective.x).score(score)
    return float(objective.compute_effects(scores)[~scores.isnan()].amax())


def random_masks(domain: Domain, areas: tuple[float, ...], count: int, seed: int, like: Tensor) -> Tensor:
    """Return `count` random smooth masks cut to each area: (1, A, R, *S), the same for every input."""
    family = domain.exact_area_family(like)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 1, *family.parameter_shape, generator=generator, dtype=torch.float64)
    noise = copy_to(noise, like)
    masks = [family(noise, noise.new_full((count,), area), 0.3) for area in areas]
    return family.cut(torch.stack(masks, 1), areas)[:, :, 0].transpose(0, 1)[None]
