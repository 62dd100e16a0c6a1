"""`path`: every area in one run.

A smooth field is cut at the level that gives the area exactly, and the area shrinks from almost everything to the
smallest requested: the least needed places go first. The field starts from path-averaged mask gradients; at the end
all requested areas are polished in one batch towards black and white, each from the field that the sweep had there.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.device_tensors import copy_to, select_columns
from extremal.masking.domain import Areas, Domain, ExactAreaFamily, evaluate_masks
from extremal.masking.scaling import FLOOR, reduce_large, standardise
from extremal.masking.solvers.problem import OnStep, Problem, Recorder, Solution, gradient
from extremal.masking.solvers.settings_checks import read_between, read_positive, read_whole
from extremal.masking.solvers.swap import swap_places
from extremal.number_checks import read_numbers

RESIDUAL_SCALE = 0.02  # of the previous field when it is added to a swapped set, to order the places in and out of it


def mask_gradient(problem: Problem, family: ExactAreaFamily, draws: int, way: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the gradient of the reward by one way over constant masks of values (k + ½)/draws, in every orientation.

    Costs one forward-backward pass per value, orientation and input.

    Returns:
        The gradient with respect to the parameters (N, 1, *lattice), the masks (N, draws, 1, *S), and their mean
        rewards (N, draws).
    """
    values = (torch.arange(draws, dtype=problem.dtype, device=problem.device) + 0.5) / draws
    values = values.view(1, -1, *[1] * (1 + len(family.parameter_shape)))  # (1, draws, 1, *1)
    parameters = values.expand(problem.count, -1, 1, *family.parameter_shape).contiguous().requires_grad_()
    masks = family.to_places(parameters.flatten(0, 1)).view(problem.count, draws, 1, *problem.shape)
    rewards = torch.stack([problem.reward(masks, mirrored, way) for mirrored in problem.orientations()])
    return gradient(rewards, parameters).sum(1), masks, rewards.mean(0)


@dataclass(frozen=True)
class Path:
    """Settings of the area-continuation solver; `count_passes` returns the cost of a run."""

    steps: int = 40  # of the sweep; 52 score a few per cent more (docs/solver_experiments.md)
    polish: int = 12  # steps, all requested areas at once
    rounds: int = 3  # of the polish; each starts from the best parameters so far
    draws: int = 4  # number of mask values of the path-averaged gradient, each in every orientation
    rate: float = 0.1  # Adam's, in the sweep
    polish_rate: float = 0.06  # Adam's, in the polish
    search: int = 12  # random changes tried at the end for each area; also rounds of swaps if there are no neighbours
    change: float = 0.1  # deviation of a random change, in deviations of the field
    betas: tuple[float, float] = (0.9, 0.99)
    start: float = 0.3  # deviation of the gradient start; larger values improve pointing and lower scores
    temperature: float = 0.15  # of the level, in deviations of the field; 0.3 leaves more grey
    final_temperature: float = 0.05  # at the end of the polish: close to black and white
    width: float = 1.0  # of the field's Gaussian, in lattice steps
    first_area: float = 0.95
    last_area: float = 0.02  # or four fifths of the smallest requested area, if that is less

    def __post_init__(self) -> None:
        read_whole(self, "steps", "rounds", "draws")
        read_whole(self, "polish", "search", low=0)
        read_positive(self, "rate", "polish_rate", "temperature", "final_temperature", "width")
        read_positive(self, "first_area", "last_area")
        read_between(self, "change", "start")
        betas = read_numbers(self.betas, "betas of path", "(0.9, 0.99)")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ExtremalValueError(f"betas of path must be two numbers in [0, 1), got {betas}; e.g. (0.9, 0.99)")
        object.__setattr__(self, "betas", betas)

    @property
    def name(self) -> str:
        """The short name."""
        return "path"

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **asdict(self), "betas": list(self.betas)}

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Find masks of exactly the given areas (ascending) in one run."""
        family = problem.domain.exact_area_family(problem.like, self.width)
        recorder = Recorder(problem, 1 + self.steps + self.polish, on_step)
        start = self._gradient_start(problem, family, recorder)
        parameters = self._sweep(problem, family, areas, start, recorder)
        best = self._polish(problem, family, areas, parameters, recorder)
        return recorder.build_solution(best.masks(), best.parameters)

    def rebuild_masks(self, parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """Return the masks (N, A, 1, *S) of a solution's parameters (N, A, 1, *lattice) at these areas."""
        family = domain.exact_area_family(parameters, self.width)
        return evaluate_masks(family, parameters, areas, self.final_temperature)

    def schedule(self, areas: tuple[float, ...]) -> list[float]:
        """Return the area of each step of the sweep, falling geometrically.

        >>> areas = Path(steps=3).schedule((0.1,))
        >>> [round(area, 3) for area in areas]
        [0.95, 0.138, 0.02]
        """
        first = max(self.first_area, (1 + areas[-1]) / 2)
        last = min(self.last_area, 0.8 * areas[0])
        return [first * (last / first) ** (i / max(1, self.steps - 1)) for i in range(self.steps)]

    def _gradient_start(self, problem: Problem, family: ExactAreaFamily, recorder: Recorder) -> Tensor:
        """Return the reward's gradient with respect to constant masks as parameters: (N, 1, 1, *lattice).

        Gradients of different ways are standardised before they are added up.
        """
        gradients, masks, rewards = zip(
            *(mask_gradient(problem, family, self.draws, way) for way in range(problem.ways)), strict=True
        )
        recorder.record("start", torch.cat(masks, 1), torch.cat(rewards, 1))
        standardised = [
            standardise(family.smooth_parameters(reduce_large(total), 1.0), floor=FLOOR) for total in gradients
        ]
        total = standardised[0] if problem.ways == 1 else standardise(torch.stack(standardised).sum(0), floor=FLOOR)
        return (self.start * total).unsqueeze(1)

    def _sweep(
        self, problem: Problem, family: ExactAreaFamily, areas: tuple[float, ...], start: Tensor, recorder: Recorder
    ) -> Tensor:
        """Shrink the area over the run; return the parameters where it passed each area: (N, A, 1, *lattice)."""
        schedule = self.schedule(areas)
        descent = Descent(problem, family, start, self.rate, self.betas)
        saved: dict[float, Tensor] = {}
        for index, swept_area in enumerate(schedule):
            if not recorder.record("sweep", *descent.step((swept_area,), self.temperature)):
                break
            following = schedule[index + 1] if index + 1 < len(schedule) else 0.0
            for area in areas:
                if following < area and area not in saved:
                    saved[area] = descent.parameters.detach().clone()
        last = descent.parameters.detach()
        return torch.cat([saved.get(area, last) for area in areas], 1)

    def _polish(
        self,
        problem: Problem,
        family: ExactAreaFamily,
        areas: tuple[float, ...],
        parameters: Tensor,
        recorder: Recorder,
    ) -> "_BestParameters":
        """Optimise all areas at once while the temperature falls; each round starts from the best so far."""
        ratio = self.final_temperature / self.temperature
        temperatures = [self.temperature * ratio ** (i / max(1, self.polish - 1)) for i in range(self.polish)]
        best = _BestParameters(problem, family, areas, self.final_temperature)
        best.update_with_neighbours(parameters)
        for candidate in [] if problem.initial_candidates is None else problem.initial_candidates.unbind(1):
            best.update(candidate.unsqueeze(1).expand_as(parameters))
        for round_ in range(self.rounds if self.polish else 0):
            if round_:
                best.update_with_neighbours(parameters)
            first, last = (self.polish * i // self.rounds for i in (round_, round_ + 1))
            descent = Descent(problem, family, best.parameters, self.polish_rate, self.betas, first)
            for temperature in temperatures[first:last]:
                if recorder.any_finite:
                    recorder.record("polish", *descent.step(areas, temperature))
            parameters = descent.parameters.detach()
        if self.polish:
            best.update_with_neighbours(parameters)
        self._search(problem, best)
        if not problem.has_neighbours:
            best.swap_places(self.search)
            best.update_with_neighbours(best.parameters)  # a set may grow or shrink to the size of its neighbours
            best.swap_places(self.search // 2)
        return best

    def _search(self, problem: Problem, best: "_BestParameters") -> None:
        """Try small random changes and their opposites, since no gradient captures the effect of cutting.

        A change is the same for all inputs, so that none depends on the others of its batch. Costs one forward pass per
        change and area.
        """
        generator = torch.Generator().manual_seed(problem.seed)
        changes = list[Tensor]()
        for _ in range(0, self.search, 2):
            noise = torch.randn(best.parameters.shape[1:], generator=generator, dtype=torch.float64)
            changes.append(self.change * standardise(best.family.smooth_parameters(noise, 1.5)))
        on_device = copy_to(torch.stack(changes), best.parameters) if changes else ()  # all at once
        for index in range(self.search):
            change = on_device[index // 2]
            parameters = standardise(best.parameters.flatten(0, 1)).view_as(best.parameters)
            best.update(parameters + (change if index % 2 == 0 else -change))


class _BestParameters:
    """For each area the parameters whose cut mask has the highest reward so far.

    Invariant: `_rewards[n, k]` is the reward of `parameters[n, k]`, cut at `areas[k]`, and no candidate for that area
    had a higher one. An update can only raise rewards; candidates of equal or non-finite reward are discarded.
    """

    def __init__(self, problem: Problem, family: ExactAreaFamily, areas: tuple[float, ...], temperature: float) -> None:
        self.problem, self.family, self.areas, self.temperature = problem, family, areas, temperature
        self.parameters = torch.empty(0)  # (N, A, 1, *lattice), empty before the first update
        self._rewards = torch.empty(0)  # (N, A)

    @torch.no_grad()
    def update_with_neighbours(self, candidates: Tensor) -> None:
        """Consider candidates (N, A, 1, *lattice) at their own areas and at the next smaller and larger ones.

        Parameters that work at one area are a lower bound for what the neighbouring areas must reach. Costs 3·A − 2
        forward passes per input.
        """
        count = len(self.areas)
        pairs = [(k, source) for k in range(count) for source in range(count) if abs(k - source) <= 1]
        pair_rewards = self._rewards_when_cut(
            select_columns(candidates, [source for _, source in pairs]),
            tuple(self.areas[column] for column, _ in pairs),
        )
        rewards = candidates.new_full((len(candidates), count, count), -torch.inf)  # by area and source
        for pair, (column, source_column) in enumerate(pairs):
            rewards[:, column, source_column] = pair_rewards[:, pair]
        rewards, source = rewards.max(2)  # (N, A)
        index = source.view(*source.shape, *[1] * (candidates.ndim - 2)).expand_as(candidates)
        candidates = candidates.gather(1, index)
        if self._rewards.numel() == 0:
            self.parameters, self._rewards = candidates, rewards
        else:
            self._update(candidates, rewards)

    @torch.no_grad()
    def update(self, candidates: Tensor) -> None:
        """Consider candidates (N, A, 1, *lattice), each at its own area. Costs A forward passes per input."""
        self._update(candidates, self._rewards_when_cut(candidates, self.areas))

    def swap_places(self, rounds: int) -> None:
        """Swap single places of the cut masks, and consider the resulting sets as parameters."""
        sets = self.family.cut(self.masks(), self.areas)
        sets, rewards = swap_places(self.problem, sets, self._rewards, rounds)
        residual = standardise(self.parameters.flatten(0, 1)).view_as(self.parameters)
        self._update(sets + RESIDUAL_SCALE * residual, rewards)

    @torch.no_grad()
    def masks(self) -> Tensor:
        """Return the masks of the best parameters: (N, A, 1, *S)."""
        return evaluate_masks(self.family, self.parameters, self.areas, self.temperature)

    def _update(self, candidates: Tensor, rewards: Tensor) -> None:
        is_better = (rewards > self._rewards).view(*rewards.shape, *[1] * (candidates.ndim - 2))
        self.parameters = torch.where(is_better, candidates, self.parameters)
        self._rewards = torch.maximum(rewards, self._rewards)

    def _rewards_when_cut(self, parameters: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Return the rewards of parameters (N, K, 1, *lattice) cut at K areas: (N, K), −inf where not finite."""
        masks = evaluate_masks(self.family, parameters, areas, self.temperature)
        rewards = self.problem.reward(self.family.cut(masks, areas), False)
        return rewards.where(rewards.isfinite(), -torch.inf)


class Descent:
    """Adam on the parameters (N, K, 1, *lattice) of masks at K areas.

    Args:
        problem: whose reward is raised.
        family: of the masks.
        start: parameters to start from.
        rate, betas: of Adam.
        first_step: by which the turns of the ways are shifted.
    """

    def __init__(
        self,
        problem: Problem,
        family: ExactAreaFamily,
        start: Tensor,
        rate: float,
        betas: tuple[float, float] = (0.9, 0.99),
        first_step: int = 0,
    ) -> None:
        self.problem, self.family, self._first_step = problem, family, first_step
        self.parameters = start.clone().requires_grad_()
        self._steps = 0
        self._adam = torch.optim.Adam([self.parameters], lr=rate, betas=betas, maximize=True)

    def step(self, areas: Areas, temperature: float) -> tuple[Tensor, Tensor]:
        """Raise the reward by one step, orientations and ways taking turns.

        Returns:
            The masks (N, K, 1, *S) before the step, and their rewards (N, K).
        """
        masks = evaluate_masks(self.family, self.parameters, areas, temperature)
        self._steps += 1
        rewards = self.problem.reward(masks, *self.problem.turn(self._steps, self._first_step))
        self.parameters.grad = gradient(rewards, self.parameters)
        self._adam.step()
        return masks, rewards


def count_passes(settings: Path, areas: int, mirror: bool, ways: int = 1) -> int:
    """Count the forward-backward passes of a run for one input (preserve and delete; dual: twice).

    >>> count_passes(Path(), areas=5, mirror=True), count_passes(Path(), areas=5, mirror=True, ways=3)
    (108, 124)
    """
    return settings.draws * (2 if mirror else 1) * ways + settings.steps + settings.polish * areas
