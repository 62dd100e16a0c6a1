"""The protocol of benchmark tasks: items with their truth, and the measurement of methods on them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from extremal._version import __version__
from extremal.benchmark.baselines.method import Method, compute_masks
from extremal.jobs.store import Store
from extremal.networks.network import Network
from extremal.networks.run import Run
from extremal.scores.classes import margin

OnProgress = Callable[[str, int, int], None]  # current stage, finished units, all units
RowValues = dict[str, Any]  # column -> value of one row
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Item:
    """A class in an image, about which every method is asked."""

    key: str  # of the image
    label: str  # the name of the class in the data set
    target: int = -1  # its index in the network's output
    x: Tensor | None = None  # (1, C, *S), prepared
    truth: np.ndarray[Any, Any] | None = None  # (*S) bool, the places of the class in the network's input
    tolerance: tuple[float, ...] = ()  # of the pointing game, in places along each axis of x
    difficult: bool = False  # belongs to the difficult subset of the pointing game
    skip: str = ""  # why it cannot be judged; empty if it can
    error: str = ""  # what is broken about it; empty if nothing is
    copies: tuple[Tensor, ...] = ()  # x of the same image after small changes, (1, C, *S) each

    @property
    def input(self) -> Tensor:
        """The prepared input (1, C, *S), which each item has that can be judged."""
        assert self.x is not None
        return self.x


@dataclass(frozen=True)
class TableColumn:
    """A column of the final table: one number per method."""

    column: str  # of the rows, from which it is computed
    title: str
    by_class: bool = False  # average within each class, then over classes
    only: str = ""  # a boolean column of the rows: use only rows with True
    higher: bool = True  # a higher value is better
    unit: str = ""  # % or empty
    quantile: float | None = None  # estimate this quantile; None: the mean
    group: str = ""  # columns of one group form a table of their own under this heading
    in_figure: bool = True

    @property
    def full_title(self) -> str:
        """The title with its group, unique in the table."""
        return f"{self.group}: {self.title}" if self.group else self.title


@dataclass(frozen=True, eq=False, kw_only=True)
class Timed:
    """An item's part of the cost of a batch."""

    evaluations: float
    seconds: float

    def cost(self) -> RowValues:
        """Return the cost as columns of a row."""
        return {"evaluations": self.evaluations, "seconds": round(self.seconds, 4)}


@dataclass(frozen=True, eq=False, kw_only=True)
class TimedMap(Timed):
    """A method's map of one item."""

    map: Tensor  # (1, 1, *S)


@dataclass(frozen=True, eq=False, kw_only=True)
class TimedMasks(Timed):
    """A method's masks of one item and its copies."""

    masks: Tensor  # (1 + copies, A, 1, *S) bool, of x and of each copy


class Task(Protocol):
    """A task that `runner.run` works through."""

    @property
    def name(self) -> str:
        """The short name."""
        ...

    @property
    def row_columns(self) -> dict[str, pa.DataType]:
        """The columns of its rows, without those that all tasks share (`COMMON_COLUMNS`)."""
        ...

    @property
    def table_columns(self) -> tuple[TableColumn, ...]:
        """The columns of the final table."""
        ...

    def settings(self) -> dict[str, Any]:
        """Return plain values of everything that decides its rows, except the methods."""
        ...

    def plan(self, store: Store, on_progress: OnProgress) -> Sequence[str]:
        """Return the keys of what there is to judge, the same at each call; report what takes long."""
        ...

    def items(self, key: str) -> list[Item]:
        """Return the items of one key."""
        ...

    def measure(self, method: Method, items: Sequence[Item]) -> list[list[RowValues]]:
        """Return the rows of each item; all of them can be judged."""
        ...


COMMON_COLUMNS: dict[str, pa.DataType] = {
    "key": pa.string(),
    "label": pa.string(),
    "target": pa.int64(),
    "method": pa.string(),
    "status": pa.string(),  # ok, skipped (the item cannot be judged), error (the item or the method failed on it)
    "reason": pa.string(),  # if the status is not ok
    "evaluations": pa.float64(),
    "seconds": pa.float64(),
}


def row_schema(task: Task) -> pa.Schema:
    """Return the columns of a task's rows."""
    return pa.schema([pa.field(name, kind) for name, kind in {**COMMON_COLUMNS, **task.row_columns}.items()])


def network_settings(network: Network) -> dict[str, Any]:
    """Return what identifies a network, and the versions that its results depend on."""
    return {
        "network": network.name,
        "weights": network.weight_hash(),
        "versions": {"extremal": __version__, "torch": torch.__version__},
    }


def prepare_image(network: Network, image: Image.Image) -> Tensor:
    """Return an image as an input (1, C, *S) on the device of the network."""
    return network.prepare(image).to(network.anchor)


def compute_margins(run: Run, inputs: Tensor, target: int) -> Tensor:
    """Return the margin of a class for each input (B, C, *S): (B,)."""
    return margin(run(inputs), torch.full((len(inputs),), target, device=inputs.device))


def attribute_items(method: Method, network: Network, items: Sequence[Item]) -> list[TimedMap]:
    """Return a method's map of each item; items with inputs of the same shape form a batch.

    Raises:
        ValueError: a map is not finite, or does not have the shape of its input.
    """
    results: dict[int, TimedMap] = {}
    for indices, x in _batches_by_shape(items):
        start = time.perf_counter()
        maps = method(network, x, [items[i].target for i in indices])
        seconds = time.perf_counter() - start
        expected = (len(indices), 1, *x.shape[2:])
        if tuple(maps.values.shape) != expected or not bool(torch.isfinite(maps.values).all()):
            raise ValueError(
                f"a map must be finite and of shape {expected}, {method.name} gave {tuple(maps.values.shape)}"
            )
        for row, index in enumerate(indices):
            map_ = maps.values[row : row + 1].float().cpu()
            results[index] = TimedMap(
                map=map_, evaluations=maps.evaluations / len(indices), seconds=seconds / len(indices)
            )
    return [results[i] for i in range(len(items))]


def mask_items(method: Method, network: Network, items: Sequence[Item], areas: tuple[float, ...]) -> list[TimedMasks]:
    """Return a method's masks of each item and its copies at each area; inputs of the same shape form a batch.

    Raises:
        ValueError: a mask does not have the shape of its input, or a map is not finite.
    """
    results: dict[int, TimedMasks] = {}
    for indices, _ in _batches_by_shape(items):
        x = torch.cat([x for i in indices for x in (items[i].input, *items[i].copies)])
        targets = [items[i].target for i in indices for _ in range(1 + len(items[i].copies))]
        start = time.perf_counter()
        found = compute_masks(method, network, x, targets, areas)
        seconds = time.perf_counter() - start
        expected = (len(x), len(areas), 1, *x.shape[2:])
        if tuple(found.values.shape) != expected:
            raise ValueError(f"masks must have the shape {expected}, {method.name} gave {tuple(found.values.shape)}")
        parts = torch.split(found.values.cpu(), [1 + len(items[i].copies) for i in indices])
        for index, masks in zip(indices, parts, strict=True):
            share = len(masks) / len(x)
            results[index] = TimedMasks(masks=masks, evaluations=found.evaluations * share, seconds=seconds * share)
    return [results[i] for i in range(len(items))]


def _batches_by_shape(items: Sequence[Item]) -> Iterator[tuple[list[int], Tensor]]:
    """Yield the indices of the items with inputs of one shape, and these inputs (B, C, *S)."""
    shapes = {tuple(item.input.shape): None for item in items}
    for shape in shapes:
        indices = [i for i, item in enumerate(items) if tuple(item.input.shape) == shape]
        yield indices, torch.cat([items[i].input for i in indices])


def call_each(call: Callable[[Sequence[Item]], Sequence[T]], items: Sequence[Item]) -> list[T | str]:
    """Call a function on all items, or on each alone if that fails; return its results, or the message of an error."""
    if not items:
        return []
    try:
        return list(call(items))
    except Exception as error:  # any error of a method is recorded, and the run continues
        if len(items) == 1:
            return [" ".join(f"{type(error).__name__}: {error}".split())[:500]]
    return [call_each(call, [item])[0] for item in items]
