"""Scores while places are exchanged in the order of a map: insertion, deletion, ROAD, the evidence curve."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import validate_fractions, validate_maps
from extremal.benchmark.metrics.estimate import MAX_SEED
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.masking.area import cut_one
from extremal.number_checks import validate_between, validate_whole

ScoreFunction = Callable[[Tensor], Tensor]  # inputs (B, C, *S) -> scores (B,) of one target
MAX_STEPS = 1_000_000
BATCH_SIZE = 32  # inputs evaluated at once
ADJACENT_OFFSETS, DIAGONAL_OFFSETS = ((0, 1), (0, -1), (1, 0), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1))
NEIGHBOUR_WEIGHTS = (
    *((offset, 1 / 6) for offset in ADJACENT_OFFSETS),
    *((offset, 1 / 12) for offset in DIAGONAL_OFFSETS),
)


@dataclass(frozen=True, eq=False)
class PerturbationCurve:
    """Scores of one input while places are exchanged."""

    fractions: Tensor  # (K,) of the places that are exchanged, increasing
    scores: Tensor  # (K,)

    @property
    def area(self) -> float:
        """The area under the curve by the trapezoidal rule, divided by the range of the fractions.

        Raises:
            ExtremalValueError: there is one fraction only.
        """
        if len(self.fractions) < 2:
            raise ExtremalValueError(
                f"a curve must have at least two fractions to have an area, got {len(self.fractions)}; read its scores"
            )
        return float(torch.trapezoid(self.scores, self.fractions) / (self.fractions[-1] - self.fractions[0]))


def rank_map(map_: Tensor) -> Tensor:
    """Return the rank of each place of a map (1, 1, *S), 0 for the highest: (*S); ties in raster order."""
    validate_maps(map_)
    if len(map_) != 1:
        raise ExtremalValueError(
            f"a map must be of one input, (1, 1, *S), got shape {tuple(map_.shape)}; pass map_[:1]"
        )
    flat = map_.flatten()
    order = flat.argsort(descending=True, stable=True)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(flat), device=flat.device)).view(map_.shape[2:])


def insertion_curve(
    scores: ScoreFunction, before: Tensor, after: Tensor, map_: Tensor, steps: int = 28
) -> PerturbationCurve:
    """Score inputs between `before` and `after`, exchanging the map's highest places first.

    Insertion (Petsiuk et al., 2018) goes from a destroyed input to the full one; a high area is good. Deletion goes
    from the full input to a destroyed one; a low area is good.

    Args:
        scores: of the target.
        before: (1, C, *S), at fraction 0.
        after: (1, C, *S), at fraction 1.
        map_: (1, 1, *S).
        steps: number of steps, each of the same number of places up to rounding; costs steps + 1 evaluations.

    Returns:
        Scores at 0, 1/steps, ..., 1.

    Raises:
        ExtremalValueError, ExtremalTypeError: `steps` is below 1, a shape is wrong, or `scores` returns something else.
    """
    steps = validate_whole(steps, "steps", 1, MAX_STEPS, "e.g. 28")
    rank = rank_map(map_)
    _check_inputs(before, after, tuple(rank.shape))
    total = rank.numel()
    counts = [round(total * step / steps) for step in range(steps + 1)]
    inputs = (torch.where(rank < count, after, before) for count in counts)
    return PerturbationCurve(
        torch.tensor(counts, dtype=torch.float64) / total, _score_in_batches(scores, inputs, len(counts))
    )


def road_curve(
    scores: ScoreFunction,
    x: Tensor,
    map_: Tensor,
    fractions: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
    seed: int = 0,
) -> PerturbationCurve:
    """Score an input whose highest places are imputed from their neighbours (ROAD, Rong et al., 2022).

    A removed place becomes the weighted mean of its eight neighbours, 1/6 for adjacent and 1/12 for diagonal ones,
    solved for all removed places at once, with slight noise, so that the outline of the hole carries no information.

    Args:
        scores: of the target.
        x: (1, C, H, W).
        map_: (1, 1, H, W).
        fractions: of places that are removed, increasing.
        seed: of the noise.
    """
    rank, fractions = rank_map(map_), validate_fractions(fractions, "fractions")
    _check_input(x, tuple(rank.shape))
    cuts = [rank < round(fraction * rank.numel()) for fraction in fractions]
    inputs = (impute(x, cut, seed=seed) for cut in cuts)
    return PerturbationCurve(
        torch.tensor(list(fractions), dtype=torch.float64), _score_in_batches(scores, inputs, len(cuts))
    )


def impute(x: Tensor, removed: Tensor, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Impute the places `removed` (H, W) of an input (1, C, H, W), with noise of this standard deviation.

    Raises:
        ExtremalValueError, ExtremalTypeError: all places are removed, or a shape or type is wrong.
    """
    noise = validate_between(noise, "noise", remedy="e.g. 0.01")
    seed = validate_whole(seed, "seed", 0, MAX_SEED, "e.g. 0")
    if not isinstance(removed, Tensor) or removed.dtype != torch.bool or removed.ndim != 2:
        kind = f"{removed.dtype} {tuple(removed.shape)}" if isinstance(removed, Tensor) else type(removed).__name__
        raise ExtremalTypeError(f"removed places must be a bool tensor (H, W), got {kind}; compare with a threshold")
    _check_input(x, tuple(removed.shape))
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import spsolve

    height, width = removed.shape
    mask = removed.cpu().numpy()
    places = np.argwhere(mask)
    if not len(places):
        return x.clone()
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(len(places))
    values = x[0].detach().cpu().double().numpy()
    known = np.zeros((len(places), len(values)))
    weight = np.zeros(len(places))
    entries: list[tuple[Any, Any, Any]] = []
    for offset, neighbour_weight in NEIGHBOUR_WEIGHTS:
        neighbours = places + offset
        inside = (neighbours >= 0).all(1) & (neighbours < (height, width)).all(1)
        rows, (ys, xs) = np.nonzero(inside)[0], neighbours[inside].T
        weight[rows] += neighbour_weight
        hidden = mask[ys, xs]
        known[rows[~hidden]] += neighbour_weight * values[:, ys[~hidden], xs[~hidden]].T
        entries.append((rows[hidden], number[ys[hidden], xs[hidden]], np.full(int(hidden.sum()), -neighbour_weight)))
    diagonal = np.arange(len(places))
    rows, columns, data = (np.concatenate(parts) for parts in zip(*entries, (diagonal, diagonal, weight), strict=True))
    system = coo_array((data, (rows, columns)), shape=(len(places),) * 2).tocsc()
    if mask.all():
        raise ExtremalValueError("at least one place must stay, all were to be removed; remove a smaller fraction")
    solved = np.asarray(spsolve(system, known)).reshape(len(places), -1)
    generator = np.random.default_rng(seed)
    filled = values.copy()
    filled[:, mask] = (solved + noise * generator.standard_normal(solved.shape)).T
    return torch.from_numpy(filled).to(x)[None]


def area_curve(
    scores: ScoreFunction, x: Tensor, destroyed: Tensor, map_: Tensor, areas: Sequence[float]
) -> PerturbationCurve:
    """Score an input while only the map's highest round(a·|Ω|) places are kept, for each area (evidence curve).

    The other places are those of the destroyed input (1, C, *S), with a hard edge; `judge` blends them by a
    perturbation.
    """
    areas = validate_fractions(areas, "areas")
    _check_inputs(x, destroyed, tuple(rank_map(map_).shape))
    inputs = (torch.where(cut_one(validate_maps(map_), area) > 0, x, destroyed) for area in areas)
    return PerturbationCurve(
        torch.tensor(list(areas), dtype=torch.float64), _score_in_batches(scores, inputs, len(areas))
    )


def _check_input(x: object, shape: tuple[int, ...]) -> None:
    """Raise unless it is one input (1, C, *shape)."""
    if not isinstance(x, Tensor) or x.ndim < 3 or len(x) != 1 or tuple(x.shape[2:]) != shape:
        kind = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        places = ", ".join(map(str, shape))
        raise ExtremalValueError(f"an input must be one tensor (1, C, {places}), got {kind}; pass x[:1] of that size")


def _check_inputs(first: Tensor, second: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless both are one input of the same shape (1, C, *shape)."""
    for x in (first, second):
        _check_input(x, shape)
    if first.shape != second.shape:
        raise ExtremalValueError(
            f"inputs must have one shape to be exchanged, got {tuple(first.shape)} and {tuple(second.shape)}; pass "
            "both with the same channels"
        )


def _check_scores(values: Any, count: int) -> Tensor:
    """Return scores of a batch; they must be a tensor (count,)."""
    if not isinstance(values, Tensor):
        raise ExtremalTypeError(f"scores must return a tensor (B,), got {type(values).__name__}; leave it a tensor")
    if tuple(values.shape) != (count,):
        raise ExtremalValueError(
            f"scores must return one score for each input, (B,) = ({count},), got shape {tuple(values.shape)}; select "
            "the target, e.g. network(x)[:, target]"
        )
    return values


def _score_in_batches(scores: ScoreFunction, inputs: Iterable[Tensor], count: int) -> Tensor:
    """Score inputs (1, C, *S), created one batch at a time: (K,)."""
    parts: list[Tensor] = []
    batch: list[Tensor] = []
    with torch.no_grad():
        for index, x in enumerate(inputs, start=1):
            batch.append(x)
            if len(batch) == BATCH_SIZE or index == count:
                parts.append(_check_scores(scores(torch.cat(batch)), len(batch)).double().cpu())
                batch = []
    return torch.cat(parts)
