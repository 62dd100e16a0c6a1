"""`consensus`: masks that change little when the input changes little.

The field starts where the mask gradients and the maps of hidden layers agree under all ways of destroying the input.
One field serves all areas: in each step it is cut at every area, each cut with its own way and orientation, all in one
batch. The gradient of each is smoothed and divided by its own deviation, so that places whose gradient is noise do not
move as far as the others; their sum moves the field, and the change from the start decays in each step. At the end each
area weighs its own mask against masks that contain the next smaller one.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import Tensor

from extremal.masking.domain import Domain, evaluate_masks
from extremal.masking.scaling import standardise_each
from extremal.masking.solvers.choice import choose_fields
from extremal.masking.solvers.consensus_run import ConsensusRun, Momentum
from extremal.masking.solvers.problem import OnStep, Problem, Recorder, Solution
from extremal.masking.solvers.repair import repair_falls
from extremal.masking.solvers.settings_checks import read_between, read_positive, read_whole
from extremal.masking.solvers.start import Start, find_start

MAX_CANDIDATES = 4  # of an area; without neighbours one less


@dataclass(frozen=True)
class Consensus:
    """Settings of the default solver, one field for all areas; `count_consensus_passes` returns the cost of a run."""

    steps: int = 8  # of the field, each on the masks of all areas
    least: int = 64  # minimum number of masks in all steps together; with few areas there are more steps
    columns: int = 8  # minimum number of masks in a step; with few areas, each area has several
    last_share: float = 0.5  # masks of an area in the last step, as a share of those in other steps
    draws: int = 4  # number of mask values of the start's gradient, each in every orientation and way
    enlarged_draws: int = 1  # mask values on enlarged inputs, each in place of two, if the network takes other sizes
    enlarged: float = 1.25  # scale of these inputs
    reduced: float = 0.7  # scale of the inputs in the first steps and the choice, if the network takes other sizes
    reduced_steps: int = 6  # maximum number of steps if the first ones are on reduced inputs
    reduced_share: float = 0.8  # share of these steps that are on reduced inputs
    start: float = 1.5  # deviation of the start; larger values make masks more stable and scores lower
    rate: float = 0.4  # of a step, in deviations of the direction
    momentum: float = 0.8
    decay: float = 0.03  # of the change from the start, in each step
    smooth: float = 2.0  # of the gradient's Gaussian, in lattice steps
    candidates: int = 3  # in the final choice of an area: its own field, and others around the next smaller mask
    tolerance: float = (
        0.05  # share of the whole effect by which candidates of the final choice may differ and still count
    )
    inside: float = 6.0  # deviations by which the next smaller mask is raised in these
    repair_steps: int = 32  # maximum, in each of up to three searches for an area whose effect falls; 0: no repair
    repair_rate: float = 1.2  # of these steps
    temperature: float = 0.15  # of the level, in deviations of the field
    width: float = 1.0  # of the field's Gaussian, in lattice steps

    def __post_init__(self) -> None:
        read_whole(self, "steps", "columns", "draws", "reduced_steps")
        read_whole(self, "candidates", high=MAX_CANDIDATES)
        read_whole(self, "least", "enlarged_draws", "repair_steps", low=0)
        read_positive(self, "start", "rate", "temperature", "tolerance", "enlarged", "reduced", "repair_rate")
        read_positive(self, "smooth", "width")
        read_between(self, "inside")
        read_between(self, "reduced_share", "last_share", "momentum", "decay", high=1.0)

    @property
    def name(self) -> str:
        """The short name."""
        return "consensus"

    @property
    def uses_layer_maps(self) -> bool:
        """Whether the solver starts from maps of hidden layers, if the problem has any."""
        return True

    @property
    def asks_all_ways(self) -> bool:
        """Whether the search uses all ways of destroying an input if the network's answer for it is another class."""
        return True

    @property
    def scales(self) -> tuple[float, ...]:
        """The scales of the inputs, other than their own, at which the solver evaluates rewards."""
        wanted = ((self.enlarged, self.enlarged_draws > 0), (self.reduced, self.reduced_share > 0))
        return tuple(dict.fromkeys(scale for scale, is_used in wanted if is_used and scale != 1))

    def settings(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return {"name": self.name, **asdict(self)}

    def solve(self, problem: Problem, areas: tuple[float, ...], on_step: OnStep | None = None) -> Solution:
        """Find masks of exactly the given areas (ascending) in one run."""
        family = problem.domain.exact_area_family(problem.like, self.width)
        larger, smaller = self._enlarge(problem), problem.at_scale(self.reduced) if self.reduced_share else None
        n_starts = 2 if larger else 1
        schedule = self.schedule(len(areas), is_reduced=smaller is not None)
        recorder = Recorder(problem, n_starts + len(schedule), on_step)
        run = ConsensusRun(self, problem, smaller, family, areas, recorder)
        found = self._find_start(problem, larger, recorder)
        start = standardise_each(family.fit(found.ranks).unsqueeze(1))
        n_reduced = self.count_reduced_steps(len(schedule)) if smaller else 0
        asked = [smaller or problem] * n_reduced + [problem] * (len(schedule) - n_reduced)
        field = self._descend(run, asked, schedule, self.start * start)
        if self.candidates > 1:
            parameters = choose_fields(run, field, start)
        else:
            parameters = field.expand(-1, len(areas), *field.shape[2:])
        cut_rewards = None
        if self.checks_falls(len(areas)) and recorder.any_finite:
            parameters, cut_rewards = repair_falls(run, parameters, start)
        masks = run.build_masks(parameters, areas)
        known = cut_rewards if problem.rewards_whole_masks else None
        return recorder.build_solution(masks, parameters, found.support, known)

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

    def schedule(self, areas: int, *, is_reduced: bool = False) -> tuple[int, ...]:
        """Return how many masks each area has in each step.

        >>> Consensus().schedule(2), Consensus().schedule(5, is_reduced=True)
        ((4, 4, 4, 4, 4, 4, 4, 2), (2, 2, 2, 2, 2, 1))

        Args:
            areas: number of areas.
            is_reduced: whether the first steps are on reduced inputs.
        """
        steps, masks = share_masks(self.steps, self.least, self.columns, areas)
        steps = min(steps, self.reduced_steps) if is_reduced else steps
        return (masks,) * (steps - 1) + (max(1, math.ceil(self.last_share * masks)),)

    def count_reduced_steps(self, steps: int) -> int:
        """Return how many of these steps are on reduced inputs, if the network takes them."""
        return math.ceil(self.reduced_share * steps)

    def count_draws(self, *, is_enlarged: bool) -> tuple[int, int]:
        """Return the number of mask values of the start's gradient, on the inputs and on enlarged ones.

        >>> Consensus().count_draws(is_enlarged=True), Consensus().count_draws(is_enlarged=False)
        ((2, 1), (4, 0))
        """
        enlarged = self.enlarged_draws if is_enlarged else 0
        return max(1, self.draws - 2 * enlarged), enlarged

    def checks_falls(self, areas: int) -> bool:
        """Return whether a run evaluates the cut masks, and searches again for those whose effect falls."""
        return self.repair_steps > 0 and areas > 1

    def rebuild_masks(self, parameters: Tensor, areas: tuple[float, ...], domain: Domain) -> Tensor:
        """Return the masks (N, A, 1, *S) of a solution's parameters (N, A, 1, *lattice) at these areas."""
        family = domain.exact_area_family(parameters, self.width)
        return evaluate_masks(family, parameters, areas, self.temperature)

    def _descend(self, run: ConsensusRun, asked: Sequence[Problem], schedule: Sequence[int], start: Tensor) -> Tensor:
        """Move one field by the gradients of its masks at all areas; return it: (N, 1, 1, *lattice).

        Args:
            run: of N inputs.
            asked: problem of each step; they differ in the size of the inputs.
            schedule: masks of each area in each step.
            start: (N, 1, 1, *lattice).
        """
        orientations = run.problem.orientations()
        moved = Momentum(self.rate, self)
        for step, (problem, masks_per_area) in enumerate(zip(asked, schedule, strict=True)):
            if not run.recorder.any_finite:
                break
            columns = run.areas * masks_per_area
            fields = (start + moved.change).expand(-1, len(columns), *start.shape[2:])
            ways = [(step + column) % problem.ways for column in range(len(columns))]
            turns = [(step // problem.ways + column) % len(orientations) for column in range(len(columns))]
            mirrored = [orientations[turn] for turn in turns]
            directions, masks, rewards = run.find_directions(problem, fields, columns, mirrored, ways)
            moved.add(directions.mean(1, keepdim=True) * math.sqrt(len(run.areas)))  # each area moves other places
            run.recorder.record("descent", masks, rewards)
        return standardise_each(start + moved.change)


def share_masks(steps: int, least: int, columns: int, areas: int) -> tuple[int, int]:
    """Return the number of steps, and of masks of each area in a step: at least `columns` a step, `least` in all."""
    masks = -(-columns // areas)
    return max(steps, -(-least // (areas * masks))), masks


class PassCount(NamedTuple):
    """The passes of a run for one input, and their places in inputs of its own size."""

    gradients: int  # with gradient
    forwards: int  # without
    gradient_inputs: float
    forward_inputs: float


def count_consensus_passes(
    settings: Consensus,
    areas: int,
    mirror: bool,
    ways: int = 1,
    has_neighbours: bool = True,
    scales: tuple[float, ...] = (),
) -> PassCount:
    """Count the passes of a run for one input (preserve and delete; dual: twice), without those of repairs.

    One more forward pass for each way where the reward of a mask of all places is unknown.

    >>> tuple(count_consensus_passes(Consensus(), areas=5, mirror=True, ways=3))
    (99, 51, 99.0, 51.0)
    >>> tuple(count_consensus_passes(Consensus(), areas=5, mirror=True, ways=3, scales=(1.25, 0.7)))
    (73, 51, 50.88, 32.64)

    Args:
        settings: of the solver.
        areas: number of areas.
        mirror: whether the mirrored input is asked about, too.
        ways: of destroying the input.
        has_neighbours: whether places have neighbours.
        scales: at which the network takes the inputs.
    """
    is_enlarged = settings.enlarged in scales
    is_reduced = settings.reduced in scales and settings.reduced_share > 0
    own, enlarged = (draws * (2 if mirror else 1) * ways for draws in settings.count_draws(is_enlarged=is_enlarged))
    candidates = min(settings.candidates, MAX_CANDIDATES - (0 if has_neighbours else 1))
    chosen = candidates * (areas - 1) * ways if candidates > 1 else 0
    checked = areas * ways if settings.checks_falls(areas) else 0
    schedule = settings.schedule(areas, is_reduced=is_reduced)
    small = settings.count_reduced_steps(len(schedule)) if is_reduced else 0
    area = settings.reduced**2 if is_reduced else 1.0
    start = own + enlarged * settings.enlarged**2
    descent = (sum(schedule[:small]) * area + sum(schedule[small:])) * areas
    return PassCount(
        gradients=own + enlarged + sum(schedule) * areas,
        forwards=chosen + checked,
        gradient_inputs=round(start + descent, 2),
        forward_inputs=round(chosen * area + checked, 2),
    )
