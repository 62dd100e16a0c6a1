"""`explain_channels`: find the smallest sets of channels that an answer needs (paper, section 3.4)."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from extremal.errors import ExtremalValueError
from extremal.explanations import evidence, verdict
from extremal.explanations.area_search import AreaSearch
from extremal.explanations.batches import plan_batches
from extremal.explanations.build_objective import build_objective
from extremal.explanations.candidates import Bounds, Candidate, build_candidates
from extremal.explanations.channels.activity import build_place_fields
from extremal.explanations.channels.controls import N_RANDOM_SETS, RANKINGS, random_sets, rankings, top_sets
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.controls import Controls
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.judge import to_cpu
from extremal.explanations.objective import Objective
from extremal.explanations.progress_bar import progress_bar, validate_progress
from extremal.explanations.settings import Settings
from extremal.explanations.validation import validate_areas, validate_channel_counts, validate_share
from extremal.masking.area import count_kept, cut
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import ScaleChannels
from extremal.masking.scaling import standardise
from extremal.masking.solvers import OnStep, Problem, Solution, Solver
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.networks.resolve import as_network, require_gradient
from extremal.networks.split import Split, split
from extremal.networks.torch_state import in_standard_modes
from extremal.number_checks import format_value
from extremal.scores import Score
from extremal.scores.target import (
    Target,
    expand_inputs,
    find_required_layers,
    parse_target,
    provide_inputs,
    select_inputs,
    settle_query,
)

DEFAULT_FRACTIONS = (0.05, 0.1, 0.2, 0.4)  # of the channels, if neither counts nor areas are given


@in_standard_modes
def explain_channels(
    network: Network | nn.Module | str,
    image: ImagesLike,
    layer: str,
    target: Target = None,
    *,
    counts: Sequence[int] | None = None,
    areas: Sequence[float] | None = None,
    axis: int | None = None,
    game: str | Game | Reward = "preserve",
    solver: str | Solver = "path",
    score: str | Score = "margin",
    share: float = verdict.SUFFICIENT_EFFECT,
    seed: int = 0,
    on_step: OnStep | None = None,
    on_evidence: evidence.OnEvidence | None = None,
    progress: bool | None = None,
) -> ChannelExplanation:
    """Find the smallest sets of channels of a layer that maximally affect the output.

    m_a = argmax over masks m in [0, 1]^K with mean a of the game's reward, (m ⊗ x_l)_k = m_k·x_l,k (paper, section
    3.4): the other channels are faded to zero. The part of the network before the layer runs once, the part after it
    for each mask.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> toy = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    >>> result = explain_channels(toy, torch.rand(1, 3, 16, 16), "1", 0, counts=(1, 2, 4))
    >>> result.masks.shape, [len(result.channels(count)) for count in result.counts]
    (torch.Size([1, 3, 8]), [1, 2, 4])

    Args:
        network, image, target, game, solver, score, seed, on_step, on_evidence, progress: as for `explain`.
        layer: name of a module that is called once and returns one tensor (B, K, ...) or (B, tokens, K);
            `extremal.layers` lists them.
        counts: numbers of channels, each in 1..K−1.
        areas: fractions of the channels instead; neither: 5, 10, 20 and 40 %.
        axis: axis of the layer's output whose entries are the units: None is 1, but 2 for (B, tokens, channels);
            1 there selects tokens, −1 is for networks that keep their channels last.
        share: fraction of the whole effect that the smallest sufficient set must have.

    Returns:
        A `ChannelExplanation` of N inputs at A counts, on the CPU.

    Raises:
        ExtremalValueError, ExtremalTypeError: input that breaks a rule; the message names rule, value and remedy.
    """
    validate_progress(progress, on_step, on_evidence)
    share = validate_share(share)
    settings = Settings(game=game, perturbation=ScaleChannels(axis), solver=solver, score=score, seed=seed)
    net = as_network(network)
    require_gradient(net, "an explanation by channels", "pass the module itself, or explain places")
    get_module(net, layer)
    query = parse_target(target, settings.score)
    x = expand_inputs(prepare(net, image), query)
    query = settle_query(query, net, x)
    provenance = {**settings.provenance(net), "layer": layer}
    results = []
    with progress_bar(progress, on_step, on_evidence) as (report_step, report_evidence), net.frozen(seed) as run:
        x = x.clone()  # a clone made here may be saved for backward in any mode of the caller
        run.undo.enter_context(provide_inputs(query, net))
        with run.counted() as accelerating:
            batches = plan_batches(run, x, (*find_required_layers(net, query), layer))
        for batch in batches:
            with run.counted() as splitting:
                split_network = split(run, layer, x[batch.inputs])
            full_network = Evaluations.of_setup([splitting, accelerating] if batch.index == 0 else [splitting])
            with split_network.counted() as setup:
                max_rows = split_network.max_batch_size()
                batch_query = select_inputs(query, batch.inputs)
                objective = build_objective(split_network, split_network.activations, batch_query, settings)
                fractions = validate_counts(counts, areas, objective.mask_shape[0], layer)
                ranked = rankings(objective, max_rows)
            problem = _build_problem(objective, ranked, max_rows, seed)
            with split_network.counted() as solving:
                solution = settings.solver.solve(problem, fractions, batch.report_steps(report_step))
            results.append(
                _build_explanation(
                    split_network,
                    objective,
                    problem,
                    solution,
                    ranked,
                    fractions,
                    share,
                    provenance,
                    Evaluations().with_solver(solving).with_evidence(setup),
                    full_network.forwards,
                    batch.report_evidence(report_evidence),
                )
            )
    result = ChannelExplanation.concatenate(results)
    if result.bypassed:
        warnings.warn(
            f"part of the answer does not pass through {layer!r} (a skip connection bypasses it); "
            "the masks affect only the module's own output",
            UserWarning,
            stacklevel=3,
        )
    return result


def _build_problem(objective: Objective, ranked: Tensor, max_rows: int, seed: int) -> Problem:
    """Build the problem for a solver, with the rankings (N, M, K) as initial candidates."""
    return Problem(
        reward=ChunkedReward(objective, max_rows),
        count=len(objective.x),
        domain=objective.domain,
        mirror_invariant=False,
        dtype=objective.x.dtype,
        device=objective.x.device,
        seed=seed,
        initial_candidates=standardise(ranked.flatten(0, 1)).view_as(ranked).unsqueeze(2),
    )


class _EvidenceReport:
    """Reports the evidence, and repeats its last report during the search, so that a run can be ended there, too."""

    def __init__(self, on_evidence: evidence.OnEvidence) -> None:
        self._on_evidence, self._last = on_evidence, (0, 0)

    def evidence(self, done: int, total: int) -> None:
        """Report the masks done."""
        self._last = done, total
        self._on_evidence(done, total)

    def repeat(self, done: int, total: int) -> None:
        """Report the masks done again."""
        self._on_evidence(*self._last)


def _build_explanation(
    split_network: Split,
    objective: Objective,
    problem: Problem,
    solution: Solution,
    ranked: Tensor,
    areas: tuple[float, ...],
    share: float,
    provenance: dict[str, Any],
    cost: Evaluations,
    n_full: int,
    on_evidence: evidence.OnEvidence | None,
) -> ChannelExplanation:
    """Collect the evidence for a solution, search for the smallest sufficient set, and build the result.

    Args:
        split_network: the network from the layer on.
        objective, problem, solution: of the masks.
        ranked: (N, M, K) rankings.
        areas: (A,) fractions of the channels.
        share: fraction of the whole effect that the smallest set must have.
        provenance: the settings that the result stores.
        cost: evaluations of the split network so far.
        n_full: evaluations of the full network.
        on_evidence: as for `explain`.
    """
    x, game, (total,), net = objective.x, objective.game, objective.mask_shape, split_network.network
    report = None if on_evidence is None else _EvidenceReport(on_evidence)
    random = random_sets(total, areas, problem.seed, x).expand(len(x), -1, -1, -1)
    family = objective.domain.exact_area_family(x)
    controls = Controls(torch.cat([random, top_sets(ranked, areas)], 2))
    with split_network.counted() as count:
        collected = evidence.collect_evidence(
            objective.evaluate,
            None,
            0,
            game,
            solution.masks,
            areas,
            family,
            controls,
            report.evidence if report else None,
        )
        low, high = objective.score_destroyed.view(-1, 1), objective.score_input.view(-1, 1)
        effects = verdict.compute_effects(collected.scores, low, high, game.keeps)
        cut_effects = verdict.compute_effects(collected.binary_scores, low, high, game.keeps)
        # all channels are always sufficient
        ends = torch.cat([solution.masks, torch.ones_like(solution.masks[:, :1])], 1)
        control_effects = verdict.compute_effects(collected.control_scores.flatten(1), low, high, game.keeps)
        largest = verdict.find_largest_effects(effects, cut_effects, control_effects)
        cut_effects = torch.cat([cut_effects, cut_effects.new_full((len(x), 1), max(1.0, share))], 1)
        has_effect = verdict.has_effect(largest, objective.score_input, objective.score_destroyed)
        cut_effects = cut_effects.masked_fill(~has_effect.unsqueeze(1), -math.inf)  # only all channels are enough then
        on_pass = report.repeat if report else None
        sets = build_candidates(family.cut(ends, (*areas, 1.0)), (*areas, 1.0), cut_effects)
        bounds = AreaSearch(problem, objective, sets, share, 0.0, on_progress=on_pass).run()
    cuts = cut(solution.masks, areas)
    smallest, perturbation = _smallest_fields(bounds, total), objective.perturbation
    assert isinstance(perturbation, ScaleChannels)
    tensors: dict[str, Tensor | None] = {
        "masks": solution.masks[:, :, 0],
        "scores": collected.scores,
        "binary_scores": collected.binary_scores,
        "random_scores": collected.control_scores[:, :, :N_RANDOM_SETS],
        "ranked_scores": collected.control_scores[:, :, N_RANDOM_SETS:],
        "rankings": ranked,
        **smallest,
        **build_place_fields(
            *(x, cuts[:, :, 0], smallest["smallest_mask"], perturbation.axis_of(x)),
            is_image=split_network.x.ndim == 4,
        ),
        "score_full": objective.score_input,
        "score_blank": objective.score_destroyed,
        "inputs": split_network.x,
        "pictures": net.to_images_or_empty(split_network.x),
        "trace_step": solution.trace.step,
        "trace_area": solution.trace.area,
        "trace_reward": solution.trace.reward,
        "trace_grey": solution.trace.grey,
    }
    return ChannelExplanation(
        layer=split_network.layer.name,
        axis=perturbation.axis_of(x),
        bypassed=split_network.layer.bypassed,
        counts=tuple(round(area * total) for area in areas),
        **to_cpu(tensors),
        ranking_names=RANKINGS,
        target=objective.class_indices,
        target_names=objective.names,
        status=verdict.assign_status(effects, solution.finite),
        keeps=game.keeps,
        share=share,
        settings={**provenance, "evaluations": {**asdict(cost.with_evidence(count)), "whole": n_full}},
    )


def _smallest_fields(bounds: Sequence[Bounds | None], total: int) -> dict[str, Tensor]:
    """Return the fields about the smallest sufficient sets; all channels for inputs without one."""
    all_channels = Candidate(1.0, torch.ones(1, total, dtype=torch.float32), 1.0)
    found = [one or Bounds(all_channels, None) for one in bounds]
    smallest = [all_channels if one.sufficient.area == 1 else one.sufficient for one in found]
    below = [one.insufficient or Candidate(0.0, all_channels.mask, math.nan) for one in found]
    return {
        "smallest_mask": torch.cat([one.mask.cpu() for one in smallest]),
        "smallest_effect": torch.tensor([one.effect for one in smallest], dtype=torch.float32),
        "below_count": torch.tensor([round(one.area * total) for one in below]),
        "below_effect": torch.tensor([one.effect for one in below], dtype=torch.float32),
    }


def validate_counts(
    counts: Sequence[int] | None, areas: Sequence[float] | None, total: int, layer: str
) -> tuple[float, ...]:
    """Return the requested counts or areas as fractions k / K of the channels, rising.

    >>> validate_counts((2, 1), None, 8, "conv"), validate_counts(None, (0.1, 0.12), 8, "conv")
    ((0.125, 0.25), (0.125,))
    """
    if counts is not None and areas is not None:
        raise ExtremalValueError("counts and areas must not both be given, got both; leave one out")
    if total < 2:
        raise ExtremalValueError(
            f"a layer must have at least 2 channels to choose from, {layer!r} has {total}; choose another layer or axis"
        )
    if counts is None:
        fractions = validate_areas(DEFAULT_FRACTIONS if areas is None else areas)
        return tuple(k / total for k in sorted({min(total - 1, count_kept(area, total)) for area in fractions}))
    values = validate_channel_counts(counts)
    for count in values:
        if count >= total:
            raise ExtremalValueError(
                f"counts must lie in 1..{total - 1} for {layer!r}, which has {total} channels, got "
                f"{format_value(count)}; all of them need no search"
            )
    return tuple(count / total for count in values)
