"""The smallest sufficient area, to a relative tolerance, by bisection between known masks."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from extremal.explanations.batches import plan_batches
from extremal.explanations.build_objective import build_objective, build_problem
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Objective
from extremal.explanations.preparation import check_result, check_same_scores, restore_network, restore_query
from extremal.explanations.settings import Settings
from extremal.explanations.validation import validate_share
from extremal.explanations.verdict import MIN_SPAN, SUFFICIENT_EFFECT, Status, compute_effects
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike
from extremal.masking.solvers.path import Descent, Path, masks_at_areas
from extremal.masking.solvers.problem import Problem
from extremal.networks.network import Network
from extremal.networks.resolve import as_network, require_gradient
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_positive
from extremal.scores import Score
from extremal.scores.target import Target, expand_inputs, find_required_layers, provide_inputs

STEPS_PER_AREA = 6  # at most, for each area that is tried
TEMPERATURE = 0.1  # of the level, in deviations of the field
LEARNING_RATE = 0.06  # Adam's, as in the polish of `path`
SEARCH_FACTOR = 8.0  # how far to search below the smallest computed area if that is already sufficient

OnProgress = Callable[[int, int], None]  # passes done, and at most in all


@dataclass(frozen=True, eq=False)
class Certificate:
    """The smallest area found sufficient for one input, and the largest area below it found insufficient."""

    area: float  # share of places
    mask: Tensor  # (1, *S) of zeros and ones, exactly this area
    effect: float  # of this mask, at least the share
    below_area: float  # tried and insufficient; 0 if everything that was tried is sufficient
    below_effect: float  # of the best mask found there; NaN if there is none
    share: float  # required share of the whole effect


def check_bisection(network: Network) -> None:
    """Raise if a network has no gradient, by which the areas between are optimised."""
    remedy = "explain more areas, or reduce the region with minimal (--minimal)"
    require_gradient(network, "the bisection for the smallest area", remedy)


@in_standard_modes
def smallest_area(
    network: Network | nn.Module | str,
    explanation: Explanation,
    target: Target = None,
    *,
    share: float = SUFFICIENT_EFFECT,
    tolerance: float = 0.02,
    game: str | Game | Reward | None = None,
    perturbation: PerturbationLike | None = None,
    score: str | Score | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Certificate | None, ...]:
    """Bisect between the masks of an explanation for the smallest area that keeps a share of the effect.

    a* = min { a : effect of the cut mask ≥ share } (paper, section 3), between the smallest computed area that is
    sufficient and the largest below it that is not; if none is, between the largest and all places. Each area tried
    starts from the masks on both sides and takes a few steps. The optimisation is not convex: the certificate states
    what was found on both sides, and does not prove that nothing smaller exists.

    >>> _ = torch.manual_seed(0)
    >>> from extremal import explain
    >>> class Middle(nn.Module):
    ...     def forward(self, x):
    ...         return x[:, :, 8:16, 8:16].mean((1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]])
    >>> x = torch.rand(1, 3, 32, 32)
    >>> found = explain(Middle(), x, 0, areas=(0.05, 0.2), perturbation="fade", score="logit")
    >>> (certificate,) = smallest_area(Middle(), found)
    >>> certificate.below_area < certificate.area <= 0.2, certificate.effect >= 0.9
    (True, True)

    Args:
        network: the one that was explained.
        explanation: a result of `explain`, of N inputs.
        target: the target of the explanation, if it was not a class.
        share: of the whole effect, in (0, ...).
        tolerance: the two areas of a certificate differ by at most this relative tolerance, or by one place.
        game, perturbation, score: those of the explanation; required only if they were callables.
        on_progress: called before each pass with the number of passes done and their maximum; what it raises ends the
            search.

    Returns:
        One certificate per input, of an area above the computed ones if none of these is sufficient; None if not even
        all places are, or the whole effect is too small to divide by.

    Raises:
        ExtremalValueError: the network or the settings are not those of the explanation.
    """
    validate_share(share)
    validate_positive(tolerance, "tolerance", "it is a fraction of the area, e.g. 0.02")
    check_result(explanation, Explanation)
    provenance = explanation.settings
    net = as_network(network)
    check_bisection(net)
    net = restore_network(net, provenance)
    settings = Settings.from_dict(
        {**provenance, "solver": Path().settings()},  # the solver is without effect: the bisection descends by itself
        {"game": game, "perturbation": perturbation, "score": score},
    ).replace(within=explanation.within, units=explanation.units)
    query = restore_query(net, explanation, target, settings.score)
    with net.frozen(settings.seed) as run:
        x = expand_inputs(explanation.inputs.to(net.anchor.device).clone(), query)
        run.undo.enter_context(provide_inputs(query, net))
        (max_rows,) = {batch.max_rows for batch in plan_batches(run, x, find_required_layers(net, query))}
        objective = build_objective(run, x, query, settings)
        check_same_scores(objective.score_input, explanation)
        reward, mirror = ChunkedReward(objective, max_rows), provenance["mirror"]
        problem = build_problem(reward, objective, mirror, settings.seed)
        masks, effects = explanation.masks.to(x), explanation.effects(explanation.binary_scores)
        is_broken = ~effects.isfinite().all(1)
        is_broken |= torch.tensor([Status.NOT_FINITE in row for row in explanation.status])
        is_meaningless = (explanation.largest_effects() > 1 / MIN_SPAN) | is_broken
        effects = effects.masked_fill(is_meaningless.unsqueeze(1), -math.inf)
        areas = explanation.areas
        if not bool((effects >= share).any(1).all()):  # continue above the computed areas, up to all places
            largest = find_largest_mask(objective).expand_as(masks[:, :1])
            effect = evaluate_effects(objective, largest).masked_fill(is_meaningless.unsqueeze(1), -math.inf)
            areas = (*areas, float(largest[0].mean()))
            masks, effects = torch.cat([masks, largest], 1), torch.cat([effects, effect.to(effects)], 1)
        bisection = Bisection(problem, objective, masks, areas, effects, share, on_progress)
        return bisection.run(tolerance)


def find_largest_mask(objective: Objective) -> Tensor:
    """Return the mask of all places where masks are allowed: (1, 1, 1, *S)."""
    domain, x = objective.domain, objective.x
    mask = x.new_ones(domain.shape)
    if domain.within is not None:
        mask = domain.within.to(x)
    elif domain.units is not None:
        mask = (domain.units >= 0).to(x)
    return mask.view(1, 1, 1, *domain.shape)


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
    ) -> None:
        self.problem, self.objective, self.share = problem, objective, share
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
        pairs = zip(self.sufficient, self.insufficient, strict=True)
        start = self.family.fit(torch.stack([upper[2] + lower[2] for upper, lower in pairs]))  # of (N, 1, *S)
        areas = torch.tensor(middle, dtype=start.dtype, device=start.device).unsqueeze(1)  # (N, 1)
        descent = Descent(self.problem, self.family, start.unsqueeze(1), LEARNING_RATE)
        best = [(area, -math.inf, mask[2]) for area, mask in zip(middle, self.sufficient, strict=True)]
        for index in range(STEPS_PER_AREA + 1):
            self._report_pass()
            masks = masks_at_areas(self.family, descent.parameters.detach(), areas, TEMPERATURE)[:, 0]
            cut_masks = [self.family.cut(masks[n : n + 1, None], (area,)) for n, area in enumerate(middle)]
            cuts = torch.cat(cut_masks)[:, 0]  # (N, 1, *S)
            for n, effect in enumerate(self._effects(cuts)):
                if effect > best[n][1]:
                    best[n] = (middle[n], effect, cuts[n])
            done = all(effect >= self.share or not self._is_open(n) for n, (_, effect, _) in enumerate(best))
            if done or index == STEPS_PER_AREA:
                break
            descent.step(areas, TEMPERATURE)
        for n, candidate in enumerate(best):
            if self._is_open(n):
                side = self.sufficient if candidate[1] >= self.share else self.insufficient
                side[n] = candidate

    def _report_pass(self) -> None:
        if self._on_progress is not None:
            self._on_progress(min(self._passes, self._max_passes), self._max_passes)
        self._passes += 1

    def _effects(self, cuts: Tensor) -> list[float]:
        """Return the effects (N,) of cut masks (N, 1, *S)."""
        effects: list[float] = evaluate_effects(self.objective, cuts.unsqueeze(1))[:, 0].tolist()
        return effects

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
