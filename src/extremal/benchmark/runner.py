"""Run a task with every method in units of work; a run can be interrupted at any time and resumed."""

import itertools
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from extremal.benchmark.baselines.method import Method
from extremal.benchmark.table import Table, build_table
from extremal.benchmark.tasks.task import Item, OnProgress, RowValues, Task, call_each, row_schema
from extremal.errors import ExtremalValueError
from extremal.jobs.store import Store, open_store
from extremal.networks.replicas import CheckStop, share_work
from extremal.number_checks import validate_callbacks, validate_whole

MAX_BATCH = 4096  # images per unit of work

IMAGES_PER_UNIT = 4  # what an interruption may cost, and the batch that methods receive


@dataclass(frozen=True)
class MethodUnit:
    """A unit of work: some images by one method, written at once."""

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
    copies: Sequence[Task] = (),
) -> Table:
    """Judge methods on a task.

    Args:
        task: gives the items, and measures the methods on them.
        methods: with distinct names, in the order of the table.
        out: folder of the run, new or of an earlier run with the same settings.
        batch: images per unit of work; part of the settings, so that a resumed run has the same units.
        on_progress: called before each unit; with copies after each.
        copies: of the task, with copies of its network on other devices, which share the images.

    Raises:
        ExtremalValueError: the folder is in use, belongs to another run, or cannot be written.
    """
    validate_callbacks(on_progress=on_progress)
    validate_whole(batch, "batch", 1, MAX_BATCH, "it is the number of images per unit of work")
    settings = {
        "task": task.name,
        **task.settings(),
        "methods": {method.name: method.settings() for method in methods},
        "batch": batch,
    }
    with open_store(out, settings, row_schema(task)) as store:
        report = on_progress or _report_nothing
        units = plan_units(task.plan(store, report), methods, batch)
        if not units:
            raise ExtremalValueError(
                "a run must have at least one image to judge, the data set has none; check its folder"
            )
        for other in copies:
            other.plan(store, _report_nothing)
        done = store.find_finished()
        if copies:
            _judge_shared([task, *copies], units, done, store, report)
        else:
            _judge_in_order(task, units, done, store, report)
        report("table", len(units), len(units))
        return build_table(task.table_columns, [method.name for method in methods], store.read_all())


def _report_nothing(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def _judge_in_order(
    task: Task, units: Sequence[MethodUnit], done: Collection[str], store: Store, report: OnProgress
) -> None:
    """Judge and write the units that are not done."""
    items: dict[tuple[str, ...], list[Item]] = {}
    for index, unit in enumerate(units):
        report(unit.method.name, index, len(units))
        if unit.name in done:
            continue
        if unit.keys not in items:
            items = {unit.keys: _read_items(task, unit.keys)}  # earlier ones are released
        store.write(unit.name, judge_items(task, unit.method, items[unit.keys]))


def _judge_shared(
    tasks: Sequence[Task], units: Sequence[MethodUnit], done: Collection[str], store: Store, report: OnProgress
) -> None:
    """Judge and write the units that are not done; those of the same images by one task, which reads them once."""
    pending = [unit for unit in units if unit.name not in done]
    groups = [[unit for unit in pending if unit.keys == keys] for keys in dict.fromkeys(unit.keys for unit in pending)]
    lock, n_written = threading.Lock(), itertools.count(len(units) - len(pending) + 1)

    def judge_group(task: Task, group: list[MethodUnit], check_stop: CheckStop) -> None:
        items = _read_items(task, group[0].keys)
        for unit in group:
            check_stop()
            rows = judge_items(task, unit.method, items)
            with lock:
                store.write(unit.name, rows)
                report(unit.method.name, next(n_written), len(units))

    for _ in share_work(tasks, groups, judge_group):
        pass


def _read_items(task: Task, keys: Sequence[str]) -> list[Item]:
    return [item for key in keys for item in task.items(key)]


def plan_units(keys: Sequence[str], methods: Sequence[Method], batch: int) -> list[MethodUnit]:
    """Return the units of work: all methods on the first images, then on the next ones."""
    return [
        MethodUnit(f"{start // batch:06d}-{method.name}", method, tuple(keys[start : start + batch]))
        for start in range(0, len(keys), batch)
        for method in methods
    ]


def judge_items(task: Task, method: Method, items: Sequence[Item]) -> list[RowValues]:
    """Return the rows of items; a failure of the method on an item affects the row of that item only."""
    valid = [item for item in items if not (item.skip or item.error)]
    rows = [_status_row(item, method, item.skip or item.error, "skipped" if item.skip else "error") for item in items]
    for item, result in zip(valid, call_each(lambda batch: task.measure(method, batch), valid), strict=True):
        index = items.index(item)
        if isinstance(result, str):
            rows[index] = _status_row(item, method, result, "error")
        else:
            rows[index] = [{**_item_columns(item, method), "status": "ok", "reason": "", **row} for row in result]
    return [row for item_rows in rows for row in item_rows]


def _item_columns(item: Item, method: Method) -> RowValues:
    return {"key": item.key, "label": item.label, "target": item.target, "method": method.name}


def _status_row(item: Item, method: Method, reason: str, status: str) -> list[RowValues]:
    return [{**_item_columns(item, method), "status": status, "reason": reason}]
