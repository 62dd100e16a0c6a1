"""The smallest sufficient area, to a relative tolerance, by a search from known masks."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from extremal.explanations.area_search import AreaSearch, OnProgress
from extremal.explanations.batches import plan_batches
from extremal.explanations.build_objective import build_objective, build_problem
from extremal.explanations.candidates import Bounds, Candidate, Rankings, build_candidates, evaluate_effects
from extremal.explanations.certificate import Certificate
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.controls import find_control_effect
from extremal.explanations.effort import EFFORTS
from extremal.explanations.explanation import Explanation
from extremal.explanations.objective import Objective
from extremal.explanations.preparation import check_result, check_same_scores, restore_network, restore_query
from extremal.explanations.settings import Settings
from extremal.explanations.unseen_effects import UnseenEffects
from extremal.explanations.validation import validate_share
from extremal.explanations.verdict import SUFFICIENT_EFFECT, Status, find_typical_effects
from extremal.masking.domain import ExactAreaFamily
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike
from extremal.masking.scaling import standardise, standardise_each
from extremal.masking.solvers.path import Path
from extremal.networks.network import Network
from extremal.networks.resolve import as_network, require_gradient
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import validate_callbacks, validate_positive
from extremal.scores import Score
from extremal.scores.target import Target, expand_inputs, find_required_layers, provide_inputs


def check_search(network: Network) -> None:
    """Raise if a network has no gradient, by which masks of smaller areas are optimised."""
    remedy = "explain more areas, or reduce the region with minimal (--minimal)"
    require_gradient(network, "the search for the smallest area", remedy)


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
    """Search for the smallest area that keeps a share of the effect, starting from the masks of an explanation.

    a* = min { a : effect of the cut mask ≥ share } (paper, section 3). The mask must also keep half of the share in the
    median under perturbations that the run did not use, as the verdict `sufficient` requires. The search begins with
    the smallest computed mask that is sufficient, or with all places if none is, and makes it smaller in steps of at
    most 20 %; if no sufficient mask is found, the step is halved, down to the tolerance. At each area, the best of
    several masks (the last one, the explanation's fields between its areas, its map) takes a few steps. For
    explanations of thorough effort, up to two more searches begin with the next larger sufficient masks, and the
    smallest area counts. The optimisation is not convex: the certificate states what was found on both sides, and does
    not prove that nothing smaller exists.

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
        share: required share of the whole effect, above 0.
        tolerance: the two areas of a certificate differ by at most this relative tolerance, or by one place; by more
            only if the search ended after 40 areas.
        game, perturbation, score: those of the explanation; required only if they were callables.
        on_progress: called before each pass with the number of passes done and their maximum; an exception that it
            raises ends the search.

    Returns:
        One certificate per input; its area is above the computed ones if none of these is sufficient. None if not even
        all places are sufficient, or if destroying the input raises the score or lowers it by too little to divide by.

    Raises:
        ExtremalValueError: the network or the settings are not those of the explanation.
    """
    validate_share(share)
    validate_positive(tolerance, "tolerance", "it is a fraction of the area, e.g. 0.02")
    validate_callbacks(on_progress=on_progress)
    check_result(explanation, Explanation)
    provenance = explanation.settings
    net = as_network(network)
    check_search(net)
    net = restore_network(net, provenance)
    within, units = explanation.allowed_places()
    settings = Settings.from_dict(
        {**provenance, "solver": Path().settings()},  # the solver is without effect: the search has its own
        {"game": game, "perturbation": perturbation, "score": score},
    ).replace(within=within, units=units)
    query = restore_query(net, explanation, target, settings.score)
    with net.frozen(settings.seed) as run:
        x = expand_inputs(explanation.inputs.to(net.anchor.device).clone(), query)
        run.undo.enter_context(provide_inputs(query, net))
        (max_rows,) = {batch.max_rows for batch in plan_batches(run, x, find_required_layers(net, query))}
        objective = build_objective(run, x, query, settings)
        check_same_scores(objective.score_input, explanation)
        reward, mirror = ChunkedReward(objective, max_rows), provenance["mirror"]
        problem = build_problem(reward, objective, mirror, settings.seed)
        family, find_unseen = problem.domain.exact_area_family(x), UnseenEffects(objective, explanation)
        candidates = _find_candidates(explanation, objective, family, share, find_unseen)
        rankings = _find_rankings(explanation, family, x)
        searches = EFFORTS[settings.effort].searches
        search = AreaSearch(
            problem, objective, candidates, share, tolerance, find_unseen, on_progress, rankings, searches
        )
        return tuple(
            None if bounds is None else _build_certificate(bounds, objective.subset(n, n + 1), settings, share)
            for n, bounds in enumerate(search.run())
        )


def _find_candidates(
    explanation: Explanation, objective: Objective, family: ExactAreaFamily, share: float, find_unseen: UnseenEffects
) -> list[list[Candidate]]:
    """Return the masks of an explanation for each input, and that of all places if none of them is sufficient."""
    cuts = family.cut(explanation.masks.to(objective.x), explanation.areas)
    effects, unseen = explanation.effects(explanation.binary_scores), explanation.unseen_effects()
    candidates = build_candidates(cuts, explanation.areas, effects, find_typical_effects(unseen))
    if not all(any(one.is_sufficient(share) for one in row) for row in candidates):
        largest = find_largest_mask(objective).expand_as(cuts[:, :1])
        area = float(largest[0].mean())
        added = build_candidates(largest, (area,), evaluate_effects(objective, largest), find_unseen(largest))
        candidates = [[*row, *more] for row, more in zip(candidates, added, strict=True)]
    if objective.domain.units is not None:
        candidates = [[one.with_coverage() for one in row] for row in candidates]
    is_broken = ~effects.isfinite().all(1) | torch.tensor([Status.NOT_FINITE in row for row in explanation.status])
    has_no_share = is_broken | ~explanation.has_effect()
    return [
        [replace(one, effect=-math.inf) for one in row] if is_excluded else row
        for row, is_excluded in zip(candidates, has_no_share.tolist(), strict=True)
    ]


def _build_certificate(bounds: Bounds, objective: Objective, settings: Settings, share: float) -> Certificate:
    """Return the certificate of one input, and score random masks of its area."""
    upper, lower = bounds.sufficient, bounds.insufficient
    return Certificate(
        area=upper.area,
        mask=upper.mask.cpu(),
        effect=upper.effect,
        below_area=lower.area if lower else 0.0,
        below_effect=lower.effect if lower else math.nan,
        share=share,
        unseen_effect=upper.unseen,
        below_unseen_effect=lower.unseen if lower else math.nan,
        control_effect=find_control_effect(objective, upper.area, EFFORTS[settings.effort], settings.seed),
    )


def find_largest_mask(objective: Objective) -> Tensor:
    """Return the mask of all places where masks are allowed: (1, 1, 1, *S)."""
    domain, x = objective.domain, objective.x
    mask = x.new_ones(domain.shape) if domain.within is None else domain.within.to(x)
    if domain.units is not None:
        mask = mask * (domain.units >= 0)
    return mask.view(1, 1, 1, *domain.shape)


def _find_rankings(explanation: Explanation, family: ExactAreaFamily, like: Tensor) -> Rankings:
    """Return the map of an explanation, and its fields if their lattice is this family's; others are left out."""
    fields = explanation.fields
    if fields is not None and tuple(fields.shape[3:]) != family.parameter_shape:
        fields = None
    standardised = None if fields is None else standardise_each(fields.to(like))
    saliency = standardise(family.fit(explanation.saliency().to(like)))
    return Rankings(saliency, explanation.areas, standardised)
