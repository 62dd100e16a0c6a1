"""Work through a task with every method: in batches, resumable after a kill at any moment, nothing counted twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from extremal.benchmark.baselines.method import Method
from extremal.benchmark.table import Table, build_table
from extremal.benchmark.tasks.task import Item, RowValues, Task, call_each, row_schema
from extremal.errors import ExtremalValueError
from extremal.jobs.store import open_store
from extremal.networks.network import Network

IMAGES_PER_UNIT = 4  # pictures a unit of work: what a kill may cost, and what methods get at once

OnProgress = Callable[[str, int, int], None]  # current stage, units done, units in all


@dataclass(frozen=True)
class MethodUnit:
    """What is done whole or not at all: some pictures by one method."""

    name: str
    method: Method
    keys: tuple[str, ...]


def run(
    task: Task,
    methods: Sequence[Method],
    out: Path,
    *,
    batch: int = IMAGES_PER_UNIT,
    on_progress: OnProgress | None = None,
) -> Table:
    """Judge the methods, and tell what came of it.

    Args:
        task: what is judged.
        methods: by distinct names, in the order of the table.
        out: the folder of the run: new, or of a run with the same settings that was not finished.
        batch: pictures a unit of work; units are the same after a resume, so that their rows are too.
        on_progress: called before each unit.

    Raises:
        ExtremalValueError: the folder is in use, of another run, or cannot be written.
    """
    if batch < 1:
        raise ExtremalValueError(f"batch must be at least 1, got {batch}; it is the number of pictures a unit of work")
    settings = {
        "task": task.name,
        **task.settings(),
        "methods": {method.name: method.settings() for method in methods},
        "batch": batch,
    }
    with open_store(out, settings, row_schema(task)) as store:
        units = plan_units(task.plan(store), methods, batch)
        if not units:
            raise ExtremalValueError("a run must have something to judge, the data set has nothing; check its folder")
        done = store.finished()
        items: dict[tuple[str, ...], list[Item]] = {}
        for index, unit in enumerate(units):
            if on_progress is not None:
                on_progress(unit.method.name, index, len(units))
            if unit.name in done:
                continue
            if unit.keys not in items:
                items = {unit.keys: [item for key in unit.keys for item in task.items(key)]}  # those before are let go
            store.write(unit.name, judge_items(task, unit.method, items[unit.keys]))
        if on_progress is not None:
            on_progress("table", len(units), len(units))
        return build_table(task.table_columns, [method.name for method in methods], store.read_all())


def plan_units(keys: Sequence[str], methods: Sequence[Method], batch: int) -> list[MethodUnit]:
    """The units of work: all methods on the first pictures, then on the next."""
    return [
        MethodUnit(f"{start // batch:06d}-{method.name}", method, tuple(keys[start : start + batch]))
        for start in range(0, len(keys), batch)
        for method in methods
    ]


def judge_items(task: Task, method: Method, items: Sequence[Item]) -> list[RowValues]:
    """The rows of some items; one on which the method fails costs its own row."""
    sound = [item for item in items if not (item.skip or item.error)]
    rows = [_unjudged_row(item, method, item.skip or item.error, "skipped" if item.skip else "error") for item in items]
    for item, found in zip(sound, call_each(lambda part: task.measure(method, part), sound), strict=True):
        place = items.index(item)
        if isinstance(found, str):
            rows[place] = _unjudged_row(item, method, found, "error")
        else:
            rows[place] = [{**_item_columns(item, method), "status": "ok", "reason": "", **values} for values in found]
    return [row for several in rows for row in several]


def _item_columns(item: Item, method: Method) -> RowValues:
    return {"key": item.key, "label": item.label, "target": item.target, "method": method.name}


def _unjudged_row(item: Item, method: Method, reason: str, status: str) -> list[RowValues]:
    return [{**_item_columns(item, method), "status": status, "reason": reason}]


def network_settings(network: Network) -> dict[str, Any]:
    """What of a network its rows depend on, and what else of the machine does."""
    from extremal._version import __version__

    return {
        "network": network.name,
        "weights": network.weight_hash(),
        "versions": {"extremal": __version__, "torch": torch.__version__},
    }
