"""Objects of ultralytics: recognised by their package, read as a network, and never changed."""

import sys
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from extremal import Network, explain
from extremal.masking.solvers import Path
from extremal.networks.resolve import as_network
from extremal.networks.yolo import letterbox
from extremal.scores import Box
from support.detectors import AnchorDetector
from support.errors import message_of
from support.families import assert_state, save_state


class Model(nn.Module):
    """An object with the interface of `ultralytics.YOLO`: a module, names of classes, and no useful forward."""

    def __init__(self) -> None:
        super().__init__()
        self.model = AnchorDetector()
        self.names = {1: "dog", 0: "cat"}

    def forward(self, x: Tensor) -> object:
        raise AssertionError("it predicts from files")


@pytest.fixture
def yolo(monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setitem(sys.modules, "ultralytics", ModuleType("ultralytics"))
    monkeypatch.setattr(Model, "__module__", "ultralytics.engine.model")
    return Model()


def test_it_is_a_network_with_its_names(yolo: Model) -> None:
    net = as_network(yolo)
    assert net.model is yolo.model
    assert tuple(net.labels) == ("cat", "dog")
    assert net.name == "Model"


def test_a_box_is_explained_and_nothing_changes(yolo: Model) -> None:
    net, x = as_network(yolo), torch.ones(1, 3, 32, 32)
    before = save_state(net, x)
    result = explain(yolo, x, Box(label="cat"), areas=(0.0625,), perturbation="fade", solver=Path(steps=4, polish=2))
    assert float(result.score_full) > 0.9
    assert_state(net, x, before)


def test_a_class_is_refused(yolo: Model) -> None:
    assert message_of(lambda: explain(yolo, torch.ones(1, 3, 32, 32), "cat")) == (
        "a detector must be asked about a box, Model returns boxes with scores of classes for each; "
        "pass scores.Box() as target, or --ask box"
    )


def test_other_objects_are_modules_as_ever() -> None:
    model = Model()
    assert as_network(model).model is model


def test_images_keep_their_aspect() -> None:
    x = letterbox(Image.new("RGB", (64, 32), "red"))
    assert x.shape == (3, 640, 640)
    grey = 114 / 255
    assert x[:, 0, 0].tolist() == pytest.approx([grey] * 3)
    assert x[:, 159, 0].tolist() == pytest.approx([grey] * 3)
    assert x[:, 160, 0].tolist() == [1.0, 0.0, 0.0]
    assert x[:, 479, 639].tolist() == [1.0, 0.0, 0.0]
    assert x[:, 480, 0].tolist() == pytest.approx([grey] * 3)


def test_predictions_need_labels() -> None:
    net = Network(AnchorDetector(), labels=("cat",))
    assert message_of(lambda: explain(net, torch.ones(1, 3, 32, 32), Box())) == (
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), or logits and "
        "pred_boxes of queries, or predictions (B, 4 + labels, anchors); AnchorDetector has 1 labels and returned a "
        "tuple of 2 Tensor; wrap the network"
    )
