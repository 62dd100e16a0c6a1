"""Detectors whose evidence is known: each looks at the light in certain squares of an input of ones, 32 × 32 px."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

At = tuple[slice, slice]
CAT, DOG, STOP = (slice(4, 12), slice(4, 12)), (slice(20, 28), slice(16, 24)), (slice(4, 12), slice(20, 28))
CAT_CORNERS, DOG_CORNERS = (4.0, 4.0, 12.0, 12.0), (16.0, 20.0, 24.0, 28.0)
LABELS = ("cat", "dog")
GAIN = 8.0


def see(x: Tensor, place: At) -> Tensor:
    """Return log-odds (B,): −4 in the dark, 4 in the light."""
    return GAIN * x[(..., *place)].mean((1, 2, 3)) - GAIN / 2


class PlantedQueries(nn.Module):
    """Five queries as DETR's, of which query 2 looks for a cat in its square, and query 4 for a dog in its own.

    Where its own square is dark, the dog's query sees a cat instead; and the light of a third square stops both queries
    from finding anything, if the network is made with `stops`.
    """

    boxes: Tensor

    def __init__(self, *, stops: bool = False) -> None:
        super().__init__()
        self.stops = stops
        corners = torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 5)
        corners[2], corners[4] = torch.tensor(CAT_CORNERS), torch.tensor(DOG_CORNERS)
        size = corners[:, 2:] - corners[:, :2]
        self.register_buffer("boxes", torch.cat([corners[:, :2] + size / 2, size], 1) / 32)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        cat, dog = see(x, CAT), see(x, DOG)
        if self.stops:
            stop = 2 * GAIN * x[(..., *STOP)].mean((1, 2, 3))
            cat, dog = cat - stop, dog - stop
        nothing = torch.full_like(cat, -GAIN)
        rows = [[nothing] * 2, [nothing] * 2, [cat, nothing], [nothing] * 2, [-dog, dog]]
        logits = torch.stack([torch.stack(row, 1) for row in rows], 1)
        none = torch.zeros_like(logits[..., :1])
        return {"logits": torch.cat([logits, none], 2), "pred_boxes": self.boxes.expand(len(x), -1, -1)}


class AnchorDetector(nn.Module):
    """Predictions (B, 4 + 2, anchors) in a tuple, as YOLO's; two anchors each see the cat and the dog."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        corners = torch.tensor([CAT_CORNERS, CAT_CORNERS, DOG_CORNERS, DOG_CORNERS, (0.0, 0.0, 32.0, 32.0)])
        corners[1, 2:] += 0.5
        corners[3, :2] -= 0.5
        size = corners[:, 2:] - corners[:, :2]
        boxes = torch.cat([corners[:, :2] + size / 2, size], 1).T.expand(len(x), -1, -1)  # (B, 4, 5)
        cat, dog = see(x, CAT).sigmoid(), see(x, DOG).sigmoid()
        nothing = torch.zeros_like(cat)
        classes = torch.stack(
            [
                torch.stack([cat, 0.9 * cat, *[nothing] * 3], 1),
                torch.stack([nothing, nothing, dog, 0.9 * dog, nothing], 1),
            ],
            1,
        )
        return torch.cat([boxes, classes], 1), x


class PlantedMasks(nn.Module):
    """Three queries as Mask2Former's: masks of a cat and of a dog, if their squares are light, and of nothing."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        cat, dog = see(x, CAT), see(x, DOG)
        nothing = torch.full_like(cat, -GAIN)
        rows = [[cat, nothing], [nothing, dog], [nothing, nothing]]
        logits = torch.stack([torch.stack(row, 1) for row in rows], 1)
        masks = torch.full((3, 32, 32), -GAIN)
        masks[(0, *CAT)], masks[(1, *DOG)] = GAIN, GAIN
        masks = F.avg_pool2d(masks[None], 2).expand(len(x), -1, -1, -1)
        return {
            "class_queries_logits": torch.cat([logits, torch.zeros_like(logits[..., :1])], 2),
            "masks_queries_logits": masks,
        }


class MaskMappings(nn.Module):
    """The same masks in the form of torchvision's Mask R-CNN, without those of a score up to 0.05."""

    def __init__(self) -> None:
        super().__init__()
        self.score_thresh = 0.05

    def forward(self, x: Tensor) -> list[dict[str, Tensor]]:
        found = []
        for image in x:
            scores = torch.cat([see(image[None], CAT), see(image[None], DOG)]).sigmoid()
            masks = torch.zeros(2, 1, 32, 32)
            masks[(0, 0, *CAT)], masks[(1, 0, *DOG)] = 1.0, 1.0
            kept = (scores > self.score_thresh).nonzero()[:, 0]
            found.append({"masks": masks[kept], "labels": torch.tensor([0, 1])[kept], "scores": scores[kept]})
        return found


class Promptable(nn.Module):
    """A segmenter of the square that a point lies in, as SAM: (B, 3, 32, 32) and a point (B, 1, 1, 2)."""

    def forward(self, pixel_values: Tensor, input_points: Tensor) -> dict[str, Tensor]:
        masks, quality = [], []
        for image, (x, y) in zip(pixel_values, input_points[:, 0, 0].tolist(), strict=True):
            place = next(p for p in (CAT, DOG) if p[0].start <= y < p[0].stop and p[1].start <= x < p[1].stop)
            mask = torch.full((1, 3, 32, 32), -GAIN)
            mask[(0, 0, *place)] = GAIN
            masks.append(mask)
            quality.append(torch.stack([see(image[None], place).sigmoid()[0], *torch.full((2,), 0.1)])[None])
        return {"pred_masks": torch.stack(masks), "iou_scores": torch.stack(quality)}
