"""Faithfulness: the network's answer while places are added or removed in the order of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.baselines.ours import PAPER_AREAS
from extremal.benchmark.tasks.confident import ConfidentImageTask
from extremal.benchmark.tasks.task import Item, RowValues, TableColumn, attribute_items, compute_margins
from extremal.explanations.verdict import compute_effects
from extremal.masking.perturbations import Blur, destroy

CURVE_STEPS = 28  # of insertion and deletion
ROAD_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)  # of places that ROAD removes


@dataclass(eq=False)
class Faithfulness(ConfidentImageTask):
    """Insertion and deletion (against a blurred input and against zeros), ROAD, and the evidence curve.

    Curves are of probabilities, except the evidence curve: it is the fraction of the full effect on the margin that is
    kept, as in `explain`.
    """

    name = "faithfulness"

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The areas under the curves."""
        return {column.column: pa.float64() for column in self.table_columns}

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """One column per reference input, since they rank methods differently."""
        return (
            TableColumn("insertion_blur", "insertion into a blur"),
            TableColumn("insertion_zero", "insertion into zeros"),
            TableColumn("deletion_blur", "deletion to a blur", higher=False),
            TableColumn("deletion_zero", "deletion to zeros", higher=False),
            TableColumn("road", "ROAD, highest first", higher=False),
            TableColumn("evidence", "effect kept at " + ", ".join(f"{100 * area:g}" for area in PAPER_AREAS) + " %"),
        )

    def settings(self) -> dict[str, Any]:
        """Return data, network, seed and number of steps."""
        return {**super().settings(), "steps": CURVE_STEPS}

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """Return one row per item."""
        results = attribute_items(method, self.network, items)
        return [
            [{**result.cost(), **self._measure_one(result.map, item)}]
            for result, item in zip(results, items, strict=True)
        ]

    def _measure_one(self, map_: Tensor, item: Item) -> RowValues:
        x, target = item.input, item.target
        map_ = map_.to(x)
        with self.network.frozen(self.seed) as run, torch.no_grad():
            run.accelerate(x)
            blur = destroy(x, Blur())
            zero = torch.zeros_like(x)

            def probability(inputs: Tensor) -> Tensor:
                return run(inputs).softmax(1)[:, target]

            margins = partial(compute_margins, run, target=target)
            effects = metrics.area_curve(margins, x, blur, map_, PAPER_AREAS).scores
            low, full = margins(blur).double().cpu(), margins(x).double().cpu()
            return {
                "insertion_blur": metrics.insertion_curve(probability, blur, x, map_, CURVE_STEPS).area,
                "insertion_zero": metrics.insertion_curve(probability, zero, x, map_, CURVE_STEPS).area,
                "deletion_blur": metrics.insertion_curve(probability, x, blur, map_, CURVE_STEPS).area,
                "deletion_zero": metrics.insertion_curve(probability, x, zero, map_, CURVE_STEPS).area,
                "road": metrics.road_curve(probability, x, map_, ROAD_FRACTIONS, self.seed).area,
                "evidence": float(compute_effects(effects, low, full, keeps=True).mean()),
            }
