"""`consensus`: masks that change little when the input changes little.

The field starts where the mask gradients and the maps of hidden layers agree under all ways of destroying the input.
One field serves all areas: in each step it is cut at every area, each cut with its own way and orientation, all in one
batch. The gradient of each is smoothed and divided by its own deviation, so that places whose gradient is noise do not
move as far as the others; their sum moves the field, and the change from the start decays in each step. At the end each
area has a field of its own, which contains the next smaller mask (`refinement`).
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError
from extremal.masking.domain import Domain, ExactAreaFamily
from extremal.masking.level_set import standardise
from extremal.masking.solvers.path import masks_at_areas
from extremal.masking.solvers.problem import MAX_COUNT, OnStep, Problem, Recorder, Solution, gradient
from extremal.masking.solvers.refinement import Refinement, standardise_each
from extremal.masking.solvers.start import FLOOR, Start, find_start
from extremal.number_checks import validate_whole

MAX_CANDIDATES = 3  # of an area; without neighbours one less
FACTORS = ("start", "rate", "temperature", "tolerance", "enlarged", "reduced", "polish_rate", "repair_rate")


@dataclass(frozen=True)
class Consensus:
    """Settings of the solver of one field; `count_consensus_passes` returns the cost of a run."""

    steps: int = 4  # of the field, each on the masks of all areas
    least: int = 32  # masks in all steps together; with few areas there are more steps
    columns: int = 8  # masks in a step, at least; with few areas each has several
    draws: int = 4  # mask values of the start's gradient, each in every orientation and by every way
    enlarged_draws: int = 1  # values on enlarged inputs, each instead of two, where the network takes other sizes
    enlarged: float = 1.25  # scale of these inputs
    reduced: float = 0.7  # scale of the inputs of all steps, where the network takes other sizes; 1: their own
    start: float = 1.5  # deviation of the start; larger values hold stiller and score lower
    rate: float = 0.4  # of a step, in deviations of the direction
    momentum: float = 0.8
    decay: float = 0.03  # of the change from the start, in each step
    smooth: float = 2.0  # of the gradient's Gaussian, in lattice steps
    candidates: int = 3  # of each area, around the next smaller mask; 0: the field serves all areas
    tolerance: float = 0.15  # share of the whole effect by which candidates may differ and still count
    inside: float = 6.0  # deviations by which the next smaller mask is raised in these
    polish_steps: int = 2  # of the fields of all areas but the smallest, each by all ways
    polish_rate: float = 1.0
    repair_steps: int = 16  # for an area whose effect is below that of a smaller one
    repair_rate: float = 0.8
    temperature: float = 0.15  # of the level, in deviations of the field
    width: float = 1.0  # of the field's Gaussian, in lattice steps

    def __post_init__(self) -> None:
        for name in ("steps", "columns", "draws"):
            validate_whole(getattr(self, name), f"{name} of consensus", 1, MAX_COUNT)
        for name in ("enlarged_draws", "polish_steps", "repair_steps"):
            validate_whole(getattr(self, name), f"{name} of consensus", 0, MAX_COUNT)
        validate_whole(self.candidates, "candidates of consensus", 0, MAX_CANDIDATES)
        for name in FACTORS:
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

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales of the inputs at which the solver asks for rewards, besides their own."""
        wanted = ((self.enlarged,) if self.enlarged_draws else ()) + (self.reduced,)
        return tuple(dict.fromkeys(scale for scale in wanted if scale != 1))

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **asdict(self)}

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Find masks of exactly the given areas (ascending) in one run."""
        family = problem.domain.exact_area_family(problem.like, self.width)
        larger = self._enlarge(problem)
        n_starts = problem.ways * len(problem.orientations()) * (2 if larger else 1)
        smaller = (problem.at_scale(self.reduced) if self.reduced != 1 else None) or problem
        steps, masks_per_area = self.schedule(len(areas))
        recorder = Recorder(problem, n_starts + steps + self.count_polish_steps(len(areas)), on_step)
        found = self._find_start(problem, larger, recorder)
        start = standardise_each(family.fit(found.ranks).unsqueeze(1))
        field = self._descend(smaller, family, areas, (steps, masks_per_area), self.start * start, recorder)
        if self.candidates and len(areas) > 1 and recorder.any_finite:
            parameters = Refinement(self, problem, smaller, family, areas).refine(field, start, recorder)
        else:
            parameters = field.expand(-1, len(areas), *field.shape[2:])
        return recorder.build_solution(self._masks(family, parameters, areas), parameters, found.support)

    def find_support(self, problem: Problem) -> Tensor:
        """Return the support (N, 1, *S) of each place as a run finds it, at the cost of the start."""
        return self._find_start(problem, self._enlarge(problem)).support

    def _enlarge(self, problem: Problem) -> Problem | None:
        return problem.at_scale(self.enlarged) if self.enlarged_draws else None

    def _find_start(self, problem: Problem, larger: Problem | None, recorder: Recorder | None = None) -> Start:
        """Find the start of the inputs, and of the enlarged ones if there are any."""
        own, enlarged = self.count_draws(is_enlarged=larger is not None)
        found = find_start(problem, own, recorder)
        return found if larger is None else found + find_start(larger, enlarged, recorder)

    def schedule(self, areas: int) -> tuple[int, int]:
        """Return the number of steps of the field, and how many masks each area has in a step.

        >>> Consensus().schedule(1), Consensus().schedule(5), Consensus().schedule(8)
        ((4, 8), (4, 2), (4, 1))
        """
        return share_masks(self.steps, self.least, self.columns, areas)

    def count_polish_steps(self, areas: int) -> int:
        """Return how many steps move the fields of single areas."""
        return self.polish_steps if self.candidates and areas > 1 else 0

    def count_draws(self, *, is_enlarged: bool) -> tuple[int, int]:
        """Return at how many mask values the start's gradient is computed, on the inputs and on enlarged ones.

        >>> Consensus().count_draws(is_enlarged=True), Consensus().count_draws(is_enlarged=False)
        ((2, 1), (4, 0))
        """
        enlarged = self.enlarged_draws if is_enlarged else 0
        return max(1, self.draws - 2 * enlarged), enlarged

    def rebuild_masks(self, parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """Return the masks (N, A, 1, *S) of a solution's parameters (N, A, 1, *lattice) at these areas."""
        return self._masks(domain.exact_area_family(parameters, self.width), parameters, areas)

    def _masks(self, family: ExactAreaFamily, parameters: Tensor, areas: tuple[float, ...]) -> Tensor:
        return masks_at_areas(family, parameters, areas, self.temperature)

    def _descend(
        self,
        problem: Problem,
        family: ExactAreaFamily,
        areas: tuple[float, ...],
        schedule: tuple[int, int],
        start: Tensor,
        recorder: Recorder,
    ) -> Tensor:
        """Move one field by the gradients of its masks at all areas; return it: (N, 1, 1, *lattice).

        Args:
            problem: whose inputs are reduced, if possible.
            family: of the masks.
            areas: of the masks.
            schedule: number of steps, and masks of each area in a step.
            start: (N, 1, 1, *lattice).
            recorder: of the steps.
        """
        steps, masks_per_area = schedule
        columns, orientations = areas * masks_per_area, problem.orientations()
        field, change, momentum = start, torch.zeros_like(start), torch.zeros_like(start)
        for step in range(steps):
            if not recorder.any_finite:
                break
            parameters = field.expand(-1, len(columns), *field.shape[2:]).contiguous().requires_grad_()
            masks = self._masks(family, standardise_each(parameters), columns)
            ways = [(step + column) % problem.ways for column in range(len(columns))]
            turns = [step // problem.ways + sum(divmod(column, len(areas))) for column in range(len(columns))]
            rewards = problem.reward(masks, [orientations[turn % len(orientations)] for turn in turns], ways)
            slopes = gradient(rewards, parameters).flatten(0, 1)
            directions = standardise(family.smooth_parameters(slopes, self.smooth), floor=FLOOR).view_as(parameters)
            direction = directions.mean(1, keepdim=True) * math.sqrt(len(areas))  # each area moves other places
            momentum = self.momentum * momentum + (1 - self.momentum) * direction
            change = (1 - self.decay) * change + self.rate * momentum
            field = start + change
            recorder.record("descent", masks, rewards)
        return standardise_each(field)


def share_masks(steps: int, least: int, columns: int, areas: int) -> tuple[int, int]:
    """Return the number of steps, and of masks of each area in a step: at least `columns` a step, `least` in all."""
    masks = -(-columns // areas)
    return max(steps, -(-least // (areas * masks))), masks


@dataclass(frozen=True)
class ConsensusPasses:
    """Passes of a run for one input, without repairs, and their places in inputs of its own size."""

    gradients: int  # forward-backward passes
    forwards: int  # forward passes
    gradient_places: float
    forward_places: float


def count_consensus_passes(
    settings: Consensus,
    areas: int,
    mirror: bool,
    ways: int = 1,
    has_neighbours: bool = True,
    scales: tuple[float, ...] = (),
) -> ConsensusPasses:
    """Count the passes of a run for one input (preserve and delete; dual: twice).

    An area whose effect is below that of a smaller one takes up to `repair_steps` forward-backward passes and
    1 + `REPAIRS_COMPARED` more forward passes by each way.

    >>> count_consensus_passes(Consensus(), areas=5, mirror=True, ways=3)
    ConsensusPasses(gradients=88, forwards=78, gradient_places=88.0, forward_places=78.0)
    >>> count_consensus_passes(Consensus(), areas=5, mirror=True, ways=3, scales=(1.25, 0.7))
    ConsensusPasses(gradients=82, forwards=78, gradient_places=52.73, forward_places=47.4)

    Args:
        settings: of the solver.
        areas: number of areas.
        mirror: whether the mirrored input is asked about, too.
        ways: of destroying the input.
        has_neighbours: whether places have neighbours.
        scales: at which the network takes the inputs.
    """
    draws = settings.count_draws(is_enlarged=settings.enlarged in scales)
    own, enlarged = (count * (2 if mirror else 1) * ways for count in draws)
    steps, masks = settings.schedule(areas)
    polish = settings.count_polish_steps(areas)
    larger = (areas - 1) * ways if settings.candidates else 0
    candidates = min(settings.candidates, MAX_CANDIDATES - (0 if has_neighbours else 1))
    compared = larger * ((candidates if candidates > 1 else 0) + (2 if polish else 0))
    checked = (areas + 1) * ways if larger and settings.repair_steps else 0
    descended = steps * masks * areas + polish * larger
    share = settings.reduced**2 if settings.reduced in scales else 1
    return ConsensusPasses(
        gradients=own + enlarged + descended,
        forwards=compared + checked,
        gradient_places=round(own + enlarged * settings.enlarged**2 + descended * share, 2),
        forward_places=round(float(compared * share + checked), 2),
    )
