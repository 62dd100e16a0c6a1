"""A question about a detection: the score of one of a detector's boxes."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.networks.network import Evaluator, Network
from extremal.scores.query import BoundQuery, class_index, class_label

MATCH = 0.5  # IoU from which on a box of the whole input is the one that is asked about
LEAST_SCORE = 0.001  # that a detector is made to report: a box that fades is to be followed to next to nothing
MOST_BOXES = 1000  # that it is made to report, for the same reason
Corners = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Box:
    """The score of one box of a detector, matched softly: max over found boxes b of the class of IoU(box, b)·score(b).

    For detectors with torchvision's interface: (B, 3, H, W) -> for each input a mapping with boxes (M, 4), labels (M,)
    and scores (M,). While they are asked about perturbed inputs they report boxes of lower scores than by themselves
    (`score_thresh`, `detections_per_img`) and neither masks nor keypoints. Where no box of the class is left, 0.

    >>> from extremal import Network
    >>> class Detector(torch.nn.Module):  # sees one box, as clearly as the input is bright
    ...     def forward(self, x):
    ...         box, label = torch.tensor([[2.0, 2.0, 6.0, 6.0]]), torch.tensor([1])
    ...         return [{"boxes": box, "labels": label, "scores": one.mean()[None]} for one in x]
    >>> x = torch.full((1, 3, 8, 8), 0.5)
    >>> with Network(Detector()).frozen() as run:
    ...     Box((2, 2, 6, 4), label=1).bind(run, x)(x, torch.tensor([0]))  # half of it
    tensor([0.2500])

    Args:
        box: x1, y1, x2, y2 in pixels of the input; None: the one with the highest score on the whole input, for each
            input by itself.
        label: the class, by index or name, 0 being torchvision's background; None: that of the box that matches.
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
            raise ExtremalValueError(f"a box must be x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {_at(corners)}")
        object.__setattr__(self, "box", corners)

    @property
    def name(self) -> str:
        """What and where, in words."""
        what = "box" if self.label is None else f"box of {class_label(self.label)}"
        return f"best {what}" if self.box is None else f"{what} at {_at(self.box)}"

    def bind(self, run: Evaluator, x: Tensor) -> BoundQuery:
        """The score; costs one evaluation of each input, to find the boxes that the detector reports by itself."""
        net = run.network
        label = None if self.label is None else class_index(net, self.label, len(net.labels) or None)
        with torch.no_grad():
            whole = _detections(run.evaluate(x, torch.arange(len(x), device=x.device)), len(x), net)
        wanted = [self._chosen(found, label, n, net) for n, found in enumerate(whole)]

        def ask(inputs: Tensor, images: Tensor) -> Tensor:
            with _lenient(net.model):
                output = run.evaluate(inputs, images)
            scores = [
                found.likeness(*wanted[image])
                for found, image in zip(_detections(output, len(inputs), net), images.tolist(), strict=True)
            ]
            nothing = inputs.flatten(1).sum(1) * 0  # with a gradient, of zeros
            return nothing + torch.stack([nothing.new_zeros(()) if score is None else score for score in scores])

        return ask

    def _chosen(self, found: "_Found", label: int | None, n: int, net: Network) -> tuple[Tensor, int]:
        """The box (4,) and the label that are asked about input n."""
        counts = Counter(net.label(one) for one in found.labels.tolist())
        told = ", ".join(f"{count} {name}" for name, count in counts.most_common())
        if not told:
            raise ExtremalValueError(
                f"a detector must find a box on the whole input, {net.name} finds none on input {n}; "
                "lower its own threshold of the score, or ask about another input"
            )
        fits = torch.ones_like(found.scores, dtype=torch.bool) if label is None else found.labels == label
        of = "" if label is None else f" of {net.label(label)}"
        if not fits.any():
            raise ExtremalValueError(
                f"a detector must find a box{of} on the whole input, {net.name} finds none on input {n} but {told}; "
                "ask about one of these"
            )
        if self.box is None:
            best = int(found.scores.masked_fill(~fits, -torch.inf).argmax())
            return found.boxes[best].detach(), int(found.labels[best])
        box = found.boxes.new_tensor(self.box)
        overlaps = box_iou(box[None], found.boxes)[0].masked_fill(~fits, 0.0)
        if float(overlaps.max()) < MATCH:
            raise ExtremalValueError(
                f"a detector must find the box on the whole input with an IoU of at least {MATCH:g}, the best box{of} "
                f"that {net.name} finds on input {n} has {float(overlaps.max()):.2f}, of {told}; "
                "box=None takes the best"
            )
        best = int(found.scores.masked_fill(overlaps < MATCH, -torch.inf).argmax())
        return box, int(found.labels[best])


@dataclass(frozen=True, eq=False)
class _Found:
    """What a detector found on one input."""

    boxes: Tensor  # (M, 4)
    labels: Tensor  # (M,)
    scores: Tensor  # (M,)

    def with_area(self) -> "_Found":
        """Without boxes of no area, which overlap nothing."""
        real = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        return _Found(self.boxes[real], self.labels[real], self.scores[real])

    def likeness(self, box: Tensor, label: int) -> Tensor | None:
        """How well the best box of the label is the wanted one, in [0, 1]; None where there is no box of the label."""
        same = self.labels == label
        if not same.any():
            return None
        overlaps: Tensor = box_iou(box[None].to(self.boxes), self.boxes[same])[0]
        return (overlaps * self.scores[same]).amax()


def _detections(output: object, rows: int, net: Network) -> list[_Found]:
    """A detector's output for each input.

    Raises:
        ExtremalTypeError: it is something else.
    """
    if isinstance(output, list | tuple) and len(output) == rows and all(isinstance(one, Mapping) for one in output):
        found = [_Found(*(one.get(key) for key in ("boxes", "labels", "scores"))) for one in output]
        if all(_is_sound(one) for one in found):
            return [one.with_area() for one in found]
    raise ExtremalTypeError(
        "a detector must return for each input a mapping with boxes (M, 4), labels (M,) and scores (M,), "
        f"{net.name} returned {_kind(output)}; wrap the network"
    )


def _is_sound(found: _Found) -> bool:
    parts = (found.boxes, found.labels, found.scores)
    if not all(isinstance(part, Tensor) and part.ndim for part in parts):
        return False
    count = len(found.labels)
    return [tuple(part.shape) for part in parts] == [(count, 4), (count,), (count,)]


def _kind(output: object) -> str:
    if isinstance(output, list | tuple) and output:
        inner = output[0]
        keys = f" with the keys {', '.join(map(str, inner))}" if isinstance(inner, Mapping) else ""
        return f"a {type(output).__name__} of {len(output)} {type(inner).__name__}{keys}"
    return f"a {type(output).__name__}"


@contextmanager
def _lenient(model: nn.Module) -> Iterator[None]:
    """A detector reports boxes of low scores, more of them, and boxes only; on exit it is as it was."""
    with ExitStack() as undo:
        for module in model.modules():
            own, most = module.__dict__.get("score_thresh"), module.__dict__.get("detections_per_img")
            if isinstance(own, int | float):
                undo.callback(setattr, module, "score_thresh", own)
                module.__dict__["score_thresh"] = min(own, LEAST_SCORE)
            if isinstance(most, int):
                undo.callback(setattr, module, "detections_per_img", most)
                module.__dict__["detections_per_img"] = max(most, MOST_BOXES)
            for name in ("mask_roi_pool", "keypoint_roi_pool"):  # without these, the parts for them are left out
                part = module._modules.get(name)
                if part is not None:
                    undo.callback(module._modules.__setitem__, name, part)
                    module._modules[name] = None
        yield


def _at(corners: Corners) -> str:
    return ", ".join(f"{value:g}" for value in corners)
