"""Read which units of a run are finished, with failed images and with images that have changed since."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from extremal.file_checks import quote
from extremal.jobs.items import RunItem
from extremal.jobs.plan import WorkUnit
from extremal.jobs.rows import DONE, FAILED, SCHEMA, Row
from extremal.jobs.store import PARTS, Store
from extremal.jobs.worker import hash_image
from extremal.networks.input_kinds import find_change_time

MAX_UNIT_TIME = 3600 * 10**9  # ns before its part is written in which the images of a unit were read
MAX_NAMED = 3  # images in a warning
_COLUMNS = ("key", "path", "content_hash", "status")


@dataclass(frozen=True)
class FinishedUnits:
    """Names of the units whose rows are written."""

    names: frozenset[str]
    failed: dict[str, int]  # number of failed images in units that have any
    changed: frozenset[str]  # units with an image whose file has changed since


def find_finished_units(store: Store, units: Sequence[WorkUnit]) -> FinishedUnits:
    """Read the finished units, and warn about images whose files have changed since.

    A file is hashed only if it was touched after its part was written, shortly before, or has moved.

    Args:
        store: of the run.
        units: its plan.

    Raises:
        ExtremalValueError: a part is damaged.
    """
    names, failed, changed = store.find_finished(), dict[str, int](), dict[str, list[str]]()
    parts = Store(store.folder, pa.schema([SCHEMA.field(name) for name in _COLUMNS]))
    items = {unit.name: unit.items for unit in units}
    for name in sorted(names):
        rows = parts.read_part(name).to_pylist()
        n_failed = sum(row["status"] == FAILED for row in rows)
        if n_failed:
            failed[name] = n_failed
        written = (store.folder / PARTS / f"{name}.parquet").stat().st_mtime_ns
        stored = {row["key"]: row for row in rows if row["content_hash"] is not None}
        keys = [item.key for item in items.get(name, ()) if item.key in stored and _has_changed(item, stored, written)]
        if keys:
            changed[name] = keys
    _warn_changed([key for keys in changed.values() for key in keys])
    return FinishedUnits(names, failed, frozenset(changed))


def keep_explained(stored: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Return the rows of a unit that was repeated, with the stored rows of images that failed only this time.

    An image fails without other bytes if its file is gone or a worker crashed; what was found about it remains valid.

    Args:
        stored: of the unit, before it was repeated.
        rows: of the repetition.
    """
    explained: dict[str, list[Row]] = {}
    for row in stored:
        if row["status"] == DONE:
            explained.setdefault(row["key"], []).append(row)
    result: list[Row] = []
    for row in rows:
        before = explained.get(row["key"], [])
        is_lost = before and row["status"] == FAILED and row["content_hash"] in (None, before[0]["content_hash"])
        result += before if is_lost else [row]
    return result


def _has_changed(item: RunItem, stored: dict[str, dict[str, Any]], written: int) -> bool:
    row = stored[item.key]
    try:
        changed_at = find_change_time(item.path)
    except (OSError, ValueError):
        return False  # it is gone, and its row stays
    is_untouched = changed_at < written - MAX_UNIT_TIME
    if is_untouched and item.path == row["path"]:
        return False
    return hash_image(item.path) not in (None, row["content_hash"])


def _warn_changed(keys: Sequence[str]) -> None:
    if not keys:
        return
    names = ", ".join(map(quote, keys[:MAX_NAMED])) + (", …" if len(keys) > MAX_NAMED else "")
    subject = "1 image has" if len(keys) == 1 else f"{len(keys)} images have"
    warnings.warn(
        f"{subject} changed since the rows were written ({names}); the rows are of the earlier files, --retry (or "
        "retry=True) explains them again",
        UserWarning,
        stacklevel=2,
    )
