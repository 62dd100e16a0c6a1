"""Control sets of channels, to be outperformed: random sets, and the top of the usual rankings."""

from dataclasses import replace

import torch
from torch import Tensor

from extremal.explanations.chunking import ChunkedReward
from extremal.explanations.objective import Objective
from extremal.masking.area import count_kept, cut_one
from extremal.masking.device_tensors import copy_to
from extremal.masking.games import GAMES
from extremal.masking.perturbations import ScaleChannels

N_RANDOM_SETS = 8  # per count
RANKINGS = ("activation × gradient", "activation", "ablation")


def random_sets(total: int, areas: tuple[float, ...], seed: int, like: Tensor) -> Tensor:
    """Draw random sets of exactly each fraction of the channels: (1, A, R, K) of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(total, generator=generator) for _ in range(len(areas) * N_RANDOM_SETS)])
    counts = torch.tensor([count_kept(area, total) for area in areas]).repeat_interleave(N_RANDOM_SETS).unsqueeze(1)
    return copy_to(orders < counts, like).view(1, len(areas), N_RANDOM_SETS, total)


def rankings(objective: Objective, max_rows: int) -> Tensor:
    """Return the importance of each channel by each of `RANKINGS`: (N, 3, K), higher is more important.

    Activation × gradient: Σ_u x_k(u)·∂Φ/∂x_k(u), which is ∂Φ/∂m_k at a mask of ones. Activation: the mean of |x_k|.
    Ablation: Φ(x) − Φ(x without channel k). Costs one pass with gradient and K forward passes per input.

    Args:
        objective: about activations, under `ScaleChannels`.
        max_rows: rows of the network evaluated at once.
    """
    perturbation, x = objective.perturbation, objective.x
    assert isinstance(perturbation, ScaleChannels)
    (total,) = objective.mask_shape
    preserve_reward = ChunkedReward(replace(objective, game=GAMES["preserve"]), max_rows)
    gradients = preserve_reward.with_gradients(x.new_ones(len(x), 1, 1, total), False)[1][:, 0, 0]
    units = x.movedim(perturbation.axis_of(x), 1)
    activations = units.abs().reshape(len(x), total, -1).mean(2)
    all_but_one = (1 - torch.eye(total, dtype=x.dtype, device=x.device)).view(1, total, 1, total)
    with torch.no_grad():
        ablated = preserve_reward(all_but_one.expand(len(x), -1, -1, -1), False)
    return torch.stack([gradients, activations, objective.score_input.unsqueeze(1) - ablated], 1)


def top_sets(ranked: Tensor, areas: tuple[float, ...]) -> Tensor:
    """Return the top channels of rankings (N, M, K) at each fraction: (N, A, M, K) of zeros and ones."""
    flat = ranked.flatten(0, 1).unsqueeze(1)
    return torch.stack([cut_one(flat, area).view_as(ranked) for area in areas], 1)
