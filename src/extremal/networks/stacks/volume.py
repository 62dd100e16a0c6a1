"""A volume: values at the places of a grid, with the distances of places and the directions of its axes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.file_checks import quote
from extremal.networks.stacks.paths import MAX_PLACES
from extremal.number_checks import format_value, is_number, read_numbers, read_whole_numbers

SCALED_ABOVE = 1e15  # values whose squares or sums could exceed the range of float32
MAX_BOUND = 1e300  # of a window, whose width must not exceed the range of float64
ROUNDING = 2e-7  # of the largest value, up to which a deviation is that of a constant
OPPOSITES = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}


@dataclass(frozen=True, eq=False)
class Volume:
    """Values at the places of a grid.

    Attributes:
        values: (C, D, H, W) float32, e.g. Hounsfield units.
        spacing: mm between places along D, H and W.
        orientation: the direction in which each axis rises, by the first letters of right, left, anterior, posterior,
            superior and inferior, e.g. SPL; empty: unknown.
    """

    values: Tensor
    spacing: tuple[float, ...]
    orientation: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.values, Tensor) or not self.values.is_floating_point():
            kind = self.values.dtype if isinstance(self.values, Tensor) else type(self.values).__name__
            raise ExtremalTypeError(f"values must be a floating tensor (C, D, H, W), got {kind}; convert with .float()")
        if self.values.ndim != 4 or 0 in self.values.shape:
            raise ExtremalValueError(
                f"values must be (C, D, H, W), got shape {tuple(self.values.shape)}; add a channel with values[None]"
            )
        object.__setattr__(self, "spacing", _read_spacing(self.spacing))
        if not isinstance(self.orientation, str) or self.orientation:
            object.__setattr__(self, "orientation", _read_orientation(self.orientation))

    def orient(self, orientation: str) -> "Volume":
        """Turn the volume so that its axes rise in these directions: axes are permuted and flipped, values are kept.

        >>> import torch
        >>> volume = Volume(torch.arange(6.0).view(1, 1, 2, 3), (5.0, 2.0, 1.0), "SPL")
        >>> turned = volume.orient("LAS")
        >>> turned.spacing, turned.values.shape, turned.values[0, :, 0, 0].tolist()
        ((1.0, 2.0, 5.0), torch.Size([1, 3, 2, 1]), [3.0, 4.0, 5.0])

        Raises:
            ExtremalValueError, ExtremalTypeError: the orientation of the volume is unknown, or the letters do not name
                three axes.
        """
        wanted = _read_orientation(orientation)
        if not self.orientation:
            raise ExtremalValueError(
                "a volume must state its orientation to be turned, this file does not; write its affine, or read it "
                "as it is"
            )
        own = [{letter, OPPOSITES[letter]} for letter in self.orientation]
        order = [own.index({letter, OPPOSITES[letter]}) for letter in wanted]
        flips = [k + 1 for k, letter in enumerate(wanted) if self.orientation[order[k]] != letter]
        values = self.values.permute(0, *(axis + 1 for axis in order)).flip(flips)
        return replace(self, values=values, spacing=tuple(self.spacing[axis] for axis in order), orientation=wanted)

    def resize(self, shape: Sequence[int]) -> "Volume":
        """Interpolate to (D, H, W) places over the same extent; the spacing changes accordingly.

        >>> import torch
        >>> Volume(torch.zeros(1, 10, 64, 64), (5.0, 1.0, 1.0)).resize((20, 32, 32)).spacing
        (2.5, 2.0, 2.0)
        """
        sizes = read_whole_numbers(shape, "the sizes of a volume", "(64, 64, 64)")
        if len(sizes) != 3 or min(sizes) < 1 or math.prod(sizes) > MAX_PLACES:
            raise ExtremalValueError(
                f"a volume must have three sizes and at most {MAX_PLACES:,} places, got {sizes}; e.g. (64, 64, 64)"
            )
        old = self.values.shape[1:]
        shrinks = all(size <= before for size, before in zip(sizes, old, strict=True))
        mode, corners = ("area", None) if shrinks else ("trilinear", False)
        values = F.interpolate(self.values[None], sizes, mode=mode, align_corners=corners)[0]
        spacing = tuple(gap * a / b for gap, a, b in zip(self.spacing, old, sizes, strict=True))
        return replace(self, values=values, spacing=spacing)

    def resample(self, spacing: Sequence[float]) -> "Volume":
        """Interpolate to about this spacing, over the same extent.

        >>> import torch
        >>> Volume(torch.zeros(1, 10, 64, 64), (5.0, 1.0, 1.0)).resample((1.0, 1.0, 1.0)).values.shape
        torch.Size([1, 50, 64, 64])
        """
        gaps = _read_spacing(spacing)
        extents = [size * gap for size, gap in zip(self.values.shape[1:], self.spacing, strict=True)]
        return self.resize([max(1, round(extent / gap)) for extent, gap in zip(extents, gaps, strict=True)])

    def scale(self, low: float, high: float) -> "Volume":
        """Clip the values to a window, and scale the window to 0..1, e.g. −1000 to 400 Hounsfield units for lungs.

        >>> import torch
        >>> Volume(torch.tensor([[[[-1000.0, 0.0, 900.0]]]]), (1.0, 1.0, 1.0)).scale(-1000, 1000).values.flatten()
        tensor([0.0000, 0.5000, 0.9500])
        """
        if not (is_number(low) and is_number(high)):
            kinds = f"{format_value(low)} and {format_value(high)}"
            raise ExtremalTypeError(f"low and high must be numbers, got {kinds}; e.g. -1000 and 400")
        if not -MAX_BOUND <= low < high <= MAX_BOUND:
            kinds = f"{format_value(low)} and {format_value(high)}"
            raise ExtremalValueError(
                f"low must be below high, and both finite, got {kinds}; they are at most {MAX_BOUND:g}, e.g. -1000 and "
                "400"
            )
        start, end = float(low), float(high)
        if start == end:
            raise ExtremalValueError(
                f"low must be below high, got {start:g} for both after rounding; e.g. -1000 and 400"
            )
        is_extreme = max(-start, end) > SCALED_ABOVE or end - start < 1 / SCALED_ABOVE
        values = self.values.double() if is_extreme else self.values
        return replace(self, values=((values.clamp(start, end) - start) / (end - start)).to(self.values.dtype))

    def normalise(self) -> "Volume":
        """Shift and scale the values to mean 0 and standard deviation 1; constant ones become 0."""
        largest = float(self.values.abs().max())
        values = self.values / largest if largest > SCALED_ABOVE else self.values
        centred = values - values.mean()
        deviation = float(centred.std(correction=min(1, centred.numel() - 1)))
        is_constant = deviation <= ROUNDING * float(values.abs().max())
        return replace(self, values=torch.zeros_like(values) if is_constant else centred / deviation)


def _read_orientation(orientation: object) -> str:
    """Return the letters of three axes in capitals."""
    if not isinstance(orientation, str):
        raise ExtremalTypeError(
            f"orientation must be three letters as text, got {format_value(orientation)}; e.g. 'RAS'"
        )
    letters = orientation.upper()
    axes = {frozenset((letter, OPPOSITES.get(letter, ""))) for letter in letters}
    if len(letters) != 3 or len(axes) != 3 or not all(letter in OPPOSITES for letter in letters):
        raise ExtremalValueError(
            f"an orientation must have a letter of R/L, one of A/P and one of S/I, got {quote(orientation)}; e.g. "
            "SPL or RAS"
        )
    return letters


def _read_spacing(spacing: Sequence[float]) -> tuple[float, ...]:
    example = "(5.0, 0.7, 0.7)"
    gaps = read_numbers(spacing, "spacing", example)
    if len(gaps) != 3 or not min(gaps) > 0:
        raise ExtremalValueError(f"spacing must be three distances above 0 mm, got {gaps}; e.g. {example}")
    return gaps
