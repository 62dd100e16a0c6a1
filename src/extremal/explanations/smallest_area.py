"""The smallest sufficient area, to a relative tolerance, by bisection between known masks."""

import math

import torch
from torch import Tensor, nn

from extremal.explanations.batches import plan_batches
from extremal.explanations.bisection import Bisection, Certificate, OnProgress, Rankings, evaluate_effects
from extremal.explanations.build_objective import build_objective, build_problem
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Objective
from extremal.explanations.preparation import check_result, check_same_scores, restore_network, restore_query
from extremal.explanations.settings import Settings
from extremal.explanations.validation import validate_share
from extremal.explanations.verdict import MIN_SPAN, SUFFICIENT_EFFECT, Status
from extremal.masking.domain import ExactAreaFamily
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike
from extremal.masking.scaling import standardise, standardise_each
from extremal.masking.solvers.path import Path
from extremal.networks.network import Network
from extremal.networks.resolve import as_network, require_gradient
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_positive
from extremal.scores import Score
from extremal.scores.target import Target, expand_inputs, find_required_layers, provide_inputs


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
    starts from the best of several masks (those on both sides, the larger one alone, the explanation's fields between
    its areas, its map) and takes a few steps. The optimisation is not convex: the certificate states what was found on
    both sides, and does not prove that nothing smaller exists.

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
        rankings = _find_rankings(explanation, problem.domain.exact_area_family(x), x)
        bisection = Bisection(problem, objective, masks, areas, effects, share, on_progress, rankings)
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


def _find_rankings(explanation: Explanation, family: ExactAreaFamily, like: Tensor) -> Rankings:
    """Return the map of an explanation, and its fields if their lattice is this family's; others are left out."""
    fields = explanation.fields
    if fields is not None and tuple(fields.shape[3:]) != family.parameter_shape:
        fields = None
    standardised = None if fields is None else standardise_each(fields.to(like))
    saliency = standardise(family.fit(explanation.saliency().to(like)))
    return Rankings(saliency, explanation.areas, standardised)
