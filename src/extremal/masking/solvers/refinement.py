"""The last stage of `consensus`: a field for each area, whose mask holds that of the next smaller area.

A mask of a larger area may contain that of a smaller one and other places that help, so its effect can be as high.
Each area therefore begins with a mean of candidates that contain the next smaller mask; the fields of all areas are
then moved together by a few steps, and where the effect still falls, a longer search looks for the places around the
smaller mask that harm least.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from extremal.masking.domain import ExactAreaFamily
from extremal.masking.grid import gaussian_blur, scale_lengths
from extremal.masking.level_set import standardise
from extremal.masking.solvers.path import masks_at_areas
from extremal.masking.solvers.problem import Problem, Recorder, gradient
from extremal.masking.solvers.start import FLOOR, rank

if TYPE_CHECKING:
    from extremal.masking.solvers.consensus import Consensus

DIFFERENCE_BLUR = 4.0  # px at a short side of 224 px, of the Gaussian over the differences
MAX_FALL = 0.05  # of the whole effect, above which a fall is repaired
REPAIRS_COMPARED = 4  # fields of a repair that are compared, at regular intervals of its steps


@dataclass(frozen=True)
class Refinement:
    """The last stage of a run: choose, polish and repair the fields of all areas."""

    settings: "Consensus"
    problem: Problem
    reduced: Problem  # at which candidates are compared and polished: the problem itself, or its inputs reduced
    family: ExactAreaFamily
    areas: tuple[float, ...]

    def refine(self, field: Tensor, start: Tensor, recorder: Recorder) -> Tensor:
        """Return parameters (N, A, 1, *lattice) of all areas.

        Args:
            field: (N, 1, 1, *lattice) that serves all areas.
            start: (N, 1, 1, *lattice) where the field began.
            recorder: of the steps.
        """
        fillers = self._find_fillers(start)
        fields = self._choose(field, fillers)
        if self.settings.polish_steps:
            polished = self._polish(fields, recorder)
            pairs = torch.stack([torch.cat(values[1:], 1) for values in (fields, polished)], 2)
            fields = [fields[0], self._average(pairs, 1)]
        parameters = torch.cat(fields, 1)
        if self.settings.repair_steps and self.problem.spans is not None:
            parameters = self._repair_falls(parameters, fillers[-1])
        return parameters

    @torch.no_grad()
    def _choose(self, field: Tensor, fillers: list[Tensor]) -> list[Tensor]:
        """Return for each area the mean of its candidates, weighted by their rewards.

        Candidates are the field and the fillers, in which the next smaller mask is raised.
        """
        chosen = [field]
        for k in range(1, len(self.areas)):
            inside = self._raise(chosen[-1], k - 1)
            candidates = [values + inside for values in (field, *fillers)][: self.settings.candidates]
            chosen.append(self._average(torch.stack(candidates, 2), k))
        return chosen

    def _polish(self, fields: list[Tensor], recorder: Recorder) -> list[Tensor]:
        """Move the field of each area but the smallest by the gradients of all ways, around the next smaller mask."""
        n_ways, orientations = self.problem.ways, self.problem.orientations()
        larger = range(1, len(self.areas))
        columns = self.areas[1:] * n_ways
        moves = [Momentum(self.settings.polish_rate, self.settings) for _ in larger]
        starts = [standardise_each(values) for values in fields]

        def hold_smaller() -> list[Tensor]:
            held = starts[:1]
            for k, start, move in zip(larger, starts[1:], moves, strict=True):
                held.append(start + move.change + self._raise(held[-1], k - 1))
            return held

        for step in range(self.settings.polish_steps):
            if not recorder.any_finite:
                break
            held = torch.cat(hold_smaller()[1:], 1)
            directions, masks, rewards = self._find_directions(
                held.repeat(1, n_ways, *[1] * (held.ndim - 2)),
                columns,
                [orientations[(step + way + k) % len(orientations)] for way in range(n_ways) for k in larger],
                [(step + way) % n_ways for way in range(n_ways) for _ in larger],
            )
            mean = directions.view(-1, n_ways, len(larger), *directions.shape[2:]).mean(1)
            for move, direction in zip(moves, mean.chunk(len(larger), 1), strict=True):
                move.add(direction)
            recorder.record("polish", masks, rewards)
        return hold_smaller()

    def _find_directions(
        self, fields: Tensor, areas: tuple[float, ...], mirrored: list[bool], ways: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return smoothed and standardised gradients of fields (N, K, 1, *lattice), their masks and rewards."""
        fields = fields.detach().contiguous().requires_grad_()
        masks = self.build_masks(standardise_each(fields), areas)
        rewards = self.reduced.reward(masks, mirrored, ways)
        slopes = gradient(rewards, fields).flatten(0, 1)
        smoothed = self.family.smooth_parameters(slopes, self.settings.smooth)
        return standardise(smoothed, floor=FLOOR).view_as(fields), masks, rewards

    def _repair_falls(self, parameters: Tensor, filler: Tensor) -> Tensor:
        """Search again for the masks whose effect is below a smaller area's; costs nothing where none is."""
        problem = self.problem
        assert problem.spans is not None
        rewards = self._reward_cut(parameters, self.areas, add_whole=True)
        tolerated = (MAX_FALL * problem.spans).unsqueeze(1)
        rewards, whole = rewards[:, :-1], rewards[:, -1:]
        wanted = torch.minimum(rewards.cummax(1).values, whole) - tolerated
        for n, falls in enumerate((rewards < wanted).any(1).tolist()):
            single = problem.at_input(n) if falls else None
            if single is not None:
                part = Refinement(self.settings, single, self._reduce(single), self.family, self.areas)
                row = slice(n, n + 1)
                repaired = part.repair(parameters[row], filler[row], rewards[row], whole[row] - tolerated[row])
                parameters = torch.cat([parameters[:n], repaired, parameters[n + 1 :]])
        return parameters

    def repair(self, parameters: Tensor, filler: Tensor, rewards: Tensor, most: Tensor) -> Tensor:
        """Return parameters (1, A, 1, *lattice) of one input whose effects fall less.

        Args:
            parameters: (1, A, 1, *lattice).
            filler: (1, 1, 1, *lattice) where the search begins, around the smaller mask.
            rewards: (1, A) of the cut masks.
            most: (1, 1) reward that is not asked for more.
        """
        tolerated = MAX_FALL * self.problem.spans  # type: ignore[operator]
        repaired, best = [parameters[:, :1]], rewards[:, :1]
        for k in range(1, len(self.areas)):
            own, reward = parameters[:, k : k + 1], rewards[:, k : k + 1]
            if bool(reward < torch.minimum(best - tolerated, most)):
                candidates = torch.cat([own, *self._search_around(repaired[-1], filler, k)], 1)
                found = self._reward_cut(candidates, (self.areas[k],) * candidates.shape[1])
                reward, index = found.nan_to_num(-torch.inf).max(1, keepdim=True)
                own = candidates.gather(1, index.view(1, 1, *[1] * (own.ndim - 2)).expand_as(own))
            repaired.append(own)
            best = torch.maximum(best, reward)
        return torch.cat(repaired, 1)

    def _search_around(self, smaller: Tensor, filler: Tensor, k: int) -> list[Tensor]:
        """Return fields of area k that hold a smaller mask, along a search that begins with a filler around it."""
        settings, n_ways, orientations = self.settings, self.problem.ways, self.problem.orientations()
        inside, move = self._raise(smaller, k - 1), Momentum(settings.repair_rate, settings)
        found = [filler + inside]
        for step in range(settings.repair_steps):
            turns = [orientations[(step + way) % len(orientations)] for way in range(n_ways)]
            fields = (filler + move.change + inside).expand(-1, n_ways, *filler.shape[2:])
            areas = (self.areas[k],) * n_ways
            directions, _, _ = self._find_directions(fields, areas, turns, list(range(n_ways)))
            move.add(directions.mean(1, keepdim=True))
            if (step + 1) % math.ceil(settings.repair_steps / REPAIRS_COMPARED) == 0:
                found.append(filler + move.change + inside)
        return found

    @torch.no_grad()
    def _reward_cut(self, parameters: Tensor, areas: tuple[float, ...], *, add_whole: bool = False) -> Tensor:
        """Return the rewards (N, K) of cut masks, the mean over all ways; last, if asked, those of whole inputs."""
        masks = self.family.cut(self.build_masks(parameters, areas), areas)
        if add_whole:
            masks = torch.cat([masks, torch.ones_like(masks[:, :1])], 1)
        return self.problem.reward(masks, False, None if self.problem.ways > 1 else 0)

    @torch.no_grad()
    def _average(self, candidates: Tensor, first: int) -> Tensor:
        """Return the means of candidates, weighted by the rewards of their cut masks: (N, K, 1, *lattice).

        Each reward is the mean over all ways, one orientation for each; all are evaluated in one batch.

        Args:
            candidates: (N, K, C, 1, *lattice) of K areas.
            first: number of the first of these areas.
        """
        n_areas, count, n_ways = *candidates.shape[1:3], self.problem.ways
        if count == 1:
            return candidates[:, :, 0]
        chosen, orientations = range(first, first + n_areas), self.problem.orientations()
        columns = tuple(self.areas[k] for k in chosen for _ in range(count))
        masks = self.family.cut(self.build_masks(candidates.flatten(1, 2), columns), columns)
        turns = (way + k for way in range(n_ways) for k in chosen for _ in range(count))
        rewards = self.reduced.reward(
            masks.repeat(1, n_ways, *[1] * (masks.ndim - 2)),
            [orientations[turn % len(orientations)] for turn in turns],
            [way for way in range(n_ways) for _ in columns],
        )
        means = rewards.view(-1, n_ways, n_areas, count).mean(1)
        return average_best(candidates, means, self.problem.spans, self.settings.tolerance)

    def build_masks(self, fields: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Return the masks (N, K, 1, *S) of fields (N, K, 1, *lattice), at an area each."""
        return masks_at_areas(self.family, fields, areas, self.settings.temperature)

    @torch.no_grad()
    def _raise(self, field: Tensor, k: int) -> Tensor:
        """Return the values (N, 1, 1, *lattice) that raise the mask of area k in a field."""
        mask = self.build_masks(field, self.areas[k : k + 1])[:, 0]
        return self.settings.inside * self.family.fit(mask).unsqueeze(1)

    def _find_fillers(self, start: Tensor) -> list[Tensor]:
        """Return fields (N, 1, 1, *lattice) of what may be kept around a smaller mask."""
        fillers = [standardise_each(start)]
        if self.problem.differences is not None:
            fillers.append(find_flat_places(self.problem, self.family))
        return fillers

    def _reduce(self, problem: Problem) -> Problem:
        """Return a part of the problem at the size at which this stage compares."""
        if self.reduced is self.problem:
            return problem
        return problem.at_scale(self.settings.reduced) or problem


class Momentum:
    """A change that follows directions with momentum, and decays.

    Args:
        rate: of a step.
        settings: with momentum and decay.
    """

    def __init__(self, rate: float, settings: "Consensus") -> None:
        self.rate, self.settings = rate, settings
        self.change: Tensor | float = 0.0
        self._mean: Tensor | float = 0.0

    def add(self, direction: Tensor) -> None:
        """Take a step."""
        self._mean = self.settings.momentum * self._mean + (1 - self.settings.momentum) * direction
        self.change = (1 - self.settings.decay) * self.change + self.rate * self._mean


def average_best(candidates: Tensor, rewards: Tensor, spans: Tensor | None, tolerance: float) -> Tensor:
    """Return the means of candidates, weighted by their rewards in whole effects: (N, K, 1, *lattice).

    A choice of the best one alone would flip when the rewards of two change little.

    Args:
        candidates: (N, K, C, 1, *lattice) of K areas.
        rewards: (N, K, C) of their cut masks.
        spans: (N,) change of the reward that counts as the whole effect; None: the best one is taken.
        tolerance: share of the whole effect by which candidates may differ and still count.
    """
    rewards = rewards.where(rewards.isfinite(), -torch.inf)
    gaps = rewards - rewards.amax(2, keepdim=True)
    spans = torch.full_like(rewards[:, 0, 0], FLOOR) if spans is None else spans
    weights = (gaps.nan_to_num(0.0, 0.0) / (tolerance * spans.view(-1, 1, 1) + FLOOR)).softmax(2)
    return (weights.view(*weights.shape, *[1] * (candidates.ndim - 3)) * candidates).sum(2)


def find_flat_places(problem: Problem, family: ExactAreaFamily) -> Tensor:
    """Return a field (N, 1, 1, *lattice) that is high where destroying changes the input least."""
    assert problem.differences is not None
    differences = problem.differences
    if problem.domain.is_smooth:
        sigma = scale_lengths(DIFFERENCE_BLUR, problem.shape, problem.domain.spacing)
        differences = gaussian_blur(differences, sigma)
    ranks = rank(family.fit(differences).flatten(1))
    return standardise_each(-ranks.view(problem.count, 1, 1, *family.parameter_shape))


def standardise_each(fields: Tensor) -> Tensor:
    """Scale each field (N, K, 1, *lattice) to mean 0 and deviation 1."""
    return standardise(fields.flatten(0, 1), floor=FLOOR).view_as(fields)
