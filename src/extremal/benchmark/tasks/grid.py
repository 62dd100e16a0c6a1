"""The grid pointing game: the part of a map in its class's cell, on mosaics of confident images."""

import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.data import DataSet
from extremal.benchmark.tasks.confident import MIN_CONFIDENCE, NamedImage, find_confident
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
from extremal.errors import ExtremalValueError
from extremal.jobs.store import Store
from extremal.networks.network import Network
from extremal.number_checks import format_value

MAX_GRID_SIDE, MAX_CELL, MAX_MOSAICS = 16, 1024, 100_000  # cells, px, mosaics


@dataclass(eq=False)
class Grid:
    """n × n mosaics of distinct classes (Böhle, Fritz, Schiele, 2021); chance is 1/n².

    Args:
        network: classifies the images, and is then asked about the mosaics.
        data: any images; labels are not used.
        side: n.
        count: number of mosaics.
        confidence: minimum probability of an image's top class.
        cell: side of a cell in px; 0: the size of the network's inputs.
        seed: of the selection.

    Raises:
        ExtremalValueError: the grid or the count is too small.
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
        """Validate the options."""
        check_numbers(confidence=self.confidence)
        if self.side < 2:
            raise ExtremalValueError(f"a grid must have at least 2 × 2 cells, got {self.side}; e.g. 2 or 3")
        if self.side > MAX_GRID_SIDE or not 0 <= self.cell <= MAX_CELL:
            raise ExtremalValueError(
                f"a grid must have at most {MAX_GRID_SIDE} × {MAX_GRID_SIDE} cells of at most {MAX_CELL} px, got "
                f"{format_value(self.side)} and {format_value(self.cell)} px; e.g. 3 and 224"
            )
        if self.count < 1:
            raise ExtremalValueError(f"count must be at least 1 mosaic, got {self.count}")
        if self.count > MAX_MOSAICS:
            raise ExtremalValueError(
                f"count must be at most {MAX_MOSAICS:,} mosaics, got {format_value(self.count)}; e.g. 50"
            )
        self._mosaics: dict[str, list[NamedImage]] = {}

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The cell, the fraction of the map in it, and whether the map's maximum is there."""
        return {"cell": pa.int64(), "share": pa.float64(), "hit": pa.float64()}

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The fraction in the cell is the score of the game."""
        return (
            TableColumn("share", f"share in the cell (chance {1 / self.side**2:.3f})"),
            TableColumn("hit", "maximum in the cell", unit="%"),
        )

    def settings(self) -> dict[str, Any]:
        """Return data, network, and the options of the mosaics."""
        options = {name: getattr(self, name) for name in ("side", "count", "confidence", "cell", "seed")}
        return {**network_settings(self.network), "data": self.data.settings(), **options}

    def plan(self, store: Store, on_progress: OnProgress) -> Sequence[str]:
        """Draw mosaics from the confident images, first classes and then an image of each; return their keys."""
        by_class: dict[int, list[NamedImage]] = {}
        found = find_confident(self.network, self.data, self.confidence, store, on_progress)
        _warn_unreadable(found.unreadable)
        for image in found.images:
            by_class.setdefault(image.target, []).append(image)
        if len(by_class) < self.side**2:
            raise ExtremalValueError(
                f"a mosaic must have {self.side**2} images of distinct classes, {self.network.name} finds only "
                f"{len(by_class)} classes with confidence {self.confidence:g}; use more images or a smaller grid"
            )
        rng = random.Random(self.seed)
        for index in range(self.count):
            classes = rng.sample(sorted(by_class), self.side**2)
            self._mosaics[f"mosaic-{index:05d}"] = [rng.choice(by_class[target]) for target in classes]
        return tuple(self._mosaics)

    def items(self, key: str) -> list[Item]:
        """Return one item per class of the mosaic."""
        images = [self.data.sample(image.key).image for image in self._mosaics[key]]
        x = self._join([prepare_image(self.network, image) for image in images])
        return [
            Item(
                key, image.label, image.target, x, metrics.cell_mask(cell, self.side, (x.shape[2], x.shape[3])).numpy()
            )
            for cell, image in enumerate(self._mosaics[key])
        ]

    def _join(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Return the mosaic of inputs (1, C, H, W)."""
        if self.cell:
            inputs = [metrics.mosaic(x, 1, size=(self.cell, self.cell)) for x in inputs]
        sizes = {tuple(x.shape[2:]): None for x in inputs}
        if len(sizes) > 1:
            texts = " and ".join(" × ".join(map(str, size)) for size in list(sizes)[:2])
            raise ExtremalValueError(f"a mosaic must have inputs of one size, got {texts} px; choose --cell, e.g. 224")
        return metrics.mosaic(torch.cat(inputs), self.side)

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """Return one row per item."""
        rows = []
        for result, item in zip(attribute_items(method, self.network, items), items, strict=True):
            truth = torch.from_numpy(item.truth)[None]
            cell = [image.target for image in self._mosaics[item.key]].index(item.target)
            fraction = float(metrics.energy(result.map, truth))
            hit = float(metrics.pointing_game(result.map, truth, 0.0))
            rows.append([{**result.cost(), "cell": cell, "share": fraction, "hit": hit}])
        return rows


def _warn_unreadable(reasons: Mapping[str, str]) -> None:
    """Warn of images that no mosaic can contain, by their keys."""
    if reasons:
        subject = "1 image that cannot be read is" if len(reasons) == 1 else f"{len(reasons)} unreadable images are"
        warnings.warn(f"{subject} in no mosaic: {next(iter(reasons.values()))}", stacklevel=3)
