"""Networks on clips and volumes whose right answer is known: it depends on one cuboid."""

import numpy as np
import torch
from torch import Tensor, nn

from extremal import ClipReader, Network, Volume, VolumeReader
from support.stack_files import Array

Cuboid = tuple[slice, slice, slice]

CLIP_CUBOID: Cuboid = (slice(5, 11), slice(12, 30), slice(20, 42))  # of 16 frames of 40 × 56
VOLUME_CUBOID: Cuboid = (slice(3, 7), slice(10, 24), slice(14, 30))  # of 10 slices of 36 × 44
CLIP_SHAPE, VOLUME_SHAPE = (16, 40, 56), (10, 36, 44)


class Texture(nn.Module):
    """Answers "texture" by the contrast inside of a cuboid, relative to that of the whole scene; else "none"."""

    def __init__(self, cuboid: Cuboid, strength: float) -> None:
        super().__init__()
        self.cuboid, self.strength = cuboid, strength

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) -> (B, 2)."""
        steps = x[(..., *self.cuboid)].diff(dim=-1)
        contrast = self.strength * steps.square().mean((1, 2, 3, 4))
        score = 8 * torch.tanh(1.6 * contrast)
        return torch.stack([score, torch.zeros_like(score)], 1)


def draw_scene(shape: tuple[int, int, int], seed: int = 0) -> Array:
    """Draw squares of 2 × 2 pixels in grey levels, other ones in each frame: (D, H, W) uint8."""
    small = np.random.default_rng(seed).integers(40, 216, (shape[0], shape[1] // 2, shape[2] // 2))
    return small.repeat(2, 1).repeat(2, 2).astype(np.uint8)


def clip_network() -> Network:
    """A network on clips of 16 frames."""
    model = Texture(CLIP_CUBOID, 12.0)
    return Network(model, labels=("texture", "none"), name="clip toy", reader=ClipReader(16))


def volume_network() -> Network:
    """A network on volumes scaled from −1024..1024 Hounsfield units to 0..1, of slices from below to above."""

    def preprocess(volume: Volume) -> Volume:
        return volume.scale(-1024, 1024)

    model = Texture(VOLUME_CUBOID, 12.0)
    return Network(model, labels=("texture", "none"), name="volume toy", reader=VolumeReader("SPL", preprocess))


def cuboid_mask(shape: tuple[int, int, int], cuboid: Cuboid) -> Tensor:
    """Return the places of a cuboid: (D, H, W) bool."""
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[cuboid] = True
    return mask


def iou(found: Tensor, expected: Tensor) -> float:
    """Return the intersection over union of two masks."""
    found = found.bool()
    return float((found & expected).sum() / (found | expected).sum())
