"""One batch of inputs split at a layer: the evidence for its sets of channels, and its part of the result."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from extremal.explanations import verdict
from extremal.explanations.area_search import AreaSearch, OnProgress
from extremal.explanations.candidates import Bounds, Candidate, build_candidates
from extremal.explanations.channels.activity import build_place_fields
from extremal.explanations.channels.controls import N_RANDOM_SETS, RANKINGS, random_sets, top_sets
from extremal.explanations.channels.explanation import ChannelExplanation
from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.controls import Controls
from extremal.explanations.evaluations import Evaluations
from extremal.explanations.evidence import Evidence, OnEvidence, collect_evidence
from extremal.explanations.judge import to_cpu
from extremal.explanations.objective import Objective
from extremal.masking.area import cut
from extremal.masking.domain import ExactAreaFamily
from extremal.masking.perturbations import ScaleChannels
from extremal.masking.scaling import standardise
from extremal.masking.solvers import Problem, Solution
from extremal.networks.split import Split


@dataclass(frozen=True, eq=False)
class ChannelBatch:
    """The inputs of a batch, split at a layer, and the question about its channels."""

    split_network: Split  # the network from the layer on
    objective: Objective  # of the activations of N inputs
    ranked: Tensor  # (N, M, K) channels by M rankings
    areas: tuple[float, ...]  # (A,) fractions of the channels, rising
    share: float  # of the whole effect that the smallest sufficient set must have
    max_rows: int  # of the network at once
    seed: int

    @cached_property
    def problem(self) -> Problem:
        """The problem for a solver, with the rankings as initial candidates."""
        objective, ranked = self.objective, self.ranked
        return Problem(
            reward=ChunkedReward(objective, self.max_rows),
            count=len(objective.x),
            domain=objective.domain,
            mirror_invariant=False,
            dtype=objective.x.dtype,
            device=objective.x.device,
            seed=self.seed,
            initial_candidates=standardise(ranked.flatten(0, 1)).view_as(ranked).unsqueeze(2),
        )

    @property
    def family(self) -> ExactAreaFamily:
        """The family of masks over the channels."""
        return self.objective.domain.exact_area_family(self.objective.x)

    @property
    def n_channels(self) -> int:
        """The number of channels of the layer."""
        return self.objective.mask_shape[0]


class _EvidenceReport:
    """Reports the evidence, and repeats its last report during the search, so that a run can be ended there, too."""

    def __init__(self, on_evidence: OnEvidence) -> None:
        self._on_evidence, self._last = on_evidence, (0, 0)

    def evidence(self, done: int, total: int) -> None:
        """Report the masks done."""
        self._last = done, total
        self._on_evidence(done, total)

    def repeat(self, done: int, total: int) -> None:
        """Report the masks done again."""
        self._on_evidence(*self._last)


def build_channel_explanation(
    batch: ChannelBatch,
    solution: Solution,
    provenance: dict[str, Any],
    cost: Evaluations,
    n_whole: int,
    on_evidence: OnEvidence | None,
) -> ChannelExplanation:
    """Collect the evidence for a solution, search for the smallest sufficient sets, and build the result.

    Args:
        batch: that was solved.
        solution: masks at its areas.
        provenance: the settings that the result stores.
        cost: evaluations of the network from the layer on, so far.
        n_whole: evaluations of the whole network.
        on_evidence: as for `explain`.
    """
    report = None if on_evidence is None else _EvidenceReport(on_evidence)
    with batch.split_network.counted() as count:
        collected = _collect_evidence(batch, solution, report.evidence if report else None)
        bounds = _search_smallest(batch, solution, collected, report.repeat if report else None)
    objective, layer = batch.objective, batch.split_network.layer
    return ChannelExplanation(
        layer=layer.name,
        axis=_find_axis(objective),
        bypassed=layer.bypassed,
        counts=tuple(round(area * batch.n_channels) for area in batch.areas),
        **to_cpu(_build_fields(batch, solution, collected, _build_smallest_fields(bounds, batch.n_channels))),
        ranking_names=RANKINGS,
        target=objective.class_indices,
        target_names=objective.names,
        status=verdict.assign_status(objective.compute_effects(collected.scores), solution.finite),
        keeps=objective.game.keeps,
        share=batch.share,
        settings={**provenance, "evaluations": {**asdict(cost.with_evidence(count)), "whole": n_whole}},
    )


def _collect_evidence(batch: ChannelBatch, solution: Solution, on_progress: OnEvidence | None) -> Evidence:
    """Score the masks, and as controls random sets of their sizes and the first channels of each ranking."""
    x, areas = batch.objective.x, batch.areas
    random = random_sets(batch.n_channels, areas, batch.seed, x).expand(len(x), -1, -1, -1)
    controls = Controls(torch.cat([random, top_sets(batch.ranked, areas)], 2))
    objective = batch.objective
    return collect_evidence(
        objective.evaluate, None, 0, objective.game, solution.masks, areas, batch.family, controls, on_progress
    )


def _search_smallest(
    batch: ChannelBatch, solution: Solution, collected: Evidence, on_pass: OnProgress | None
) -> tuple[Bounds | None, ...]:
    """Search for the smallest sufficient set of each input, from the cut masks and the set of all channels."""
    objective, areas = batch.objective, (*batch.areas, 1.0)
    scores = collected.scores, collected.binary_scores, collected.control_scores
    effects, cut_effects, control_effects = map(objective.compute_effects, scores)
    largest = verdict.find_largest_effects(effects, cut_effects, control_effects)
    has_effect = verdict.has_effect(largest, objective.score_input, objective.score_destroyed)
    whole = cut_effects.new_full((len(cut_effects), 1), max(1.0, batch.share))  # all channels are always sufficient
    cut_effects = torch.cat([cut_effects, whole], 1).masked_fill(~has_effect.unsqueeze(1), -math.inf)
    ends = torch.cat([solution.masks, torch.ones_like(solution.masks[:, :1])], 1)
    candidates = build_candidates(batch.family.cut(ends, areas), areas, cut_effects)
    return AreaSearch(batch.problem, objective, candidates, batch.share, 0.0, on_progress=on_pass).run()


def _build_fields(
    batch: ChannelBatch, solution: Solution, collected: Evidence, smallest: dict[str, Tensor]
) -> dict[str, Tensor | None]:
    """Return the tensors of the result."""
    objective, inputs, trace = batch.objective, batch.split_network.x, solution.trace
    sets = cut(solution.masks, batch.areas)[:, :, 0], smallest["smallest_mask"]
    return {
        "masks": solution.masks[:, :, 0],
        "scores": collected.scores,
        "binary_scores": collected.binary_scores,
        "random_scores": collected.control_scores[:, :, :N_RANDOM_SETS],
        "ranked_scores": collected.control_scores[:, :, N_RANDOM_SETS:],
        "rankings": batch.ranked,
        **smallest,
        **build_place_fields(objective.x, *sets, _find_axis(objective), is_image=inputs.ndim == 4),
        "score_full": objective.score_input,
        "score_blank": objective.score_destroyed,
        "inputs": inputs,
        "pictures": batch.split_network.network.to_images_or_empty(inputs),
        "trace_step": trace.step,
        "trace_area": trace.area,
        "trace_reward": trace.reward,
        "trace_grey": trace.grey,
    }


def _build_smallest_fields(bounds: Sequence[Bounds | None], total: int) -> dict[str, Tensor]:
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


def _find_axis(objective: Objective) -> int:
    """Return the axis of the channels in the activations."""
    assert isinstance(objective.perturbation, ScaleChannels)
    return objective.perturbation.axis_of(objective.x)
