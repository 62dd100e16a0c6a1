"""Metrics of maps: each a pure function from a batch to one value per item; `estimate` averages the values."""

from extremal.benchmark.metrics.estimate import Estimate, mean, mean_over_classes, mean_paired_difference, quantile
from extremal.benchmark.metrics.mosaics import cell_mask, mosaic
from extremal.benchmark.metrics.overlap import average_precision, iou
from extremal.benchmark.metrics.perturbation_curves import (
    PerturbationCurve,
    area_curve,
    impute,
    insertion_curve,
    rank_map,
    road_curve,
)
from extremal.benchmark.metrics.pointing import energy, pointing_game
from extremal.benchmark.metrics.randomisation import reinitialise, stages
from extremal.benchmark.metrics.similarity import rank_correlation, seed_agreement

__all__ = [
    "Estimate",
    "PerturbationCurve",
    "area_curve",
    "average_precision",
    "cell_mask",
    "energy",
    "impute",
    "insertion_curve",
    "iou",
    "mean",
    "mean_over_classes",
    "mean_paired_difference",
    "mosaic",
    "pointing_game",
    "quantile",
    "rank_correlation",
    "rank_map",
    "reinitialise",
    "road_curve",
    "seed_agreement",
    "stages",
]
