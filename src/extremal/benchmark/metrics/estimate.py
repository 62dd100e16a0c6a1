"""Summarise values of items as one number, a mean or a quantile, with its confidence interval.

An item that cannot be judged has the value NaN: it is counted, but does not enter the mean.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.number_checks import format_value, validate_between, validate_whole

Array = np.ndarray[Any, np.dtype[np.float64]]

BOOTSTRAP_DRAWS, CONFIDENCE_LEVEL = 1000, 0.95
MAX_DRAWS, MAX_SEED = 1_000_000, 2**32 - 1


@dataclass(frozen=True)
class Estimate:
    """A mean or a quantile with its confidence interval."""

    value: float  # NaN if no item was judged
    low: float  # percentiles of the bootstrap
    high: float
    count: int  # items that were judged
    skipped: int  # items that could not be judged


def mean(
    values: Any,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
    level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """Average values (n,), with a bootstrap interval over items or over groups of items.

    >>> mean([1.0, 0.0, float("nan"), 1.0]).value, mean([]).count
    (0.6666666666666666, 0)

    Args:
        values: (n,), NaN if an item could not be judged.
        groups: (n,), the image of each item; items of an image are drawn together, since they are not independent.
        seed: of the draws.
        draws: number of bootstrap samples.
        level: fraction of the draws inside the interval.
    """
    return _bootstrap(_to_array(values), None, groups, Bootstrap(seed, draws, level))


def mean_over_classes(
    values: Any,
    classes: Sequence[Hashable],
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
    level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """Average the means of the classes, as in the pointing game (Zhang et al., 2016).

    A class without an item in a bootstrap sample is omitted from that sample.

    >>> mean_over_classes([1.0, 1.0, 1.0, 0.0], ["cat", "cat", "cat", "dog"]).value
    0.5
    """
    return _bootstrap(_to_array(values), classes, groups, Bootstrap(seed, draws, level))


def quantile(
    values: Any,
    share: float,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    draws: int = BOOTSTRAP_DRAWS,
    level: float = CONFIDENCE_LEVEL,
) -> Estimate:
    """Return the value below which this share of the values (n,) lies, with a bootstrap interval as for `mean`.

    >>> quantile([0.0, 1.0, 5.0, float("nan")], 0.5).value
    1.0

    Args:
        values: (n,), NaN if an item could not be judged.
        share: in [0, 1]; 0.5 is the median, 0.1 the upper end of the worst tenth. Values are interpolated linearly.
        groups: (n,), the image of each item.
        seed: of the draws.
        draws: number of bootstrap samples.
        level: fraction of the draws inside the interval.
    """
    array, bootstrap = _to_array(values), Bootstrap(seed, draws, level)
    validate_between(share, "share", high=1.0, remedy="0.5 is the median")
    names = _read_labels(groups, "groups", array) or list(range(len(array)))
    known = ~np.isnan(array)
    count = int(known.sum())
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, len(array))
    order = sorted(np.flatnonzero(known).tolist(), key=lambda index: (array[index], repr(names[index])))
    ordered = array[order]
    numbers = list(dict.fromkeys(names[index] for index in order))  # groups by their lowest values
    rows = np.array([numbers.index(names[index]) for index in order])
    n_groups = len(numbers)
    samples = _repeated_quantiles(ordered, bootstrap.draw(n_groups)[:, rows], share)
    low, high = np.quantile(samples, bootstrap.ends)
    return Estimate(float(np.quantile(ordered, share)), float(low), float(high), count, len(array) - count)


def _repeated_quantiles(ordered: Array, times: np.ndarray[Any, Any], share: float) -> Array:
    """Return the quantiles of sorted values (n,), each repeated `times` (D, n) in a sample: (D,)."""
    ends = times.cumsum(1)
    position = share * (ends[:, -1] - 1)
    lower = np.floor(position)
    first, second = (
        ordered[np.minimum((ends <= rank[:, None]).sum(1), len(ordered) - 1)] for rank in (lower, np.ceil(position))
    )
    quantiles: Array = first + (position - lower) * (second - first)
    return quantiles


def mean_paired_difference(
    a: Any,
    b: Any,
    *,
    classes: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Estimate:
    """Average a − b over the items judged in both; with `classes`, within each class and then over classes.

    >>> mean_paired_difference([1.0, float("nan")], [0.25, 1.0]).value
    0.75
    """
    first, second = _to_array(a), _to_array(b)
    if len(first) != len(second):
        raise ExtremalValueError(
            f"values must be paired by their items, got {len(first)} and {len(second)} of them; pass both of each item"
        )
    differences = first - second
    if classes is None:
        return mean(differences, groups=groups, seed=seed)
    return mean_over_classes(differences, classes, groups=groups, seed=seed)


def _to_array(values: Any) -> Array:
    """Return values (n,) of a sequence, an array or a tensor."""
    plain = values.detach().cpu() if hasattr(values, "detach") else values
    try:
        array = np.asarray(plain)
    except ValueError:  # sequences of different lengths
        array = np.asarray(None)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "fiub"):
        raise ExtremalTypeError(
            f"values must be numbers (n,), one an item and NaN if it could not be judged, got {format_value(values)}; "
            "e.g. [1.0, 0.5]"
        )
    array = array.astype(np.float64)
    infinite = array[np.isinf(array)]
    if len(infinite):
        raise ExtremalValueError(
            f"values must be finite, or NaN if an item could not be judged, got {infinite[0]:g}; replace it by NaN"
        )
    return array


@dataclass(frozen=True)
class Bootstrap:
    """Samples of groups, drawn with replacement.

    Attributes:
        seed: of the draws.
        draws: number of samples.
        level: fraction of them inside the interval.
    """

    seed: int
    draws: int
    level: float

    def __post_init__(self) -> None:
        validate_whole(self.seed, "seed", 0, MAX_SEED, "e.g. 0")
        validate_whole(self.draws, "draws", 1, MAX_DRAWS, "1000 are usual")
        validate_between(self.level, "level", high=1.0, remedy="0.95 is usual")

    @property
    def ends(self) -> list[float]:
        """The shares of the samples below the ends of the interval."""
        return [(1 - self.level) / 2, (1 + self.level) / 2]

    def draw(self, count: int) -> np.ndarray[Any, Any]:
        """Return how often each of `count` groups is drawn: (draws, count)."""
        return np.random.default_rng(self.seed).multinomial(count, np.full(count, 1 / count), size=self.draws)


def _read_labels(labels: Any, name: str, values: Array) -> list[Hashable] | None:
    """Return the group or class of each value, of a sequence, an array or a tensor; None stays."""
    if labels is None:
        return None
    try:
        plain = list(labels.tolist() if hasattr(labels, "tolist") else labels)
        set(plain)
    except TypeError:
        raise ExtremalTypeError(
            f"{name} must be a sequence of names or numbers, one an item, got {format_value(labels)}; e.g. ['a', 'b']"
        ) from None
    if len(plain) != len(values):
        raise ExtremalValueError(
            f"{name} must have one entry for each of {len(values)} values, got {len(plain)}; name that of each item"
        )
    return plain


def _bootstrap(
    values: Array,
    classes: Sequence[Hashable] | None,
    groups: Sequence[Hashable] | None,
    bootstrap: Bootstrap,
) -> Estimate:
    """Compute the statistic of all items, and its percentiles over samples of groups drawn with replacement.

    Values are first summed by group and class, so that a sample is a product with the number of times each group was
    drawn. Groups are sorted by their sums: the interval does not depend on the order of the items.
    """
    group_names, class_names = _read_labels(groups, "groups", values), _read_labels(classes, "classes", values)
    known = ~np.isnan(values)
    count = int(known.sum())
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, len(values))
    rows = _index_values(range(len(values)) if group_names is None else group_names)[known]
    columns = np.zeros(count, dtype=np.int64) if class_names is None else _index_values(class_names)[known]
    rows = np.unique(rows, return_inverse=True)[1]
    shape = int(rows.max()) + 1, int(columns.max()) + 1
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (rows, columns), values[known])
    np.add.at(counts, (rows, columns), 1.0)
    order = np.lexsort(np.concatenate([sums, counts], 1).T)
    sums, counts = sums[order], counts[order]
    multiplicity = bootstrap.draw(shape[0]).astype(np.float64)
    samples = _class_means(multiplicity @ sums, multiplicity @ counts)
    low, high = np.quantile(samples[~np.isnan(samples)], bootstrap.ends)
    value = _class_means(sums.sum(0)[None], counts.sum(0)[None])[0]
    return Estimate(float(value), float(low), float(high), count, len(values) - count)


def _class_means(sums: Array, counts: Array) -> Array:
    """Average over the classes with items: (D, classes), (D, classes) -> (D,)."""
    present = counts > 0
    class_means = np.where(present, sums / np.where(present, counts, 1.0), 0.0)
    means: Array = class_means.sum(1) / np.where(present.any(1), present.sum(1), np.nan)
    return means


def _index_values(values: Sequence[Hashable]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Replace each value by its index among the distinct values, sorted by name."""
    numbers = {value: number for number, value in enumerate(sorted(set(values), key=repr))}
    return np.array([numbers[value] for value in values], dtype=np.int64)
