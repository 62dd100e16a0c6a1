"""The boxes that a detector finds, read from its output."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeGuard

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_convert, box_iou

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.class_scores import find_anchor_predictions, get_part
from extremal.networks.configs import find_configs
from extremal.networks.network import Network

SOFTMAX_MODELS = ("detr", "yolos", "table-transformer")  # of transformers: the last class is that of no object
NO_OBJECT_NAMES = ("no object", "no-object", "no_object", "none", "background", "∅")
MIN_SCORE = 0.05  # of a query that counts as a box on the unperturbed input, as in torchvision
MAX_DOUBT = 1e-6  # 1 minus the largest probability whose log-odds are taken
MAX_ANCHOR_IOU = 0.7  # of two anchors of a class that count as two boxes on the unperturbed input


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes of a detector on one input."""

    boxes: Tensor  # (M, 4) x1, y1, x2, y2 in pixels
    labels: Tensor  # (M,)
    scores: Tensor  # (M,)

    min_probability: ClassVar[float] = 1e-6  # whose log-odds are taken: a box that is not reported may have less

    def without_empty(self) -> "Detections":
        """Return the boxes without those of zero area, which overlap nothing."""
        nonempty = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        return Detections(self.boxes[nonempty], self.labels[nonempty], self.scores[nonempty])

    def match(self, box: Tensor, label: int) -> Tensor:
        """Return the maximum of IoU·score over the boxes of the label, in [0, 1]; 0 if there are none."""
        has_label = self.labels == label
        if not has_label.any():
            return self.scores.new_zeros(())
        overlaps: Tensor = box_iou(box[None].to(self.boxes), self.boxes[has_label])[0]
        return (overlaps * self.scores[has_label]).amax()

    def log_odds(self, box: Tensor, label: int) -> Tensor:
        """Return log(s / (1 − s)) of the match s."""
        return self.match(box, label).clamp(self.min_probability, 1 - MAX_DOUBT).logit()


@dataclass(frozen=True, eq=False)
class Queries(Detections):
    """Queries of a detector on one input, each with a box and a probability of each class."""

    probabilities: Tensor  # (Q, classes) of the classes of objects, for all queries
    query_boxes: Tensor  # (Q, 4)
    min_probability: ClassVar[float] = 1e-12  # all boxes are reported

    def match(self, box: Tensor, label: int) -> Tensor:
        """Return the maximum of IoU·probability over all queries, in [0, 1], also where another class is likelier."""
        overlaps: Tensor = box_iou(box[None].to(self.query_boxes), self.query_boxes)[0]
        return (overlaps * self.probabilities[:, label]).amax()


def read_detections(
    output: object, inputs: Tensor, net: Network, places: tuple[int, ...] | None = None
) -> list[Detections]:
    """Return a detector's boxes for each input.

    Args:
        output: of the network, in the form of torchvision's detectors, of those of transformers, or YOLO's.
        inputs: (B, C, H, W).
        net: the network.
        places: H, W of the network's own input; None: those of these inputs.

    Raises:
        ExtremalTypeError: the output has another form.
        ExtremalValueError: the number of its classes does not say whether the last one is that of no object.
    """
    if is_list_of_mappings(output, len(inputs)):
        found = [_read_mapping(entry) for entry in output]
        if all(found):
            return [detections.without_empty() for detections in found if detections]
    logits, boxes = get_part(output, "logits"), get_part(output, "pred_boxes")
    if isinstance(logits, Tensor) and isinstance(boxes, Tensor) and _are_queries(logits, boxes, len(inputs)):
        return _read_queries(logits, boxes, places or tuple(inputs.shape[2:]), net)
    predictions = find_anchor_predictions(output, len(net.labels))
    if predictions is not None and len(predictions) == len(inputs):
        return [_read_anchors(row) for row in predictions]
    raise ExtremalTypeError(
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), or logits "
        f"and pred_boxes of queries, or predictions (B, 4 + labels, anchors); {net.name} has {len(net.labels)} labels "
        f"and returned {describe_form(output)}; wrap the network"
    )


def _read_mapping(entry: Mapping[str, object]) -> Detections | None:
    """Return the boxes of one input; None if it has none of this form."""
    boxes, labels, scores = (entry.get(key) for key in ("boxes", "labels", "scores"))
    if not (isinstance(boxes, Tensor) and isinstance(labels, Tensor) and isinstance(scores, Tensor)):
        return None
    if labels.ndim != 1 or boxes.shape != (len(labels), 4) or scores.shape != labels.shape:
        return None
    return Detections(boxes, labels, scores)


def _read_anchors(predictions: Tensor) -> Queries:
    """Return the boxes of predictions (4 + classes, anchors): centre and size in pixels, probabilities of classes."""
    boxes, chances = box_convert(predictions[:4].T, "cxcywh", "xyxy"), predictions[4:].T
    scores, labels = chances.max(1)
    kept = ((scores >= MIN_SCORE) & (boxes[:, 2:] > boxes[:, :2]).all(1)).nonzero()[:, 0]
    kept = kept[batched_nms(boxes[kept].detach(), scores[kept].detach(), labels[kept], MAX_ANCHOR_IOU)]
    return Queries(boxes[kept], labels[kept], scores[kept], chances, boxes)


def _are_queries(logits: Tensor, boxes: Tensor, count: int) -> bool:
    return logits.ndim == 3 and logits.shape[0] == count and tuple(boxes.shape) == (*logits.shape[:2], 4)


def _read_queries(logits: Tensor, boxes: Tensor, places: tuple[int, ...], net: Network) -> list[Detections]:
    """Return the boxes of queries: centre and size as fractions of the input, with logits of classes."""
    probabilities, is_object = decode_queries(logits, has_no_object=has_no_object(net, logits.shape[2]))
    height, width = places
    corners = box_convert(boxes, "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
    found = []
    for chances, box, is_likely in zip(probabilities, corners, is_object, strict=True):
        scores, labels = chances.max(1)
        kept = is_likely & (scores >= MIN_SCORE) & (box[:, 2:] > box[:, :2]).all(1)
        found.append(Queries(box[kept], labels[kept], scores[kept], chances, box))
    return list(found)


def is_list_of_mappings(output: object, count: int) -> TypeGuard[Sequence[Mapping[str, object]]]:
    """Return whether an output is a list with one mapping for each of `count` inputs, as that of torchvision."""
    if not isinstance(output, list | tuple) or len(output) != count:
        return False
    return all(isinstance(entry, Mapping) for entry in output)


def decode_queries(logits: Tensor, *, has_no_object: bool) -> tuple[Tensor, Tensor]:
    """Decode the logits of queries (B, Q, classes).

    Args:
        logits: of each query's classes.
        has_no_object: whether the last class is that of no object.

    Returns:
        Probabilities (B, Q, classes) of the classes of objects, and whether each query is of an object (B, Q).
    """
    if has_no_object:
        return logits.softmax(2)[..., :-1], logits.argmax(2) < logits.shape[2] - 1
    return logits.sigmoid(), torch.ones_like(logits[..., 0], dtype=torch.bool)


def has_no_object(net: Network, n_classes: int) -> bool:
    """Return whether the last of a detector's classes is that of no object, so that all are compared by a softmax."""
    kinds = [getattr(config, "model_type", None) for config in find_configs(net.model)]
    names = [kind for kind in kinds if isinstance(kind, str)]
    if names:
        return any(name in SOFTMAX_MODELS for name in names)
    if len(net.labels) == n_classes:
        return net.labels[-1].strip().lower() in NO_OBJECT_NAMES
    if len(net.labels) == n_classes - 1:
        return True
    raise ExtremalValueError(
        f"a detector's labels must name its classes, {net.name} returns scores of {n_classes} and has "
        f"{len(net.labels)} labels; pass Network(model, labels=...) with one name for each, with 'no object' for the "
        "last if it is that"
    )


def list_classes(labels: Tensor, net: Network) -> str:
    """Return how many of each class there are among labels (M,), in words; empty if there are none."""
    counts = Counter(net.label(index) for index in labels.tolist())
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def describe_form(output: object) -> str:
    """Return the form of an output in words: its types, and its shape or keys."""
    if isinstance(output, Tensor):
        return f"a tensor {tuple(output.shape)}"
    if isinstance(output, list | tuple) and output:
        item = output[0]
        keys = f" with the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
        return f"a {type(output).__name__} of {len(output)} {type(item).__name__}{keys}"
    keys = f" with the keys {', '.join(map(str, output))}" if isinstance(output, Mapping) else ""
    return f"a {type(output).__name__}{keys}"
