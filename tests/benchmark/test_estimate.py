"""Means over items and classes, and their bootstrap intervals."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from extremal.benchmark.metrics.estimate import (
    _repeated_quantiles,
    mean,
    mean_over_classes,
    mean_paired_difference,
    quantile,
)
from support.errors import message_of


def test_intervals_cover_the_truth_at_about_their_level():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        estimate = mean(rng.normal(size=60), draws=300, seed=trial)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_items_of_an_image_are_drawn_together():
    values = np.repeat(np.random.default_rng(0).normal(size=30), 10)  # ten equal items per image
    alone, together = mean(values), mean(values, groups=[i // 10 for i in range(300)])
    assert alone.value == pytest.approx(together.value)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_classes_have_equal_weight():
    values, classes = [1, 1, 1, 0, math.nan], ["a", "a", "a", "b", "c"]
    estimate = mean_over_classes(values, classes)
    assert (estimate.value, estimate.count, estimate.skipped) == (0.5, 4, 1)
    assert estimate.low <= 0.5 <= estimate.high


def test_without_judged_items_the_mean_is_nan():
    estimate = mean([math.nan, math.nan])
    assert math.isnan(estimate.value)
    assert (estimate.count, estimate.skipped) == (0, 2)


def test_differences_use_items_judged_in_both():
    estimate = mean_paired_difference([1, 2, math.nan, 4], [0, math.nan, 3, 1])
    assert (estimate.value, estimate.count, estimate.skipped) == (2.0, 2, 2)


def test_the_same_seed_is_the_same_interval():
    values = np.random.default_rng(1).random(50)
    assert mean(values) == mean(values)
    assert mean(values).low != mean(values, seed=1).low


def test_quantiles_and_their_intervals():
    values = np.random.default_rng(0).normal(size=41)
    estimate = quantile([*values, math.nan], 0.5)
    assert estimate.value == np.median(values)
    assert (estimate.count, estimate.skipped) == (41, 1)
    assert estimate.low < estimate.value < estimate.high
    assert quantile(values, 0.1).value == pytest.approx(np.quantile(values, 0.1))
    assert quantile(values[::-1], 0.5) == quantile(values, 0.5)
    assert math.isnan(quantile([math.nan], 0.5).value)


def test_intervals_of_medians_cover_the_truth_at_about_their_level():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        estimate = quantile(rng.normal(size=60), 0.5, draws=300, seed=trial)
        covered += estimate.low <= 0 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_quantiles_draw_items_of_an_image_together():
    values = np.repeat(np.random.default_rng(0).normal(size=30), 10)
    alone, together = quantile(values, 0.5), quantile(values, 0.5, groups=[i // 10 for i in range(300)])
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_repeated_quantiles_are_those_of_the_repeated_values():
    ordered, times = np.array([0.0, 1.0, 5.0, 7.0]), np.array([[1, 0, 2, 1], [3, 0, 0, 1], [0, 4, 0, 0]])
    for share in (0.1, 0.5, 0.9):
        expected = [np.quantile(np.repeat(ordered, row), share) for row in times]
        np.testing.assert_allclose(_repeated_quantiles(ordered, times, share), expected)


@pytest.mark.parametrize("convert", [torch.tensor, np.array])
def test_groups_and_classes_of_arrays_and_tensors(convert: Callable[[list[int]], object]) -> None:
    values, names = [1.0, 2.0, 3.0, 5.0], [0, 0, 1, 1]
    assert mean(values, groups=convert(names)) == mean(values, groups=names)
    assert quantile(values, 0.5, groups=convert(names)) == quantile(values, 0.5, groups=names)
    assert mean_over_classes(values, convert(names)) == mean_over_classes(values, names)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: mean(["1", "2"]),
            "values must be numbers (n,), one an item and NaN if it could not be judged, got ['1'",
        ),
        (lambda: mean(None), "values must be numbers (n,), one an item and NaN if it could not be judged, got None"),
        (lambda: mean([[1.0], [1.0, 2.0]]), "values must be numbers (n,), one an item and NaN if"),
        (
            lambda: mean([1.0, math.inf]),
            "values must be finite, or NaN if an item could not be judged, got inf; replace",
        ),
        (
            lambda: quantile([1.0, -math.inf], 0.5),
            "values must be finite, or NaN if an item could not be judged, got -",
        ),
        (
            lambda: mean([1.0, 2.0], groups=[[1], [2]]),
            "groups must be a sequence of names or numbers, one an item, got",
        ),
        (lambda: mean([1.0, 2.0], groups=3), "groups must be a sequence of names or numbers, one an item, got 3; e.g."),
        (lambda: mean([1.0], draws=0), "draws must be at least 1, got 0; 1000 are usual"),
        (lambda: mean([1.0], level=2), "level must lie in [0, 1], got 2; 0.95 is usual"),
        (lambda: mean([1.0, 2.0], groups=[1]), "groups must have one entry for each of 2 values, got 1"),
        (lambda: mean([1.0], seed=-1), "seed must be at least 0, got -1; e.g. 0"),
        (lambda: mean_over_classes([1.0], ["a", "b"]), "classes must have one entry for each of 1 values, got 2"),
        (lambda: quantile([1.0], 1.1), "share must lie in [0, 1], got 1.1; 0.5 is the median"),
        (lambda: mean_paired_difference([1, 2, 3.0], [1]), "values must be paired by their items, got 3 and 1 of them"),
    ],
)
def test_wrong_values(call: Callable[[], object], message: str) -> None:
    assert message_of(call).startswith(message)
