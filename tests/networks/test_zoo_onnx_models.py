"""Classifiers of timm and torchvision, exported to ONNX files, are explained as the originals are."""

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from extremal import Network, explain, zoo
from extremal.masking.solvers import Path as Solver

pytest.importorskip("onnx2pytorch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

AREAS = (0.05, 0.1, 0.2, 0.4)
SIDE = 112  # px
QUICK = Solver(steps=3, polish=1, draws=1, search=0)

CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "embedded": lambda: zoo.load("embedded").model,
    "torchvision:resnet18": lambda: torchvision.models.resnet18(weights=None),
    "timm:vit_tiny_patch16_224": lambda: timm.create_model("vit_tiny_patch16_224", img_size=SIDE),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::extremal.errors.Notice"),
]


def export(model: nn.Module, path: Path, by_default: bool) -> None:
    """Export by default, for a batch of one with weights in a file of their own; or by the older exporter."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            example = (torch.rand(1, 3, SIDE, SIDE),)
            if by_default:
                torch.onnx.export(model, example, path, dynamo=True, verbose=False)
            else:
                axes = {"x": {0: "B"}}
                torch.onnx.export(model, example, str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize(
    ("name", "by_default"),
    [
        ("embedded", True),
        ("embedded", False),
        ("torchvision:resnet18", True),
        ("timm:vit_tiny_patch16_224", False),
    ],
)
def test_scores_and_masks_are_those_of_the_original(name: str, by_default: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = CLASSIFIERS[name]().eval()
    export(model, tmp_path / "net.onnx", by_default)
    net = zoo.load(f"onnx:{tmp_path / 'net.onnx'}")
    original = Network(model, net.preprocess)
    x = net.prepare(Image.fromarray(skimage.data.chelsea()))
    with net.frozen() as run, original.frozen() as original_run, torch.no_grad():
        difference = float((run(x) - original_run(x)).abs().max())
        batch = torch.cat([x, 1 - x])
        assert float((run(batch) - original_run(batch)).abs().max()) < 1e-4
    assert difference < 1e-4
    net.model.double()  # in single precision, rounding grows with the steps of the solver
    model.double()
    masks, others = (explain(one, x.double(), 285, areas=AREAS, solver=QUICK).masks > 0.5 for one in (net, original))
    overlap = (masks & others).flatten(2).sum(2) / (masks | others).flatten(2).sum(2)
    assert float(overlap.min()) > 0.999
