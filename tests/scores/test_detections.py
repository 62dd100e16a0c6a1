"""Detectors that return queries: logits of classes and boxes for each, as those of transformers."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from extremal import Network, explain
from extremal.masking.solvers import Path
from extremal.scores import Box
from extremal.scores.detections import read_detections
from support.errors import message_of

X = torch.ones(1, 3, 32, 32)
PLACES = ((slice(0, 8), slice(0, 8)), (slice(20, 28), slice(20, 28)))  # of a cat, of a bird
BOXES = torch.tensor([[0.125, 0.125, 0.25, 0.25], [0.75, 0.75, 0.25, 0.25], [0.5, 0.5, 1.0, 1.0]])
LABELS = ("cat", "dog", "bird")


class QueryDetector(nn.Module):
    """Two queries that each look at one place, and one that never finds anything."""

    def __init__(self, no_object: bool = True, answer: Callable[[dict[str, Tensor]], object] = lambda out: out) -> None:
        super().__init__()
        self.no_object, self.answer = no_object, answer

    def forward(self, x: Tensor) -> object:
        cat, bird = (8 * x[(..., *place)].mean((1, 2, 3)) - 4 for place in PLACES)
        nothing = torch.full_like(cat, -4.0)
        rows = [[cat, nothing, nothing], [nothing, nothing, bird], [nothing] * 3]
        logits = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (B, 3, 3)
        if self.no_object:
            logits = torch.cat([logits, torch.zeros_like(logits[..., :1])], 2)
        return self.answer({"logits": logits, "pred_boxes": BOXES.expand(len(x), -1, -1)})


@pytest.mark.parametrize("answer", [lambda out: out, lambda out: SimpleNamespace(**out)])
@pytest.mark.parametrize(("no_object", "labels"), [(True, (*LABELS, "no object")), (True, LABELS), (False, LABELS)])
@pytest.mark.parametrize(("label", "place"), [("cat", PLACES[0]), ("bird", PLACES[1])])
def test_a_box_is_explained_by_its_place(
    label: str, place: tuple[slice, slice], no_object: bool, labels: tuple[str, ...], answer: Callable[..., object]
) -> None:
    net = Network(QueryDetector(no_object, answer), labels=labels)
    solver = Path(steps=8, polish=4, draws=2)
    found = explain(net, X, Box(label=label), areas=(0.05,), perturbation="fade", solver=solver)
    mask = found.binary(0.05)[0, 0]
    assert float(mask[place].sum() / mask.sum()) > 0.95
    assert found.score_full[0] > 0.9


def test_boxes_and_scores() -> None:
    net = Network(QueryDetector(), labels=LABELS)
    (found,) = read_detections(net.model(X), X, net)
    assert found.boxes.tolist() == [[0.0, 0.0, 8.0, 8.0], [20.0, 20.0, 28.0, 28.0]]
    assert found.labels.tolist() == [0, 2]
    chance = torch.tensor([4.0, -4.0, -4.0, 0.0]).softmax(0)[0]
    assert found.scores.tolist() == pytest.approx([float(chance)] * 2)
    assert found.match(torch.tensor([0.0, 0.0, 8.0, 4.0]), 0) == pytest.approx(float(chance) / 2)


def test_a_class_that_is_not_found() -> None:
    net = Network(QueryDetector(), labels=LABELS)
    message = message_of(lambda: explain(net, X, Box(label="dog"), areas=(0.1,)))
    assert message == (
        "a detector must find a box of dog on the unperturbed input, QueryDetector finds none on input 0 but 1 cat, "
        "1 bird; choose one of these"
    )


@pytest.mark.parametrize("labels", [(), ("cat", "dog")])
def test_labels_must_tell_the_last_class(labels: tuple[str, ...]) -> None:
    net = Network(QueryDetector(), labels=labels)
    assert message_of(lambda: explain(net, X, Box(), areas=(0.1,))) == (
        f"a detector's labels must name its classes, QueryDetector returns scores of 4 and has {len(labels)} labels; "
        "pass Network(model, labels=...) with one name for each, with 'no object' for the last if it is that"
    )


def test_a_model_of_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.YolosConfig(
        **sizes, image_size=[32, 32], patch_size=8, num_detection_tokens=6, num_labels=3, initializer_range=2.0
    )
    model = transformers.YolosForObjectDetection(config).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        output = model(x)
    expected = transformers.YolosImageProcessor().post_process_object_detection(
        output, threshold=0.05, target_sizes=[(32, 32)] * 2
    )
    for found, known in zip(read_detections(output, x, Network(model)), expected, strict=True):
        assert len(found.labels) <= len(known["labels"])
        for box, label, score in zip(found.boxes, found.labels, found.scores, strict=True):
            same = [k for k in range(len(known["labels"])) if torch.allclose(known["boxes"][k], box, atol=1e-4)]
            assert any(known["labels"][k] == label and abs(known["scores"][k] - score) < 1e-5 for k in same)


@pytest.mark.parametrize(("kind", "no_object"), [("detr", True), ("yolos", True), ("rt_detr", False)])
def test_the_configuration_decides(kind: str, no_object: bool) -> None:
    model = QueryDetector(no_object)
    model.config = SimpleNamespace(model_type=kind)  # type: ignore[assignment]
    (found,) = read_detections(model(X), X, Network(model))
    expected = torch.tensor([4.0, -4.0, -4.0, 0.0]).softmax(0)[0] if no_object else torch.tensor(4.0).sigmoid()
    assert found.scores.tolist() == pytest.approx([float(expected)] * 2)
