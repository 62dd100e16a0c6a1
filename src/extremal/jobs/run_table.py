"""Read the table of a run and its settings, and restore explanations from its rows."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from extremal.errors import ExtremalValueError
from extremal.explanations.explanation import Explanation
from extremal.jobs.plan import PLAN_FILE
from extremal.jobs.restore import rebuild
from extremal.jobs.rows import SCHEMA
from extremal.jobs.store import Store, read_manifest
from extremal.networks.network import Network


def settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a run: those of `explain` under that name, next to areas, target, and batch.

    Raises:
        ExtremalValueError: there is no data-set run in the folder.
    """
    values = read_manifest(Path(folder))
    if "explain" not in values:
        raise ExtremalValueError(
            f"a run must be one of `extremal run`, {os.fspath(folder)!r} is not; name the folder of such a run"
        )
    return values


def table(folder: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a run in the order of its plan.

    Args:
        folder: of the run.
        columns: of `rows.SCHEMA`; None: all.

    Raises:
        ExtremalValueError: there is no data-set run, or a part of it is damaged.
    """
    settings(folder)
    names = list(SCHEMA.names if columns is None else columns)
    store = Store(Path(folder), pa.schema([SCHEMA.field(name) for name in names]))
    return store.read_all()


def explanation(
    folder: str | os.PathLike[str], key: str, network: Network | str | None = None, alternative: int = 0
) -> Explanation:
    """Restore an explanation from its row (`rebuild`).

    Args:
        folder: of the run.
        key: of the image.
        network: that was explained; None: it is loaded by the name in the settings of the run.
        alternative: 0, or the number of an alternative.

    Raises:
        ExtremalValueError: there is no such row, it failed, or image or network have changed.
    """
    run = settings(folder)
    rows = _read_rows(Store(Path(folder), SCHEMA), key)
    rows = [row for row in rows if (row["alternative"] or 0) == alternative]
    if not rows:
        raise ExtremalValueError(
            f"an explanation must have a row to be restored, {os.fspath(folder)!r} has none of {key!r} with "
            f"alternative {alternative}; its keys are in {PLAN_FILE}"
        )
    return rebuild(rows[0], network or run["explain"]["network"], settings=run["explain"])


def _read_rows(store: Store, key: str) -> list[dict[str, Any]]:
    """Return the rows of one image, reading only the part that contains them."""
    plan, finished = store.read_table(PLAN_FILE), store.find_finished()
    units = [] if plan is None else plan.filter(pc.equal(plan["key"], key))["unit"].to_pylist()
    parts = [store.read_part(unit) for unit in units if unit in finished]
    return [row for part in parts for row in part.filter(pc.equal(part["key"], key)).to_pylist()]
