"""The area of a mask: the paper's ranking loss, the exact level by bisection, the exact binary cut.

>>> field = torch.randn(2, 1, 16, 16)
>>> mask = level(field, torch.tensor([0.1, 0.5]), temperature=0.3)
>>> [round(float(value), 4) for value in mask.mean((1, 2, 3))]
[0.1, 0.5]
"""

import math
from typing import Any

import torch
from torch import Tensor


def count_kept(area: float, total: int) -> int:
    """How many of `total` places an area keeps: round(a·|Ω|), at least 1.

    >>> count_kept(0.05, 50176), count_kept(0.001, 100)
    (2509, 1)
    """
    return min(total, max(1, round(area * total)))


def ranking_loss(mask: Tensor, area: Tensor) -> Tensor:
    """R_a(m) = mean over places of (vecsort(m) − r_a)² (paper, section 3.2).

    vecsort puts the values in rising order; r_a is 0 for the first ⌊(1 − a)|Ω|⌋ places and 1 for the rest.

    Args:
        mask: (B, 1, *S) in [0, 1].
        area: (B,) in (0, 1), share of places.

    Returns:
        (B,).
    """
    values = mask.flatten(1).sort(1).values
    total = values.shape[1]
    zeros = [math.floor(round((1 - a) * total, 6)) for a in area.double().tolist()]
    rank = torch.arange(total, device=mask.device)
    target = rank >= torch.tensor(zeros, device=mask.device)[:, None]
    return (values - target.to(mask.dtype)).square().mean(1)


def level(field: Tensor, area: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """Cut a field at the level that gives a mask of exactly this area.

    m = sigmoid((f − τ) / T), τ found by bisection so that Σ w·m = a. The gradient follows from the implicit
    function: with s = m(1 − m), ∂m = (s/T)·(∂f − Σ w s ∂f / Σ w s).

    Args:
        field: (B, 1, *S), floating.
        area: (B,) in (0, 1).
        temperature: T > 0, in units of the field; smaller is closer to black and white.
        weights: (1, 1, *S), positive, summing to 1: the share of the whole that a place stands for. Equal if None.

    Returns:
        (B, 1, *S) in [0, 1] with Σ w·m = area.
    """
    flat_weights = torch.full_like(field[:1], 1 / field[0].numel()) if weights is None else weights
    mask: Tensor = _Level.apply(field.flatten(1), area, temperature, flat_weights.flatten(1))
    return mask.view_as(field)


def _quantiles(values: Tensor, shares: Tensor) -> Tensor:
    """The value of each row (B, P) below which this share of it lies: (B,)."""
    ranks = (shares * values.shape[1]).long().clamp(0, values.shape[1] - 1).tolist()
    return torch.stack([row.kthvalue(1 + rank).values for row, rank in zip(values, ranks, strict=True)])


def _root(scaled: Tensor, area: Tensor, weights: Tensor) -> Tensor:
    """τ with Σ w·sigmoid(f − τ) = a for each row, by Newton's steps kept in a bracket: (B, P), (B,), (1, P) -> (B,).

    |g''| ≤ |g'| for this sum g of τ, so that a step from a small error e leaves at most e²/2.
    """
    precise = scaled.dtype == torch.float64
    span = 40.0 if precise else 20.0  # sigmoid(±span) is 0 or 1 to rounding
    rounding = torch.finfo(scaled.dtype).eps
    low, high = scaled.amin(1) - span, scaled.amax(1) + span
    root = _quantiles(scaled, 1 - area)
    for _ in range(70 if precise else 40):
        mask = torch.sigmoid(scaled - root[:, None])
        share = mask * weights
        gap = share.sum(1) - area
        done = (gap.abs() <= rounding * (area + 0.1)) | (high - low <= rounding * root.abs())
        if bool(done.all()):
            break
        low, high = torch.where(gap > 0, root, low), torch.where(gap > 0, high, root)
        newton = root + gap / (share - share * mask).sum(1)
        following = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        root = torch.where(done, root, following)
    return root


class _Level(torch.autograd.Function):
    """The exact level of (B, P) fields, with its implicit gradient."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, area: Tensor, temperature: float, weights: Tensor) -> Tensor:
        scaled = field / temperature
        mask = torch.sigmoid(scaled - _root(scaled, area, weights)[:, None])
        ctx.save_for_backward(mask, weights)
        ctx.temperature = temperature
        return mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        mask, weights = ctx.saved_tensors
        slope = mask * (1 - mask)
        pull = grads[0] * slope
        share = weights * slope
        total = share.sum(1, keepdim=True).clamp_min(torch.finfo(mask.dtype).tiny)
        return (pull - share * (pull.sum(1, keepdim=True) / total)) / ctx.temperature, None, None, None


def cut_one(mask: Tensor, area: float) -> Tensor:
    """The mask cut to exactly round(a·|Ω|) ones: its largest values; among equals the first in raster order.

    Args:
        mask: (..., 1, *S); the last dimensions after the leading batch axes are the places. Pass (B, 1, *S).
        area: share of places in (0, 1).

    Returns:
        (B, 1, *S) of zeros and ones, dtype of the mask.
    """
    values = mask.flatten(1)
    wanted = count_kept(area, values.shape[1])
    least = values.kthvalue(values.shape[1] - wanted + 1, dim=1, keepdim=True).values  # that is kept; no sort is needed
    above, equal = values > least, values == least
    left = wanted - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= left))).to(mask.dtype).view_as(mask)


def cut(masks: Tensor, areas: tuple[float, ...]) -> Tensor:
    """Each mask of (N, A, 1, *S) cut to exactly the share of ones that its area tells."""
    return torch.stack([cut_one(masks[:, k], area) for k, area in enumerate(areas)], 1)
