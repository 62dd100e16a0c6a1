"""Plan of a data-set run: which images, with which targets, in which units of work."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from extremal.errors import ExtremalValueError
from extremal.file_checks import find_kind, quote
from extremal.jobs.items import RunItem
from extremal.jobs.parquet_files import read_parquet
from extremal.jobs.store import Store

PLAN_FILE = "plan.parquet"  # in the store
UNIT_NAME = re.compile(r"[0-9]{8}")  # it is also the name of a file
ITEM_COLUMNS = ("key", "path", "target", "problem")
PLAN_SCHEMA = pa.schema([(name, pa.string()) for name in ("unit", *ITEM_COLUMNS)])


@dataclass(frozen=True)
class WorkUnit:
    """Items that are always explained together, and whose rows are written together."""

    name: str
    items: tuple[RunItem, ...]


def plan_units(store: Store, items: Sequence[RunItem], batch_size: int) -> list[WorkUnit]:
    """Return the units of work of a run, the same after every interruption.

    Items that are in the plan stay in their unit, even if images were added to or removed from the data set since:
    rounding, and so a row, depends on the images that are explained together. New items are added in new units. An item
    whose file has moved has its new path.

    Args:
        store: of the run; the plan is written to it.
        items: of the data set now.
        batch_size: items in a new unit.

    Raises:
        ExtremalValueError: the plan is damaged, or an item has another target than before.
    """
    stored = load_plan(store.folder)
    current = {item.key: item for item in items}
    units = [WorkUnit(unit.name, tuple(_update(item, current) for item in unit.items)) for unit in stored]
    known_keys = {item.key for unit in units for item in unit.items}
    new = [item for item in items if item.key not in known_keys]
    first = len(units)
    for number, start in enumerate(range(0, len(new), batch_size)):
        units.append(WorkUnit(f"{first + number:08d}", tuple(new[start : start + batch_size])))
    if units != stored:
        columns = [[getattr(item, name) for unit in units for item in unit.items] for name in ITEM_COLUMNS]
        names = [unit.name for unit in units for _ in unit.items]
        arrays = [pa.array(column, pa.string()) for column in (names, *columns)]
        store.write_table(PLAN_FILE, pa.table(arrays, schema=PLAN_SCHEMA))
    return units


def _update(item: RunItem, current: Mapping[str, RunItem]) -> RunItem:
    """Return an item with its path and problem of now."""
    now = current.get(item.key, item)
    if now.target != item.target:
        raise ExtremalValueError(
            f"an image of a run must keep its target, that of {quote(item.key)} was {quote(item.target)} and is now "
            f"{quote(now.target)}; give it another key in the manifest, or choose another folder"
        )
    return now


def load_plan(folder: Path) -> list[WorkUnit]:
    """Return the units of the run in a folder; none if it has no plan.

    Raises:
        ExtremalValueError: the plan is damaged.
    """
    path = folder / PLAN_FILE
    if not find_kind(path, "a plan"):
        return []
    remedy = "run again into another folder"
    rows = read_parquet(path, PLAN_SCHEMA, "the plan of a run", remedy).to_pylist()
    units: dict[str, list[RunItem]] = {}
    for row in rows:
        name = row.pop("unit")
        if not (name and UNIT_NAME.fullmatch(name)) or None in row.values():
            raise ExtremalValueError(
                f"a unit in the plan of a run must have a name of eight digits and complete items, {quote(path)} has "
                f"{quote(name)}; {remedy}"
            )
        units.setdefault(name, []).append(RunItem(**row))
    if len({row["key"] for row in rows}) < len(rows):
        raise ExtremalValueError(f"the plan of a run must have every key once, {quote(path)} has one twice; {remedy}")
    return [WorkUnit(name, tuple(items)) for name, items in units.items()]
