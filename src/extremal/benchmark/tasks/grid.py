"""The grid pointing game: of a mosaic of confident pictures, how much of the map lies in the cell of the class?"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.data import DataSet
from extremal.benchmark.runner import network_settings
from extremal.benchmark.tasks.confident import MIN_CONFIDENCE, NamedImage, find_confident
from extremal.benchmark.tasks.task import Item, RowValues, TableColumn, attribute_items
from extremal.errors import ExtremalValueError
from extremal.jobs.store import Store
from extremal.networks.network import Network


@dataclass(eq=False)
class Grid:
    """n × n mosaics of distinct classes (Böhle, Fritz, Schiele, 2021); chance is 1/n².

    Args:
        network: names the pictures, and is asked about the mosaics.
        data: any pictures; labels are not used.
        side: n.
        count: mosaics.
        confidence: least probability of a picture's top class.
        cell: side of a cell in px; 0 keeps the pictures as large as the network takes them.
        seed: of the draw.
    """

    network: Network
    data: DataSet
    side: int = 2
    count: int = 50
    confidence: float = MIN_CONFIDENCE
    cell: int = 0
    seed: int = 0

    name = "grid"

    def __post_init__(self) -> None:
        if self.side < 2:
            raise ExtremalValueError(f"a grid must have at least 2 × 2 cells, got {self.side}; e.g. 2 or 3")
        if self.count < 1:
            raise ExtremalValueError(f"count must be at least 1 mosaic, got {self.count}")
        self._mosaics: dict[str, list[NamedImage]] = {}

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The cell, the share of the map in it, and whether the map's maximum lies there."""
        return {"cell": pa.int64(), "share": pa.float64(), "hit": pa.float64()}

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The share is the game's own number."""
        return (
            TableColumn("share", f"share in the cell (chance {1 / self.side**2:.3f})"),
            TableColumn("hit", "maximum in the cell", unit="%"),
        )

    def settings(self) -> dict[str, Any]:
        """Data, network, and how mosaics are drawn."""
        chosen = {name: getattr(self, name) for name in ("side", "count", "confidence", "cell", "seed")}
        return {**network_settings(self.network), "data": self.data.settings(), **chosen}

    def plan(self, store: Store) -> Sequence[str]:
        """The mosaics, drawn from the confident pictures: classes first, then a picture of each."""
        by_class: dict[int, list[NamedImage]] = {}
        for one in find_confident(self.network, self.data, self.confidence, store):
            by_class.setdefault(one.target, []).append(one)
        if len(by_class) < self.side**2:
            raise ExtremalValueError(
                f"a mosaic must have {self.side**2} pictures of distinct classes, {self.network.name} names only "
                f"{len(by_class)} classes with confidence {self.confidence:g}; use more pictures or a smaller grid"
            )
        draw = random.Random(self.seed)
        for index in range(self.count):
            chosen = draw.sample(sorted(by_class), self.side**2)
            self._mosaics[f"mosaic-{index:05d}"] = [draw.choice(by_class[target]) for target in chosen]
        return tuple(self._mosaics)

    def items(self, key: str) -> list[Item]:
        """One for each of the mosaic's classes."""
        pictures = [self.data.sample(one.key).image for one in self._mosaics[key]]
        inputs = torch.cat([self.network.prepare(picture).to(self.network.anchor) for picture in pictures])
        size = (self.cell * self.side,) * 2 if self.cell else None
        x = metrics.mosaic(inputs, self.side, size=size)
        return [
            Item(key, one.label, one.target, x, metrics.cell_mask(cell, self.side, (x.shape[2], x.shape[3])).numpy())
            for cell, one in enumerate(self._mosaics[key])
        ]

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """One row an item."""
        rows = []
        for found, item in zip(attribute_items(method, self.network, items), items, strict=True):
            truth = torch.from_numpy(item.truth)[None]
            cell = [one.label for one in self._mosaics[item.key]].index(item.label)
            share = float(metrics.energy(found.map, truth))
            hit = float(metrics.pointing_game(found.map, truth, 0.0))
            rows.append([{**found.cost(), "cell": cell, "share": share, "hit": hit}])
        return rows
