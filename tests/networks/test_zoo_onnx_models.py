"""Classifiers of timm and torchvision, exported to ONNX files, are explained as the originals are."""

import io
import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from extremal import Network, explain, zoo
from extremal.masking.solvers import Path as Solver

pytest.importorskip("onnx2pytorch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

AREAS = (0.05, 0.1, 0.2, 0.4)
SIDE = 64  # px
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
    """Export by default, for a batch of one with batch norms folded; or by the older exporter, with all weights."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            example = (torch.rand(1, 3, SIDE, SIDE),)
            if by_default:
                torch.onnx.export(model, example, path, dynamo=True, verbose=False)
                return
            torch.onnx.export(
                *(model, example, str(path)),
                dynamo=False,
                input_names=["x"],
                dynamic_axes={"x": {0: "B"}},
                training=torch.onnx.TrainingMode.PRESERVE,
                do_constant_folding=False,
            )
    finally:
        logging.disable(logging.NOTSET)


def build(name: str) -> nn.Module:
    """Build a classifier whose constants are exact in single precision, in which a file has them."""
    torch.manual_seed(0)
    model = CLASSIFIERS[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.eps = float(np.float32(module.eps))
    return model


def load_pair(name: str, file: Path, by_default: bool) -> tuple[Network, Network, Tensor]:
    """Return the network of an exported file, the original, and an input."""
    model = build(name)
    export(model, file, by_default)
    net = zoo.load(f"onnx:{file}")
    return net, Network(model, net.preprocess), net.prepare(Image.fromarray(skimage.data.chelsea()))


@pytest.mark.parametrize("by_default", [True, False])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_are_those_of_the_original(name: str, by_default: bool, tmp_path: Path) -> None:
    net, original, x = load_pair(name, tmp_path / "net.onnx", by_default)
    batch = torch.cat([x, 1 - x])
    with net.frozen() as run, original.frozen() as original_run, torch.no_grad():
        assert float((run(batch) - original_run(batch)).abs().max()) < 1e-4


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_masks_are_those_of_the_original(name: str, tmp_path: Path) -> None:
    """In double precision, because the steps of the solver enlarge differences by rounding."""
    net, original, x = load_pair(name, tmp_path / "net.onnx", by_default=False)
    masks, others = (find_masks(one, x) for one in (net, original))
    overlap = (masks & others).flatten(2).sum(2) / (masks | others).flatten(2).sum(2)
    assert float(overlap.min()) > 0.999


def find_masks(net: Network, x: Tensor) -> Tensor:
    """Return the masks of a network in double precision."""
    net.model.double()
    return explain(net, x.double(), 285, areas=AREAS, perturbation="fade", effort="fast", solver=QUICK).masks > 0.5
