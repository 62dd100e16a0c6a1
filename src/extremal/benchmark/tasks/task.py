"""What is judged: items with their truth, and the measures a task takes of every method on them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from extremal.benchmark.baselines.method import Method
from extremal.jobs.store import Store
from extremal.networks.network import Network

RowValues = dict[str, Any]  # columns of one row
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Item:
    """One question that every method is asked: a class in a picture."""

    key: str  # of the picture
    label: str  # the class, as the data set names it
    target: int = -1  # the same class in the network's outputs
    x: Tensor | None = None  # (1, C, *S), prepared
    truth: np.ndarray[Any, Any] | None = None  # (*S) bool, where the class is in what the network sees
    tolerance: tuple[float, ...] = ()  # of the pointing game, in places of each axis of x
    difficult: bool = False  # counts among the difficult ones of the pointing game
    skip: str = ""  # why it cannot be judged; empty where it can
    error: str = ""  # what is broken about it; empty where nothing is


@dataclass(frozen=True)
class TableColumn:
    """One number of a method in the final table."""

    column: str  # of the rows
    title: str
    by_class: bool = False  # mean over the items of each class, then over classes
    only: str = ""  # a column of booleans: only the rows where it is true
    higher: bool = True  # is better
    unit: str = ""  # % or nothing


@dataclass(frozen=True, eq=False)
class TimedMap:
    """A method's map of one item, and its share of what the batch took."""

    map: Tensor  # (1, 1, *S)
    evaluations: float
    seconds: float

    def cost(self) -> RowValues:
        """As columns of a row."""
        return {"evaluations": self.evaluations, "seconds": round(self.seconds, 4)}


class Task(Protocol):
    """What `run` works through."""

    @property
    def name(self) -> str:
        """The short name."""
        ...

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The columns of its rows, beside those that all tasks share (`COMMON`)."""
        ...

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """What the final table tells."""
        ...

    def settings(self) -> dict[str, Any]:
        """Plain values of all on which its rows depend, apart from the methods."""
        ...

    def plan(self, store: Store) -> Sequence[str]:
        """The keys of what there is to judge, the same whenever it is asked."""
        ...

    def items(self, key: str) -> list[Item]:
        """The questions about one of these."""
        ...

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """The rows of each of these items, which can all be judged."""
        ...


COMMON_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "label": pa.string(),
    "target": pa.int64(),
    "method": pa.string(),
    "status": pa.string(),  # ok, skipped (the item cannot be judged), error (the item or the method failed on it)
    "reason": pa.string(),  # of the latter two
    "evaluations": pa.float64(),
    "seconds": pa.float64(),
}


def row_schema(task: Task) -> pa.Schema:
    """The columns of a task's rows."""
    return pa.schema([pa.field(name, kind) for name, kind in {**COMMON_COLUMNS, **task.row_columns}.items()])


def attribute_items(method: Method, network: Network, items: Sequence[Item]) -> list[TimedMap]:
    """A method's map of each item; items whose inputs have one shape are asked together.

    Raises:
        ValueError: a map is not finite, or not of its input's shape.
    """
    found: dict[int, TimedMap] = {}
    shapes = {tuple(item.x.shape): None for item in items if item.x is not None}
    for shape in shapes:
        here = [i for i, item in enumerate(items) if item.x is not None and tuple(item.x.shape) == shape]
        x = torch.cat([items[i].x for i in here])  # type: ignore[misc]
        begin = time.perf_counter()
        maps = method(network, x, [items[i].target for i in here])
        seconds = time.perf_counter() - begin
        wanted = (len(here), 1, *shape[2:])
        if tuple(maps.values.shape) != wanted or not bool(torch.isfinite(maps.values).all()):
            raise ValueError(
                f"a map must be finite and of shape {wanted}, {method.name} gave {tuple(maps.values.shape)}"
            )
        for place, index in enumerate(here):
            share = maps.evaluations / len(here), seconds / len(here)
            found[index] = TimedMap(maps.values[place : place + 1].float().cpu(), *share)
    return [found[i] for i in range(len(items))]


def call_each(call: Callable[[Sequence[Item]], Sequence[T]], items: Sequence[Item]) -> list[T | str]:
    """What a call gives for each item; where it fails on all, each alone, and the message of what fails still."""
    if not items:
        return []
    try:
        return list(call(items))
    except Exception as error:  # whatever a method does wrong is told, and the run goes on
        if len(items) == 1:
            return [" ".join(f"{type(error).__name__}: {error}".split())[:500]]
    return [call_each(call, [item])[0] for item in items]
