"""Build the objective of a batch of inputs: bind the query, score the inputs whole and destroyed, and check them."""

import math
import warnings
from dataclasses import replace

import torch
from torch import Tensor

from extremal.errors import ExtremalValueError, NoEffectError
from extremal.explanations.objective import BoundTarget, Objective, prepare_ways
from extremal.explanations.scales import find_scales
from extremal.explanations.settings import Settings
from extremal.explanations.ways import Ways, choose_turns, choose_ways
from extremal.masking.perturbations import split_ways, with_spacing
from extremal.masking.solvers.problem import Problem, RewardMasks
from extremal.networks.attribution_layers import AttributionLayer
from extremal.networks.memory import RowLimit
from extremal.networks.network import Network
from extremal.networks.outputs import HALF_PRECISIONS
from extremal.networks.run import Run
from extremal.networks.split import Split
from extremal.scores.class_group import encode_classes
from extremal.scores.class_query import ClassQuery
from extremal.scores.classes import Score, contrastive, logit, negative, sigmoid
from extremal.scores.query import BoundQuery, PerInput, Query, per_row

MAX_SCORE = 1e36  # of float32, whose largest number is 3.4e38
MAX_BATCH_EFFECT = 0.05  # of the whole effect: largest change of a score due to other inputs in the batch
MAX_ROUNDING, MAX_LOW_ROUNDING = 1e-3, 0.05  # of the scores: what rounding may change, in full and in low precision


def bind_target(run: Run | Split, x: Tensor, query: Query) -> BoundTarget:
    """Bind a query to a frozen network and inputs x (N, C, *S), and score these; costs one evaluation of each at most.

    Raises:
        ExtremalValueError, ExtremalTypeError: the query does not fit the network, or its output is not finite.
    """
    net = run.network
    index = torch.arange(len(x), device=x.device)
    if not isinstance(query, ClassQuery):
        bound = query.bind(run, x)
        names = query.names if isinstance(query, PerInput) else (query.name,) * len(x)
        return BoundTarget(bound, (None,) * len(x), names, bound(x, index), torch.ones_like(index, dtype=torch.bool))
    output = run.score_whole(x) if isinstance(run, Run) else run(x, index)
    _check_finite(output.nan_to_num(torch.nan, 0.0, 0.0), "the whole input", net)  # other classes may be infinite
    indices = query.resolve(net, output)
    classes = encode_classes(indices, output)
    names = tuple(map(net.label, indices))
    _check_targets(logit(output, classes), names, net)
    if query.score is sigmoid or (output.shape[1] == 1 and query.score is not negative):
        _warn_of_absence(sigmoid(output, classes), names, output.shape[1] == 1)
    scores = per_row(query.score(output, classes), len(x), "score")
    is_answer = _is_answer(query.score, output, classes)
    return BoundTarget(query.bind_classes(run, classes), indices, names, scores, is_answer)


def _score_in_dtype_of(x: Tensor, target: BoundTarget) -> BoundTarget:
    """Return the target with scores in the dtype of the inputs, where outputs are in double precision and they not."""
    if target.score_input.dtype != torch.float64 or x.dtype == torch.float64:
        return target
    ask = target.ask
    return replace(
        target, ask=lambda inputs, index: ask(inputs, index).to(x.dtype), score_input=target.score_input.to(x.dtype)
    )


def build_objective(
    run: Run | Split,
    x: Tensor,
    query: Query,
    settings: Settings,
    layers: tuple[AttributionLayer, ...] = (),
    limit: RowLimit | None = None,
) -> Objective:
    """Build the objective of prepared inputs (N, C, *S): bind the query, and score the inputs whole and destroyed.

    After a split, the inputs are the activations (N, K, ...) at its layer.

    Args:
        run: the frozen network, or a split.
        x: the inputs.
        query: about each.
        settings: of the run.
        layers: whose maps a solver starts from.
        limit: of rows without gradient; None: as many as fit.

    Raises:
        ExtremalValueError, ExtremalTypeError: query, output or scores break a rule, or nothing depends on the input.
    """
    net = run.network
    perturbation = with_spacing(settings.perturbation, net.spacing)
    perturbs, domain = prepare_ways(perturbation, x), settings.domain(net, x)
    index, limit = torch.arange(len(x), device=x.device), limit or RowLimit()
    with torch.no_grad():
        target = _score_in_dtype_of(x, bind_target(run, x, query))
        score_input = target.score_input
        zeros = x.new_zeros(len(x), 1, 1, *domain.shape)
        rows = torch.cat([x[:1], *(perturb(zeros).flatten(0, 1) for perturb in perturbs)])
        together = _ask_all(target.ask, rows, torch.cat([index[:1], index.repeat(len(perturbs))]), limit)
        destroyed = together[1:].view(len(perturbs), len(x)).T
        way_names, counts = tuple(split_ways(settings.perturbation)), choose_ways(score_input, destroyed)
        has_turns = counts
        if getattr(settings.solver, "asks_all_ways", False) and settings.game.keeps:
            has_turns = choose_turns(counts, destroyed, target.is_answer)
        ways = Ways(way_names, perturbs, destroyed, score_input, counts, has_turns)
        _check_finite(score_input, "the whole input", net)
        _check_finite(destroyed[destroyed.isfinite().sum(1) == 0], "the destroyed input", net)
        _check_magnitude(torch.cat([score_input.unsqueeze(1), destroyed], 1), net)
        blank = ways.counting.own_blank(0)[0]
        _check_rows_independent(target.ask, rows[: 1 + len(x)], score_input[0], together[0], blank, net)
        scales = find_scales(x, target.ask, run, query, getattr(settings.solver, "scales", ()) if layers else ())
    _check_spans(score_input, destroyed)
    return Objective(
        x=x,
        input_index=index,
        ask=target.ask,
        perturbation=perturbation,
        ways=ways,
        domain=domain,
        game=settings.game,
        class_indices=target.class_indices,
        names=target.names,
        score_input=score_input,
        layers=layers,
        limit=limit,
        scales=scales,
    )


def _ask_all(ask: BoundQuery, rows: Tensor, index: Tensor, limit: RowLimit) -> Tensor:
    """Return the scores (R,) of rows (R, C, *S), as many at once as fit."""
    return limit.evaluate(lambda part: ask(rows[part], index[part]), len(rows))


def _is_answer(score: Score, output: Tensor, classes: Tensor) -> Tensor:
    """Return whether a class is the network's answer, (N,) bool: no other class scores more, of a label its sign.

    True for evidence against the class, which is not about its presence.
    """
    if score is negative:
        return torch.ones(len(output), dtype=torch.bool, device=output.device)
    return (sigmoid if score is sigmoid else contrastive)(output, classes) >= 0


def build_problem(reward: RewardMasks, objective: Objective, mirror: bool, seed: int) -> Problem:
    """Build the problem of an objective for a solver.

    Args:
        reward: of masks; one that can `attribute` gives the solver maps to start from.
        objective: of N inputs.
        mirror: whether the mirrored inputs ask the same question.
        seed: of the solver's random numbers.
    """
    x, domain = objective.x, objective.domain
    differences = None
    if domain.has_neighbours:
        with torch.no_grad():
            differences = (x - objective.destroyed_inputs()).square().mean(1, keepdim=True)
    rewards_whole_masks, whole_rewards = getattr(reward, "rewards_whole_masks", True), None
    if rewards_whole_masks:
        whole_rewards = objective.game.find_whole_rewards(objective.score_input, objective.score_destroyed)
    return Problem(
        reward=reward,
        count=len(x),
        domain=domain,
        mirror_invariant=mirror,
        dtype=x.dtype,
        device=x.device,
        seed=seed,
        ways=len(objective.ways),
        attribute=getattr(reward, "attribute", None),
        reward_at_scale=getattr(reward, "at_scale", None),
        reward_at_input=getattr(reward, "at_input", None),
        rewards_whole_masks=rewards_whole_masks,
        whole_rewards=whole_rewards,
        differences=differences,
        spans=(objective.score_input - objective.score_destroyed).abs(),
    )


def _check_spans(score_input: Tensor, destroyed: Tensor) -> None:
    """Raise if no way of destroying changes the score of an input."""
    spans = (score_input.unsqueeze(1) - destroyed).abs().nan_to_num(0.0, 0.0)
    largest = spans.argmax(1, keepdim=True)
    lows = destroyed.gather(1, largest)[:, 0].tolist()
    for n, (high, low) in enumerate(zip(score_input.tolist(), lows, strict=True)):
        if abs(high - low) <= 1e-6 * max(1.0, abs(high)):
            raise NoEffectError(
                f"a score must change when the input is destroyed, input {n} scores {high:.6g} whole and {low:.6g} "
                "destroyed; the network does not depend on the input, or the perturbation does not change it: "
                "try another perturbation, score or target"
            )


def _check_rows_independent(
    ask: BoundQuery, rows: Tensor, alone: Tensor, together: Tensor, blank: Tensor, net: Network
) -> None:
    """Raise if the score of an input changes when it is evaluated in one batch with others.

    Costs nothing, unless the score changes.

    Args:
        ask: the bound query.
        rows: (R, C, *S) the input, and others.
        alone: () its score without the others.
        together: () its score with others.
        blank: () the score of the destroyed input.
        net: the network.
    """
    is_low = net.precision != "float32" or net.dtype in HALF_PRECISIONS
    rounding = (MAX_LOW_ROUNDING if is_low else MAX_ROUNDING) * max(float(alone.abs()), float(blank.abs()), 1e-6)
    allowed = max(MAX_BATCH_EFFECT * float((alone - blank).abs()), rounding)
    change = float((together - alone).abs())
    if change > allowed:  # the batch size may change the rounding, which decides what a detector drops
        again, twice = (_ask_first(ask, batch) for batch in (rows, rows[:1].expand_as(rows)))
        change = float((again[0] - twice[0]).abs())
        _check_repeatable(ask, rows, again, allowed, net.name)
    if change > allowed:
        raise ExtremalValueError(
            f"a network must score each input independently, {net.name}'s score changed by {change:.3g} when another "
            "input was added to the batch; look for statistics over the batch axis, or noise, inside it"
        )


def _ask_first(ask: BoundQuery, rows: Tensor) -> Tensor:
    """Return the scores (R,) of rows (R, C, *S) as variants of the first input."""
    return ask(rows, rows.new_zeros(len(rows), dtype=torch.int64))


def _check_targets(logits: Tensor, names: tuple[str, ...], net: Network) -> None:
    """Raise if the logit of a target (N,) is infinite, as where classes are masked."""
    for n, value in enumerate(logits.tolist()):
        if not math.isfinite(value):
            raise ExtremalValueError(
                f"a network must return a finite score of the target, {net.name} returned {value:g} for {names[n]} on "
                f"input {n}; choose a class that it does not mask"
            )


def _warn_of_absence(log_odds: Tensor, names: tuple[str, ...], is_single: bool) -> None:
    """Warn of labels (N,) that the network finds absent: what speaks for them is explained all the same."""
    absent = [n for n, value in enumerate(log_odds.tolist()) if value < 0]
    if not absent:
        return
    n, more = absent[0], f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    remedy = "score='negative'" if is_single else "the target scores.Classes({label: -1})"
    warnings.warn(
        f"the log-odds of {names[n]} on input {n}{more} are {float(log_odds[n]):.3g}, "
        f"{100 * float(log_odds[n].sigmoid()):.2g} %: the network says no, and what speaks for yes is explained; "
        f"{remedy} explains the no",
        UserWarning,
        stacklevel=2,
    )


def _check_repeatable(ask: BoundQuery, rows: Tensor, scores: Tensor, allowed: float, name: str) -> None:
    """Raise if the scores of a batch change when it is evaluated again; costs three evaluations of it."""
    repeated = torch.stack([_ask_first(ask, rows) for _ in range(3)])
    change = float((repeated - scores).abs().max())
    if change > allowed:
        raise ExtremalValueError(
            f"a network must give the same output for the same input, {name}'s score changed by {change:.3g} in a "
            "second evaluation; look for noise, and for dropout that ignores eval(), e.g. F.dropout without "
            "training=self.training"
        )


def _check_magnitude(scores: Tensor, net: Network) -> None:
    largest = float(scores.nan_to_num(0.0, 0.0, 0.0).abs().max())
    if largest > MAX_SCORE:
        raise ExtremalValueError(
            f"a score must be at most {MAX_SCORE:g} in magnitude, so that its changes can be represented, got "
            f"{largest:g} of {net.name}; divide its output by a constant"
        )


def _check_finite(scores: Tensor, subject: str, net: Network) -> None:
    n_broken = int((~torch.isfinite(scores)).sum())
    if not n_broken:
        return
    message = f"a network must return finite scores, {net.name} returned {n_broken} NaN or infinite ones for {subject}"
    weights = net.count_nonfinite_weights()
    if weights:
        name, count = next(iter(weights.items()))
        raise ExtremalValueError(f"{message}, {count} of its weights {name!r} are not finite; load it again")
    raise ExtremalValueError(f"{message}; check its weights and the range of the input")
