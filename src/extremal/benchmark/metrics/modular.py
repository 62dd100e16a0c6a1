"""The measures as torchmetrics' `Metric`: they gather values over batches and merge across processes.

>>> metric = PointingGame()
>>> region = torch.zeros(2, 8, 8, dtype=torch.bool)
>>> region[:, :4] = True
>>> metric.update(torch.rand(2, 1, 8, 8), region, classes=[0, 1])
>>> sorted(metric.compute())
['count', 'high', 'low', 'skipped', 'value']
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from extremal.benchmark import metrics
from extremal.benchmark.metrics.estimate import Estimate, mean, mean_over_classes


class ItemMetric(Metric):
    """One value an item, a class and a picture for each; the mean with its interval.

    Args:
        by_class: average over the means of classes.
        seed: of the bootstrap.
    """

    is_differentiable = False
    higher_is_better: bool | None = True
    full_state_update = False

    values: list[Tensor]
    classes: list[Tensor]
    groups: list[Tensor]

    def __init__(self, by_class: bool = False, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.by_class, self.seed = by_class, seed
        for name in ("values", "classes", "groups"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def add(self, values: Tensor, classes: Sequence[int] | None = None, groups: Sequence[int] | None = None) -> None:
        """Values (n,) of items, with the class and the picture of each."""
        self.values.append(values.detach().double())
        for state, given in ((self.classes, classes), (self.groups, groups)):
            numbers = torch.full((len(values),), -1) if given is None else torch.as_tensor(list(given))
            state.append(numbers.to(values.device, torch.int64))

    def compute(self) -> dict[str, float]:
        """The estimate, as plain numbers."""
        return asdict(self.estimate())

    def estimate(self) -> Estimate:
        """The estimate over all items so far; items in no picture of their own are independent."""
        if not self.values:
            return mean([])
        values, classes, groups = (
            dim_zero_cat(state).cpu().tolist() for state in (self.values, self.classes, self.groups)
        )
        together = None if all(group < 0 for group in groups) else groups
        if self.by_class:
            return mean_over_classes(values, classes, groups=together, seed=self.seed)
        return mean(values, groups=together, seed=self.seed)


class PointingGame(ItemMetric):
    """Accuracy of the pointing game, per class and then over classes (`hits`).

    Args:
        tolerance: of the disc, in places.
        difficult: only items that are told to be difficult.
    """

    def __init__(self, tolerance: float = 15.0, difficult: bool = False, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(by_class=True, seed=seed, **kwargs)
        self.tolerance, self.difficult = tolerance, difficult

    def update(
        self,
        maps: Tensor,
        regions: Tensor,
        classes: Sequence[int],
        difficult: Sequence[bool] | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        """Maps (N, 1, *S), regions (N, *S), a class for each, and which are difficult."""
        values = metrics.hits(maps, regions, self.tolerance)
        if self.difficult:
            wanted = (
                torch.zeros(len(values), dtype=torch.bool) if difficult is None else torch.as_tensor(list(difficult))
            )
            values = values.masked_fill(~wanted.to(values.device), torch.nan)
        self.add(values, classes, groups)


class Energy(ItemMetric):
    """Mean share of the maps inside the regions (`energy`)."""

    def update(self, maps: Tensor, regions: Tensor, groups: Sequence[int] | None = None) -> None:
        """Maps (N, 1, *S), regions (N, *S); for the grid pointing game the regions are cells."""
        self.add(metrics.energy(maps, regions), groups=groups)


class Overlap(ItemMetric):
    """Mean intersection over union at the regions' own areas (`iou`)."""

    def update(self, maps: Tensor, regions: Tensor, groups: Sequence[int] | None = None) -> None:
        """Maps (N, 1, *S), regions (N, *S)."""
        self.add(metrics.iou(maps, regions), groups=groups)


class AveragePrecision(ItemMetric):
    """Mean average precision of the maps' values (`average_precision`)."""

    def update(self, maps: Tensor, regions: Tensor, groups: Sequence[int] | None = None) -> None:
        """Maps (N, 1, *S), regions (N, *S)."""
        self.add(metrics.average_precision(maps, regions), groups=groups)


class AreaUnderCurve(ItemMetric):
    """Mean area under curves of insertion, deletion, removal or evidence (`exchanged`, `removed`, `kept`)."""

    higher_is_better = None  # of insertion and evidence yes, of deletion and removal no

    def update(self, curves: Sequence["metrics.Changed"], groups: Sequence[int] | None = None) -> None:
        """Curves, one an item."""
        self.add(torch.tensor([curve.area for curve in curves], dtype=torch.float64), groups=groups)


class Similarity(ItemMetric):
    """Mean rank correlation of pairs of maps (`similarity`): sanity, or agreement over seeds."""

    higher_is_better = None

    def update(self, a: Tensor, b: Tensor, groups: Sequence[int] | None = None) -> None:
        """Maps (N, 1, *S) and what they are compared with."""
        self.add(metrics.similarity(a, b), groups=groups)
