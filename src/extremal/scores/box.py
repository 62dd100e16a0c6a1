"""Query about a detection: the score of one of a detector's boxes."""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.scores.detections import Detections, read_detections
from extremal.scores.query import BoundQuery, class_index, class_label

MIN_MATCH_IOU = 0.5  # of the given box with one found on the unperturbed input
SCORE_THRESHOLD = 0.001  # set for detectors during a run, so that a fading box is followed down to small scores
MAX_DETECTIONS = 1000  # set for detectors during a run, for the same reason
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Box:
    """The score of a detector's box, matched softly: the maximum of IoU(box, b)·score(b) over its boxes b.

    Only boxes of the class are matched; if none is found, the score is 0. For detectors with torchvision's interface,
    (B, 3, H, W) -> for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), which on perturbed inputs
    report boxes of lower scores than usual (`score_thresh`, `detections_per_img`), and neither masks nor keypoints; and
    for those of transformers (DETR, YOLOS, RT-DETR), which return logits (B, Q, classes) and pred_boxes (B, Q, 4).

    >>> from extremal import Network
    >>> class Detector(torch.nn.Module):  # finds one box, with the mean of the input as its score
    ...     def forward(self, x):
    ...         box, label = torch.tensor([[2.0, 2.0, 6.0, 6.0]]), torch.tensor([1])
    ...         return [{"boxes": box, "labels": label, "scores": image.mean()[None]} for image in x]
    >>> x = torch.full((1, 3, 8, 8), 0.5)
    >>> with Network(Detector()).frozen() as run:
    ...     Box((2, 2, 6, 4), label=1).bind(run, x)(x, torch.tensor([0]))  # half of it
    tensor([0.2500])

    Args:
        box: x1, y1, x2, y2 in pixels of the input; None: for each input the box with the highest score on the
            unperturbed input.
        label: the class, by index or name, 0 being torchvision's background; None: that of the matched box.
    """

    box: Corners | None = None
    label: int | str | None = None

    layer, depends_on_position = "", True

    def __post_init__(self) -> None:
        if self.box is None:
            return
        try:
            corners = tuple(float(value) for value in self.box)
        except (TypeError, ValueError):
            corners = ()
        if len(corners) != 4 or not all(map(math.isfinite, corners)):
            raise ExtremalValueError(f"a box must be four finite numbers x1, y1, x2, y2 in pixels, got {self.box!r}")
        x1, y1, x2, y2 = corners
        if not (x1 < x2 and y1 < y2):
            raise ExtremalValueError(f"a box must have x1 < x2 and y1 < y2, got {_corners_text(corners)}")
        object.__setattr__(self, "box", corners)

    @property
    def name(self) -> str:
        """Class and corners."""
        noun = "box" if self.label is None else f"box of {class_label(self.label)}"
        return f"best {noun}" if self.box is None else f"{noun} at {_corners_text(self.box)}"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the score to a network and inputs; costs one evaluation of each input, to find its box."""
        net = run.network
        label = None if self.label is None else class_index(net, self.label, len(net.labels) or None)
        with torch.no_grad():
            per_input = read_detections(run.evaluate(x, torch.arange(len(x), device=x.device)), x, net)
        targets = [self._choose(detections, label, n, net) for n, detections in enumerate(per_input)]

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            with _reporting_low_scores(net.model):
                output = run.evaluate(inputs, input_index)
            per_row = read_detections(output, inputs, net)
            scores = [
                detections.match(*targets[n]) for detections, n in zip(per_row, input_index.tolist(), strict=True)
            ]
            zeros = inputs.flatten(1).sum(1) * 0  # connected to the inputs, so that there always is a gradient
            return zeros + torch.stack([zeros.new_zeros(()) if score is None else score for score in scores])

        return score_inputs

    def _choose(self, detections: Detections, label: int | None, n: int, net: Network) -> tuple[Tensor, int]:
        """Return the box (4,) to explain on input n, and its label."""
        counts = Counter(net.label(index) for index in detections.labels.tolist())
        summary = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        if not summary:
            raise ExtremalValueError(
                f"a detector must find a box on the unperturbed input, {net.name} finds none on input {n}; "
                "lower its score threshold, or choose another input"
            )
        fits = torch.ones_like(detections.scores, dtype=torch.bool) if label is None else detections.labels == label
        of = "" if label is None else f" of {net.label(label)}"
        if not fits.any():
            raise ExtremalValueError(
                f"a detector must find a box{of} on the unperturbed input, {net.name} finds none on input {n} but "
                f"{summary}; choose one of these"
            )
        if self.box is None:
            best = int(detections.scores.masked_fill(~fits, -torch.inf).argmax())
            return detections.boxes[best].detach(), int(detections.labels[best])
        box = detections.boxes.new_tensor(self.box)
        overlaps = box_iou(box[None], detections.boxes)[0].masked_fill(~fits, 0.0)
        if float(overlaps.max()) < MIN_MATCH_IOU:
            raise ExtremalValueError(
                f"a detector must find the box on the unperturbed input with an IoU of at least {MIN_MATCH_IOU:g}, the "
                f"best box{of} that {net.name} finds on input {n} has {float(overlaps.max()):.2f}, of {summary}; "
                "box=None selects the best"
            )
        best = int(detections.scores.masked_fill(overlaps < MIN_MATCH_IOU, -torch.inf).argmax())
        return box, int(detections.labels[best])


@contextmanager
def _reporting_low_scores(model: nn.Module) -> Iterator[None]:
    """Make a detector report only boxes, more of them and of lower scores; restore its settings on exit."""
    with ExitStack() as undo:
        for module in model.modules():
            threshold, limit = module.__dict__.get("score_thresh"), module.__dict__.get("detections_per_img")
            if isinstance(threshold, int | float):
                undo.callback(setattr, module, "score_thresh", threshold)
                module.__dict__["score_thresh"] = min(threshold, SCORE_THRESHOLD)
            if isinstance(limit, int):
                undo.callback(setattr, module, "detections_per_img", limit)
                module.__dict__["detections_per_img"] = max(limit, MAX_DETECTIONS)
            for name in ("mask_roi_pool", "keypoint_roi_pool"):  # without these, masks and keypoints are skipped
                part = module._modules.get(name)
                if part is not None:
                    undo.callback(module._modules.__setitem__, name, part)
                    module._modules[name] = None
        yield


def _corners_text(corners: Corners) -> str:
    return ", ".join(f"{value:g}" for value in corners)
