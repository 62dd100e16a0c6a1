"""Check that `explain` runs unchanged on families of models of images and text: a table of docs/networks.md.

Use: python benchmarks/vision_language.py [FAMILY...] [--table]

Models are tiny with random weights, saved to folders with their processors and loaded as `hf:` networks (those of
tests/support/vlm_toys.py): that a family runs is shown here, that a region is right by the planted model of
tests/scores/test_answer.py. Rows are kept in results/vision_language.jsonl; with --table nothing is run.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

from extremal import explain, plan, zoo
from extremal.masking.solvers import Path as Solver
from extremal.networks.vision_language import PromptedInputs
from extremal.scores import Answer
from performance import DOCS
from records import FOLDER, append, read, write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.vlm_toys import ANSWER, FAMILIES, PROMPT, save_family

PAGE, ROWS = DOCS / "networks.md", FOLDER / "vision_language.jsonl"
PHOTOGRAPH = Image.fromarray(skimage.data.chelsea())
SOLVER, AREAS = Solver(steps=8, polish=2, draws=1, search=2), (0.1, 0.3)


def measure(family: str) -> dict[str, Any]:
    """Return one row: size of the picture, tokens, evaluations, memory, and whether the network is as before."""
    with tempfile.TemporaryDirectory() as folder:
        save_family(family, Path(folder))
        net = zoo.load(f"hf:{folder}")
    before, query = net.weight_hash(), Answer(ANSWER, PROMPT)
    planned = plan(net, PHOTOGRAPH, query, areas=AREAS, solver=SOLVER)
    begin = time.process_time()
    found = explain(net, PHOTOGRAPH, query, areas=AREAS, solver=SOLVER)
    counts, shape = found.settings["evaluations"], found.inputs.shape[2:]
    assert isinstance(net.inputs, PromptedInputs)
    return {
        "family": family,
        "class": type(net.model.model).__name__,
        "picture": list(shape),
        "prompt": net.inputs.encode(PROMPT, (shape[0], shape[1])).ids.shape[1],
        "answer": len(net.inputs.find_answer(PROMPT, ANSWER)),
        "gradients": counts["gradients"] + counts["evidence_gradients"],
        "forwards": counts["forwards"] + counts["evidence_forwards"],
        "row_bytes": planned.row_bytes,
        "seconds": time.process_time() - begin,
        "unchanged": net.weight_hash() == before,
    }


def write_docs(rows: list[dict[str, Any]]) -> None:
    """Write the table between its marks in the page."""
    latest = {row["family"]: row for row in rows}
    lines = [
        "| family | class | picture | tokens of the prompt | forward-backward | forward | MB a row | unchanged |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for row in (latest[family] for family in FAMILIES if family in latest):
        lines.append(
            f"| {row['family']} | `{row['class']}` | {' × '.join(map(str, row['picture']))} | {row['prompt']} | "
            f"{row['gradients']} | {row['forwards']} | {row['row_bytes'] / 1e6:.1f} | "
            f"{'yes' if row['unchanged'] else 'no'} |"
        )
    write_table(PAGE, "vision-language", lines)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--table", action="store_true", help="only make the table")
    options = parser.parse_args()
    known = {row["family"] for row in read(ROWS)}
    for family in [] if options.table else options.families or [name for name in FAMILIES if name not in known]:
        row = measure(family)
        print(f"{family}: {row['seconds']:.1f} s, unchanged {row['unchanged']}", flush=True)
        append(ROWS, row)
    write_docs(read(ROWS))


if __name__ == "__main__":
    main()
