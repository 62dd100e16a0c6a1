"""Check that `explain` runs unchanged on families of encoders and detectors: a table of docs/networks.md.

Use: python benchmarks/families.py [FAMILY...] [--table]

Models are tiny with random weights, saved to folders and loaded as `hf:` networks (those of tests/support): that a
family runs is shown here, that a region is right by the planted models of tests/scores. Encoders are asked for the
likeness to another picture, detectors for their best box, or, if they find none, for why none is at a place; segmenters
for their best object. Rows are kept in results/families.jsonl; with --table nothing is run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image

from extremal import Network, explain, plan, zoo
from extremal.masking.solvers import Path as Solver
from extremal.networks.inputs import prepare
from extremal.scores import Box, Instance, Query, Similarity
from extremal.scores.detections import read_detections
from performance import DOCS
from records import FOLDER, append, read, write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support import detector_toys, encoder_toys

PAGE, ROWS = DOCS / "networks.md", FOLDER / "families.jsonl"
PHOTOGRAPH, OTHER = (Image.fromarray(image) for image in (skimage.data.chelsea(), skimage.data.coffee()))
SOLVER, AREAS = Solver(steps=8, polish=2, draws=1, search=2), (0.1, 0.3)
PLACE = (16.0, 16.0, 48.0, 48.0)  # of a box that is not found


def ask_likeness(net: Network) -> Query:
    """Return the query for the likeness to another picture."""
    return Similarity(prepare(net, OTHER))


def ask_box(net: Network) -> Query:
    """Return the query for the best box, or for why there is none."""
    x = prepare(net, PHOTOGRAPH)
    with net.frozen() as run, torch.no_grad():
        (found,) = read_detections(run.evaluate(x, torch.tensor([0])), x, net)
    return Box() if len(found.labels) else Box(PLACE, 0, absent=True)


FAMILIES: dict[str, tuple[str, Any, Callable[[Network], Query]]] = {
    "ViT": ("ViTModel", encoder_toys, ask_likeness),
    "DINOv2": ("Dinov2Model", encoder_toys, ask_likeness),
    "DINOv3": ("DINOv3ViTModel", encoder_toys, ask_likeness),
    "DINOv3, ConvNeXt": ("DINOv3ConvNextModel", encoder_toys, ask_likeness),
    "ResNet": ("ResNetModel", encoder_toys, ask_likeness),
    "CLIP": ("CLIPModel", encoder_toys, ask_likeness),
    "SigLIP": ("SiglipModel", encoder_toys, ask_likeness),
    "DETR": ("DetrForObjectDetection", detector_toys, ask_box),
    "Conditional DETR": ("ConditionalDetrForObjectDetection", detector_toys, ask_box),
    "Deformable DETR": ("DeformableDetrForObjectDetection", detector_toys, ask_box),
    "RT-DETR": ("RTDetrForObjectDetection", detector_toys, ask_box),
    "YOLOS": ("YolosForObjectDetection", detector_toys, ask_box),
    "MaskFormer": ("MaskFormerForInstanceSegmentation", detector_toys, lambda net: Instance()),
    "Mask2Former": ("Mask2FormerForUniversalSegmentation", detector_toys, lambda net: Instance()),
}


def measure(family: str) -> dict[str, Any]:
    """Return one row: the question, size of the picture, evaluations, memory, and whether the network is as before."""
    kind, toys, ask = FAMILIES[family]
    with tempfile.TemporaryDirectory() as folder:
        toys.save_model(kind, Path(folder))
        net = zoo.load(f"hf:{folder}")
    before, query = net.weight_hash(), ask(net)
    planned = plan(net, PHOTOGRAPH, query, areas=AREAS, solver=SOLVER)
    begin = time.process_time()
    found = explain(net, PHOTOGRAPH, query, areas=AREAS, solver=SOLVER)
    counts = found.settings["evaluations"]
    return {
        "family": family,
        "class": kind,
        "asked": "no box" if isinstance(query, Box) and query.absent else type(query).__name__.lower(),
        "picture": list(found.inputs.shape[2:]),
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
        "| family | class | asked | picture | forward-backward | forward | MB a row | unchanged |",
        "|---|---|---|---|---:|---:|---:|---|",
    ]
    for row in (latest[family] for family in FAMILIES if family in latest):
        lines.append(
            f"| {row['family']} | `{row['class']}` | {row['asked']} | {' × '.join(map(str, row['picture']))} | "
            f"{row['gradients']} | {row['forwards']} | {row['row_bytes'] / 1e6:.2f} | "
            f"{'yes' if row['unchanged'] else 'no'} |"
        )
    write_table(PAGE, "families", lines)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--table", action="store_true", help="only make the table")
    options = parser.parse_args()
    known = {row["family"] for row in read(ROWS)}
    for family in [] if options.table else options.families or [name for name in FAMILIES if name not in known]:
        row = measure(family)
        print(f"{family}: {row['asked']}, {row['seconds']:.1f} s, unchanged {row['unchanged']}", flush=True)
        append(ROWS, row)
    write_docs(read(ROWS))


if __name__ == "__main__":
    main()
