"""The plan of a data-set run: which pictures, asked about what, in which units of work."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from extremal.errors import ExtremalValueError
from extremal.jobs.store import Store
from extremal.networks.inputs import SUFFIXES

PLAN_FILE = "plan.parquet"  # in the store
PLAN_SCHEMA = pa.schema([("unit", pa.string()), ("key", pa.string()), ("path", pa.string()), ("target", pa.string())])


@dataclass(frozen=True)
class Item:
    """A picture and what is asked about it."""

    key: str  # distinct in a run
    path: str
    target: str = ""  # class, by index or name; empty: that of the run


@dataclass(frozen=True)
class WorkUnit:
    """What is done whole or not at all, and always in the same company: some items."""

    name: str
    items: tuple[Item, ...]


def find_items(sources: Sequence[str]) -> list[Item]:
    """The items in picture files, in folders and all below them, and in manifests (`.csv`).

    A manifest has a column `path`, relative to itself, and may have `target` and `key`.

    Args:
        sources: any of these, in order.

    Raises:
        ExtremalValueError: a source is missing or holds nothing, a manifest is broken, or a key stands twice.
    """
    items = [item for source in sources for item in _find_items_in(Path(source))]
    if not items:
        raise ExtremalValueError("a run must have pictures, got none; name files, folders, or a manifest .csv")
    twice = [key for key, count in Counter(item.key for item in items).items() if count > 1]
    if twice:
        raise ExtremalValueError(
            f"every picture and target of a run must have a key of its own, got {twice[0]!r} twice; "
            "leave one out, or give keys in a manifest"
        )
    return items


def _find_items_in(source: Path) -> list[Item]:
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        if not found:
            raise ExtremalValueError(
                f"a folder must hold pictures ({', '.join(SUFFIXES)}), {str(source)!r} has none; check the path"
            )
        return [Item(path.relative_to(source).as_posix(), str(path)) for path in found]
    if source.suffix.lower() == ".csv":
        return list(_read_manifest(source))
    return [Item(source.as_posix(), str(source))]  # a file that is missing costs its own row


def _read_manifest(manifest: Path) -> Iterator[Item]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise ExtremalValueError(
                    f"a manifest must have a column path, {str(manifest)!r} has {', '.join(reader.fieldnames or ())}; "
                    "its first line names the columns: path, and if wanted target and key"
                )
            for row in reader:
                if not row["path"]:
                    raise ExtremalValueError(
                        f"each line of a manifest must name a path, line {reader.line_num} of {str(manifest)!r} does "
                        "not; name one or leave the line out"
                    )
                target = (row.get("target") or "").strip()
                key = row.get("key") or (f"{row['path']}#{target}" if target else row["path"])
                yield Item(key, str(manifest.parent / row["path"]), target)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExtremalValueError(
            f"a manifest must be a readable .csv in UTF-8, {str(manifest)!r} is not: {error}; check the file"
        ) from None


def plan_units(store: Store, items: Sequence[Item], batch: int) -> list[WorkUnit]:
    """The units of work of a run, the same after every interruption.

    Items that the run has seen keep their unit, whatever was added to or taken from the data set since: rows depend
    on the company in which they were computed, in rounding. New ones go into new units.

    Args:
        store: of the run; the plan is kept in it.
        items: that are wanted now.
        batch: items a unit.
    """
    units = _load_plan(store)
    known = {item.key for unit in units for item in unit.items}
    new = [item for item in items if item.key not in known]
    first = len(units)
    for number, start in enumerate(range(0, len(new), batch)):
        units.append(WorkUnit(f"{first + number:08d}", tuple(new[start : start + batch])))
    if new:
        rows = [(unit.name, item.key, item.path, item.target) for unit in units for item in unit.items]
        columns = list(zip(*rows, strict=True))
        store.write_table(PLAN_FILE, pa.table([pa.array(column, pa.string()) for column in columns], schema=PLAN_SCHEMA))
    return units


def _load_plan(store: Store) -> list[WorkUnit]:
    table = store.read_table(PLAN_FILE)
    units: dict[str, list[Item]] = {}
    for row in table.to_pylist() if table is not None else []:
        units.setdefault(row["unit"], []).append(Item(row["key"], row["path"], row["target"]))
    return [WorkUnit(name, tuple(items)) for name, items in units.items()]
