"""Queries leave the network unchanged; torchvision's detectors can be queried."""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from extremal import ExtremalError, Network, explain
from extremal.masking.solvers import Step
from extremal.scores import Box, Query, Segment, Unit
from support.query_toys import AT_A, CASES, NAMES, SHORT, Detector, Segmenter, Tower, X, looks, value


def state(model: nn.Module) -> dict[str, Any]:
    """Return everything of a model that a run could change."""
    modules: dict[str, Any] = {}
    for name, module in model.named_modules():
        attributes = {key: value for key, value in vars(module).items() if not key.startswith("_") and key != "calls"}
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        modules[name] = attributes, hooks, list(module._modules), [id(part) for part in module._modules.values()]
    tensors = {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}
    return {"modules": modules, "tensors": tensors}


class TestState:
    @pytest.mark.parametrize("case", CASES)
    def test_after_a_run(self, case: str) -> None:
        model, query, _ = CASES[case]
        model.train()
        before = state(model)
        explain(Network(model, labels=NAMES), X, query, areas=(0.2,), perturbation="fade", solver=SHORT)
        assert state(model) == before

    @pytest.mark.parametrize("case", ["unit", "segment", "box", "another input"])
    def test_after_an_exception_during_a_run(self, case: str) -> None:
        model, query, _ = CASES[case]
        before = state(model)

        def stop(step: Step) -> None:
            if step.index == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            explain(Network(model, labels=NAMES), X, query, areas=(0.2,), solver=SHORT, on_step=stop)
        assert state(model) == before

    @pytest.mark.parametrize("fail_after", range(1, 9))
    def test_after_a_detector_fails(self, fail_after: int) -> None:
        model = Detector(X, looks(), fail_after=fail_after)
        before = state(model)
        with pytest.raises(OSError, match="the detector has failed"):
            explain(model, X, Box(AT_A), areas=(0.2,), solver=SHORT)
        assert state(model) == before

    @pytest.mark.parametrize("query", [Unit("pair", 9), Unit("both", 0), Unit("twice", 0), Segment(7), Box(AT_A)])
    def test_after_an_invalid_query(self, query: Query) -> None:
        model: nn.Module = Segmenter(X) if isinstance(query, Segment) else Tower(X)
        before = state(model)
        with pytest.raises(ExtremalError):
            explain(model, X, query, areas=(0.2,), solver=SHORT)
        assert state(model) == before

    def test_masks_are_skipped_only_while_boxes_are_scored(self) -> None:
        model = Detector(X, looks())
        part = model.head.mask_roi_pool
        value(model, Box(AT_A), torch.cat([X] * 5))
        assert part.calls == 1  # for the unperturbed input
        assert model.head.mask_roi_pool is part
        assert (model.head.score_thresh, model.head.detections_per_img) == (0.5, 2)


class Trunk(nn.Sequential):
    """Three small convolutions."""

    out_channels = 8

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))


def tiny_detector(kind: type[nn.Module]) -> nn.Module:
    """Build a torchvision detector with random weights, scaled up in the last layer for high scores."""
    torch.manual_seed(0)
    sizes = {"min_size": 64, "max_size": 64}
    anchors = AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    if kind is RetinaNet:
        model = RetinaNet(Trunk(), 3, anchor_generator=anchors, score_thresh=0.3, **sizes)
        model.head.classification_head.cls_logits.weight.data.mul_(300)
        model.head.classification_head.cls_logits.bias.data.zero_()
        return model
    pools = [torchvision.ops.MultiScaleRoIAlign(["0"], size, 2) for size in (3, 4)]
    model = MaskRCNN(
        Trunk(),
        rpn_anchor_generator=anchors,
        box_roi_pool=pools[0],
        mask_roi_pool=pools[1],
        box_head=nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.ReLU()),
        box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(16, 3),
        mask_head=nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU()),
        mask_predictor=torchvision.models.detection.mask_rcnn.MaskRCNNPredictor(8, 8, 3),
        rpn_post_nms_top_n_test=30,
        **sizes,
    )
    model.roi_heads.box_predictor.cls_score.weight.data.mul_(20)
    return model


@pytest.mark.parametrize("kind", [MaskRCNN, RetinaNet])
def test_torchvisions_detectors_have_gradients(kind: type[nn.Module]) -> None:
    model = tiny_detector(kind).eval()
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (alone,) = model(x)  # before its state is read: it caches the sizes of its maps
    before = state(model)
    with Network(model).frozen() as run:
        bound = Box().bind(run, x)
        inputs = x.clone().requires_grad_()
        score = bound(inputs, torch.tensor([0]))
        (grad,) = torch.autograd.grad(score.sum(), inputs)
        faint = bound((0.1 * x).detach(), torch.tensor([0]))
    assert score.tolist() == pytest.approx([float(alone["scores"].max())], abs=1e-5)
    assert float(grad.abs().max()) > 0
    assert float(faint) > 0
    assert state(model) == before
    result = explain(model, x, Box(), areas=(0.2,), perturbation="fade", solver=SHORT)
    assert torch.isfinite(result.scores).all()
    assert state(model) == before
