"""Rows of `families.py` and `vision_language.py`: that `explain` runs unchanged on a family, and at what cost."""

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

from extremal import Network, explain, plan
from extremal.masking.solvers import Path as Solver
from extremal.scores import Query
from performance import DOCS
from records import append, read, write_table

PAGE = DOCS / "networks.md"
PHOTOGRAPH = Image.fromarray(skimage.data.chelsea())
SOLVER, AREAS = Solver(steps=8, polish=2, draws=1, search=2), (0.1, 0.3)

Row = dict[str, Any]


def measure_explanation(net: Network, query: Query) -> Row:
    """Explain the photograph; return size of the picture, evaluations, memory, and whether the network is as before."""
    before = net.weight_hash()
    planned = plan(net, PHOTOGRAPH, query, areas=AREAS, solver=SOLVER)
    begin = time.process_time()
    found = explain(net, PHOTOGRAPH, query, areas=AREAS, solver=SOLVER)
    counts = found.settings["evaluations"]
    return {
        "picture": list(found.inputs.shape[2:]),
        "gradients": counts["gradients"] + counts["evidence_gradients"],
        "forwards": counts["forwards"] + counts["evidence_forwards"],
        "row_bytes": planned.row_bytes,
        "seconds": time.process_time() - begin,
        "unchanged": net.weight_hash() == before,
    }


def format_picture(row: Row) -> str:
    """Format the size of the picture."""
    return " × ".join(map(str, row["picture"]))


def format_costs(row: Row, digits: int) -> str:
    """Format evaluations, megabytes with this number of digits, and whether the network is as before."""
    unchanged = "yes" if row["unchanged"] else "no"
    return f"{row['gradients']} | {row['forwards']} | {row['row_bytes'] / 1e6:.{digits}f} | {unchanged}"


def run_missing(
    description: str,
    families: Iterable[str],
    rows: Path,
    measure: Callable[[str], Row],
    mark: str,
    heads: str,
    format_row: Callable[[Row], str],
) -> None:
    """Measure the families that are named, or those without a row, then write the table of all.

    Args:
        description: of the command.
        families: all, in the order of the table.
        rows: file of the rows.
        measure: returns the row of a family.
        mark: of the table in the page.
        heads: of the table, two lines.
        format_row: returns a line of the table.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--table", action="store_true", help="only make the table")
    options = parser.parse_args()
    known = {row["family"] for row in read(rows)}
    for family in [] if options.table else options.families or [name for name in families if name not in known]:
        row = {"family": family, **measure(family)}
        print(f"{family}: {row['seconds']:.1f} s, unchanged {row['unchanged']}", flush=True)
        append(rows, row)
    latest = {row["family"]: row for row in read(rows)}
    write_table(PAGE, mark, [*heads.splitlines(), *(format_row(latest[name]) for name in families if name in latest)])
