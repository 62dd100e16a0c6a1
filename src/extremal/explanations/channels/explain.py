"""`explain_channels`: find the smallest sets of channels that an answer needs (paper, section 3.4)."""

import warnings
from collections.abc import Sequence

from torch import nn

from extremal.errors import ExtremalValueError
from extremal.explanations.batches import plan_batches
from extremal.explanations.build_objective import build_objective
from extremal.explanations.channels.channel_batch import ChannelBatch, build_channel_explanation
from extremal.explanations.channels.controls import rankings
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.evidence import OnEvidence
from extremal.explanations.progress_bar import progress_bar, validate_progress
from extremal.explanations.settings import Settings
from extremal.explanations.validation import validate_areas, validate_channel_counts, validate_share
from extremal.explanations.verdict import SUFFICIENT_EFFECT
from extremal.masking.area import count_kept
from extremal.masking.games import Game, Reward
from extremal.masking.perturbations import ScaleChannels
from extremal.masking.solvers import OnStep, Solver
from extremal.networks.inputs import ImagesLike, prepare
from extremal.networks.layers import get_module
from extremal.networks.network import Network
from extremal.networks.resolve import as_network, require_gradient
from extremal.networks.split import split
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
    share: float = SUFFICIENT_EFFECT,
    seed: int = 0,
    on_step: OnStep | None = None,
    on_evidence: OnEvidence | None = None,
    progress: bool | None = None,
) -> ChannelExplanation:
    """Find the smallest sets of channels of a layer that maximally affect the output.

    m_a = argmax of the game's reward over masks m in [0, 1]^K with mean a, (m ⊗ x_l)_k = m_k·x_l,k (paper, section
    3.4): the other channels are faded to zero. The part of the network before the layer runs once, the part after it
    once for each mask.

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
        axis: axis of the layer's output whose entries are the units; None: 1, but 2 for (B, tokens, channels), where 1
            selects tokens; −1 is for networks with channels last.
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
    results, seed = list[ChannelExplanation](), settings.seed
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
            part = ChannelBatch(split_network, objective, ranked, fractions, share, max_rows, seed)
            with split_network.counted() as solving:
                solution = settings.solver.solve(part.problem, fractions, batch.report_steps(report_step))
            evaluations = Evaluations().with_solver(solving).with_evidence(setup)
            report = batch.report_evidence(report_evidence)
            results.append(
                build_channel_explanation(part, solution, provenance, evaluations, full_network.forwards, report)
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
