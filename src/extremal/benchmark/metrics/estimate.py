"""From one value an item to one number with its interval: the *compute* that all measures share.

An item that cannot be judged is NaN: it is counted and never scored.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

BOOTSTRAP_DRAWS, CONFIDENCE_LEVEL = 1000, 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and where it may lie."""

    value: float  # NaN where nothing was judged
    low: float  # percentiles of the bootstrap
    high: float
    count: int  # items that were judged
    skipped: int  # items that could not be


def mean(
    values: Any,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
    level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """The mean of values (n,), with a bootstrap interval over items, or over groups of them.

    >>> mean([1.0, 0.0, float("nan"), 1.0]).value, mean([]).count
    (0.6666666666666666, 0)

    Args:
        values: (n,), NaN where an item could not be judged.
        groups: (n,), which picture each is of: its items are drawn together, for they are not independent.
        seed: of the draws.
        draws: of the bootstrap.
        level: share of the draws in the interval.
    """
    return _bootstrap(_array(values), None, groups, seed, draws, level)


def mean_over_classes(
    values: Any,
    classes: Sequence[Hashable],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
    level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """The mean of each class, averaged over classes (the pointing game, Zhang et al., 2016).

    A class of which a draw holds nothing is left out of that draw.

    >>> mean_over_classes([1.0, 1.0, 1.0, 0.0], ["cat", "cat", "cat", "dog"]).value
    0.5
    """
    return _bootstrap(_array(values), list(classes), groups, seed, draws, level)


def mean_paired_difference(
    a: Any,
    b: Any,
    *,
    classes: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """The mean of a − b over the items of which both were judged; with classes, over each and then over classes.

    >>> mean_paired_difference([1.0, float("nan")], [0.25, 1.0]).value
    0.75
    """
    both = _array(a) - _array(b)
    if classes is None:
        return mean(both, groups=groups, seed=seed)
    return mean_over_classes(both, classes, groups=groups, seed=seed)


def _array(values: Any) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _bootstrap(
    values: Array,
    classes: Sequence[Hashable] | None,
    groups: Sequence[Hashable] | None,
    seed: int,
    draws: int,
    level: float,
) -> Estimate:
    """The statistic of all, and percentiles of that of draws of groups with replacement.

    Sums of each group and class are taken first, so that a draw is a product of how often each group was drawn. Groups
    are put in the order of their sums: the interval is the same in whatever order items come, also from processes.
    """
    known = ~np.isnan(values)
    count = int(known.sum())
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, len(values))
    rows = _index_values(range(len(values)) if groups is None else groups)[known]
    columns = np.zeros(count, dtype=np.int64) if classes is None else _index_values(classes)[known]
    rows = np.unique(rows, return_inverse=True)[1]
    shape = int(rows.max()) + 1, int(columns.max()) + 1
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (rows, columns), values[known])
    np.add.at(counts, (rows, columns), 1.0)
    order = np.lexsort(np.concatenate([sums, counts], 1).T)
    sums, counts = sums[order], counts[order]
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(shape[0], np.full(shape[0], 1 / shape[0]), size=draws).astype(np.float64)
    several = _class_means(drawn @ sums, drawn @ counts)
    low, high = np.quantile(several[~np.isnan(several)], [(1 - level) / 2, (1 + level) / 2])
    value = _class_means(sums.sum(0)[None], counts.sum(0)[None])[0]
    return Estimate(float(value), float(low), float(high), count, len(values) - count)


def _class_means(sums: Array, counts: Array) -> Array:
    """Means over the classes that are there: (D, classes), (D, classes) -> (D,)."""
    there = counts > 0
    means = np.where(there, sums / np.where(there, counts, 1.0), 0.0)
    found: Array = means.sum(1) / np.where(there.any(1), there.sum(1), np.nan)
    return found


def _index_values(values: Sequence[Hashable]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Equal values as equal numbers, in the order of their names."""
    numbers = {value: number for number, value in enumerate(sorted(set(values), key=repr))}
    return np.array([numbers[value] for value in values], dtype=np.int64)
