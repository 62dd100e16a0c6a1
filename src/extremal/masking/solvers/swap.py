"""Exchange single places of sets: what a field cannot do where places have no neighbours."""

import torch
from torch import Tensor

from extremal.masking.solvers.problem import Problem, gradient

SWAPS_PER_ROUND = 6  # exchanges tried a round, each a forward pass


def swap_places(problem: Problem, sets: Tensor, paid: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Sets that are paid at least as much, each of as many places as before.

    In each round the reward's slope at the set tells what a place is worth to first order: the kept places of least
    slope change places with the others of most slope, one pair a try, and the best try is kept if it is paid more.
    Where none is, the next pairs are tried. Costs a forward-backward pass and `TRIES` forward passes a set and round.

    Args:
        problem: whose places have no neighbours.
        sets: (N, A, 1, K) of zeros and ones.
        paid: (N, A) what the sets are paid.
        rounds: at least 0.
    """
    total, at = sets.shape[-1], sets.device
    sizes = (sets[0, :, 0] > 0).sum(-1).tolist()
    listed = [_candidate_pairs(size, total - size, SWAPS_PER_ROUND * rounds) for size in sizes]
    least, most = torch.tensor(listed, device=at).view(len(sizes), -1, 2).unbind(-1)  # (A, TRIES·rounds) each
    tried = torch.zeros(paid.shape, dtype=torch.int64, device=at)  # pairs, since the set changed
    for _ in range(rounds):
        leaf = sets.clone().requires_grad_()
        slopes = gradient(problem.reward(leaf, False), leaf)[:, :, 0]  # (N, A, K)
        kept = sets[:, :, 0] > 0
        out = slopes.masked_fill(~kept, torch.inf).argsort(-1)  # kept places, the least worth first
        into = slopes.masked_fill(kept, -torch.inf).argsort(-1, descending=True)
        turn = (tried.unsqueeze(2) + torch.arange(SWAPS_PER_ROUND, device=at)) % least.shape[1]  # (N, A, TRIES)
        leaving, coming = (
            order.gather(2, places.expand(len(sets), -1, -1).gather(2, turn))
            for order, places in ((out, least), (into, most))
        )
        trials = sets[:, :, 0].unsqueeze(2).repeat(1, 1, SWAPS_PER_ROUND, 1)  # (N, A, TRIES, K)
        trials.scatter_(3, leaving.unsqueeze(3), 0.0).scatter_(3, coming.unsqueeze(3), 1.0)
        with torch.no_grad():
            rewards = problem.reward(trials.flatten(1, 2).unsqueeze(2), False).view(turn.shape)
        best, index = rewards.where(rewards.isfinite(), -torch.inf).max(2)  # (N, A)
        chosen = trials.gather(2, index[..., None, None].expand(-1, -1, 1, total))  # (N, A, 1, K)
        better = best > paid
        sets = torch.where(better[..., None, None], chosen, sets)
        paid = torch.where(better, best, paid)
        tried = torch.where(better, 0, tried + SWAPS_PER_ROUND)
    return sets, paid


def _candidate_pairs(kept: int, others: int, count: int) -> list[tuple[int, int]]:
    """Ranks of a kept and of another place, the most promising pairs first, over and over up to this count.

    >>> _candidate_pairs(1, 3, 4), _candidate_pairs(2, 2, 3)
    ([(0, 0), (0, 1), (0, 2), (0, 0)], [(0, 0), (0, 1), (1, 0)])
    """
    side = count + 1
    every = sorted(((i, j) for i in range(min(kept, side)) for j in range(min(others, side))), key=sum)
    return [every[k % len(every)] for k in range(count)]
