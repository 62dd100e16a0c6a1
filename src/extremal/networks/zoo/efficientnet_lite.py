"""EfficientNet-Lite (Tan and Le, ICML 2019; Lite variants of 2020), with the layer names of timm.

timm has the same networks. To import it takes longer than to explain an image, so those that need nothing else of it
are built here; a test compares the two.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from extremal.networks.same_padding import SamePaddedConv2d

EPSILON = 1e-3  # of the batch norms
STEM, HEAD, CLASSES = 32, 1280, 1000  # channels; Lite variants scale neither stem nor head
CHANNEL_UNIT = 8  # numbers of channels are multiples of this


@dataclass(frozen=True)
class Stage:
    """Blocks of one resolution, before depth and width are scaled."""

    blocks: int
    kernel: int
    stride: int  # of the first block
    expansion: int  # of the channels inside a block
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class Variant:
    """A member of the family."""

    width: float  # factor of the channels
    depth: float  # factor of the number of blocks, except in the first and the last stage
    side: int  # px, of the input
    resized_side: int  # px, to which the short side of an image is scaled before the crop


VARIANTS = {
    "lite0": Variant(1.0, 1.0, 224, 256),
    "lite1": Variant(1.0, 1.1, 240, 272),
    "lite2": Variant(1.1, 1.2, 260, 292),
}


def _convolution(channels: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a convolution that keeps the size, or divides it by the stride."""
    options: dict[str, Any] = {"stride": stride, "groups": groups, "bias": False}
    if stride > 1:
        return SamePaddedConv2d(channels, outputs, kernel, **options)
    return nn.Conv2d(channels, outputs, kernel, padding=kernel // 2, **options)


class DepthwiseSeparable(nn.Module):
    """A depthwise convolution and a pointwise one."""

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _convolution(channels, channels, kernel, stride, groups=channels)
        self.bn1, self.act1 = nn.BatchNorm2d(channels, EPSILON), nn.ReLU6(inplace=True)
        self.conv_pw = _convolution(channels, outputs)
        self.bn2 = nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        y: Tensor = self.bn2(self.conv_pw(self.act1(self.bn1(self.conv_dw(x)))))
        return y


class InvertedResidual(nn.Module):
    """A block that expands the channels, convolves each by itself, and projects them."""

    def __init__(self, channels: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        self.has_skip = stride == 1 and channels == outputs
        self.conv_pw = _convolution(channels, inner)
        self.bn1, self.act1 = nn.BatchNorm2d(inner, EPSILON), nn.ReLU6(inplace=True)
        self.conv_dw = _convolution(inner, inner, kernel, stride, groups=inner)
        self.bn2, self.act2 = nn.BatchNorm2d(inner, EPSILON), nn.ReLU6(inplace=True)
        self.conv_pwl = _convolution(inner, outputs)
        self.bn3 = nn.BatchNorm2d(outputs, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        y: Tensor = self.act1(self.bn1(self.conv_pw(x)))
        y = self.act2(self.bn2(self.conv_dw(y)))
        y = self.bn3(self.conv_pwl(y))
        return y + x if self.has_skip else y


class EfficientNetLite(nn.Module):
    """An EfficientNet-Lite for the 1000 classes of ImageNet.

    Args:
        variant: of the family.
    """

    def __init__(self, variant: Variant) -> None:
        super().__init__()
        stages = [nn.Sequential(*blocks) for blocks in _build_stages(variant)]
        self.conv_stem = _convolution(3, STEM, kernel=3, stride=2)
        self.bn1, self.act1 = nn.BatchNorm2d(STEM, EPSILON), nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _convolution(_scale_width(STAGES[-1], variant), HEAD)
        self.bn2, self.act2 = nn.BatchNorm2d(HEAD, EPSILON), nn.ReLU6(inplace=True)
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        self.classifier = nn.Linear(HEAD, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1000) logits."""
        x = self.act1(self.bn1(self.conv_stem(x)))
        x = self.act2(self.bn2(self.conv_head(self.blocks(x))))
        logits: Tensor = self.classifier(self.global_pool(x))
        return logits


def _build_stages(variant: Variant) -> Iterator[list[nn.Module]]:
    """Yield the blocks of each stage."""
    widths = [STEM, *(_scale_width(stage, variant) for stage in STAGES)]
    for index, (stage, (channels, outputs)) in enumerate(zip(STAGES, pairwise(widths), strict=True)):
        is_scaled = 0 < index < len(STAGES) - 1
        count = math.ceil(stage.blocks * variant.depth) if is_scaled else stage.blocks
        yield [
            _block(stage, outputs if number else channels, outputs, 1 if number else stage.stride)
            for number in range(count)
        ]


def _block(stage: Stage, channels: int, outputs: int, stride: int) -> nn.Module:
    if stage.expansion == 1:
        return DepthwiseSeparable(channels, outputs, stage.kernel, stride)
    return InvertedResidual(channels, outputs, stage.kernel, stride, stage.expansion)


def _scale_width(stage: Stage, variant: Variant) -> int:
    """Return the scaled number of channels, a multiple of 8 that is at most a tenth smaller."""
    scaled = stage.channels * variant.width
    rounded = int(scaled + CHANNEL_UNIT / 2) // CHANNEL_UNIT * CHANNEL_UNIT
    return rounded + CHANNEL_UNIT if rounded < 0.9 * scaled else rounded
