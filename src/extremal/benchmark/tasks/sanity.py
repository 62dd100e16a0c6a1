"""Sanity: do maps change when the network forgets what it has learnt, from the top down? And by how much by seed?"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.data import DataSet
from extremal.benchmark.runner import network_settings
from extremal.benchmark.tasks.confident import MIN_CONFIDENCE, ConfidentPictures
from extremal.benchmark.tasks.task import Item, RowValues, TableColumn, attribute_items, call_each
from extremal.jobs.store import Store
from extremal.networks.network import Network

CHANGED_CORRELATION = 0.3  # rank correlation with the original map, under which a map counts as another one
RESEEDED_STAGE = "another seed"


@dataclass(eq=False)
class Sanity:
    """Rank correlation of maps before and after cascading re-initialisation (Adebayo et al., 2018).

    Each stage is re-initialised with all above it. Methods that draw are also compared with themselves under another
    seed: a map that differs as much by chance says nothing by changing.
    """

    network: Network
    data: DataSet
    confidence: float = MIN_CONFIDENCE
    seed: int = 0

    name = "sanity"

    def __post_init__(self) -> None:
        self.stages = [name for name, _ in metrics.stages(self.network.model)]
        self._pictures = ConfidentPictures(self.network, self.data, self.confidence)

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The stage down to which the network was re-initialised, and the correlation with the original map."""
        return {
            "stage": pa.string(),
            "depth": pa.int64(),
            "similarity": pa.float64(),
            "top": pa.bool_(),
            "bottom": pa.bool_(),
            "reseeded": pa.bool_(),
        }

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The top stage alone, everything, and another seed."""
        return (
            TableColumn("similarity", f"only {self.stages[0]} re-initialised", only="top", higher=False),
            TableColumn("similarity", "all re-initialised", only="bottom", higher=False),
            TableColumn("similarity", RESEEDED_STAGE, only="reseeded"),
        )

    def settings(self) -> dict[str, Any]:
        """Data, network and seed."""
        chosen = {"confidence": self.confidence, "seed": self.seed}
        return {**network_settings(self.network), "data": self.data.settings(), **chosen}

    def plan(self, store: Store) -> Sequence[str]:
        """The confident pictures, each about its own class."""
        return self._pictures.plan(store)

    def items(self, key: str) -> list[Item]:
        """One a picture."""
        return self._pictures.items(key)

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """One row an item and stage; a method that has no map at a stage costs that row."""
        original = attribute_items(method, self.network, items)
        rows: list[list[RowValues]] = [[] for _ in items]
        for depth, (stage, network, asking) in enumerate(self._variants(method), start=1):
            place = self._stage_columns(stage, depth)
            again = call_each(partial(attribute_items, asking, network), items)
            for row, before, after in zip(rows, original, again, strict=True):
                if isinstance(after, str):
                    row.append({**place, "status": "error", "reason": after})
                else:
                    similarity = float(metrics.rank_correlation(before.map, after.map))
                    row.append({**place, **after.cost(), "similarity": similarity})
        return rows

    def _variants(self, method: Method) -> Iterator[tuple[str, Network, Method]]:
        """Networks and methods to compare with: each stage, and another seed where the method draws."""
        for depth, stage in enumerate(self.stages, start=1):
            yield stage, metrics.reinitialise(self.network, depth, seed=self.seed), method
        if any(field.name == "seed" for field in dataclasses.fields(method)):  # type: ignore[arg-type]
            yield RESEEDED_STAGE, self.network, dataclasses.replace(method, seed=method.seed + 1)  # type: ignore[type-var,attr-defined]

    def _stage_columns(self, stage: str, depth: int) -> RowValues:
        return {
            "stage": stage,
            "depth": depth,
            "top": depth == 1,
            "bottom": depth == len(self.stages),
            "reseeded": stage == RESEEDED_STAGE,
        }


def similarity_curves(
    rows: pa.Table, methods: Sequence[str]
) -> tuple[list[str], dict[str, Sequence[tuple[float, float, float]]]]:
    """The mean similarity of each method after each stage, with its interval, from a run's rows."""
    rows = rows.filter(pc.and_(pc.equal(rows["status"], "ok"), pc.invert(rows["reseeded"])))
    depths = sorted(set(rows["depth"].to_pylist()))
    names = {row["depth"]: row["stage"] for row in rows.select(["depth", "stage"]).to_pylist()}
    lines: dict[str, Sequence[tuple[float, float, float]]] = {}
    for method in methods:
        own = rows.filter(pc.equal(rows["method"], method))
        found = []
        for depth in depths:
            here = own.filter(pc.equal(own["depth"], depth))
            estimate = metrics.mean(np.array(here["similarity"].to_pylist(), dtype=np.float64))
            found.append((estimate.value, estimate.low, estimate.high))
        lines[method] = found
    return [names[depth] for depth in depths], lines
