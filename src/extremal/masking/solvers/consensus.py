"""`consensus`: masks that change little when the input changes little.

The field starts where the mask gradients and the maps of hidden layers agree under all ways of destroying the input.
One field serves all areas: in each step it is cut at every area, each cut with its own way and orientation, all in one
batch. The gradient of each is smoothed and divided by its own deviation, so that places whose gradient is noise do not
move as far as the others; their sum moves the field, and the change from the start decays in each step. At the end each
area weighs its own mask against masks that contain the next smaller one.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.domain import Domain, ExactAreaFamily
from extremal.masking.grid import gaussian_blur, resize, scale_lengths
from extremal.masking.level_set import standardise
from extremal.masking.solvers.path import masks_at_areas
from extremal.masking.solvers.problem import MAX_COUNT, Attribution, OnStep, Problem, Recorder, Solution, gradient
from extremal.masking.support import combine_gradients
from extremal.number_checks import validate_whole

FLOOR = 1e-30  # of a deviation, so that a field without any stays zero
GRADIENT_BLUR = 14.0  # px at a short side of 224 px, of the Gaussian over the mask gradients of the start
DIFFERENCE_BLUR = 4.0  # px at a short side of 224 px, of the Gaussian over the differences
SUPPORT_POWER = 4  # of the share of places with a lower rank, by which the support of each place is weighted
MAX_CANDIDATES = 4  # of an area; without neighbours one less


@dataclass(frozen=True)
class Consensus:
    """Settings of the solver of one field; `count_consensus_passes` returns the cost of a run."""

    steps: int = 8  # of the field, each on the masks of all areas
    least: int = 64  # masks in all steps together; with few areas there are more steps
    columns: int = 8  # masks in a step, at least; with few areas each has several
    draws: int = 4  # mask values of the start's gradient, each in every orientation and by every way
    start: float = 1.5  # deviation of the start; larger values hold stiller and score lower
    rate: float = 0.4  # of a step, in deviations of the direction
    momentum: float = 0.8
    decay: float = 0.03  # of the change from the start, in each step
    smooth: float = 2.0  # of the gradient's Gaussian, in lattice steps
    candidates: int = 3  # of the final choice of an area: its own field, and others around the next smaller mask
    tolerance: float = (
        0.05  # share of the whole effect by which candidates of the final choice may differ and still count
    )
    inside: float = 6.0  # deviations by which the next smaller mask is raised in these
    temperature: float = 0.15  # of the level, in deviations of the field
    width: float = 1.0  # of the field's Gaussian, in lattice steps

    def __post_init__(self) -> None:
        for name in ("steps", "columns", "draws"):
            validate_whole(getattr(self, name), f"{name} of consensus", 1, MAX_COUNT)
        validate_whole(self.candidates, "candidates of consensus", 1, MAX_CANDIDATES)
        for name in ("start", "rate", "temperature", "tolerance"):
            if not getattr(self, name) > 0:
                raise ExtremalValueError(f"{name} of consensus must be above 0, got {getattr(self, name):g}")

    @property
    def name(self) -> str:
        """The short name."""
        return "consensus"

    @property
    def uses_layer_maps(self) -> bool:
        """Whether the solver starts from maps of hidden layers, if the problem has any."""
        return True

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **asdict(self)}

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Find masks of exactly the given areas (ascending) in one run."""
        family = problem.domain.exact_area_family(problem.like, self.width)
        n_starts = problem.ways * len(problem.orientations())
        recorder = Recorder(problem, n_starts + self.schedule(len(areas))[0], on_step)
        found = find_start(problem, self.draws, recorder)
        start = _standardise_each(family.fit(found.ranks).unsqueeze(1))
        fields = self._descend(problem, family, areas, self.start * start, recorder)
        parameters = self._choose(problem, family, areas, fields, start) if self.candidates > 1 else fields
        return recorder.build_solution(self._masks(family, parameters, areas), parameters, found.support)

    def schedule(self, areas: int) -> tuple[int, int]:
        """Return the number of steps, and how many masks each area has in a step.

        >>> Consensus().schedule(1), Consensus().schedule(5)
        ((8, 8), (8, 2))
        """
        return share_masks(self.steps, self.least, self.columns, areas)

    def rebuild_masks(self, parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """Return the masks (N, A, 1, *S) of a solution's parameters (N, A, 1, *lattice) at these areas."""
        return self._masks(domain.exact_area_family(parameters, self.width), parameters, areas)

    def _masks(self, family: ExactAreaFamily, parameters: Tensor, areas: tuple[float, ...]) -> Tensor:
        return masks_at_areas(family, parameters, areas, self.temperature)

    def _descend(
        self, problem: Problem, family: ExactAreaFamily, areas: tuple[float, ...], start: Tensor, recorder: Recorder
    ) -> Tensor:
        """Move one field by the gradients of its masks at all areas; return it for each: (N, A, 1, *lattice)."""
        orientations, (steps, masks_per_area) = problem.orientations(), self.schedule(len(areas))
        columns = areas * masks_per_area
        field, change, momentum = start, torch.zeros_like(start), torch.zeros_like(start)
        for step in range(steps):
            if not recorder.any_finite:
                break
            parameters = field.expand(-1, len(columns), *field.shape[2:]).contiguous().requires_grad_()
            masks = self._masks(family, _standardise_each(parameters), columns)
            ways = [(step + column) % problem.ways for column in range(len(columns))]
            turns = [(step // problem.ways + column) % len(orientations) for column in range(len(columns))]
            rewards = problem.reward(masks, [orientations[turn] for turn in turns], ways)
            slopes = gradient(rewards, parameters).flatten(0, 1)
            directions = standardise(family.smooth_parameters(slopes, self.smooth), floor=FLOOR).view_as(parameters)
            direction = directions.mean(1, keepdim=True) * math.sqrt(len(areas))  # each area moves other places
            momentum = self.momentum * momentum + (1 - self.momentum) * direction
            change = (1 - self.decay) * change + self.rate * momentum
            field = start + change
            recorder.record("descent", masks, rewards)
        return _standardise_each(field).expand(-1, len(areas), *field.shape[2:])

    @torch.no_grad()
    def _fit(self, family: ExactAreaFamily, field: Tensor, area: float) -> Tensor:
        """Return parameters (N, 1, 1, *lattice) in [0, 1] that resemble the mask of one area."""
        return family.fit(self._masks(family, field, (area,))[:, 0]).unsqueeze(1)

    @torch.no_grad()
    def _choose(
        self, problem: Problem, family: ExactAreaFamily, areas: tuple[float, ...], fields: Tensor, start: Tensor
    ) -> Tensor:
        """Return for each area the mean of its candidates, weighted by their rewards: (N, A, 1, *lattice).

        Candidates are its own field, and up to three in which the next smaller mask is raised: its own field, the
        start, and the places that destroying changes least. The reward is that of the cut masks, the mean over all
        ways, one orientation for each.
        """
        chosen, orientations = [fields[:, :1]], problem.orientations()
        fillers = [_standardise_each(start)]
        if problem.differences is not None:
            fillers.append(_find_flat_places(problem, family))
        for k in range(1, len(areas)):
            inside = self.inside * self._fit(family, chosen[-1], areas[k - 1])
            own = fields[:, k : k + 1]
            candidates = torch.cat([own, *(field + inside for field in (own, *fillers))][: self.candidates], 1)
            count = candidates.shape[1]
            masks = family.cut(self._masks(family, candidates, (areas[k],) * count), (areas[k],) * count)
            rewards = torch.zeros(masks.shape[:2], dtype=problem.dtype, device=problem.device)
            for way in range(problem.ways):
                rewards += problem.reward(masks, orientations[(way + k) % len(orientations)], way)
            chosen.append(self._average_best(problem, candidates, rewards / problem.ways))
        return torch.cat(chosen, 1)

    def _average_best(self, problem: Problem, candidates: Tensor, rewards: Tensor) -> Tensor:
        """Return the mean of candidates (N, K, 1, *lattice), weighted by rewards (N, K) in whole effects.

        A choice of the best one alone would flip when the rewards of two change little.
        """
        rewards = rewards.where(rewards.isfinite(), -torch.inf)
        gaps = rewards - rewards.amax(1, keepdim=True)
        spans = torch.full_like(rewards[:, 0], FLOOR) if problem.spans is None else problem.spans
        weights = (gaps.nan_to_num(0.0, 0.0) / (self.tolerance * spans.unsqueeze(1) + FLOOR)).softmax(1)
        weighted = weights.view(*weights.shape, *[1] * (candidates.ndim - 2)) * candidates
        return weighted.sum(1, keepdim=True)


@dataclass(frozen=True)
class Start:
    """The places of N inputs that constant masks show to support the reward."""

    ranks: Tensor  # (N, 1, *S) sum of the standardised ranks of all maps
    support: Tensor  # (N, 1, *S) ≥ 0, of the mask gradients in full detail, where the ranks are high


def find_start(problem: Problem, draws: int, recorder: Recorder | None = None) -> Start:
    """Find out where the maps of a problem agree, from constant masks of values (k + ½)/draws.

    The maps are the reward's gradient with respect to the masks, smoothed, and those of hidden layers from the same
    passes. Maps of different ways are brought to one scale and added up before they are ranked. Costs one
    forward-backward pass per value, orientation, way and input.
    """
    values = (torch.arange(draws, dtype=problem.dtype, device=problem.device) + 0.5) / draws
    masks = values.view(1, -1, *[1] * (1 + len(problem.shape))).expand(problem.count, -1, 1, *problem.shape)
    by_way: list[list[Tensor]] = []  # for each way its maps (N, 1, ...), the gradient first
    for way in range(problem.ways):
        by_orientation = []
        for mirrored in problem.orientations():
            found = _attribute(problem, masks, mirrored, way)
            by_orientation.append([values.sum(1) for values in (found.gradients, *found.maps)])
            if recorder is not None:
                recorder.record("start", masks, found.rewards)
        by_way.append([torch.stack(maps).sum(0) for maps in zip(*by_orientation, strict=True)])
    slopes, *maps = (torch.stack([_scale(values) for values in ways]).sum(0) for ways in zip(*by_way, strict=True))
    if problem.domain.is_smooth:
        slopes = gaussian_blur(slopes, scale_lengths(GRADIENT_BLUR, problem.shape, problem.domain.spacing))
    ranked = [_rank(slopes), *(_rank(resize(values, problem.shape).clamp_min(0.0)) for values in maps)]
    ranks = torch.stack(ranked).sum(0)
    support = combine_gradients([ways[0] for ways in by_way], problem.domain.spacing)
    return Start(ranks, support * _rank_shares(ranks) ** SUPPORT_POWER)


def _scale(values: Tensor) -> Tensor:
    """Divide each row (N, ...) by the mean of its absolute values."""
    return values / (values.abs().flatten(1).mean(1).view(-1, *[1] * (values.ndim - 1)) + FLOOR)


def _attribute(problem: Problem, masks: Tensor, mirrored: bool, way: int) -> Attribution:
    """Return the attribution of a problem, or one that consists of the reward's gradient."""
    if problem.attribute is not None:
        return problem.attribute(masks, mirrored, way)
    masks = masks.detach().requires_grad_()
    rewards = problem.reward(masks, mirrored, way)
    return Attribution(rewards.detach(), gradient(rewards, masks))


def _find_flat_places(problem: Problem, family: ExactAreaFamily) -> Tensor:
    """Return a field (N, 1, 1, *lattice) that is high where destroying changes the input least."""
    assert problem.differences is not None
    differences = problem.differences
    if problem.domain.is_smooth:
        sigma = scale_lengths(DIFFERENCE_BLUR, problem.shape, problem.domain.spacing)
        differences = gaussian_blur(differences, sigma)
    return _standardise_each(
        -_rank(family.fit(differences).flatten(1)).view(problem.count, 1, 1, *family.parameter_shape)
    )


def _rank(values: Tensor) -> Tensor:
    """Return the standardised ranks of each row (N, ...); equal values have their mean rank."""
    return standardise(_rank_shares(values), floor=FLOOR)


def _rank_shares(values: Tensor) -> Tensor:
    """Return the ranks of each row (N, ...) in [0, 1]; equal values have their mean rank."""
    flat = values.flatten(1).contiguous()
    ordered = flat.sort(1).values
    ranks = torch.searchsorted(ordered, flat) + torch.searchsorted(ordered, flat, right=True)
    return ranks.to(values).view_as(values) / (2 * flat.shape[1])


def _standardise_each(fields: Tensor) -> Tensor:
    """Scale each field (N, K, 1, *lattice) to mean 0 and deviation 1."""
    return standardise(fields.flatten(0, 1), floor=FLOOR).view_as(fields)


def share_masks(steps: int, least: int, columns: int, areas: int) -> tuple[int, int]:
    """Return the number of steps, and of masks of each area in a step: at least `columns` a step, `least` in all."""
    masks = -(-columns // areas)
    return max(steps, -(-least // (areas * masks))), masks


def count_consensus_passes(
    settings: Consensus, areas: int, mirror: bool, ways: int = 1, has_neighbours: bool = True
) -> tuple[int, int]:
    """Count the forward-backward and forward passes of a run for one input (preserve and delete; dual: twice).

    >>> count_consensus_passes(Consensus(), areas=5, mirror=True, ways=3)
    (104, 36)
    """
    start = settings.draws * (2 if mirror else 1) * ways
    candidates = min(settings.candidates, MAX_CANDIDATES - (0 if has_neighbours else 1))
    chosen = candidates * (areas - 1) * ways if candidates > 1 else 0
    steps, masks = settings.schedule(areas)
    return start + steps * masks * areas, chosen
