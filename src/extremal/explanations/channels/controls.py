"""Sets of channels that a found set has to beat: random ones, and the top of the usual rankings."""

from dataclasses import replace

import torch
from torch import Tensor

from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.objective import Objective
from extremal.masking.area import count_kept, cut_one
from extremal.masking.games import GAMES
from extremal.masking.perturbations import ScaleChannels

N_RANDOM_SETS = 8  # random sets a count
RANKINGS = ("activation × gradient", "activation", "ablation")


def random_sets(total: int, areas: tuple[float, ...], seed: int, like: Tensor) -> Tensor:
    """Random sets of exactly each share of the channels: (1, A, RANDOM, K) of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(total, generator=generator) for _ in range(len(areas) * N_RANDOM_SETS)])
    wanted = torch.tensor([count_kept(area, total) for area in areas]).repeat_interleave(N_RANDOM_SETS).unsqueeze(1)
    return (orders < wanted).to(like).view(1, len(areas), N_RANDOM_SETS, total)


def rankings(objective: Objective, rows: int) -> Tensor:
    """How much each channel counts by each of `RANKINGS`: (N, 3, K), higher is more.

    Activation × gradient: Σ_u x_k(u)·∂Φ/∂x_k(u), which is ∂Φ/∂m_k where nothing is masked. Activation: the mean of
    |x_k|. Ablation: Φ(x) − Φ(x without channel k). Costs one pass with gradient and K forward passes an input.

    Args:
        objective: about activations, under `ScaleChannels`.
        rows: of the network at once.
    """
    perturbation, x = objective.perturbation, objective.x
    assert isinstance(perturbation, ScaleChannels)
    (total,) = objective.mask_shape
    preserved = ChunkedReward(replace(objective, game=GAMES["preserve"]), rows)
    slopes = preserved.with_gradients(x.new_ones(len(x), 1, 1, total), False)[1][:, 0, 0]
    units = x.movedim(perturbation.axis_of(x), 1)
    sizes = units.abs().reshape(len(x), total, -1).mean(2)
    without = (1 - torch.eye(total, dtype=x.dtype, device=x.device)).view(1, total, 1, total)
    with torch.no_grad():
        left = preserved(without.expand(len(x), -1, -1, -1), False)
    return torch.stack([slopes, sizes, objective.score_input.unsqueeze(1) - left], 1)


def top_sets(ranked: Tensor, areas: tuple[float, ...]) -> Tensor:
    """The best of each ranking (N, M, K) at exactly each share: (N, A, M, K) of zeros and ones."""
    flat = ranked.flatten(0, 1).unsqueeze(1)
    return torch.stack([cut_one(flat, area).view_as(ranked) for area in areas], 1)
