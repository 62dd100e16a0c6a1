"""Check that `explain` runs unchanged on families of encoders and detectors: a table of docs/networks.md.

Use: python benchmarks/families.py [FAMILY...] [--table]

Models are tiny with random weights, saved to folders and loaded as `hf:` networks (those of tests/support): that a
family runs is shown here, that a region is right by the planted models of tests/scores. Encoders are asked for the
likeness to another picture, detectors for their best box, or, if they find none, for why none is at a place; segmenters
for their best object. Rows are kept in results/families.jsonl; with --table nothing is run.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skimage.data
import torch
from PIL import Image

from extremal import Network, zoo
from extremal.networks.inputs import prepare
from extremal.scores import Box, Instance, Query, Similarity
from extremal.scores.detections import read_detections
from family_rows import PHOTOGRAPH, Row, format_costs, format_picture, measure_explanation, run_missing
from records import FOLDER

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support import detector_toys, encoder_toys

OTHER = Image.fromarray(skimage.data.coffee())
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


HEADS = """\
| family | class | asked | picture | forward-backward | forward | MB a row | unchanged |
|---|---|---|---|---:|---:|---:|---|"""


def measure(family: str) -> Row:
    """Return one row: the class, the question, and what the explanation took."""
    kind, toys, ask = FAMILIES[family]
    with tempfile.TemporaryDirectory() as folder:
        toys.save_model(kind, Path(folder))
        net = zoo.load(f"hf:{folder}")
    query = ask(net)
    asked = "no box" if isinstance(query, Box) and query.absent else type(query).__name__.lower()
    return {"class": kind, "asked": asked, **measure_explanation(net, query)}


def format_row(row: Row) -> str:
    """Format a line of the table."""
    return f"| {row['family']} | `{row['class']}` | {row['asked']} | {format_picture(row)} | {format_costs(row, 2)} |"


if __name__ == "__main__":
    run_missing(__doc__, FAMILIES, FOLDER / "families.jsonl", measure, "families", HEADS, format_row)
