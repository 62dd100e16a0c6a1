"""The frames of a clip, or the slices of a volume, as pictures, with their places in time or depth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from extremal.explanations.explanation import Explanation

WINDOW = (0.005, 0.995)  # quantiles of the values that become black and white
MAX_SAMPLE = 1_000_000  # values from which the quantiles are taken
COLOURS = 3


@dataclass(frozen=True, eq=False)
class StackFrames:
    """Frames or slices of one input.

    Attributes:
        pictures: (D, H, W, 3) uint8.
        noun: frame or slice.
        places: (D,) the time or depth of each in words; empty texts where it is unknown.
        ratio: width of a pixel divided by its height.
    """

    pictures: Tensor
    noun: str
    places: tuple[str, ...]
    ratio: float

    def name(self, index: int) -> str:
        """Name a frame by its number, from 1, and its place."""
        place = f", {self.places[index]}" if self.places[index] else ""
        return f"{self.noun} {index + 1} of {len(self.pictures)}{place}"


def is_stack(explanation: Explanation) -> bool:
    """Return whether inputs are (N, C, D, H, W): clips or volumes."""
    return explanation.inputs.ndim == 5


def build_frames(explanation: Explanation, image: int = 0) -> StackFrames:
    """Return the frames of one input of an explanation of clips or volumes.

    Three channels are colours, of others the first is shown in grey. Without the network's mean and standard deviation,
    black and white are the quantiles `WINDOW` of the values.
    """
    stack: Mapping[str, Any] = explanation.settings.get("stack", {})
    values = explanation.inputs[image].float()  # (C, D, H, W)
    spacing = tuple(map(float, explanation.settings.get("spacing", ())))
    depth = values.shape[1]
    mean, std = (values.new_tensor(stack.get(name, ())).view(-1, 1, 1, 1) for name in ("mean", "std"))
    if len(mean) == len(std) == len(values):
        values = values * std + mean
    else:
        values = values if len(values) == COLOURS else values[:1]
        low, high = _find_window(values)
        values = (values - low) / (high - low).clamp_min(1e-12)
    values = values if len(values) == COLOURS else values[:1]
    pictures = (values.clamp(0, 1) * 255).round().byte().expand(COLOURS, -1, -1, -1).permute(1, 2, 3, 0).contiguous()
    is_clip = stack.get("kind") == "clip"
    ratio = spacing[2] / spacing[1] if len(spacing) == 3 else 1.0
    return StackFrames(pictures, "frame" if is_clip else "slice", _name_places(stack, spacing, depth), ratio)


def find_peak(explanation: Explanation, column: int, image: int = 0) -> int:
    """Return the frame that has most of the cut mask of an area."""
    return int(explanation.binary(explanation.areas[column])[image, 0].flatten(1).sum(1).argmax())


def choose_shown(count: int, limit: int, peak: int) -> list[int]:
    """Choose at most `limit` of D frames evenly, the peak among them.

    >>> choose_shown(4, 8, 2), choose_shown(100, 4, 60)
    ([0, 1, 2, 3], [12, 37, 60, 87])
    """
    if count <= limit:
        return list(range(count))
    shown = [int((k + 0.5) * count / limit) for k in range(limit)]
    nearest = min(range(limit), key=lambda k: abs(shown[k] - peak))
    return [*shown[:nearest], peak, *shown[nearest + 1 :]]


def _find_window(values: Tensor) -> Tensor:
    """Return the values of black and white."""
    sample = values.flatten()
    sample = sample[:: max(1, -(-len(sample) // MAX_SAMPLE))]
    return torch.quantile(sample, sample.new_tensor(WINDOW))


def _name_places(stack: Mapping[str, Any], spacing: tuple[float, ...], depth: int) -> tuple[str, ...]:
    """Return the time of each frame, or the depth of each slice, in words."""
    times = stack.get("times", ())
    if len(times) == depth:
        return tuple(f"{time:.2f} s" for time in times)
    if stack.get("kind") == "volume" and len(spacing) == 3:
        return tuple(f"{k * spacing[0]:.1f} mm" for k in range(depth))
    return ("",) * depth
