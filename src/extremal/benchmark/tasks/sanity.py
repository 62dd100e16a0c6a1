"""Sanity checks: the change of maps when the network is re-initialised from the top down, and between seeds."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from extremal.benchmark import metrics
from extremal.benchmark.baselines.method import Method
from extremal.benchmark.tasks.confident import ConfidentImageTask
from extremal.benchmark.tasks.task import Item, RowValues, TableColumn, attribute_items, call_each
from extremal.networks.network import Network

CHANGED_CORRELATION = 0.3  # rank correlation with the original map, below which a map counts as changed
RESEEDED_STAGE = "another seed"


@dataclass(eq=False)
class Sanity(ConfidentImageTask):
    """Rank correlation of maps before and after cascading re-initialisation (Adebayo et al., 2018).

    Each stage is re-initialised together with all stages above it. Methods with a seed are also compared with
    themselves under another seed: if maps differ as much by chance, their change is no evidence.
    """

    name = "sanity"

    def __post_init__(self) -> None:
        """List the stages of the network."""
        super().__post_init__()
        self.stages = [name for name, _ in metrics.stages(self.network.model)]

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The stage down to which the network is re-initialised, and the correlation with the original map."""
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
        """The top stage alone, all stages, and another seed."""
        return (
            TableColumn("similarity", f"only {self.stages[0]} re-initialised", only="top", higher=False),
            TableColumn("similarity", "all re-initialised", only="bottom", higher=False),
            TableColumn("similarity", RESEEDED_STAGE, only="reseeded"),
        )

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """Return one row per item and stage; if a method fails at a stage, only that row is an error."""
        original = attribute_items(method, self.network, items)
        rows: list[list[RowValues]] = [[] for _ in items]
        for depth, (stage, network, variant) in enumerate(self._variants(method), start=1):
            columns = self._stage_columns(stage, depth)
            results = call_each(partial(attribute_items, variant, network), items)
            for item_rows, before, after in zip(rows, original, results, strict=True):
                if isinstance(after, str):
                    item_rows.append({**columns, "status": "error", "reason": after})
                else:
                    similarity = float(metrics.rank_correlation(before.map, after.map))
                    item_rows.append({**columns, **after.cost(), "similarity": similarity})
        return rows

    def _variants(self, method: Method) -> Iterator[tuple[str, Network, Method]]:
        """Yield networks and methods to compare with: each stage, and another seed if the method has one."""
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
    """Return the stages, and each method's mean similarity at each stage with its interval, from a run's rows."""
    rows = rows.filter(pc.and_(pc.equal(rows["status"], "ok"), pc.invert(rows["reseeded"])))
    depths = sorted(set(rows["depth"].to_pylist()))
    names = {row["depth"]: row["stage"] for row in rows.select(["depth", "stage"]).to_pylist()}
    curves: dict[str, Sequence[tuple[float, float, float]]] = {}
    for method in methods:
        method_rows = rows.filter(pc.equal(rows["method"], method))
        points = []
        for depth in depths:
            stage_rows = method_rows.filter(pc.equal(method_rows["depth"], depth))
            estimate = metrics.mean(np.array(stage_rows["similarity"].to_pylist(), dtype=np.float64))
            points.append((estimate.value, estimate.low, estimate.high))
        curves[method] = points
    return [names[depth] for depth in depths], curves
