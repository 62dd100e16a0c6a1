"""Cost of a run: evaluations from the settings, time and memory from a few evaluations of the network."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from extremal.explanations import area_search, evidence
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.effort import EFFORTS
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.objective import Objective
from extremal.explanations.settings import Settings
from extremal.masking.domain import Domain, evaluate_masks
from extremal.masking.games import Evaluate
from extremal.masking.solvers import Consensus, Path, Penalty, Search, Solver
from extremal.masking.solvers.consensus import count_consensus_passes
from extremal.masking.solvers.path import count_passes
from extremal.masking.solvers.problem import gradient
from extremal.masking.solvers.swap import SWAPS_PER_ROUND
from extremal.networks.memory import activation_bytes
from extremal.networks.run import Run

MAX_REPEATS, MAX_MEASURE_SECONDS = 5, 0.5  # of each measurement; no repeats once the seconds are exceeded
SMOOTH_DOMAIN = Domain(())  # represents any domain whose places have neighbours


@dataclass(frozen=True)
class Work:
    """Masks that a solver evaluates for one input."""

    single: int  # with gradient, one at a time
    batched: int  # with gradient, several at a time
    forwards: int  # without gradient
    widest: int  # maximum number with gradient at once
    size: float = 1.0  # mean number of places of the batched ones' inputs, in those of the input itself
    forward_size: float = 1.0  # the same of those without gradient


@dataclass(frozen=True)
class Timing:
    """Seconds per evaluation of the network, as medians."""

    alone: float  # solver, forward and backward, one mask per input at a time
    together: float  # solver, forward and backward, one mask per area at a time
    forward: float  # solver, forward only, masks cut to each area
    evidence: float  # given masks, forward and backward
    evidence_forward: float  # given masks, forward only

    def seconds(self, counts: Evaluations, work: Work) -> float:
        """Return the time of these evaluations, those of the solver in the proportions of its work."""
        single = work.single / max(1, work.single + work.batched)
        return (
            counts.gradients * (single * self.alone + (1 - single) * self.together * work.size)
            + counts.forwards * self.forward * work.forward_size
            + counts.evidence_gradients * self.evidence
            + counts.evidence_forwards * self.evidence_forward
        )


def count_work(
    solver: Solver,
    areas: int,
    mirror: bool,
    domain: Domain = SMOOTH_DOMAIN,
    ways: int = 1,
    scales: tuple[float, ...] = (),
) -> Work | None:
    """Count the masks that a solver evaluates for one input, one for each way; None for solvers of other libraries.

    >>> count_work(Path(), areas=5, mirror=True)
    Work(single=40, batched=68, forwards=112, widest=5, size=1.0, forward_size=1.0)
    >>> count_work(Consensus(), areas=5, mirror=True, ways=3)
    Work(single=0, batched=99, forwards=51, widest=10, size=1.0, forward_size=1.0)
    >>> count_work(Penalty(), areas=5, mirror=True)
    Work(single=0, batched=4000, forwards=0, widest=5, size=1.0, forward_size=1.0)

    Args:
        solver: with its settings.
        areas: number of areas.
        mirror: whether the mirrored input has the same objective.
        domain: of the masks; channels and units need more.
        ways: of destroying the input.
        scales: at which the network takes the input.
    """
    if isinstance(solver, Consensus):
        count = count_consensus_passes(solver, areas, mirror, ways, domain.has_neighbours, scales)
        widest = max(solver.draws, areas * max(solver.schedule(areas)))
        forward_size = count.forward_inputs / max(1, count.forwards)
        return Work(0, count.gradients, count.forwards, widest, count.gradient_inputs / count.gradients, forward_size)
    if isinstance(solver, Penalty):
        return Work(0, solver.steps * areas + (0 if domain.is_smooth else areas * ways), 0, areas)
    if isinstance(solver, Search):
        return Work(0, 0, solver.evaluations, 0)
    if not isinstance(solver, Path):
        return None
    comparisons = 3 * areas - 2  # each area with its own parameters and its neighbours'
    rounds = 1 + (solver.rounds if solver.polish else 0) + (0 if domain.has_neighbours else 1)
    swaps = 0 if domain.has_neighbours else areas * (solver.search + solver.search // 2)
    return Work(
        single=solver.steps,
        batched=count_passes(solver, areas, mirror, ways) - solver.steps + swaps * ways,
        forwards=(comparisons * rounds + areas * solver.search + SWAPS_PER_ROUND * swaps) * ways,
        widest=max(solver.draws, areas if solver.polish or swaps else 1),
    )


class Cost:
    """The cost of explaining the inputs of one objective.

    Args:
        run: the frozen network.
        objective: of N inputs.
        settings: of the run.
        setup: evaluations that were needed to build the objective.
        mirror: whether the mirrored inputs have the same objective.
        rows: rows of the network evaluated at once.
    """

    def __init__(
        self, run: Run, objective: Objective, settings: Settings, setup: Evaluations, *, mirror: bool, rows: int
    ) -> None:
        self.run, self.objective, self.settings = run, objective, settings
        self.solver, self.areas, self.mirror, self.rows = settings.solver, settings.areas, mirror, rows
        self.setup = setup.forwards
        ways = len(objective.ways)
        self.work = count_work(self.solver, len(self.areas), mirror, objective.domain, ways, objective.scales)
        mask = objective.x.new_full((len(objective.x), 1, 1, *objective.mask_shape), 0.5)
        with torch.no_grad():
            self.evaluations_per_mask = self._count_evaluations(lambda: objective.evaluate_way(mask, 0))
            self.rewards_per_mask = self._count_evaluations(lambda: objective.reward(mask, False, 0))

    def one_answer(self, first: bool = True) -> Evaluations | None:
        """Return the cost of one answer, which for the first includes the set-up; None if unknown."""
        if self.work is None:
            return None
        n_whole = self._count_whole_masks(is_first=first)
        solver_finds_agreement = isinstance(self.solver, Consensus | Search)
        return Evaluations(
            gradients=(self.work.single + self.work.batched) * self.rewards_per_mask,
            forwards=(self.setup if first else 0) + (self.work.forwards + n_whole) * self.rewards_per_mask,
            evidence_gradients=0 if solver_finds_agreement else self._count_agreement(),
            evidence_forwards=self._count_scores(knows_cut_scores=first and self._solver_scores_cut_masks()),
        )

    def judgement(self) -> Evaluations:
        """Return the cost of judging given masks, one per area."""
        gradients = self._count_agreement() if self.run.network.gradient else 0
        return Evaluations(0, self.setup, gradients, self._count_scores())

    def _checks_falls(self) -> bool:
        """Return whether the solver scores the cut masks."""
        return isinstance(self.solver, Consensus) and self.solver.checks_falls(len(self.areas))

    def _solver_scores_cut_masks(self) -> bool:
        """Return whether the evidence takes the scores of the cut masks from the solver."""
        return self._checks_falls() and self.objective.game.find_scores(self.objective.score_input) is not None

    def _count_whole_masks(self, *, is_first: bool) -> int:
        """Return how many masks of all places the solver evaluates: none where their reward is known."""
        full, blank = self.objective.score_input, self.objective.score_destroyed
        is_known = is_first and self.objective.game.find_whole_rewards(full, blank) is not None
        return len(self.objective.ways) if self._checks_falls() and not is_known else 0

    def _count_scores(self, *, knows_cut_scores: bool = False) -> int:
        """Return the evaluations without gradient of the evidence, at most: some controls may be left out."""
        n_controls = EFFORTS[self.settings.effort].controls
        n_forms = 1 if knows_cut_scores else 2  # of each mask: as found, and cut
        n_scores = len(self.areas) * (n_forms * len(self.objective.ways) + self._n_unseen + n_controls)
        return (n_scores + self._n_unseen) * self.evaluations_per_mask

    def _count_agreement(self) -> int:
        """Return the gradients of `evidence.agreement` under all unseen perturbations, in each orientation."""
        orientations = 2 if self.mirror else 1
        return self._n_unseen * orientations * len(evidence.MASK_LEVELS) * self.evaluations_per_mask

    @property
    def _n_unseen(self) -> int:
        return len(evidence.unseen_perturbations(self.settings.perturbation, self.settings.seed))

    def refinement(self) -> Evaluations:
        """Return an upper bound of the cost of the search for the smallest sufficient area."""
        ways, unseen, effort = len(self.objective.ways), self._n_unseen, EFFORTS[self.settings.effort]
        n_areas = effort.searches * area_search.MAX_AREAS
        n_masks = 1 + n_areas * (area_search.MAX_STARTS + area_search.STEPS_PER_AREA)
        n_scores = (n_masks * (ways + unseen) + effort.controls) * self.evaluations_per_mask
        n_steps = n_areas * area_search.STEPS_PER_AREA
        return Evaluations(n_steps * ways * self.rewards_per_mask, self.setup + n_scores)

    @property
    def rows_at_once(self) -> int:
        """Maximum number of rows with gradient that are evaluated at once."""
        return max(self._at_once(self._widest), self._at_once(len(evidence.MASK_LEVELS)))

    @property
    def _widest(self) -> int:
        return self.work.widest if self.work else len(self.areas)

    def _at_once(self, masks: int) -> int:
        """Return the number of rows evaluated at once for this number of masks per input."""
        return min(self.rows, masks * len(self.objective.x))

    def measure_row_bytes(self) -> int:
        """Measure the memory of the network for the gradient of one row, in bytes."""
        if not self.run.network.gradient:
            return 0
        x = self.objective.x[:1].detach().clone().requires_grad_()
        return activation_bytes(lambda: self.run.evaluate(x), self._weights())

    def measure_memory(self) -> int:
        """Measure the bytes of the weights and of the gradients of all masks that are evaluated at once."""
        first, weights = self.objective.subset(0, 1), self._weights()
        if not self.run.network.gradient:
            return sum(tensor.nbytes for tensor in weights)
        mask = first.x.new_full((1, 1, 1, *first.mask_shape), 0.5).requires_grad_()

        def mask_bytes(evaluate: Callable[[], Tensor]) -> int:
            return activation_bytes(evaluate, [*weights, first.x])

        solver_bytes = self._at_once(self._widest) * mask_bytes(
            lambda: first.reward(mask, False, 0)
        )  # a game may keep several rows
        evidence_bytes = self._at_once(len(evidence.MASK_LEVELS)) * mask_bytes(lambda: first.evaluate_way(mask, 0))
        return sum(tensor.nbytes for tensor in weights) + max(solver_bytes, evidence_bytes)

    def measure_timing(self) -> Timing:
        """Measure evaluations of random masks that are built as the solver builds them."""
        reward = ChunkedReward(self.objective, self.rows)
        family = self.objective.domain.exact_area_family(self.objective.x)
        parameters, build_masks = self._random_parameters(self.areas)
        single, build_single = self._random_parameters(self.areas[:1])
        masks = family.cut(build_masks(parameters).detach(), self.areas)
        leaf = masks.clone().requires_grad_()
        evaluate: Evaluate = self.objective.evaluate
        with torch.no_grad():
            forward = self._measure_seconds(lambda: reward(family.cut(build_masks(parameters), self.areas), False))
            evidence_forward = self._measure_seconds(lambda: evaluate(masks))
        if not self.run.network.gradient:
            return Timing(forward, forward, forward, evidence_forward, evidence_forward)
        return Timing(
            alone=self._measure_seconds(lambda: gradient(reward(build_single(single), False, 0), single)),
            together=self._measure_seconds(lambda: gradient(reward(build_masks(parameters), False, 0), parameters)),
            forward=forward,
            evidence=self._measure_seconds(lambda: gradient(self.objective.evaluate_way(leaf, 0), leaf)),
            evidence_forward=evidence_forward,
        )

    def _random_parameters(self, areas: tuple[float, ...]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Draw parameters of masks at these areas; return them and a function that builds the masks."""
        domain, like = self.objective.domain, self.objective.x
        shape = len(like), len(areas)
        if isinstance(self.solver, Penalty):
            smooth = domain.smooth_family(like, self.solver.padded)
            parameters = torch.rand(*shape, 1, *smooth.parameter_shape, dtype=like.dtype, device=like.device)

            def build_masks(values: Tensor) -> Tensor:
                return smooth.crop(smooth.evaluate_with_margin(values.flatten(0, 1))).reshape(*shape, 1, *domain.shape)
        else:
            family = domain.exact_area_family(like)
            solver = self.solver if isinstance(self.solver, Path | Consensus | Search) else Consensus()
            parameters = torch.randn(*shape, 1, *family.parameter_shape, dtype=like.dtype, device=like.device)

            def build_masks(values: Tensor) -> Tensor:
                return evaluate_masks(family, values, areas, solver.temperature)

        return parameters.requires_grad_(), build_masks

    def _measure_seconds(self, evaluate: Callable[[], Tensor]) -> float:
        """Return the seconds per evaluation; the first call warms up."""

        def evaluate_and_wait() -> None:
            float(evaluate().sum())  # waits for the device

        evaluations = self._count_evaluations(evaluate_and_wait)
        seconds = list[float]()
        while len(seconds) < MAX_REPEATS and sum(seconds) < MAX_MEASURE_SECONDS:
            start = time.perf_counter()
            evaluate_and_wait()
            seconds.append(time.perf_counter() - start)
        return median(seconds) / evaluations

    def _count_evaluations(self, evaluate: Callable[[], object]) -> int:
        with self.run.counted() as count:
            evaluate()
        return count.forwards + count.gradients

    def _weights(self) -> list[Tensor]:
        model = self.run.network.model
        return [*model.parameters(), *model.buffers()]
