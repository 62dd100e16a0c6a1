"""What a run costs: its evaluations from the settings, its time and memory from a few evaluations of the network."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from extremal.explanations import evidence, smallest_area
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.objective import Objective
from extremal.explanations.settings import Settings
from extremal.masking.domain import Domain
from extremal.masking.games import Evaluate
from extremal.masking.solvers import Path, Penalty, Solver
from extremal.masking.solvers.path import count_passes, masks_at_areas
from extremal.masking.solvers.problem import gradient
from extremal.masking.solvers.swap import SWAPS_PER_ROUND
from extremal.networks.memory import activation_bytes
from extremal.networks.network import Run

MAX_REPEATS, MAX_MEASURE_SECONDS = 5, 0.5  # measurements of a kind at most, and seconds after which there are no more
AREA_TOLERANCE = 0.02  # of `smallest_area`
SMOOTH_DOMAIN = Domain(())  # any, of places that have neighbours


@dataclass(frozen=True)
class Work:
    """Masks that a solver evaluates for one input."""

    single: int  # with gradient, one at a time
    batched: int  # with gradient, several at a time
    forwards: int  # without gradient
    widest: int  # with gradient at once, at most


@dataclass(frozen=True)
class Timing:
    """Seconds of one evaluation of the network, medians."""

    alone: float  # of the solver, forward and backward, one mask an input at a time
    together: float  # of the solver, forward and backward, a mask for each area at a time
    forward: float  # of the solver, forward only, masks cut to each area
    evidence: float  # of masks that are there already, forward and backward
    evidence_forward: float  # of masks that are there already, forward only

    def seconds(self, counts: Evaluations, work: Work) -> float:
        """Of so many evaluations, the solver's in the proportions of its work."""
        alone = work.single / max(1, work.single + work.batched)
        return (
            counts.gradients * (alone * self.alone + (1 - alone) * self.together)
            + counts.forwards * self.forward
            + counts.evidence_gradients * self.evidence
            + counts.evidence_forwards * self.evidence_forward
        )


def count_work(solver: Solver, areas: int, mirror: bool, domain: Domain = SMOOTH_DOMAIN) -> Work | None:
    """The masks that a run of a solver evaluates for one input; None for solvers that are not this library's.

    >>> count_work(Path(), areas=5, mirror=True)
    Work(alone=40, together=68, forwards=112, widest=5)
    >>> count_work(Penalty(), areas=5, mirror=True)
    Work(alone=0, together=4000, forwards=0, widest=5)

    Args:
        solver: with its settings.
        areas: how many.
        mirror: whether the mirrored input asks the same objective.
        domain: of the masks; channels and units take more.
    """
    if isinstance(solver, Penalty):
        return Work(0, solver.steps * areas + (0 if domain.is_smooth else areas), 0, areas)
    if not isinstance(solver, Path):
        return None
    compared = 3 * areas - 2  # each area with its own field and its neighbours'
    rounds = 1 + (solver.rounds if solver.polish else 0) + (0 if domain.has_neighbours else 1)
    exchanges = 0 if domain.has_neighbours else areas * (solver.search + solver.search // 2)
    return Work(
        single=solver.steps,
        batched=count_passes(solver, areas, mirror) - solver.steps + exchanges,
        forwards=compared * rounds + areas * solver.search + SWAPS_PER_ROUND * exchanges,
        widest=max(solver.draws, areas if solver.polish or exchanges else 1),
    )


class Cost:
    """The cost of explaining the inputs of one objective.

    Args:
        run: the frozen network.
        objective: of N inputs.
        settings: of the run.
        setup: evaluations that preparing the objective took.
        mirror: whether the mirrored inputs ask the same question.
        rows: of the network at once.
    """

    def __init__(
        self, run: Run, objective: Objective, settings: Settings, setup: Evaluations, *, mirror: bool, rows: int
    ) -> None:
        self.run, self.objective, self.settings = run, objective, settings
        self.solver, self.areas, self.mirror, self.rows = settings.solver, settings.areas, mirror, rows
        self.setup = setup.forwards
        self.work = count_work(self.solver, len(self.areas), mirror, objective.domain)
        mask = objective.x.new_full((len(objective.x), 1, 1, *objective.mask_shape), 0.5)
        with torch.no_grad():
            self.evaluations_per_mask = self._count_evaluations(
                lambda: objective.evaluate(mask)
            )  # evaluations, for one mask of each input
            self.rewards_per_mask = self._count_evaluations(
                lambda: objective.reward(mask, False)
            )  # and for what the game makes of it

    def one_answer(self, first: bool = True) -> Evaluations | None:
        """What an answer takes; posing the objective belongs to the first. None where that is not known."""
        if self.work is None:
            return None
        areas, orientations = len(self.areas), 2 if self.mirror else 1
        unseen = len(evidence.unseen_perturbations(self.settings.perturbation, self.settings.seed))
        judged = areas * (2 + unseen + evidence.N_CONTROLS) + unseen
        return Evaluations(
            gradients=(self.work.single + self.work.batched) * self.rewards_per_mask,
            forwards=(self.setup if first else 0) + self.work.forwards * self.rewards_per_mask,
            evidence_gradients=unseen * orientations * len(evidence.MASK_LEVELS) * self.evaluations_per_mask,
            evidence_forwards=judged * self.evaluations_per_mask,
        )

    def refinement(self) -> Evaluations:
        """At most what bisecting for the smallest sufficient area takes."""
        below = (self.areas[0] / smallest_area.SEARCH_FACTOR, *self.areas)
        gap = max(math.log(high / low) for low, high in zip(below, self.areas, strict=False))
        rounds = 1 + max(0, math.ceil(math.log2(gap / math.log1p(AREA_TOLERANCE))))  # one more: areas are whole places
        tries = rounds * (smallest_area.STEPS_PER_AREA + 1) * self.evaluations_per_mask
        return Evaluations(rounds * smallest_area.STEPS_PER_AREA * self.rewards_per_mask, self.setup + tries)

    @property
    def rows_at_once(self) -> int:
        """Rows with gradient that are evaluated at once, at most."""
        return max(self._at_once(self._widest), self._at_once(len(evidence.MASK_LEVELS)))

    @property
    def _widest(self) -> int:
        return self.work.widest if self.work else len(self.areas)

    def _at_once(self, masks: int) -> int:
        """Rows of so many masks of each input that are evaluated at once."""
        return min(self.rows, masks * len(self.objective.x))

    def measure_row_bytes(self) -> int:
        """What the network holds for the gradient of one row."""
        one = self.objective.x[:1].detach().clone().requires_grad_()
        return activation_bytes(lambda: self.run.evaluate(one), self._weights())

    def measure_memory(self) -> int:
        """Bytes of the weights, and of what is held for the gradients of all masks that are evaluated at once."""
        first, weights = self.objective.subset(0, 1), self._weights()
        mask = first.x.new_full((1, 1, 1, *first.mask_shape), 0.5).requires_grad_()

        def held(evaluate: Callable[[], Tensor]) -> int:
            return activation_bytes(evaluate, [*weights, first.x])

        solving = self._at_once(self._widest) * held(lambda: first.reward(mask, False))  # a game may hold several rows
        judging = self._at_once(len(evidence.MASK_LEVELS)) * held(lambda: first.evaluate(mask))
        return sum(tensor.nbytes for tensor in weights) + max(solving, judging)

    def measure_timing(self) -> Timing:
        """Measured on random masks that are made as the solver makes them."""
        pay = ChunkedReward(self.objective, self.rows)
        family = self.objective.domain.exact_area_family(self.objective.x)
        leaf, made = self._masks(self.areas)
        single, made_single = self._masks(self.areas[:1])
        masks = family.cut(made(leaf).detach(), self.areas)
        constant = masks.clone().requires_grad_()
        evaluate: Evaluate = self.objective.evaluate
        with torch.no_grad():
            forward = self._measure_seconds(lambda: pay(family.cut(made(leaf), self.areas), False))
            given = self._measure_seconds(lambda: evaluate(masks))
        return Timing(
            alone=self._measure_seconds(lambda: gradient(pay(made_single(single), False), single)),
            together=self._measure_seconds(lambda: gradient(pay(made(leaf), False), leaf)),
            forward=forward,
            evidence=self._measure_seconds(lambda: gradient(evaluate(constant), constant)),
            evidence_forward=given,
        )

    def _masks(self, areas: tuple[float, ...]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Parameters of masks at these areas, and what makes the masks (N, K, 1, *S) of them."""
        domain, like = self.objective.domain, self.objective.x
        rows = len(like), len(areas)
        if isinstance(self.solver, Penalty):
            smooth = domain.smooth_family(like, self.solver.padded)
            drawn = torch.rand(*rows, 1, *smooth.parameter_shape, dtype=like.dtype, device=like.device)

            def made(values: Tensor) -> Tensor:
                return smooth.crop(smooth.evaluate_with_margin(values.flatten(0, 1))).reshape(*rows, 1, *domain.shape)
        else:
            family, settings = domain.exact_area_family(like), self.solver if isinstance(self.solver, Path) else Path()
            drawn = torch.randn(*rows, 1, *family.parameter_shape, dtype=like.dtype, device=like.device)

            def made(values: Tensor) -> Tensor:
                return masks_at_areas(family, values, areas, settings.temperature)

        return drawn.requires_grad_(), made

    def _measure_seconds(self, act: Callable[[], Tensor]) -> float:
        """Seconds of one evaluation; the first time is not counted."""

        def waited() -> None:
            float(act().sum())  # a number waits for the device

        evaluations = self._count_evaluations(waited)
        taken = list[float]()
        while len(taken) < MAX_REPEATS and sum(taken) < MAX_MEASURE_SECONDS:
            start = time.perf_counter()
            waited()
            taken.append(time.perf_counter() - start)
        return median(taken) / evaluations

    def _count_evaluations(self, evaluate: Callable[[], object]) -> int:
        with self.run.counted() as count:
            evaluate()
        return count.forwards + count.gradients

    def _weights(self) -> list[Tensor]:
        model = self.run.network.model
        return [*model.parameters(), *model.buffers()]
