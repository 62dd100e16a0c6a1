"""Networks with other outputs than classes, and queries whose correct explanation is known."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from extremal import Network
from extremal.masking.solvers import Path
from extremal.scores import Box, Classes, Output, Query, Segment, Similarity, Unit
from support.toys import box_mask, texture

At = tuple[slice, ...]
Corners = tuple[float, float, float, float]


class Answering(nn.Module):
    """Measures its texture in each of some boxes, (B, boxes) in [0, 0.96]; `answer` turns that into an output."""

    template: Tensor

    def __init__(
        self, template: Tensor, boxes: list[At], answer: Callable[[Tensor], object] = lambda seen: seen
    ) -> None:
        super().__init__()
        self.register_buffer("template", template.clone())
        self.boxes, self.answer = boxes, answer

    def forward(self, x: Tensor) -> object:
        correlation = x * self.template
        return self.answer(
            torch.stack([torch.tanh(2 * correlation[(..., *b)].flatten(1).mean(1)) for b in self.boxes], 1)
        )


class Cells(nn.Module):
    """Measures its texture in each cell of 4 × 4 px: (B, C, H, W) -> (B, 1, H/4, W/4)."""

    template: Tensor

    def __init__(self, template: Tensor) -> None:
        super().__init__()
        self.register_buffer("template", template.clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(2 * F.avg_pool2d((x * self.template).mean(1, keepdim=True), 4))


class Counted(nn.Module):
    """Returns its input and counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Tower(nn.Module):
    """Cells, then two channels: all cells, and those of the upper left quarter; their tokens; two classes."""

    def __init__(self, template: Tensor) -> None:
        super().__init__()
        self.cells, self.pair, self.tokens = Cells(template), Pair(), Tokens()
        self.twice, self.both, self.behind = nn.Identity(), Both(), Counted()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(self.pair(self.twice(self.twice(self.cells(x)))))
        first, _ = self.both(tokens)
        return self.behind(first.mean(1))


class Pair(nn.Module):
    """(B, 1, h, w) -> (B, 2, h, w)."""

    def forward(self, x: Tensor) -> Tensor:
        quarter = torch.zeros_like(x)
        quarter[..., : x.shape[2] // 2, : x.shape[3] // 2] = 1.0
        return torch.cat([x, x * quarter], 1)


class Tokens(nn.Module):
    """(B, K, h, w) -> (B, h·w, K)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Both(nn.Module):
    """Returns a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 1


class Segmenter(nn.Module):
    """Predicts for each cell of 4 × 4 px whether its texture is present (class 1) or not (class 0); never class 2."""

    def __init__(
        self, template: Tensor, answer: Callable[[Tensor], object] = lambda maps: maps, *, classes: int = 3
    ) -> None:
        super().__init__()
        self.cells, self.answer, self.labels = Cells(template), answer, NAMES[:classes]

    def forward(self, x: Tensor) -> object:
        seen = 8 * self.cells(x)
        return self.answer(torch.cat([torch.full_like(seen, 2.0), seen, torch.full_like(seen, -3.0)], 1))


class Detector(nn.Module):
    """One box for each place that it looks at, each with a slightly lower score than the one before.

    Args:
        template: (1, C, H, W).
        looks: the place, the corners that are reported, and their label.
        fail_after: number of the evaluation that raises; 0: none.
    """

    template: Tensor

    def __init__(self, template: Tensor, looks: list[tuple[At, Corners, int]], *, fail_after: int = 0) -> None:
        super().__init__()
        self.register_buffer("template", template.clone())
        self.looks, self.fail_after, self.calls = looks, fail_after, 0
        self.head = Head()

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        self.calls += 1
        if self.calls == self.fail_after:
            raise OSError("the detector has failed")
        correlation = x * self.template
        seen = torch.stack([torch.tanh(2 * correlation[(..., *at)].flatten(1).mean(1)) for at, _, _ in self.looks], 1)
        boxes, labels = x.new_tensor([corners for _, corners, _ in self.looks]), [label for _, _, label in self.looks]
        scores = torch.sigmoid(8 * (seen - 0.6)) * (1 - 0.1 * torch.arange(len(labels)))
        return [self.head(boxes, torch.tensor(labels), row) for row in scores]


class Head(nn.Module):
    """Reports the boxes with the highest scores above the threshold, up to a limit; and masks, if it has the part."""

    def __init__(self) -> None:
        super().__init__()
        self.score_thresh, self.detections_per_img = 0.5, 2
        self.mask_roi_pool = Counted()

    def forward(self, boxes: Tensor, labels: Tensor, scores: Tensor) -> dict[str, Tensor]:
        top = [i for i in scores.argsort(descending=True).tolist() if scores[i] > self.score_thresh]
        top = top[: self.detections_per_img]
        detections = {"boxes": boxes[top], "labels": labels[top], "scores": scores[top]}
        return (
            detections | {"masks": self.mask_roi_pool(detections["scores"])}
            if self.mask_roi_pool is not None
            else detections
        )


X = texture(1, 3, 32, 32)
A, B, C = (slice(4, 12), slice(4, 12)), (slice(20, 28), slice(16, 24)), (slice(4, 12), slice(20, 28))
CELL, QUARTER = (slice(8, 12), slice(20, 24)), (slice(0, 16), slice(0, 16))
AT_A, AT_B, AT_C = (4.0, 4.0, 12.0, 12.0), (16.0, 20.0, 24.0, 28.0), (20.0, 4.0, 28.0, 12.0)
QUICK = Path(steps=24, polish=6, draws=2, search=4)
SHORT = Path(steps=3, polish=2, draws=2, search=0)
NAMES = ("cat", "dog", "car")


def mask_of(*boxes: tuple[slice, ...]) -> Tensor:
    return sum(box_mask(box, (32, 32)) for box in boxes)  # type: ignore[return-value]


def texture_in(*boxes: tuple[slice, ...]) -> Tensor:
    """Return X in these boxes, zero elsewhere."""
    return X * mask_of(*boxes)


def looks() -> list[Any]:
    return [(A, AT_A, 1), (B, AT_B, 1), (C, AT_C, 2)]


def value(model: nn.Module, query: Query, inputs: Tensor = X, unperturbed: Tensor = X) -> Tensor:
    """Return the scores of inputs for a query that is bound to the unperturbed input."""
    with Network(model, labels=getattr(model, "labels", NAMES)).frozen() as run, torch.no_grad():
        return query.bind(run, unperturbed)(inputs, torch.zeros(len(inputs), dtype=torch.int64))


def three(answer: Callable[[Tensor], object] = lambda seen: seen) -> Answering:
    return Answering(X, [A, B, C], answer)


def embedder() -> Answering:
    return three(lambda seen: torch.cat([seen, 0.3 + 0 * seen[:, :1]], 1))


REFERENCE = torch.tensor([1.0, 0.0, 0.0, 0.3])
CASES: dict[str, tuple[nn.Module, Query, Tensor]] = {
    "classes": (three(), Classes({"cat": 1.0, 1: 1.0, "car": -1.0}), mask_of(A, B)),
    "one class": (three(), Classes({"dog": 0.5}), mask_of(B)),
    "output": (three(lambda seen: {"all": (seen, seen.sum(1)), "last": seen[:, 2]}), Output(1, ("all", 0)), mask_of(B)),
    "regression": (three(lambda seen: seen[:, 0]), Output(), mask_of(A)),
    "unit": (Tower(X), Unit("pair", 0, (2, 5)), mask_of(CELL)),
    "channel": (Tower(X), Unit("pair", 1), mask_of(QUARTER)),
    "token": (Tower(X), Unit("tokens", 0, 21), mask_of(CELL)),
    "token's channel": (Tower(X), Unit("tokens", 1, axis=2), mask_of(QUARTER)),
    "embedding": (embedder(), Similarity(REFERENCE), mask_of(A)),
    "another input": (embedder(), Similarity(texture_in(A)), mask_of(A)),
    "two embeddings": (embedder(), Similarity(torch.eye(4)[:2]), mask_of(A, B)),
    "layer's embedding": (Tower(X), Similarity(torch.ones(2), "pair"), mask_of(QUARTER)),
    "segment": (Segmenter(X), Segment("dog", mask_of(A) > 0), mask_of(A)),
    "logits of a segment": (Segmenter(X, lambda y: {"out": y}), Segment(1, mask_of(C) > 0, "logit"), mask_of(C)),
    "predicted segment": (Segmenter(texture_in(A, C)), Segment("dog"), mask_of(A, C)),
    "box": (Detector(X, looks()), Box(AT_B, "dog"), mask_of(B)),
    "nearly the box": (Detector(X, looks()), Box((17, 20, 24, 28)), mask_of(B)),
    "best box": (Detector(X, looks()), Box(), mask_of(A)),
}
