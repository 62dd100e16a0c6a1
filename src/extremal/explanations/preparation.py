"""Prepare what a user passes: network, inputs and query, checked against the settings."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.batches import Batch, plan_batches
from extremal.explanations.build_objective import build_objective
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.objective import Objective
from extremal.explanations.settings import Settings, validate_domain
from extremal.masking.perturbations import mask_shape, split_ways
from extremal.masking.solvers import SOLVERS, Solver, uses_gradients
from extremal.networks.attribution_layers import AttributionLayer, find_map_layers
from extremal.networks.inputs import ImagesLike, describe_stack, prepare, read_stacks, take_spacing
from extremal.networks.memory import RowLimit, is_out_of_memory
from extremal.networks.network import Network
from extremal.networks.resolve import as_network, require_gradient
from extremal.networks.run import Run
from extremal.networks.turns import exclusive
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import Score
from extremal.scores.query import Query
from extremal.scores.target import (
    Target,
    check_target_count,
    count_targets,
    expand_inputs,
    find_required_layers,
    is_mirror_invariant,
    parse_target,
    provide_inputs,
    select_inputs,
    settle_query,
)

if TYPE_CHECKING:
    from extremal.explanations.channels.explanation import ChannelExplanation
    from extremal.explanations.explanation import Explanation

MAX_SCORE_DIFFERENCE = 0.05  # of a score and of the whole effect, between devices and precisions
MIN_SCORE_DIFFERENCE = 1e-6


@dataclass(frozen=True, eq=False)
class PreparedRun:
    """A network, its inputs, and what is asked about them."""

    net: Network
    x: Tensor  # (N, C, *S)
    query: Query
    mirror: bool  # the mirrored inputs ask the same question
    provenance: dict[str, Any]  # the settings that the result stores

    def build_objectives(
        self, run: Run, settings: Settings, *, for_solver: bool = True
    ) -> Iterator[tuple[Batch, Objective, Evaluations]]:
        """Yield batches that fit the network's memory, each with its objective and what preparing it cost.

        Args:
            run: the frozen network.
            settings: of the run.
            for_solver: whether a solver will run; if so, the layers that it reads are found.
        """
        if for_solver and uses_gradients(settings.solver):
            require_gradient(self.net, f"the solver {settings.solver.name}", "pass solver='search', or --solver search")
        run.undo.enter_context(provide_inputs(self.query, self.net))
        x = self.x.clone()  # a clone made here may be saved for backward in any mode of the caller
        with run.counted() as accelerating:
            layers = find_layers(run, x, settings) if for_solver else ()
            required = find_required_layers(self.net, self.query)
            batches = plan_batches(run, x, [*required, *(layer.name for layer in layers)])
        pending, costs = deque(batches), [accelerating]  # which belong to the first batch
        while pending:
            batch = pending.popleft()
            try:
                with run.counted() as setup:
                    query, limit = select_inputs(self.query, batch.inputs), RowLimit()
                    if batch.max_rows < len(split_ways(settings.perturbation)):  # of large inputs
                        limit.rows = batch.max_rows
                    objective = build_objective(run, x[batch.inputs], query, settings, layers, limit)
            except (RuntimeError, MemoryError) as error:
                if batch.size == 1 or not is_out_of_memory(error):
                    raise
                pending.extendleft(reversed(batch.halve()))
                continue
            yield batch, objective, Evaluations.of_setup([setup, *costs])
            costs = []


def find_layers(run: Run, x: Tensor, settings: Settings) -> tuple[AttributionLayer, ...]:
    """Return the layers whose maps the solver starts from; none if it uses none, or places have no neighbours.

    Costs one evaluation of the first input, or two; the network must not be accelerated yet.
    """
    has_neighbours = settings.domain(run.network, x).has_neighbours
    return find_map_layers(run, x) if has_neighbours and getattr(settings.solver, "uses_layer_maps", False) else ()


def check_result(result: object, *kinds: type) -> None:
    """Check that a result to measure is of one of these kinds.

    Raises:
        ExtremalTypeError: it is not.
    """
    if not isinstance(result, kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise ExtremalTypeError(
            f"an explanation must be of type {names}, got {type(result).__name__}; pass what explain returned"
        )


def as_asked_by(network: Network | nn.Module | str, solver: Solver) -> Network:
    """Return a `Network` for a solver: a plain function is a black box on pictures if the solver needs no gradient.

    Raises:
        ExtremalValueError, ExtremalTypeError: as for `as_network`.
    """
    return as_network(network, takes_pictures=not uses_gradients(solver))


def restore_network(network: Network | nn.Module | str, settings: Mapping[str, Any]) -> Network:
    """Return the network of a result, with the spacing that its input had.

    Raises:
        ExtremalValueError, ExtremalTypeError: it is none, or has other weights than those of the result.
    """
    solver = SOLVERS.get(str(settings.get("solver", {}).get("name")))
    net = as_network(network) if solver is None else as_asked_by(network, solver)
    check_same_weights(net.weight_hash(), settings, net.name)
    return net.with_spacing(tuple(settings.get("spacing", ())))


def check_same_weights(weights: str, settings: Mapping[str, Any], name: str) -> None:
    """Check that the weights of a network, by their hash, are those that the settings of a result name.

    Raises:
        ExtremalValueError: it has others.
    """
    if weights != settings.get("weights"):
        raise ExtremalValueError(
            f"a network must be the one that was explained, {name}'s weights are not those of the explanation; "
            "load the same weights, or explain again"
        )


def restore_query(net: Network, explanation: "Explanation | ChannelExplanation", target: Target, score: Score) -> Query:
    """Return the query of an explanation: the target that is passed, or its own classes.

    Raises:
        ExtremalValueError: no target is passed, and that of the explanation was not a class; there is not one for all
            inputs, or one for each; or other classes were explained.
    """
    if target is None:
        if not explanation.is_class:
            raise ExtremalValueError("the target of the explanation was not a class: pass it as target")
        target = [index for index in explanation.target if index is not None]
    query = parse_target(target, score)
    check_target_count(count_targets(query), len(explanation.target))
    if explanation.is_class:
        asked = query.find_classes(net, len(explanation.target)) if isinstance(query, ClassQuery) else None
        if asked != explanation.target:
            names = "; ".join(dict.fromkeys(explanation.target_names))
            raise ExtremalValueError(
                f"target must be that of the explanation, {names}, got {query.name}; leave it out, or explain that "
                "target"
            )
    return query


def check_same_scores(scores: Tensor, explanation: "Explanation | ChannelExplanation", first: int = 0) -> None:
    """Raise unless the scores (N,) of whole inputs are those that their explanation stores, up to rounding.

    Args:
        scores: (N,) of N inputs of the explanation.
        explanation: of these inputs, and maybe of others.
        first: index of the first of these inputs.

    Raises:
        ExtremalValueError: a callable target or score is not that of the explanation.
    """
    inputs, scores = slice(first, first + len(scores)), scores.cpu().double()
    known, blank = explanation.score_full[inputs].double(), explanation.score_blank[inputs].double()
    tolerance = MAX_SCORE_DIFFERENCE * torch.maximum(known.abs(), (known - blank).abs())
    differs = ((scores - known).abs() > tolerance + MIN_SCORE_DIFFERENCE).nonzero()
    if len(differs):
        n = int(differs[0])
        raise ExtremalValueError(
            f"target and score must be those of the explanation, got {float(scores[n]):.4g} as the score of input "
            f"{first + n}, which was {float(known[n]):.4g}; pass the same ones"
        )


def _check_mask_shape(settings: Settings, x: Tensor) -> None:
    """Raise unless masks for inputs x (N, C, *S) have one value for each of their places."""
    shape, places = mask_shape(settings.perturbation, x), tuple(x.shape[2:])
    if shape != places:
        raise ExtremalValueError(
            f"a perturbation of inputs must take masks of their shape {places}, got one with mask_shape {shape}; leave "
            "mask_shape out, and pass units for masks of patches"
        )


def prepare_run(
    network: Network | nn.Module | str, images: ImagesLike, target: Target, settings: Settings
) -> PreparedRun:
    """Prepare network, images and target as `explain` takes them.

    Raises:
        ExtremalValueError, ExtremalTypeError: they break a rule, or masks of the settings do not fit the inputs.
    """
    net = as_asked_by(network, settings.solver)
    query = parse_target(target, settings.score)
    with exclusive(net.model, net.name):
        images = read_stacks(net, images)
        net = take_spacing(net, images)
        x = expand_inputs(prepare(net, images), query)
        _check_mask_shape(settings, x)
        validate_domain(settings, net, tuple(x.shape[2:]))
        query = settle_query(query, net, x)
        mirror = is_mirror_invariant(net, x, query)
        provenance = {**settings.provenance(net), "mirror": mirror, **describe_stack(net, x, images)}
        return PreparedRun(net, x, query, mirror, provenance)
