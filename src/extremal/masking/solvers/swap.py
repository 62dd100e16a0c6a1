"""Swap single places of sets, which no smooth field can do if places have no neighbours."""

import torch
from torch import Tensor

from extremal.masking.solvers.problem import Problem, gradient

SWAPS_PER_ROUND = 6  # candidate swaps per round, each evaluated by one forward pass


def swap_places(problem: Problem, sets: Tensor, rewards: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Improve sets by swapping a kept place for another, so that each set keeps its number of places.

    In each round the gradient of the reward at the set ranks the places by their value to first order: kept places of
    the lowest gradient are swapped for other places of the highest, one pair per candidate, and the best candidate
    replaces the set if its reward is higher. Otherwise the next round continues with the next pairs. Costs one
    forward-backward pass and `SWAPS_PER_ROUND` forward passes per set and round.

    Args:
        problem: its places have no neighbours.
        sets: (N, A, 1, K) of zeros and ones.
        rewards: (N, A) of the sets.
        rounds: at least 0.

    Returns:
        The sets (N, A, 1, K) and their rewards (N, A), which are at least those received.
    """
    total, device = sets.shape[-1], sets.device
    sizes = (sets[0, :, 0] > 0).sum(-1).tolist()
    pairs = [_candidate_pairs(size, total - size, SWAPS_PER_ROUND * rounds) for size in sizes]
    kept_ranks, other_ranks = torch.tensor(pairs, device=device).view(len(sizes), -1, 2).unbind(-1)  # (A, all swaps)
    n_tried = torch.zeros(rewards.shape, dtype=torch.int64, device=device)  # pairs tried since the set last changed
    for _ in range(rounds):
        leaf = sets.clone().requires_grad_()
        slopes = gradient(problem.reward(leaf, False), leaf)[:, :, 0]  # (N, A, K)
        is_kept = sets[:, :, 0] > 0
        kept_order = slopes.masked_fill(~is_kept, torch.inf).argsort(-1)  # kept places, least valuable first
        other_order = slopes.masked_fill(is_kept, -torch.inf).argsort(-1, descending=True)  # most valuable first
        turn = (n_tried.unsqueeze(2) + torch.arange(SWAPS_PER_ROUND, device=device)) % kept_ranks.shape[1]  # (N, A, 6)
        removed, added = (
            order.gather(2, ranks.expand(len(sets), -1, -1).gather(2, turn))
            for order, ranks in ((kept_order, kept_ranks), (other_order, other_ranks))
        )
        candidates = sets[:, :, 0].unsqueeze(2).repeat(1, 1, SWAPS_PER_ROUND, 1)  # (N, A, 6, K)
        candidates.scatter_(3, removed.unsqueeze(3), 0.0).scatter_(3, added.unsqueeze(3), 1.0)
        with torch.no_grad():
            candidate_rewards = problem.reward(candidates.flatten(1, 2).unsqueeze(2), False).view(turn.shape)
        best_rewards, index = candidate_rewards.where(candidate_rewards.isfinite(), -torch.inf).max(2)  # (N, A)
        best_sets = candidates.gather(2, index[..., None, None].expand(-1, -1, 1, total))  # (N, A, 1, K)
        is_better = best_rewards > rewards
        sets = torch.where(is_better[..., None, None], best_sets, sets)
        rewards = torch.where(is_better, best_rewards, rewards)
        n_tried = torch.where(is_better, 0, n_tried + SWAPS_PER_ROUND)
    return sets, rewards


def _candidate_pairs(n_kept: int, n_others: int, count: int) -> list[tuple[int, int]]:
    """Return `count` rank pairs of a kept and another place, most promising first, repeated if too few.

    >>> _candidate_pairs(1, 3, 4), _candidate_pairs(2, 2, 3)
    ([(0, 0), (0, 1), (0, 2), (0, 0)], [(0, 0), (0, 1), (1, 0)])
    """
    side = count + 1
    pairs = sorted(((i, j) for i in range(min(n_kept, side)) for j in range(min(n_others, side))), key=sum)
    return [pairs[k % len(pairs)] for k in range(count)]
