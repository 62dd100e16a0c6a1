"""Search for the smallest sufficient area, from a sufficient mask down in steps that become smaller."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from extremal.explanations.candidates import Bounds, Candidate, Rankings, evaluate_effects, list_bounds
from extremal.explanations.objective import Objective
from extremal.masking.device_tensors import copy_to, select_columns
from extremal.masking.domain import evaluate_masks
from extremal.masking.scaling import standardise_each
from extremal.masking.solvers.consensus import Consensus
from extremal.masking.solvers.consensus_run import Ascent, ConsensusRun
from extremal.masking.solvers.problem import Problem, Recorder

MAX_AREAS = 40  # tried for an input
MAX_STARTS = 4  # fields compared at each of them, the last one's among them; the best is optimised if none is enough
STEPS_PER_AREA = 4  # of the best field, at most; each asks every way
RATE = 0.35  # of such a step, in deviations of the direction
FIRST_STEP = 0.1  # of the logarithm of the area, at most
LARGEST_STEP = 0.2  # after areas for which the field needed no step
TEMPERATURE = 0.1  # of the level, in deviations of the field

OnProgress = Callable[[int, int], None]  # passes done, and at most in all
FindUnseen = Callable[[Tensor], Tensor]  # cut masks (N, K, 1, *S) -> typical effects under unseen perturbations (N, K)


class AreaSearch:
    """Search for the smallest sufficient area of each input, all inputs in one batch.

    The field of a sufficient mask is cut at a slightly smaller area. If that mask is not sufficient, other fields are
    tried, and the best takes a few steps. The steps of the area become larger while the field needs none, and are
    halved where no sufficient mask is found, down to the tolerance or to one place.

    Args:
        problem, objective: that were solved.
        candidates: of each input, by rising area.
        share: required share of the whole effect.
        tolerance: relative difference of the last areas.
        find_unseen: called with masks that have the share; None: the effect alone decides.
        on_progress: called before each pass.
        rankings: further orders of places to start from; None: the masks on both sides alone.
        searches: of each input, at most; each begins with another sufficient candidate, and the smallest mask counts.
    """

    def __init__(
        self,
        problem: Problem,
        objective: Objective,
        candidates: Sequence[Sequence[Candidate]],
        share: float,
        tolerance: float,
        find_unseen: FindUnseen | None = None,
        on_progress: OnProgress | None = None,
        rankings: Rankings | None = None,
        searches: int = 1,
    ) -> None:
        self.problem, self.objective, self.share, self.rankings = problem, objective, share, rankings
        self._find_unseen, self._on_progress, self._passes = find_unseen, on_progress, 0
        self.total, self._has_units = problem.domain.n_places, problem.domain.units is not None
        self.family = problem.domain.exact_area_family(problem.like)
        self._run = ConsensusRun(Consensus(), problem, None, self.family, (), Recorder(problem, 0, None))
        self._last_step = math.log1p(tolerance)
        self._initial = [list_bounds(row, share)[:searches] for row in candidates]  # of each search
        self._max_searches = max(map(len, self._initial))
        # Of each input, in the current search:
        self.sufficient, self.insufficient = [row[-1] for row in candidates], list[Candidate | None]()
        self.is_open, self._steps = list[bool](), list[float]()  # the latter of the logarithm of the area

    def run(self) -> tuple[Bounds | None, ...]:
        """Search, and return both sides of each input; None for inputs without a sufficient mask.

        The areas of both sides differ by at most the tolerance or a place, if `MAX_AREAS` are enough for that.
        """
        found = [list[Bounds]() for _ in self._initial]
        for k in range(self._max_searches):
            self._begin(k)
            for _ in range(MAX_AREAS):
                if not any(self.is_open):
                    break
                self.step()
            for n, initial in enumerate(self._initial):
                if k < len(initial):
                    found[n].append(self._find_bounds(n))
        return tuple(min(bounds, key=lambda one: one.sufficient.area, default=None) for bounds in found)

    def _begin(self, k: int) -> None:
        """Begin the search k of each input; those that have none are closed."""
        count = self.problem.count
        self.insufficient, self.is_open = [None] * count, [False] * count
        self._steps = [first_step(self._last_step)] * count
        for n, initial in enumerate(self._initial):
            if k < len(initial):
                self.sufficient[n], self.insufficient[n] = initial[k].sufficient, initial[k].insufficient
                self.is_open[n] = self._count(self.sufficient[n]) - self._count(self.insufficient[n]) > 1

    def _find_bounds(self, n: int) -> Bounds:
        """Return both sides of an input in the current search; a larger area that was insufficient says nothing."""
        upper, lower = self.sufficient[n], self.insufficient[n]
        return Bounds(upper, lower if lower and lower.area < upper.area else None)

    def step(self) -> None:
        """Try a smaller area of each input."""
        areas = [self._next_area(n) for n in range(self.problem.count)]
        means = copy_to(torch.tensor(areas, dtype=self.problem.dtype).unsqueeze(1), self.problem.like)  # (N, 1)
        own = [self._find_field(one) for one in self.sufficient]
        untried = [
            Candidate(area, upper.mask, field=field)
            for area, upper, field in zip(areas, self.sufficient, own, strict=True)
        ]
        trials, is_known = untried, [one.field is not None for one in self.sufficient]
        if any(known and is_open for known, is_open in zip(is_known, self.is_open, strict=True)):
            tried = self._try(untried, torch.stack(own).unsqueeze(1), means)
            trials = [tried[n] if known else untried[n] for n, known in enumerate(is_known)]
        needs_steps = [not trial.is_sufficient(self.share) for trial in trials]
        if not self._is_done(trials):
            trials = self._try(trials, self._find_starts(areas), means)
        if not self._is_done(trials):
            trials = self._optimise(trials, means)
        for n, trial in enumerate(trials):
            if self.is_open[n]:
                self._move(n, trial, needs_steps=needs_steps[n])

    def _next_area(self, n: int) -> float:
        """Return the area of an input that is smaller by its step, or by a place, as a whole number of places."""
        area = self.sufficient[n].area
        smaller = round(area * math.exp(-self._steps[n]) * self.total)
        return max(1, min(smaller, self._count(self.sufficient[n]) - 1)) / self.total

    def _count(self, candidate: Candidate | None) -> int:
        return round(candidate.area * self.total) if candidate else 0

    def _find_field(self, candidate: Candidate) -> Tensor:
        return self.family.fit(candidate.mask.unsqueeze(0))[0] if candidate.field is None else candidate.field

    def _find_starts(self, areas: Sequence[float]) -> Tensor:
        """Return fields (N, K, 1, *lattice) to start from."""
        pairs = zip(self.sufficient, self.insufficient, strict=True)
        masks = [upper.mask + lower.mask if lower else upper.mask for upper, lower in pairs]  # first what is in both
        starts = [self.family.fit(torch.stack(masks))]  # of (N, 1, *S)
        if self.rankings is not None:
            starts += self.rankings.find_starts(areas)
        return torch.stack(starts, 1)

    def _is_done(self, trials: Sequence[Candidate]) -> bool:
        """Return whether no input needs another trial of its area."""
        return all(
            trial.is_sufficient(self.share) or not is_open for trial, is_open in zip(trials, self.is_open, strict=True)
        )

    def _optimise(self, trials: list[Candidate], means: Tensor) -> list[Candidate]:
        """Take steps from the fields of the trials until all are sufficient; return the best of each input.

        Args:
            trials: of each input.
            means: (N, 1) their areas.
        """
        start = torch.stack([self._find_field(trial) for trial in trials]).unsqueeze(1)
        ascent = Ascent(self._run, self.problem, standardise_each(start), RATE)
        for _ in range(STEPS_PER_AREA):
            ascent.step(means)
            trials = self._try(trials, ascent.field, means)
            if self._is_done(trials):
                break
        return trials

    @torch.no_grad()
    def _try(self, trials: Sequence[Candidate], fields: Tensor, means: Tensor) -> list[Candidate]:
        """Cut the masks of fields at the areas of the trials; return the best mask of each input.

        Trials that are sufficient stay, so that no input depends on the others of its batch.

        Args:
            trials: of each input.
            fields: (N, K, 1, *lattice).
            means: (N, 1) areas of the trials.
        """
        self._report_pass()
        masks = evaluate_masks(self.family, fields, means, TEMPERATURE)
        columns = masks.shape[1]
        cuts = torch.cat([self.family.cut(masks[n : n + 1], (one.area,) * columns) for n, one in enumerate(trials)])
        effects = evaluate_effects(self.objective, cuts)
        unseen = self._evaluate_unseen(cuts, effects)
        best = []
        for trial, *rows in zip(trials, cuts, effects.tolist(), unseen.tolist(), fields, strict=True):
            found = (
                [] if trial.is_sufficient(self.share) else [Candidate(trial.area, *v) for v in zip(*rows, strict=True)]
            )
            best.append(max([trial, *found], key=lambda one: one.order(self.share)))
        return best

    def _evaluate_unseen(self, cuts: Tensor, effects: Tensor) -> Tensor:
        """Return the typical effects (N, K) under unseen perturbations where an input's effect has the share."""
        unseen = torch.full_like(effects, math.nan)
        columns = (effects >= self.share).any(0).nonzero()[:, 0]
        if self._find_unseen is not None and len(columns):
            unseen[:, columns] = self._find_unseen(select_columns(cuts, columns.tolist())).to(unseen)
        return unseen

    def _move(self, n: int, trial: Candidate, *, needs_steps: bool) -> None:
        """Take the trial of an input as its new mask if it is sufficient; otherwise halve its step, or end."""
        trial = trial.with_coverage() if self._has_units else trial
        if trial.is_sufficient(self.share):
            is_last = self._count(trial) == 1
            self.sufficient[n] = trial
            if not needs_steps and 2 * self._steps[n] <= LARGEST_STEP:
                self._steps[n] *= 2
        else:
            is_last = self._steps[n] <= self._last_step or self._count(self.sufficient[n]) - self._count(trial) == 1
            if trial.area < self.sufficient[n].area:
                self.insufficient[n] = trial
            self._steps[n] = max(self._steps[n] / 2, self._last_step)
        self.is_open[n] = not is_last

    def _report_pass(self) -> None:
        if self._on_progress is not None:
            self._on_progress(self._passes, self._max_searches * MAX_AREAS * (2 + STEPS_PER_AREA))
        self._passes += 1


def first_step(last_step: float) -> float:
    """Return the first step of the logarithm of the area; halved some times, it is the last one.

    >>> round(first_step(0.02), 3), round(first_step(0.3), 3), first_step(0.0)
    (0.08, 0.3, 0.1)
    """
    if not 0 < last_step < FIRST_STEP:
        return max(last_step, FIRST_STEP)
    return last_step * 2.0 ** math.floor(math.log2(FIRST_STEP / last_step))
