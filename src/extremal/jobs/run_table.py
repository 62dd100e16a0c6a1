"""What stands in a run's folder, while it runs or after: rows as a table, and explanations back from them."""

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
    """The settings of a run: `explain`'s own under that name, beside them areas, target, batch.

    Raises:
        ExtremalValueError: no data-set run is in the folder.
    """
    found = read_manifest(Path(folder))
    if "explain" not in found:
        raise ExtremalValueError(
            f"a run must be one of `extremal run`, {os.fspath(folder)!r} is another; name the folder of such a run"
        )
    return found


def table(folder: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a run in the order of its plan.

    Args:
        folder: of the run.
        columns: of `rows.SCHEMA`; None: all.

    Raises:
        ExtremalValueError: no data-set run is there, or a part of it is broken.
    """
    settings(folder)
    wanted = list(SCHEMA.names if columns is None else columns)
    store = Store(Path(folder), pa.schema([SCHEMA.field(name) for name in wanted]))
    return store.read_all()


def explanation(
    folder: str | os.PathLike[str], key: str, network: Network | str | None = None, answer: int = 0
) -> Explanation:
    """An explanation back from its row, as `rebuilt` does it.

    Args:
        folder: of the run.
        key: of the picture.
        network: that was explained; None: loaded by the name that the run has.
        answer: 0, or which alternative.

    Raises:
        ExtremalValueError: there is no such row, it failed, or picture or network are no longer what they were.
    """
    shared = settings(folder)
    found = [row for row in _read_rows(Store(Path(folder), SCHEMA), key) if (row["answer"] or 0) == answer]
    if not found:
        raise ExtremalValueError(
            f"a row must be there to be rebuilt, {os.fspath(folder)!r} has none of {key!r} with answer {answer}; "
            f"its keys stand in {PLAN_FILE}"
        )
    return rebuild(found[0], network or shared["explain"]["network"], settings=shared["explain"])


def _read_rows(store: Store, key: str) -> list[dict[str, Any]]:
    """The rows of one picture; only the part is read in which they stand."""
    plan, done = store.read_table(PLAN_FILE), store.finished()
    units = [] if plan is None else plan.filter(pc.equal(plan["key"], key))["unit"].to_pylist()
    parts = [store.read_part(unit) for unit in units if unit in done]
    return [row for part in parts for row in part.filter(pc.equal(part["key"], key)).to_pylist()]
