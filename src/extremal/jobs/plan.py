"""Plan of a data-set run: which images, with which targets, in which units of work."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from extremal.errors import ExtremalValueError
from extremal.jobs.store import Store
from extremal.networks.inputs import IMAGE_SUFFIXES

PLAN_FILE = "plan.parquet"  # in the store
PLAN_SCHEMA = pa.schema([("unit", pa.string()), ("key", pa.string()), ("path", pa.string()), ("target", pa.string())])


@dataclass(frozen=True)
class RunItem:
    """An image and its target."""

    key: str  # unique in a run
    path: str
    target: str = ""  # class, group, or classes joined by `|`; empty: the target of the run


@dataclass(frozen=True)
class WorkUnit:
    """Items that are always explained together, and whose rows are written together."""

    name: str
    items: tuple[RunItem, ...]


def find_items(sources: Sequence[str]) -> list[RunItem]:
    """Return the items in image files, in folders and their subfolders, and in manifests (`.csv`).

    A manifest has a column `path`, relative to itself, and optionally `target` and `key`.

    Args:
        sources: any of these, in order.

    Raises:
        ExtremalValueError: a source is missing or empty, a manifest cannot be read, or a key occurs twice.
    """
    items = [item for source in sources for item in _find_items_in(Path(source))]
    if not items:
        raise ExtremalValueError("a run must have images, got none; name files, folders, or a manifest .csv")
    duplicates = [key for key, count in Counter(item.key for item in items).items() if count > 1]
    if duplicates:
        raise ExtremalValueError(
            f"every image and target of a run must have a key of its own, got {duplicates[0]!r} twice; "
            "leave one out, or give keys in a manifest"
        )
    return items


def _find_items_in(source: Path) -> list[RunItem]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        if not paths:
            raise ExtremalValueError(
                f"a folder must contain images ({', '.join(IMAGE_SUFFIXES)}), {str(source)!r} has none; check the path"
            )
        return [RunItem(path.relative_to(source).as_posix(), str(path)) for path in paths]
    if source.suffix.lower() == ".csv":
        return list(_read_manifest(source))
    return [RunItem(source.as_posix(), str(source))]  # a missing file fails in its own row


def _read_manifest(manifest: Path) -> Iterator[RunItem]:
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if "path" not in (reader.fieldnames or ()):
                raise ExtremalValueError(
                    f"a manifest must have a column path, {str(manifest)!r} has {', '.join(reader.fieldnames or ())}; "
                    "its first line names the columns: path, and optionally target and key"
                )
            for row in reader:
                if not row["path"]:
                    raise ExtremalValueError(
                        f"each line of a manifest must name a path, line {reader.line_num} of {str(manifest)!r} does "
                        "not; name one or leave the line out"
                    )
                target = (row.get("target") or "").strip()
                key = row.get("key") or (f"{row['path']}#{target}" if target else row["path"])
                yield RunItem(key, str(manifest.parent / row["path"]), target)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExtremalValueError(
            f"a manifest must be a readable .csv in UTF-8, {str(manifest)!r} is not: {error}; check the file"
        ) from None


def plan_units(store: Store, items: Sequence[RunItem], batch_size: int) -> list[WorkUnit]:
    """Return the units of work of a run, the same after every interruption.

    Items that are in the plan stay in their unit, even if images were added to or removed from the data set since:
    rounding, and so a row, depends on the images that are explained together. New items are added in new units.

    Args:
        store: of the run; the plan is written to it.
        items: of the data set now.
        batch_size: items in a new unit.
    """
    units = _load_plan(store)
    known_keys = {item.key for unit in units for item in unit.items}
    new = [item for item in items if item.key not in known_keys]
    first = len(units)
    for number, start in enumerate(range(0, len(new), batch_size)):
        units.append(WorkUnit(f"{first + number:08d}", tuple(new[start : start + batch_size])))
    if new:
        rows = [(unit.name, item.key, item.path, item.target) for unit in units for item in unit.items]
        columns = list(zip(*rows, strict=True))
        store.write_table(
            PLAN_FILE, pa.table([pa.array(column, pa.string()) for column in columns], schema=PLAN_SCHEMA)
        )
    return units


def _load_plan(store: Store) -> list[WorkUnit]:
    table = store.read_table(PLAN_FILE)
    units: dict[str, list[RunItem]] = {}
    for row in table.to_pylist() if table is not None else []:
        units.setdefault(row["unit"], []).append(RunItem(row["key"], row["path"], row["target"]))
    return [WorkUnit(name, tuple(items)) for name, items in units.items()]
