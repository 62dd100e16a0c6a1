"""Scores while places are added or removed in the order of a map: insertion, deletion, ROAD, the evidence curve."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import validate_maps
from extremal.errors import ExtremalValueError
from extremal.masking.area import cut_one

ScoreFunction = Callable[[Tensor], Tensor]  # inputs (B, C, *S) -> scores (B,) of the one target
BATCH_SIZE = 32  # inputs evaluated at once
ADJACENT_OFFSETS, DIAGONAL_OFFSETS = ((0, 1), (0, -1), (1, 0), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1))
NEIGHBOUR_WEIGHTS = (
    *((offset, 1 / 6) for offset in ADJACENT_OFFSETS),
    *((offset, 1 / 12) for offset in DIAGONAL_OFFSETS),
)


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """Scores of one input while places are exchanged."""

    fractions: Tensor  # (K,) of the places that were exchanged, rising
    scores: Tensor  # (K,)

    @property
    def area(self) -> float:
        """The area under the curve, by trapezoids over the shares' range: in the units of the score."""
        return float(torch.trapezoid(self.scores, self.fractions) / (self.fractions[-1] - self.fractions[0]))


def rank_map(map_: Tensor) -> Tensor:
    """The rank of each place of a map (1, 1, *S), 0 for the highest; of equals the first in raster order: (*S)."""
    validate_maps(map_)
    flat = map_.flatten()
    order = flat.argsort(descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(flat), device=flat.device)).view(map_.shape[2:])


def insertion_curve(
    scores: ScoreFunction, before: Tensor, after: Tensor, map_: Tensor, steps: int = 28
) -> PerturbationCurve:
    """Scores while the places of one input become those of another, the map's highest first.

    Insertion (Petsiuk et al., 2018): from a destroyed input to the whole one; high is good. Deletion: from the whole
    one to a destroyed one; low is good.

    Args:
        scores: of the target.
        before: (1, C, *S), at share 0.
        after: (1, C, *S), at share 1.
        map_: (1, 1, *S).
        steps: between them, of equal numbers of places to rounding; costs one more evaluation.

    Returns:
        Scores at 0, 1/steps, ..., 1.
    """
    if steps < 1:
        raise ExtremalValueError(f"steps must be at least 1, got {steps}; e.g. 28")
    rank = rank_map(map_)
    total = rank.numel()
    counts = [round(total * step / steps) for step in range(steps + 1)]
    inputs = (torch.where(rank < count, after, before) for count in counts)
    return PerturbationCurve(
        torch.tensor(counts, dtype=torch.float64) / total, _score_in_batches(scores, inputs, len(counts))
    )


def road_curve(
    scores: ScoreFunction, x: Tensor, map_: Tensor, shares: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5), seed: int = 0
) -> PerturbationCurve:
    """Scores while the map's highest places are replaced by what their neighbours tell (ROAD, Rong et al., 2022).

    A removed place is the weighted mean of its eight neighbours, 1/6 for those beside it and 1/12 for those across,
    solved for all removed places at once, with a little noise: the hole's outline tells the network nothing.

    Args:
        scores: of the target.
        x: (1, C, H, W).
        map_: (1, 1, H, W).
        shares: of places that are removed, rising.
        seed: of the noise.
    """
    rank = rank_map(map_)
    cuts = [rank < round(share * rank.numel()) for share in shares]
    inputs = (impute(x, cut, seed=seed) for cut in cuts)
    return PerturbationCurve(
        torch.tensor(list(shares), dtype=torch.float64), _score_in_batches(scores, inputs, len(cuts))
    )


def impute(x: Tensor, gone: Tensor, noise: float = 0.01, seed: int = 0) -> Tensor:
    """An input (1, C, H, W) whose places `gone` (H, W) follow from their neighbours, with noise of this deviation."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    height, width = gone.shape
    mask = gone.cpu().numpy()
    places = np.argwhere(mask)
    if not len(places):
        return x.clone()
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(len(places))
    values = x[0].detach().cpu().double().numpy()
    known = np.zeros((len(places), len(values)))
    weight = np.zeros(len(places))
    entries: list[tuple[Any, Any, Any]] = []
    for offset, share in NEIGHBOUR_WEIGHTS:
        near = places + offset
        inside = (near >= 0).all(1) & (near < (height, width)).all(1)
        rows, (ys, xs) = np.nonzero(inside)[0], near[inside].T
        weight[rows] += share
        hidden = mask[ys, xs]
        known[rows[~hidden]] += share * values[:, ys[~hidden], xs[~hidden]].T
        entries.append((rows[hidden], number[ys[hidden], xs[hidden]], np.full(int(hidden.sum()), -share)))
    diagonal = np.arange(len(places))
    rows, columns, data = (np.concatenate(parts) for parts in zip(*entries, (diagonal, diagonal, weight), strict=True))
    system = coo_array((data, (rows, columns)), shape=(len(places),) * 2).tocsc()
    if mask.all():
        raise ExtremalValueError("at least one place must stay, all were to be removed; remove a smaller share")
    solved = np.asarray(spsolve(system, known)).reshape(len(places), -1)
    generator = np.random.default_rng(seed)
    filled = values.copy()
    filled[:, mask] = (solved + noise * generator.standard_normal(solved.shape)).T
    return torch.from_numpy(filled).to(x)[None]


def area_curve(
    scores: ScoreFunction, x: Tensor, destroyed: Tensor, map_: Tensor, areas: Sequence[float]
) -> PerturbationCurve:
    """The evidence curve of a map: scores when exactly its highest round(a·|Ω|) places are left of the input.

    The rest is taken from the destroyed input (1, C, *S), with a hard edge; `judge` blends them by a perturbation.
    """
    inputs = (torch.where(cut_one(validate_maps(map_), area) > 0, x, destroyed) for area in areas)
    return PerturbationCurve(
        torch.tensor(list(areas), dtype=torch.float64), _score_in_batches(scores, inputs, len(areas))
    )


def _score_in_batches(scores: ScoreFunction, inputs: object, count: int) -> Tensor:
    """Scores of inputs (1, C, *S) that are made a few at a time: (K,)."""
    found: list[Tensor] = []
    rows: list[Tensor] = []
    with torch.no_grad():
        for index, one in enumerate(inputs, start=1):  # type: ignore[arg-type, var-annotated]
            rows.append(one)
            if len(rows) == BATCH_SIZE or index == count:
                found.append(scores(torch.cat(rows)).double().cpu())
                rows = []
    return torch.cat(found)
