"""Detectors and segmenters of objects by name: families with random weights run unchanged and are restored."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from extremal import Network, explain, zoo
from extremal.scores import Box, Instance
from extremal.scores.detections import read_detections
from support.detector_toys import CONFIGS, LAYERS, SIDE, TINY, save_model, swin
from support.errors import message_of
from support.families import QUICK, assert_explains_and_restores, noise_image

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("one_thread")


def first_class(logits: Tensor) -> int:
    """Return the class of the most certain query."""
    return int(logits[0, :, :3].amax(0).argmax())


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind.endswith("ForObjectDetection")])
def test_detectors(kind: str, tmp_path: Path) -> None:
    model = save_model(kind, tmp_path)
    net = zoo.load(f"hf:{tmp_path}")
    x = net.prepare(noise_image(SIDE))
    with torch.no_grad():
        output, known = net.model(x), model(pixel_values=x)
    assert set(output) == {"logits", "pred_boxes"}
    assert torch.equal(output["logits"], known.logits)
    assert torch.equal(output["pred_boxes"], known.pred_boxes)
    assert tuple(net.labels) == ("cat", "dog", "car")
    assert not net.mirror
    (found,) = read_detections(output, x, net)
    target = Box() if len(found.labels) else Box(tuple(known_box(known.pred_boxes[0, 0])), 0, absent=True)
    assert_explains_and_restores(net, x, target)


def known_box(box: Tensor) -> list[float]:
    """Return corners in pixels of a box given by centre and size as fractions."""
    centre, size = box[:2] * SIDE, box[2:] * SIDE
    return [*(centre - size / 2).tolist(), *(centre + size / 2).tolist()]


@pytest.mark.parametrize("kind", ["MaskFormerForInstanceSegmentation", "Mask2FormerForUniversalSegmentation"])
def test_segmenters_of_instances(kind: str, tmp_path: Path) -> None:
    model = save_model(kind, tmp_path)
    net = zoo.load(f"hf:{tmp_path}")
    x = net.prepare(noise_image(SIDE))
    with torch.no_grad():
        assert torch.equal(net.model(x)["masks_queries_logits"], model(pixel_values=x).masks_queries_logits)
    assert_explains_and_restores(net, x, Instance())


def test_sam_with_a_prompt(tmp_path: Path) -> None:
    model = save_model("SamModel", tmp_path)
    point = torch.tensor([[[[20.0, 30.0]]]])
    net = replace(
        zoo.load(f"hf:{tmp_path}"),
        inputs=lambda x: {"pixel_values": x, "input_points": point.expand(len(x), -1, -1, -1)},
    )
    x = net.prepare(noise_image(SIDE))
    with torch.no_grad():
        known = model(pixel_values=x, input_points=point)
    result = explain(net, x, Instance(), areas=(0.2,), solver=QUICK)
    masks = known.pred_masks[0, 0].sigmoid()
    best = int(known.iou_scores[0, 0].clamp(0, 1).masked_fill(~(masks > 0.5).flatten(1).any(1), -1).argmax())
    region = (masks[best] > 0.5).float()
    expected = [torch.minimum(mask, region).sum() / torch.maximum(mask, region).sum() for mask in masks]
    score = (torch.stack(expected) * known.iou_scores[0, 0].clamp(0, 1)).amax()
    assert float(result.score_full) == pytest.approx(float(score), abs=1e-5)
    assert_explains_and_restores(net, x, Instance())


class TestPhrases:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        words = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
        words |= {5: "cat", 6: "remote", 7: "control"}
        (tmp_path / "vocab.txt").write_text("\n".join(words.get(index, f"[{index}]") for index in range(1030)))
        transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
        config = transformers.GroundingDinoConfig(
            backbone_config=swin(2, 3, 4),
            text_config=transformers.BertConfig(vocab_size=1030, **TINY),
            **{
                **LAYERS,
                "decoder_layers": 2,
                "d_model": 32,
                "num_queries": 6,
                "num_feature_levels": 3,
                "max_text_len": 12,
            },
        )
        torch.manual_seed(0)
        transformers.GroundingDinoForObjectDetection(config).eval().save_pretrained(tmp_path)
        transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
        return tmp_path

    def test_each_phrase_is_a_class(self, folder: Path) -> None:
        loaded = zoo.load(f"hf:{folder}")
        net = zoo.with_phrases(loaded, ["cat", "Remote control."])
        assert tuple(net.labels) == ("cat", "remote control")
        x = net.prepare(noise_image(SIDE))
        ids = torch.tensor([[101, 5, 1012, 6, 7, 1012, 102]])
        with torch.no_grad():
            output = net.model(x)
            known = loaded.model.model(pixel_values=x, input_ids=ids, attention_mask=torch.ones_like(ids))
        assert torch.equal(output["logits"][0, :, 0], known.logits[0, :, 1])
        assert torch.equal(output["logits"][0, :, 1], known.logits[0, :, 3:5].amax(1))
        assert torch.equal(output["pred_boxes"], known.pred_boxes)
        assert_explains_and_restores(net, x, Box(label="remote control"))

    def test_wrong_phrases(self, folder: Path) -> None:
        net = zoo.load(f"hf:{folder}")
        assert message_of(zoo.with_phrases, net, []) == "phrases must hold at least one text, got none; e.g. ['a cat']"
        assert (
            message_of(zoo.with_phrases, net, "a cat") == "phrases must be a list of texts, got 'a cat'; e.g. ['a cat']"
        )
        assert message_of(zoo.with_phrases, net, ["cat"] * 6) == (
            "phrases must have at most 12 tokens together, got 14; ask for fewer"
        )
        assert message_of(zoo.with_phrases, Network(nn.Flatten()), ["cat"]) == (
            "phrases must be given to a Grounding DINO from an hf: folder, got Flatten; load one by zoo.load"
        )

    def test_a_folder_without_a_tokenizer(self, folder: Path) -> None:
        for file in folder.glob("*token*"):
            file.unlink()
        (folder / "vocab.txt").unlink()
        message = message_of(zoo.load, f"hf:{folder}")
        assert message.startswith(f"a Grounding DINO must have a tokenizer in its folder, got {str(folder)!r}: ")


class Backbone(nn.Module):
    """Features of a stride of 8 px."""

    out_channels = 16

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 8, 8), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def tiny_of_torchvision(kind: str) -> nn.Module:
    torch.manual_seed(1)
    sizes = {"min_size": SIDE, "max_size": SIDE}
    anchors = detection.anchor_utils.AnchorGenerator(((16, 32),), ((0.5, 1.0, 2.0),))
    if kind == "RetinaNet":
        model: Any = detection.RetinaNet(Backbone(), 4, **sizes, anchor_generator=anchors)
        model.head.classification_head.cls_logits.weight.data *= 40
        model.head.classification_head.cls_logits.bias.data.zero_()
    else:
        few = {"rpn_post_nms_top_n_test": 20, "box_detections_per_img": 5, "rpn_anchor_generator": anchors}
        heads = {
            "box_head": detection.faster_rcnn.TwoMLPHead(16 * 7 * 7, 16),
            "box_predictor": detection.faster_rcnn.FastRCNNPredictor(16, 4),
        }
        if kind == "MaskRCNN":
            heads |= {
                "mask_head": detection.mask_rcnn.MaskRCNNHeads(16, (8,), 1),
                "mask_predictor": detection.mask_rcnn.MaskRCNNPredictor(8, 8, 4),
            }
        model = getattr(detection, kind)(Backbone(), **sizes, **few, **heads)
        model.roi_heads.box_predictor.cls_score.weight.data *= 20
    checked: nn.Module = model.eval()
    return checked


@pytest.mark.parametrize("kind", ["FasterRCNN", "MaskRCNN", "RetinaNet"])
def test_detectors_of_torchvision(kind: str) -> None:
    net = Network(tiny_of_torchvision(kind), labels=("background", "cat", "dog", "car"))
    x = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (found,) = read_detections(net.model(x), x, net)
    assert len(found.labels)
    assert_explains_and_restores(net, x, Box())
    if kind == "MaskRCNN":
        assert_explains_and_restores(net, x, Instance())
