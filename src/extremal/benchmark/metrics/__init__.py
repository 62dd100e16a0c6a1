"""Measures of maps: each a pure *update* from a batch to one value an item, and one *compute* for all (`estimate`).

`extremal.benchmark.metrics.modular` has them as torchmetrics' `Metric`.
"""

from extremal.benchmark.metrics.energy import energy
from extremal.benchmark.metrics.estimate import Estimate, mean, mean_over_classes, paired_difference
from extremal.benchmark.metrics.mosaics import cell_mask, mosaic
from extremal.benchmark.metrics.overlap import average_precision, iou
from extremal.benchmark.metrics.perturbation_curves import Changed, exchanged, imputed, kept, ranks, removed
from extremal.benchmark.metrics.pointing import hits
from extremal.benchmark.metrics.randomisation import reinitialised, stages
from extremal.benchmark.metrics.similarity import agreement, similarity

__all__ = [
    "Changed",
    "Estimate",
    "agreement",
    "average_precision",
    "cell_mask",
    "energy",
    "exchanged",
    "hits",
    "imputed",
    "iou",
    "kept",
    "mean",
    "mean_over_classes",
    "mosaic",
    "paired_difference",
    "ranks",
    "reinitialised",
    "removed",
    "similarity",
    "stages",
]
