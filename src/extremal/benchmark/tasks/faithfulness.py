"""Faithfulness: what the network's answer does while places come and go in the order of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.baselines.ours import AREAS
from extremal.benchmark.data import DataSet
from extremal.benchmark.runner import network_settings
from extremal.benchmark.tasks.confident import CONFIDENCE, ConfidentPictures
from extremal.benchmark.tasks.task import Item, Measure, Values, asked
from extremal.explanations.verdict import shares
from extremal.jobs.store import Store
from extremal.masking.perturbations import Blur, prepare_perturbation
from extremal.networks.network import Network
from extremal.scores import SCORES

STEPS = 28  # of insertion and deletion
REMOVED = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)  # shares of places, of ROAD


@dataclass(eq=False)
class Faithfulness:
    """Insertion and deletion (against a blurred input and against zeros), ROAD, and the evidence curve.

    Probabilities but for the evidence curve, which tells shares of the whole effect on the margin, as `explain` does.
    """

    network: Network
    data: DataSet
    confidence: float = CONFIDENCE
    seed: int = 0

    name = "faithfulness"

    def __post_init__(self) -> None:
        self._pictures = ConfidentPictures(self.network, self.data, self.confidence)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """Areas under the curves."""
        return {measure.column: pa.float64() for measure in self.measures}

    @property
    def measures(self) -> tuple[Measure, ...]:
        """Each baseline by itself: methods rank differently by them."""
        return (
            Measure("insertion_blur", "insertion into a blur"),
            Measure("insertion_zero", "insertion into zeros"),
            Measure("deletion_blur", "deletion to a blur", higher=False),
            Measure("deletion_zero", "deletion to zeros", higher=False),
            Measure("road", "ROAD, highest first", higher=False),
            Measure("evidence", "effect kept at " + ", ".join(f"{100 * area:g}" for area in AREAS) + " %"),
        )

    def settings(self) -> dict[str, Any]:
        """Data, network and seed."""
        chosen = {"confidence": self.confidence, "seed": self.seed, "steps": STEPS}
        return {**network_settings(self.network), "data": self.data.settings(), **chosen}

    def plan(self, store: Store) -> Sequence[str]:
        """The confident pictures, each about its own class."""
        return self._pictures.plan(store)

    def items(self, key: str) -> list[Item]:
        """One a picture."""
        return self._pictures.items(key)

    def measured(self, method: Method, items: Sequence[Item]) -> list[list[Values]]:
        """One row an item."""
        found = asked(method, self.network, items)
        return [[{**one.cost(), **self._judged(one.map, item)}] for one, item in zip(found, items, strict=True)]

    def _judged(self, map_: Tensor, item: Item) -> Values:
        x, target = item.x, item.target
        assert x is not None
        map_ = map_.to(x)
        with self.network.frozen(self.seed) as run, torch.no_grad():
            run.accelerate(x)
            blur = prepare_perturbation(Blur(), x)(x.new_zeros(1, 1, 1, *x.shape[2:])).flatten(0, 1)
            zero = torch.zeros_like(x)

            def probability(inputs: Tensor) -> Tensor:
                return run(inputs).softmax(1)[:, target]

            def margin(inputs: Tensor) -> Tensor:
                classes = torch.full((len(inputs),), target, device=inputs.device)
                return SCORES["margin"](run(inputs), classes)

            effects = metrics.kept(margin, x, blur, map_, AREAS).scores
            low, full = margin(blur).double().cpu(), margin(x).double().cpu()
            return {
                "insertion_blur": metrics.exchanged(probability, blur, x, map_, STEPS).area,
                "insertion_zero": metrics.exchanged(probability, zero, x, map_, STEPS).area,
                "deletion_blur": metrics.exchanged(probability, x, blur, map_, STEPS).area,
                "deletion_zero": metrics.exchanged(probability, x, zero, map_, STEPS).area,
                "road": metrics.removed(probability, x, map_, REMOVED, self.seed).area,
                "evidence": float(shares(effects, low, full, keeps=True).mean()),
            }
