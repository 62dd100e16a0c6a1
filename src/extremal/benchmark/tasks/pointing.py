"""The pointing game and its neighbours: does a map lie on the object of the class that was asked about?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.baselines.ours import PAPER_SMOOTH
from extremal.benchmark.data import DataSet, FieldsOfView, Region
from extremal.benchmark.data.classes import match_classes
from extremal.benchmark.metrics.pointing import POINTING_TOLERANCE
from extremal.benchmark.runner import network_settings
from extremal.benchmark.tasks.task import Item, RowValues, TableColumn, attribute_items
from extremal.errors import ExtremalError
from extremal.jobs.store import Store
from extremal.masking.grid import gaussian_blur
from extremal.networks.network import Network


@dataclass(eq=False)
class Pointing:
    """Pointing game, energy, overlap and average precision against the regions of a data set.

    The truth follows the network's preprocessing: what is cut off is not there to be found. The maximum is looked for
    twice: in the map as its own protocol has it, and in every method's map blurred alike.
    """

    network: Network
    data: DataSet
    tolerance: float = POINTING_TOLERANCE
    smooth: float = PAPER_SMOOTH
    class_map: Mapping[str, int | str] | None = None  # outputs of the network for classes that it names otherwise

    name = "pointing"

    def __post_init__(self) -> None:
        self.classes = match_classes(self.network, self.data.classes, self.class_map)
        self._frames = FieldsOfView(self.network)

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """Difficult or not, and what is measured."""
        measured = ("hit", "hit_smoothed", "energy", "iou", "precision", "size")
        return {"difficult": pa.bool_(), **{name: pa.float64() for name in measured}}

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The paper's two numbers, the game with all maps blurred alike, and outlines (AP: average precision)."""
        return (
            TableColumn("hit", "pointing", by_class=True, unit="%"),
            TableColumn("hit", "difficult", by_class=True, only="difficult", unit="%"),
            TableColumn("hit_smoothed", "all blurred", by_class=True, unit="%"),
            TableColumn("energy", "energy"),
            TableColumn("iou", "IoU"),
            TableColumn("precision", "AP"),
        )

    def settings(self) -> dict[str, Any]:
        """Data, network, tolerance and blur."""
        return {
            **network_settings(self.network),
            "data": self.data.settings(),
            "classes": dict(self.class_map or {}),
            "tolerance": self.tolerance,
            "smooth": self.smooth,
        }

    def plan(self, store: Store) -> Sequence[str]:
        """The pictures."""
        return self.data.keys()

    def items(self, key: str) -> list[Item]:
        """One for each class in the picture."""
        try:
            sample = self.data.sample(key)
        except ExtremalError as error:
            return [Item(key, "", error=str(error))]
        x = self.network.prepare(sample.image).to(self.network.anchor)
        frame = self._frames.get((sample.image.height, sample.image.width))
        found = []
        for region in sample.regions:
            truth, skip = _visible_region(region, frame)
            label = region.label
            tolerance = frame.tolerance(self.tolerance)
            found.append(Item(key, label, self.classes[label], x, truth, tolerance, region.difficult, skip))
        return found

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """One row an item."""
        return [
            [{**found.cost(), **self._measure_one(found.map, method.smooth, item)}]
            for found, item in zip(attribute_items(method, self.network, items), items, strict=True)
        ]

    def _measure_one(self, map_: torch.Tensor, smooth: float, item: Item) -> RowValues:
        assert item.truth is not None
        truth = torch.from_numpy(item.truth)[None]
        tolerance = torch.tensor([item.tolerance])
        short = min(map_.shape[2:])
        hit, smoothed = (
            metrics.pointing_game(gaussian_blur(map_, share * short), truth, tolerance)
            for share in (smooth, self.smooth)
        )
        return {
            "difficult": item.difficult,
            "hit": float(hit),
            "hit_smoothed": float(smoothed),
            "energy": float(metrics.energy(map_, truth)),
            "iou": float(metrics.iou(map_, truth)),
            "precision": float(metrics.average_precision(map_, truth)),
            "size": float(truth.float().mean()),
        }


def _visible_region(region: Region, frame: Any) -> tuple[np.ndarray[Any, Any] | None, str]:
    """The region in what the network sees, and why it cannot be judged, if it cannot."""
    if region.skip:
        return None, region.skip
    if region.mask is None:
        return None, "the data set has no regions"
    truth: np.ndarray[Any, Any] = frame.region(region.mask)
    return truth, "" if truth.any() else "the region lies outside of what the network sees"
