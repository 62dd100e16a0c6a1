"""Read the table of a run and its settings, and restore explanations from its rows."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.explanations.explanation import Explanation
from extremal.file_checks import quote, to_path
from extremal.jobs.plan import PLAN_FILE, load_plan
from extremal.jobs.restore import rebuild
from extremal.jobs.row_checks import check_rows, check_settings, update_verdicts
from extremal.jobs.rows import SCHEMA
from extremal.jobs.store import Store, read_manifest
from extremal.networks import zoo
from extremal.networks.class_names import find_similar_names
from extremal.networks.network import Network
from extremal.number_checks import format_value

EXPLAIN_SETTINGS = (  # with which an explanation is restored
    *("network", "weights", "game", "perturbation", "score", "seed", "solver", "spacing", "dtype"),
    *("accelerate", "precision"),
)


def settings(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a run: those of `explain` under that name, next to areas, target, and batch.

    Raises:
        ExtremalValueError: there is no data-set run in the folder, or its settings are not as a run writes them.
    """
    path = to_path(folder, "a run")
    values = read_manifest(path)
    check_settings(values, path)
    return values


def table(folder: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Return the rows of a run in the order of its plan.

    Args:
        folder: of the run.
        columns: of `rows.SCHEMA`, each returned once; None: all.

    Raises:
        ExtremalValueError, ExtremalTypeError: there is no data-set run, or a part of it is damaged or has rows that a
            run does not write; columns are unknown, or no names.
    """
    areas = settings(folder)["areas"]
    names = list(SCHEMA.names) if columns is None else _check_columns(columns)
    store = Store(to_path(folder, "a run"), pa.schema([SCHEMA.field(name) for name in names]))
    rows = update_verdicts(store.read_all())
    check_rows(rows, areas, to_path(folder, "a run"))
    return rows


def _check_columns(columns: Sequence[str]) -> list[str]:
    example = f"e.g. {SCHEMA.names[0]}"
    if not isinstance(columns, Iterable):
        raise ExtremalTypeError(f"columns must be those of a run, got {format_value(columns)}; {example}")
    names = [columns] if isinstance(columns, str) else list(columns)
    for unknown in (name for name in names if name not in SCHEMA.names):
        if not isinstance(unknown, str):
            raise ExtremalTypeError(f"columns must be those of a run, got {format_value(unknown)}; {example}")
        hint = find_similar_names(unknown, SCHEMA.names)
        raise ExtremalValueError(
            f"columns must be those of a run, got {quote(unknown)}; "
            + (f"nearest: {', '.join(hint)}" if hint else example)
        )
    return list(dict.fromkeys(names))


def explanation(
    folder: str | os.PathLike[str], key: str, network: Network | str | None = None, alternative: int = 0
) -> Explanation:
    """Restore an explanation from its row (`rebuild`).

    Args:
        folder: of the run.
        key: of the image.
        network: the one that was explained; None: it is loaded by the name in the settings of the run, unless that is
            MODULE:CALLABLE, whose code is called only if it is passed here.
        alternative: 0, or the number of an alternative.

    Raises:
        ExtremalValueError: there is no such row, it failed or is incomplete, the settings name code, or image or
            network have changed.
    """
    run = settings(folder)
    missing = [name for name in EXPLAIN_SETTINGS if name not in run["explain"]]
    if missing:
        raise ExtremalValueError(
            f"the settings of a run must be as `extremal run` writes them, {quote(folder)} has no {missing[0]}; run "
            "again into another folder"
        )
    if network is None and zoo.names_code(run["explain"]["network"]):
        raise ExtremalValueError(
            f"a network that is code must be passed, {quote(folder)} names {quote(run['explain']['network'])}; pass "
            "this name, or the network itself, as network if you trust it"
        )
    rows = _read_rows(Store(to_path(folder, "a run"), SCHEMA), key, run["areas"])
    rows = [row for row in rows if (row["alternative"] or 0) == alternative]
    if not rows:
        raise ExtremalValueError(
            f"an explanation must have a row to be restored, {quote(folder)} has none of {quote(key)} with "
            f"alternative {alternative}; its keys are in {PLAN_FILE}"
        )
    return rebuild(rows[0], network or run["explain"]["network"], settings=run["explain"])


def _read_rows(store: Store, key: str, areas: Sequence[float]) -> list[dict[str, Any]]:
    """Return the rows of one image, reading only the part that contains them."""
    finished = store.find_finished()
    units = [unit.name for unit in load_plan(store.folder) if any(item.key == key for item in unit.items)]
    parts = [store.read_part(unit) for unit in units if unit in finished]
    rows = pa.concat_tables([store.schema.empty_table(), *(part.filter(pc.equal(part["key"], key)) for part in parts)])
    rows = update_verdicts(rows)
    check_rows(rows, areas, store.folder)
    return rows.to_pylist()  # type: ignore[no-any-return]
