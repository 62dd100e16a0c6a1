"""`minimal`: reduce a sufficient region, or a sufficient set of channels, until it cannot lose a piece."""

import math
import warnings
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations.batches import plan_batches
from extremal.explanations.build_objective import build_objective
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.explanation import Explanation
from extremal.explanations.minimal_region import MinimalRegion
from extremal.explanations.objective import Objective
from extremal.explanations.piece_removal import Judgement, OnEvaluations, PieceRemoval, Reduced, SufficiencyTest, Way
from extremal.explanations.preparation import check_result, check_same_scores, restore_network, restore_query
from extremal.explanations.settings import Settings
from extremal.explanations.unseen_effects import restore_unseen
from extremal.explanations.validation import validate_share
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.masking.domain import Domain
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import PerturbationLike, ScaleChannels, prepare_perturbation
from extremal.masking.pieces import connected_parts, divide, group_places, halve
from extremal.masking.solvers.path import Path
from extremal.networks.network import Network
from extremal.networks.run import Run
from extremal.networks.split import split
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import format_value, is_number, is_whole, validate_callbacks
from extremal.scores import Score
from extremal.scores.query import Query
from extremal.scores.target import Target, expand_inputs, find_required_layers, provide_inputs, select_inputs

BUDGET = 1000  # evaluations for each input
SMALLEST_PIECE = 1 / 256  # of all places: 14 × 14 px at 224 px, about a step of the lattice of masks
LARGEST_PART = 1 / 8  # of the region: larger connected parts are halved before the first round


@in_standard_modes
def minimal(
    network: Network | nn.Module | str,
    explanation: Explanation | ChannelExplanation,
    target: Target = None,
    *,
    share: float | None = None,
    budget: int = BUDGET,
    smallest_piece: float = SMALLEST_PIECE,
    game: str | Game | Reward | None = None,
    perturbation: PerturbationLike | None = None,
    score: str | Score | None = None,
    on_evaluations: OnEvaluations | None = None,
) -> tuple[MinimalRegion | None, ...]:
    """Remove pieces from the smallest sufficient mask while the rest stays sufficient (delta debugging).

    The mask is cut into its connected parts, and large parts into halves. Pieces are removed until no single one can go
    (Zeller and Hildebrandt, 2002: 1-minimal), then halved, down to the smallest size or until the budget ends. The
    rest must keep the share of the effect under every perturbation that the run used, and half of this share in the
    median under those that it did not use. For the delete game, pieces are put back as long as removing the rest
    suffices. Sets of channels are halved down to single channels; if units were given, they are the pieces.

    A region from which no piece can go need not be the smallest one, nor the only one.

    >>> _ = torch.manual_seed(0)
    >>> from extremal import explain
    >>> class Middle(nn.Module):
    ...     def forward(self, x):
    ...         return x[:, :, 8:16, 8:16].mean((1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]])
    >>> x = torch.rand(1, 3, 32, 32)
    >>> found = explain(Middle(), x, 0, areas=(0.05, 0.2), perturbation="fade", score="logit")
    >>> (region,) = minimal(Middle(), found)
    >>> region.is_minimal, region.effect >= 0.9, region.area < 0.1
    (True, True, True)

    Args:
        network: the one that was explained.
        explanation: a result of `explain` or `explain_channels`, of N inputs, or one of its alternatives.
        target: the target of the explanation, if it was not a class.
        share: required share of the whole effect, above 0; None: 0.9, or that of an explanation of channels.
        budget: largest number of evaluations for each input, at least 1.
        smallest_piece: share of places of the smallest halves, in (0, 1]; without effect on channels.
        game, perturbation, score: those of the explanation; required only if they were callables.
        on_evaluations: called with the number of evaluations done and the budget.

    Returns:
        One region per input; None if none of its computed areas, or sets, is sufficient under all perturbations. With
        several inputs, also None, with a warning, if the budget ends before a sufficient region is found.

    Raises:
        ExtremalValueError: the network or the settings are not those of the explanation, an option breaks its rule, or
            the budget ends before a sufficient region of the only input is found.
    """
    validate_callbacks(on_evaluations=on_evaluations)
    check_result(explanation, Explanation, ChannelExplanation)
    is_channels = isinstance(explanation, ChannelExplanation)
    if share is None:
        share = explanation.share if isinstance(explanation, ChannelExplanation) else SUFFICIENT_EFFECT
    _check_options(share, budget, smallest_piece)
    net = restore_network(network, explanation.settings)
    settings = _restore_settings(explanation, game, perturbation, score)
    query = restore_query(net, explanation, target, settings.score)
    regions: list[MinimalRegion | None] = []
    with net.frozen(settings.seed) as run:
        x = expand_inputs(explanation.inputs.to(net.anchor.device).clone(), query)
        run.undo.enter_context(provide_inputs(query, net))
        layer = explanation.layer if isinstance(explanation, ChannelExplanation) else None
        for objective, max_rows in _single_objectives(run, x, query, settings, layer):
            n = len(regions)
            check_same_scores(objective.score_input, explanation, n)
            unseen = [] if isinstance(explanation, ChannelExplanation) else _unseen_ways(objective, explanation, n)
            test = SufficiencyTest(
                _used_ways(objective),
                unseen,
                objective.game,
                objective.score_input[0],
                objective.mask_shape,
                share,
                max_rows,
                budget,
                on_evaluations,
            )
            least = 1 if is_channels else max(1, round(smallest_piece * objective.domain.n_places))
            try:
                regions.append(_reduce(test, _starting_masks(explanation, share, n), objective.domain, least))
            except _BudgetError as error:
                if len(x) == 1:
                    raise
                warnings.warn(f"input {n} has no region: {error}", RuntimeWarning, stacklevel=3)
                regions.append(None)
    return tuple(regions)


class _BudgetError(ExtremalValueError):
    """A budget ends before one of the computed regions is found sufficient."""


def _check_options(share: float, budget: int, smallest_piece: float) -> None:
    validate_share(share)
    if not is_whole(budget) or budget < 1:
        raise ExtremalValueError(f"budget must be at least 1 evaluation, got {format_value(budget)}; e.g. {BUDGET}")
    if not is_number(smallest_piece) or not 0 < smallest_piece <= 1:
        raise ExtremalValueError(
            f"smallest_piece must lie in (0, 1], got {format_value(smallest_piece)}; it is a share of all "
            "places, e.g. 1/256"
        )


def _restore_settings(
    explanation: Explanation | ChannelExplanation,
    game: str | Game | Reward | None,
    perturbation: PerturbationLike | None,
    score: str | Score | None,
) -> Settings:
    """Return the settings of a run; its solver is replaced, as none will run."""
    values = {**explanation.settings, "solver": Path().settings()}
    if isinstance(explanation, ChannelExplanation):
        return Settings.from_dict(
            values, {"game": game, "perturbation": ScaleChannels(explanation.axis), "score": score}
        )
    options = {"game": game, "perturbation": perturbation, "score": score}
    within, units = explanation.allowed_places()
    return Settings.from_dict(values, options).replace(within=within, units=units)


def _single_objectives(
    run: Run, x: Tensor, query: Query, settings: Settings, layer: str | None
) -> Iterator[tuple[Objective, int]]:
    """Yield the objective of each input by itself, and the rows of the network that fit into memory at once.

    Args:
        run: the frozen network.
        x: (N, C, *S) inputs.
        query: about all of them.
        settings: of the run.
        layer: whose channels are masked; None: places of the inputs are.
    """
    layers = () if layer is None else (layer,)
    for batch in plan_batches(run, x, (*find_required_layers(run.network, query), *layers)):
        inputs, batch_query = x[batch.inputs], select_inputs(query, batch.inputs)
        if layer is None:
            objective, max_rows = build_objective(run, inputs, batch_query, settings), batch.max_rows
        else:
            part = split(run, layer, inputs)
            max_rows = part.max_batch_size()
            objective = build_objective(part, part.activations, batch_query, settings)
        for n in range(len(inputs)):
            yield objective.subset(n, n + 1), max_rows


def _used_ways(objective: Objective) -> list[Way]:
    """Return the perturbations that the run of one input used."""
    ways = objective.ways
    return [
        Way(name, objective.evaluator(perturb), destroyed)
        for name, perturb, destroyed, counts in zip(
            ways.names, ways.perturbs, ways.destroyed[0], ways.counts[0].tolist(), strict=True
        )
        if counts
    ]


def _unseen_ways(objective: Objective, explanation: Explanation, image: int) -> list[Way]:
    """Return the perturbations that the run of one input did not use, and that are informative."""
    perturbations = restore_unseen(objective, explanation)
    is_informative = ~explanation.unseen_effects()[image].isnan().all(0)  # (P,)
    return [
        Way(name, objective.evaluator(prepare_perturbation(perturbation, objective.x)), blank.to(objective.x))
        for (name, perturbation), blank, informative in zip(
            perturbations.items(), explanation.unseen_blank[image], is_informative.tolist(), strict=True
        )
        if informative
    ]


def _starting_masks(explanation: Explanation | ChannelExplanation, share: float, image: int) -> Iterator[Tensor]:
    """Yield the masks (*S) of one input that may be sufficient, the smallest first."""
    if not explanation.has_effect()[image]:
        return
    if isinstance(explanation, ChannelExplanation):
        found = explanation.smallest_mask[image]
        yield found
        yield from (explanation.binary(count)[image] for count in explanation.counts if count > int(found.sum()))
        if not bool(found.all()):
            yield torch.ones_like(found)
        return
    smallest = explanation.smallest(share, image)
    for area in explanation.areas:
        if smallest is not None and area >= smallest.area:
            yield explanation.binary(area)[image, 0]


def _reduce(test: SufficiencyTest, masks: Iterator[Tensor], domain: Domain, least: int) -> MinimalRegion | None:
    """Reduce the first of some masks that is sufficient; return None if none is.

    Args:
        test: of regions of one input.
        masks: (*S) of zeros and ones.
        domain: of the masks.
        least: number of places of the smallest halves.

    Raises:
        _BudgetError: the budget ends before one is found sufficient.
    """
    for mask in masks:
        region = mask.flatten().nonzero()[:, 0]
        judged = test.judge([region])
        if judged is None:
            raise _BudgetError(
                "budget must suffice to judge the computed regions until one is sufficient, at "
                f"{len(test.used) + len(test.unseen)} evaluations each, got {test.budget}; e.g. {BUDGET}"
            )
        if test.is_sufficient(judged[0]):
            removal = PieceRemoval(test, _cut_into_pieces(mask, domain, least), judged[0])
            reduced = removal.run(partial(_halve_all, domain=domain, least=least))
            return _build_region(reduced, test, len(region) / domain.n_places)
    return None


def _cut_into_pieces(mask: Tensor, domain: Domain, least: int) -> list[Tensor]:
    """Cut a mask (*S) into its units, halves of its channels, or connected parts and halves of these."""
    if domain.units is not None:
        return group_places(domain.units.cpu().masked_fill(mask == 0, -1))
    region = mask.flatten().nonzero()[:, 0]
    parts = connected_parts(mask) if domain.has_neighbours else [region]
    largest = max(1, int(LARGEST_PART * len(region)))
    return divide(parts, domain.shape, largest, least, domain.spacing)


def _halve_all(pieces: list[Tensor], *, domain: Domain, least: int) -> list[Tensor]:
    """Halve each piece if both halves have enough places; units are not halved."""
    if domain.units is not None:
        return pieces
    return [half for piece in pieces for half in halve(piece, domain.shape, least, domain.spacing)]


def _build_region(reduced: Reduced, test: SufficiencyTest, start_area: float) -> MinimalRegion:
    labels = torch.zeros(test.shape, dtype=torch.int64).flatten()
    for number, piece in enumerate(reduced.pieces, start=1):
        labels[piece] = number
    pieces = labels.view(test.shape)
    mask = (pieces > 0).to(test.score_input.dtype).unsqueeze(0)
    known = [Judgement((math.nan,), None) if one is None else one for one in reduced.without]
    return MinimalRegion(
        mask=mask,
        area=float(mask.double().mean()),
        effects={way.name: effect for way, effect in zip(test.used, reduced.judgement.effects, strict=True)},
        unseen_effect=reduced.judgement.unseen,
        pieces=pieces,
        without=tuple(one.effect for one in known),
        unseen_without=tuple(math.nan if one.unseen is None else one.unseen for one in known),
        is_minimal=reduced.is_minimal,
        is_finest=reduced.is_finest,
        evaluations=test.evaluations,
        budget=test.budget,
        start_area=start_area,
        share=test.share,
    )
