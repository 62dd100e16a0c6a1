"""The pointing game and related metrics: agreement of a map with the region of its class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.baselines.ours import PAPER_SMOOTH
from extremal.benchmark.data import DataSet, FieldOfView, FieldsOfView, Region
from extremal.benchmark.data.classes import match_classes
from extremal.benchmark.data.samples import require_regions
from extremal.benchmark.metrics.pointing import POINTING_TOLERANCE
from extremal.benchmark.tasks.option_checks import check_numbers
from extremal.benchmark.tasks.task import (
    Item,
    OnProgress,
    RowValues,
    TableColumn,
    attribute_items,
    network_settings,
    prepare_image,
)
from extremal.errors import ExtremalError
from extremal.jobs.store import Store
from extremal.masking.grid import gaussian_blur
from extremal.networks.network import Network


@dataclass(eq=False)
class Pointing:
    """Pointing game, energy, overlap and average precision against the regions of a data set.

    Regions are mapped through the network's preprocessing: a part that is cropped away does not count. The maximum is
    determined twice: in the map blurred by the method's own protocol, and in the map blurred as for all methods.
    """

    network: Network
    data: DataSet
    tolerance: float = POINTING_TOLERANCE
    smooth: float = PAPER_SMOOTH
    class_map: Mapping[str, int | str] | None = None  # outputs of the network for classes with another name there

    name = "pointing"

    def __post_init__(self) -> None:
        """Validate the options, and match the classes of the data set to those of the network."""
        check_numbers(tolerance=self.tolerance, smooth=self.smooth)
        require_regions(self.data.has_regions, str(self.data.settings().get("kind", "another")))
        self.classes = match_classes(self.network, self.data.classes, self.class_map)
        self._fields = FieldsOfView(self.network)

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """Difficult or not, and the metrics."""
        metric_names = ("hit", "hit_smoothed", "energy", "iou", "precision", "size")
        return {"difficult": pa.bool_(), **{name: pa.float64() for name in metric_names}}

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The paper's two numbers, the game with the same blur for all, and outlines (AP: average precision)."""
        return (
            TableColumn("hit", "pointing", by_class=True, unit="%"),
            TableColumn("hit", "difficult", by_class=True, only="difficult", unit="%"),
            TableColumn("hit_smoothed", "all blurred", by_class=True, unit="%"),
            TableColumn("energy", "energy"),
            TableColumn("iou", "IoU"),
            TableColumn("precision", "AP"),
        )

    def settings(self) -> dict[str, Any]:
        """Return data, network, tolerance and blur."""
        return {
            **network_settings(self.network),
            "data": self.data.settings(),
            "classes": dict(self.class_map or {}),
            "tolerance": self.tolerance,
            "smooth": self.smooth,
        }

    def plan(self, store: Store, on_progress: OnProgress) -> Sequence[str]:
        """Return the keys of the images."""
        return self.data.keys()

    def items(self, key: str) -> list[Item]:
        """Return one item per class in the image."""
        try:
            sample = self.data.sample(key)
        except ExtremalError as error:
            return [Item(key, "", error=str(error))]
        x = prepare_image(self.network, sample.image)
        field = self._fields.get((sample.image.height, sample.image.width))
        tolerance = field.tolerance(self.tolerance)
        items = []
        for region in sample.regions:
            truth, skip = _visible_region(region, field)
            label = region.label
            items.append(Item(key, label, self.classes[label], x, truth, tolerance, region.difficult, skip))
        return items

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """Return one row per item."""
        return [
            [{**result.cost(), **self._measure_one(result.map, method.smooth, item)}]
            for result, item in zip(attribute_items(method, self.network, items), items, strict=True)
        ]

    def _measure_one(self, map_: torch.Tensor, smooth: float, item: Item) -> RowValues:
        assert item.truth is not None
        truth = torch.from_numpy(item.truth)[None]
        tolerance = torch.tensor([item.tolerance])
        short_side = min(map_.shape[2:])
        hit, hit_smoothed = (
            metrics.pointing_game(gaussian_blur(map_, deviation * short_side), truth, tolerance)
            for deviation in (smooth, self.smooth)
        )
        return {
            "difficult": item.difficult,
            "hit": float(hit),
            "hit_smoothed": float(hit_smoothed),
            "energy": float(metrics.energy(map_, truth)),
            "iou": float(metrics.iou(map_, truth)),
            "precision": float(metrics.average_precision(map_, truth)),
            "size": float(truth.float().mean()),
        }


def _visible_region(region: Region, field: FieldOfView) -> tuple[np.ndarray[Any, Any] | None, str]:
    """Map a region to the network's input; the second value is the reason if it cannot be judged."""
    if region.skip:
        return None, region.skip
    if region.mask is None:
        return None, "the data set has no regions"
    truth = field.region(region.mask)
    return truth, "" if truth.any() else "the region lies outside of what the network sees"
