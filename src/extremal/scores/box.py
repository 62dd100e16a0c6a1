"""Query about a detection: the score of one of a detector's boxes."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from extremal.errors import ExtremalValueError
from extremal.networks.network import Network
from extremal.networks.run import Evaluator
from extremal.scores.detections import Detections, Queries, list_classes, read_detections
from extremal.scores.query import BoundQuery, class_index, class_label, input_shape, make_zeros

MIN_MATCH_IOU = 0.5  # of the given box with one found on the unperturbed input
MIN_FOUND_SCORE = 0.5  # of a box that counts as found where its absence is asked about
SCORE_THRESHOLD = 0.001  # set for detectors during a run, so that a fading box is followed down to small scores
MAX_DETECTIONS = 1000  # set for detectors during a run, for the same reason
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Box:
    """The score of a detector's box, matched softly: s(class) = maximum of IoU(box, b)·score(b) over its boxes b.

    Only boxes of the class are matched; if none is found, s is 0. Three questions can be asked:

    - why is this box here: Φ = s(label);
    - why is it not of another class: Φ = s(label) − s(against);
    - why is there no box here: Φ = −log(s / (1 − s)) of the label, the log-odds against a box (`absent`).

    The detector may have one of three forms:

    - torchvision's, (B, 3, H, W) -> for each input a mapping with boxes (M, 4), labels (M,) and scores (M,); on
      perturbed inputs it reports boxes of lower scores than usual (`score_thresh`, `detections_per_img`), and neither
      masks nor keypoints;
    - that of transformers (DETR, YOLOS, RT-DETR): logits (B, Q, classes) and pred_boxes (B, Q, 4);
    - predictions (B, 4 + classes, anchors), as YOLO's.

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
        against: another class, by index or name, that the box could have instead; None: the box itself is explained.
        absent: whether to ask why there is no box of the class here; needs a box and a label, and no such box found.
    """

    box: Corners | None = None
    label: int | str | None = None
    against: int | str | None = None
    absent: bool = False

    layer, depends_on_position = "", True

    def __post_init__(self) -> None:
        if self.absent and (self.box is None or self.label is None or self.against is not None):
            raise ExtremalValueError(
                "an absent box must be given by its corners and its class alone, got "
                f"box={self.box!r}, label={self.label!r}, against={self.against!r}; "
                "e.g. Box((40, 30, 200, 180), 'cat', absent=True)"
            )
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
        if self.against is not None:
            noun += f" rather than {class_label(self.against)}"
        if self.box is None:
            return f"best {noun}"
        return f"{'no ' if self.absent else ''}{noun} at {_corners_text(self.box)}"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """Bind the score to a network and inputs; costs one evaluation of each input, to find its box."""
        net, places = run.network, input_shape(run, x)[1:]
        label, against = (
            None if wanted is None else class_index(net, wanted, len(net.labels) or None)
            for wanted in (self.label, self.against)
        )
        with torch.no_grad():
            per_input = read_detections(run.evaluate(x, torch.arange(len(x), device=x.device)), x, net, places)
        for wanted in (label, against):
            if wanted is not None and isinstance(per_input[0], Queries):
                class_index(net, wanted, per_input[0].probabilities.shape[1])
        choose = self._choose_absent if self.absent else self._choose
        targets = [choose(detections, label, n, net) for n, detections in enumerate(per_input)]
        if against is not None:
            _check_classes_differ(targets, against, net)

        def score_inputs(inputs: Tensor, input_index: Tensor) -> Tensor:
            with reporting_low_scores(net.model):
                output = run.evaluate(inputs, input_index)
            per_row = read_detections(output, inputs, net, places)
            scores = []
            for detections, n, zero in zip(per_row, input_index.tolist(), make_zeros(inputs), strict=True):
                box, own = targets[n]
                if self.absent:
                    scores.append(zero - detections.log_odds(box, own))
                    continue
                score = zero + detections.match(box, own)
                scores.append(score if against is None else score - detections.match(box, against))
            return torch.stack(scores)

        return score_inputs

    def _choose_absent(self, detections: Detections, label: int | None, n: int, net: Network) -> tuple[Tensor, int]:
        """Return the box (4,) whose absence on input n is explained, and its label."""
        assert self.box is not None
        assert label is not None
        box = detections.boxes.new_tensor(self.box)
        fits = (detections.labels == label) & (detections.scores >= MIN_FOUND_SCORE)
        if fits.any():
            overlap, best = box_iou(box[None], detections.boxes[fits])[0].max(0)
            if float(overlap) >= MIN_MATCH_IOU:
                raise ExtremalValueError(
                    f"an absent box must not be found on the unperturbed input, {net.name} finds one of "
                    f"{net.label(label)} on input {n} with a score of {float(detections.scores[fits][best]):.2f} and "
                    f"an IoU of {float(overlap):.2f}; leave absent out to explain it"
                )
        return box, label

    def _choose(self, detections: Detections, label: int | None, n: int, net: Network) -> tuple[Tensor, int]:
        """Return the box (4,) to explain on input n, and its label."""
        summary = list_classes(detections.labels, net)
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


def _check_classes_differ(targets: list[tuple[Tensor, int]], against: int, net: Network) -> None:
    """Raise if a box is compared with its own class."""
    for n, (_, label) in enumerate(targets):
        if label == against:
            raise ExtremalValueError(
                f"against must be another class than the box has, got {net.label(against)} for a box of it on input "
                f"{n}; name another class"
            )


@contextmanager
def reporting_low_scores(model: nn.Module, *, with_masks: bool = False) -> Iterator[None]:
    """Make a detector report boxes of lower scores; restore its settings on exit.

    Args:
        model: the detector.
        with_masks: whether masks are needed; without, masks and keypoints are skipped, and more boxes are reported.
    """
    with ExitStack() as undo:
        for module in model.modules():
            threshold, limit = module.__dict__.get("score_thresh"), module.__dict__.get("detections_per_img")
            if isinstance(threshold, int | float):
                undo.callback(setattr, module, "score_thresh", threshold)
                module.__dict__["score_thresh"] = min(threshold, SCORE_THRESHOLD)
            if isinstance(limit, int) and not with_masks:  # the masks of as many boxes could fill the memory
                undo.callback(setattr, module, "detections_per_img", limit)
                module.__dict__["detections_per_img"] = max(limit, MAX_DETECTIONS)
            for name in ("keypoint_roi_pool",) if with_masks else ("mask_roi_pool", "keypoint_roi_pool"):
                part = module._modules.get(name)  # without these, masks and keypoints are skipped
                if part is not None:
                    undo.callback(module._modules.__setitem__, name, part)
                    module._modules[name] = None
        yield


def _corners_text(corners: Corners) -> str:
    return ", ".join(f"{value:g}" for value in corners)
