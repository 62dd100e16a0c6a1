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

MIN_SECTIONS, MAX_SECTIONS = 8, 256  # into which a bracket is cut at once
MAX_SECTION_VALUES = 2**22  # of the field at all levels that are tried at once
MIN_DENSE = 1024  # values of a field between which there are no wide gaps


def count_kept(area: float, total: int) -> int:
    """Return how many of `total` places an area keeps: round(a·|Ω|), at least 1.

    >>> count_kept(0.05, 50176), count_kept(0.001, 100)
    (2509, 1)
    """
    return min(total, max(1, round(area * total)))


def find_coverage(area: float, places: int, total: int) -> float:
    """Return the share of all places that a cut mask has: its area, or less where whole units have fewer places.

    >>> find_coverage(0.09, 92, 1024), find_coverage(0.09, 64, 1024)
    (0.09, 0.0625)

    Args:
        area: to which the mask was cut.
        places: that the mask has.
        total: |Ω|.
    """
    return area if places == count_kept(area, total) else places / total


def ranking_template(area: Tensor, total: int) -> Tensor:
    """Return r_a of areas (B,) for a number of places: (B, total) bool, false for the first ⌊(1 − a)·total⌋ places."""
    zeros = [math.floor(round((1 - a) * total, 6)) for a in area.tolist()]
    return torch.arange(total, device=area.device) >= torch.tensor(zeros, device=area.device)[:, None]


def ranking_loss(mask: Tensor, area: Tensor, template: Tensor | None = None) -> Tensor:
    """R_a(m) = mean over places of (vecsort(m) − r_a)² (paper, section 3.2).

    vecsort sorts the values in ascending order; r_a is 0 for the first ⌊(1 − a)|Ω|⌋ places and 1 for the rest.

    Args:
        mask: (B, 1, *S) in [0, 1].
        area: (B,) in (0, 1), fraction of places.
        template: r_a (`ranking_template`), for which a GPU would have to wait; None: it is computed.

    Returns:
        (B,).
    """
    values = mask.flatten(1).sort(1).values
    if template is None:
        template = ranking_template(area, values.shape[1])
    return (values - template.to(mask.dtype)).square().mean(1)


def level(field: Tensor, area: Tensor, temperature: float, weights: Tensor | None = None) -> Tensor:
    """Cut a field at the level that gives a mask of exactly this area.

    m = sigmoid((f − τ) / T), with τ found by bisection so that Σ w·m = a. The gradient follows from the implicit
    function theorem: with s = m(1 − m), ∂m = (s/T)·(∂f − Σ w s ∂f / Σ w s).

    Args:
        field: (B, 1, *S), floating.
        area: (B,) in (0, 1).
        temperature: T > 0, in units of the field; the smaller, the closer to black and white.
        weights: (1, 1, *S), positive, summing to 1: the fraction of the input that each place represents. Equal if
            None.

    Returns:
        (B, 1, *S) in [0, 1] with Σ w·m = area.
    """
    flat_weights = torch.full_like(field[:1], 1 / field[0].numel()) if weights is None else weights
    mask: Tensor = _Level.apply(field.flatten(1), area, temperature, flat_weights.flatten(1))
    return mask.view_as(field)


def _quantiles(values: Tensor, fractions: Tensor) -> Tensor:
    """Return for each row (B, P) the value below which this fraction of the row lies: (B,)."""
    ranks = (fractions * values.shape[1]).long().clamp(0, values.shape[1] - 1)
    if values.device.type != "cpu":
        return values.sort(1).values.gather(1, ranks[:, None])[:, 0]
    return torch.stack([row.kthvalue(1 + rank).values for row, rank in zip(values, ranks.tolist(), strict=True)])


def _find_level(field: Tensor, area: Tensor, weights: Tensor) -> Tensor:
    """Solve Σ w·sigmoid(f − τ) = a for τ: (B, P), (B,), (1, P) -> (B,)."""
    solve = find_level_by_steps if field.device.type == "cpu" else find_level_by_sections
    span = 40.0 if field.dtype == torch.float64 else 20.0  # sigmoid(±span) is 0 or 1 up to rounding
    return solve(field, area, weights, (field.amin(1) - span, field.amax(1) + span))


def find_level_by_steps(field: Tensor, area: Tensor, weights: Tensor, bracket: tuple[Tensor, Tensor]) -> Tensor:
    """Solve Σ w·sigmoid(f − τ) = a by bracketed Newton steps until all rows are done.

    |g''| ≤ |g'| for this sum g of τ, so a step from a small error e leaves at most e²/2.

    Args:
        field: (B, P).
        area: (B,).
        weights: (1, P).
        bracket: (B,) twice, between which τ lies.
    """
    (low, high), root = bracket, _quantiles(field, 1 - area)
    rounding = torch.finfo(field.dtype).eps
    for _ in range(70 if field.dtype == torch.float64 else 40):
        mask = torch.sigmoid(field - root[:, None])
        weighted = mask * weights
        gap = weighted.sum(1) - area
        done = (gap.abs() <= rounding * (area + 0.1)) | (high - low <= rounding * root.abs())
        if bool(done.all()):
            break
        low, high = torch.where(gap > 0, root, low), torch.where(gap > 0, high, root)
        newton = root + gap / (weighted - weighted * mask).sum(1)
        following = torch.where((newton > low) & (newton < high), newton, (low + high) / 2)
        root = torch.where(done, root, following)
    return root


def find_level_by_sections(field: Tensor, area: Tensor, weights: Tensor, bracket: tuple[Tensor, Tensor]) -> Tensor:
    """Solve Σ w·sigmoid(f − τ) = a with a fixed number of operations, so that nothing waits for a GPU.

    The bracket is cut into many sections at once, the one with the root again, until it is 2²⁴ times narrower; Newton
    steps do the rest. Of few values, the quantile is returned if it is a root: the sum may be constant around it, and
    `find_level_by_steps`, whose arguments these are, returns it as well.
    """
    low, width, wanted = bracket[0][:, None], (bracket[1] - bracket[0])[:, None], area[:, None]
    count, scale = max(MIN_SECTIONS, min(MAX_SECTIONS, MAX_SECTION_VALUES // field.numel())), 1.0
    numbers = torch.arange(1, count, dtype=field.dtype, device=field.device)
    for _ in range(math.ceil(24 * math.log(2) / math.log(count))):
        scale /= count  # of a section, to the bracket
        levels = torch.addcmul(low, width, numbers, value=scale)  # (B, count − 1), rising: the sums fall
        sums = torch.sigmoid(field[:, None] - levels[:, :, None]) @ weights[0]
        low = torch.addcmul(low, width, (sums > wanted).sum(1, keepdim=True, dtype=field.dtype), value=scale)
    root = torch.add(low, width, alpha=scale / 2)
    limits = torch.add(low, width, alpha=-scale), torch.add(low, width, alpha=2 * scale)
    for _ in range(3 if field.dtype == torch.float64 else 2):
        mask = torch.sigmoid(field - root)
        weighted = mask * weights
        slope = torch.addcmul(weighted, weighted, mask, value=-1).sum(1, keepdim=True)
        gap = weighted.sum(1, keepdim=True) - wanted
        root = torch.addcdiv(root, gap, slope.clamp_min(torch.finfo(field.dtype).tiny)).clamp(*limits)
    if field.shape[1] < MIN_DENSE:
        quantile = _quantiles(field, 1 - area)[:, None]
        gap = (torch.sigmoid(field - quantile) * weights).sum(1, keepdim=True) - wanted
        root = torch.where(gap.abs() <= torch.finfo(field.dtype).eps * (wanted + 0.1), quantile, root)
    return root[:, 0]


class _Level(torch.autograd.Function):
    """The exact level of (B, P) fields, with its implicit gradient."""

    @staticmethod
    def forward(ctx: Any, field: Tensor, area: Tensor, temperature: float, weights: Tensor) -> Tensor:
        field = field / temperature
        mask = torch.sigmoid(field - _find_level(field, area, weights)[:, None])
        ctx.save_for_backward(mask, weights)
        ctx.temperature = temperature
        return mask

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        mask, weights = ctx.saved_tensors
        slope = mask * (1 - mask)
        pull = grads[0] * slope
        weighted = weights * slope
        total = weighted.sum(1, keepdim=True).clamp_min(torch.finfo(mask.dtype).tiny)
        return (pull - weighted * (pull.sum(1, keepdim=True) / total)) / ctx.temperature, None, None, None


def cut_one(masks: Tensor, area: float) -> Tensor:
    """Set the round(a·|Ω|) largest values to 1, the rest to 0; of equal values the first in raster order.

    Args:
        masks: (B, 1, *S).
        area: fraction of places in (0, 1), the same for all.

    Returns:
        (B, 1, *S) of zeros and ones, with the dtype of the masks.
    """
    values = masks.flatten(1)
    count = count_kept(area, values.shape[1])
    threshold = values.kthvalue(values.shape[1] - count + 1, dim=1, keepdim=True).values  # no sort is needed
    if values.device.type == "cpu":  # most rows have one value at the threshold; a GPU would have to wait for this
        kept = values >= threshold
        if bool((kept.sum(1) == count).all()):
            return kept.to(masks.dtype).view_as(masks)
    above, equal = values > threshold, values == threshold
    remaining = count - above.sum(1, keepdim=True)
    return (above | (equal & (equal.cumsum(1) <= remaining))).to(masks.dtype).view_as(masks)


def cut(masks: Tensor, areas: tuple[float, ...]) -> Tensor:
    """Cut masks (N, A, 1, *S) to zeros and ones, the masks of each column to exactly its area (`cut_one`)."""
    return torch.stack([cut_one(masks[:, k], area) for k, area in enumerate(areas)], 1)
