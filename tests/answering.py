"""Networks that answer in other forms than classes, and whose right answer is known."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toys import Box

Corners = tuple[float, float, float, float]


class Answering(nn.Module):
    """Sees its own texture in each of some boxes, `answer` makes an output of that: seen (B, boxes) in [0, 0.96]."""

    template: Tensor

    def __init__(
        self, template: Tensor, boxes: list[Box], answer: Callable[[Tensor], object] = lambda seen: seen
    ) -> None:
        super().__init__()
        self.register_buffer("template", template.clone())
        self.boxes, self.answer = boxes, answer

    def forward(self, x: Tensor) -> object:
        likeness = x * self.template
        return self.answer(torch.stack([torch.tanh(2 * likeness[(..., *b)].flatten(1).mean(1)) for b in self.boxes], 1))


class Cells(nn.Module):
    """How much of its texture is seen in each cell of 4 × 4 px: (B, C, H, W) -> (B, 1, H/4, W/4)."""

    template: Tensor

    def __init__(self, template: Tensor) -> None:
        super().__init__()
        self.register_buffer("template", template.clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(2 * F.avg_pool2d((x * self.template).mean(1, keepdim=True), 4))


class Counted(nn.Module):
    """Hands on what it gets and counts how often."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


class Tower(nn.Module):
    """Cells, then two channels of them: all, and the upper left quarter's; tokens of these; two classes at the end."""

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
    """Gives a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, 1


class Segmenter(nn.Module):
    """Says of each cell of 4 × 4 px whether its texture is there (class 1), or nothing (class 0); never class 2."""

    def __init__(self, template: Tensor, answer: Callable[[Tensor], object] = lambda maps: maps) -> None:
        super().__init__()
        self.cells, self.answer = Cells(template), answer

    def forward(self, x: Tensor) -> object:
        seen = 8 * self.cells(x)
        return self.answer(torch.cat([torch.full_like(seen, 2.0), seen, torch.full_like(seen, -3.0)], 1))


class Detector(nn.Module):
    """One box for each place that it looks at, each a little less sure than the one before it.

    Args:
        template: (1, C, H, W).
        looks: where it looks, what corners it reports, and as what label.
        fail_after: evaluations, after which one raises; 0: never.
    """

    template: Tensor

    def __init__(self, template: Tensor, looks: list[tuple[Box, Corners, int]], *, fail_after: int = 0) -> None:
        super().__init__()
        self.register_buffer("template", template.clone())
        self.looks, self.fail_after, self.calls = looks, fail_after, 0
        self.head = Head()

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        self.calls += 1
        if self.calls == self.fail_after:
            raise OSError("the detector has failed")
        likeness = x * self.template
        seen = torch.stack([torch.tanh(2 * likeness[(..., *at)].flatten(1).mean(1)) for at, _, _ in self.looks], 1)
        boxes, labels = x.new_tensor([corners for _, corners, _ in self.looks]), [label for _, _, label in self.looks]
        scores = torch.sigmoid(8 * (seen - 0.6)) * (1 - 0.1 * torch.arange(len(labels)))
        return [self.head(boxes, torch.tensor(labels), row) for row in scores]


class Head(nn.Module):
    """Reports boxes of scores above the threshold, the best first, up to a limit; and masks, where it has the part."""

    def __init__(self) -> None:
        super().__init__()
        self.score_thresh, self.detections_per_img = 0.5, 2
        self.mask_roi_pool = Counted()

    def forward(self, boxes: Tensor, labels: Tensor, scores: Tensor) -> dict[str, Tensor]:
        kept = [i for i in scores.argsort(descending=True).tolist() if scores[i] > self.score_thresh]
        kept = kept[: self.detections_per_img]
        found = {"boxes": boxes[kept], "labels": labels[kept], "scores": scores[kept]}
        return found | {"masks": self.mask_roi_pool(found["scores"])} if self.mask_roi_pool is not None else found
