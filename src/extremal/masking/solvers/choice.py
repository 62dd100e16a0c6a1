"""The choice of `consensus`: each area weighs its own mask against masks that contain the next smaller one."""

import torch
from torch import Tensor

from extremal.masking.scaling import FLOOR, standardise_each
from extremal.masking.solvers.consensus_run import ConsensusRun


@torch.no_grad()
def choose_fields(run: ConsensusRun, field: Tensor, start: Tensor) -> Tensor:
    """Return for each area the mean of its candidates, weighted by their rewards: (N, A, 1, *lattice).

    Candidates are the field itself, and up to three in which the next smaller mask is raised: the field, the start,
    and the places that destroying changes least. The reward is that of the cut masks, the mean over all ways, one
    orientation for each, on reduced inputs if the run has any.

    Args:
        run: of N inputs at A areas.
        field: (N, 1, 1, *lattice) that the descent found for all areas.
        start: (N, 1, 1, *lattice).
    """
    problem = run.reduced or run.problem
    orientations = problem.orientations()
    chosen, fillers = [field], [field, standardise_each(start)]
    if run.settings.candidates > 1 + len(fillers):
        flat = run.find_flat_places()
        fillers += [] if flat is None else [flat]
    for k in range(1, len(run.areas)):
        inside = run.raise_mask(chosen[-1], k - 1)
        candidates = torch.cat([field, *(filler + inside for filler in fillers)][: run.settings.candidates], 1)
        count = candidates.shape[1]
        masks = run.build_cut_masks(candidates, run.areas[k : k + 1] * count)
        ways = [way for way in range(problem.ways) for _ in range(count)]
        mirrored = [orientations[(way + k) % len(orientations)] for way in ways]
        rewards = problem.reward(torch.cat([masks] * problem.ways, 1), mirrored, ways)
        rewards = rewards.view(len(rewards), problem.ways, count).mean(1)
        chosen.append(average_best(candidates, rewards, problem.spans, run.settings.tolerance))
    return torch.cat(chosen, 1)


def average_best(candidates: Tensor, rewards: Tensor, spans: Tensor | None, tolerance: float) -> Tensor:
    """Return the mean of candidates (N, K, 1, *lattice), weighted by rewards (N, K) in whole effects.

    A choice of the best one alone would flip when the rewards of two change little.

    Args:
        candidates: of one area.
        rewards: of their cut masks.
        spans: (N,) change of the reward that counts as the whole effect; None: the best one is taken.
        tolerance: share of the whole effect by which candidates may differ and still count.
    """
    rewards = rewards.where(rewards.isfinite(), -torch.inf)
    gaps = rewards - rewards.amax(1, keepdim=True)
    spans = torch.full_like(rewards[:, 0], FLOOR) if spans is None else spans
    weights = (gaps.nan_to_num(0.0, 0.0) / (tolerance * spans.unsqueeze(1) + FLOOR)).softmax(1)
    weighted = weights.view(*weights.shape, *[1] * (candidates.ndim - 2)) * candidates
    return weighted.sum(1, keepdim=True)
