"""The field of view of a network: the part of an image that its preprocessing leaves, to map regions accordingly.

Two ramps are sent through the preprocessing, one increasing downwards and one to the right, and a line is fitted to
each. This measures any preprocessing that resizes, crops or pads, without knowledge of its settings.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from extremal.benchmark.data.samples import Mask
from extremal.errors import ExtremalValueError

if TYPE_CHECKING:  # `extremal bench` checks its data set before torch is imported
    from torch import Tensor

    from extremal.networks.network import Network

Array = np.ndarray[Any, np.dtype[np.float64]]

# shares of the ramp's range between which it is fitted: padding and overshoot lie outside
MIN_FITTED_POINTS, MAX_FITTED_POINTS = 0.06, 0.94
MAX_RESIDUAL = 1.5  # grey values of 255 by which a ramp may deviate from its line (they are rounded twice)


@dataclass(frozen=True)
class FieldOfView:
    """Pixel centres of an image relative to those of the network's input, along y and x."""

    scale: tuple[float, float]  # pixels of the image per pixel of the input
    offset: tuple[float, float]  # position of the input's first pixel in the image
    shape: tuple[int, int]  # of the input

    def region(self, mask: Mask) -> Mask:
        """Map a region of the image (H, W) to the network's input; False outside of the image."""
        rows, columns = (
            np.rint(offset + scale * np.arange(size)).astype(int)
            for offset, scale, size in zip(self.offset, self.scale, self.shape, strict=True)
        )
        in_rows, in_columns = (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
        region = np.zeros(self.shape, dtype=bool)
        region[np.ix_(in_rows, in_columns)] = mask[np.ix_(rows[in_rows], columns[in_columns])]
        return region

    def tolerance(self, pixels: float) -> tuple[float, float]:
        """Convert a length in pixels of the image to lengths in pixels of the input, along y and x."""
        return pixels / self.scale[0], pixels / self.scale[1]


class FieldsOfView:
    """The fields of view of one network for images of any size, each measured once."""

    def __init__(self, network: "Network") -> None:
        """Begin without measurements."""
        self.network = network
        self._fields: dict[tuple[int, int], FieldOfView] = {}

    def get(self, size: tuple[int, int]) -> FieldOfView:
        """Return the field of view for images of size (H, W).

        Raises:
            ExtremalValueError: the preprocessing does more than resize, crop and pad.
        """
        if size not in self._fields:
            self._fields[size] = _measure_field(self.network, size)
        return self._fields[size]


def _measure_field(network: "Network", size: tuple[int, int]) -> FieldOfView:
    """Measure the field of view for images of a size by two ramps."""
    black, white = (_first_channel(network, np.full(size, grey, dtype=np.uint8)) for grey in (0, 255))
    span = np.where(np.abs(white - black) > 1e-6, white - black, np.nan)  # padding is the same in both
    scales, offsets = [], []
    for axis in (0, 1):
        ramp = np.linspace(0, 255, size[axis])
        grey = np.broadcast_to(ramp[:, None] if axis == 0 else ramp[None], size)
        values = (_first_channel(network, np.rint(grey).astype(np.uint8)) - black) / span
        scale, offset = _fit_ramp(network, values, axis)
        scales.append(scale * (size[axis] - 1))
        offsets.append(offset * (size[axis] - 1))
    return FieldOfView((scales[0], scales[1]), (offsets[0], offsets[1]), (black.shape[0], black.shape[1]))


def _fit_ramp(network: "Network", values: Array, axis: int) -> tuple[float, float]:
    """Fit the values (h, w) of a ramp along an axis: slope and start, in fractions of the ramp."""
    fitted = (values > MIN_FITTED_POINTS) & (values < MAX_FITTED_POINTS)
    places = np.broadcast_to(np.arange(values.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1)), values.shape)
    if fitted.sum() < 8 or np.ptp(places[fitted]) < 3:
        raise _preprocessing_error(network, "a ramp does not arrive")
    slope, start = np.polyfit(places[fitted].astype(np.float64), values[fitted], 1)
    residual = np.abs(start + slope * places[fitted] - values[fitted]).max() * 255
    if slope <= 0 or residual > MAX_RESIDUAL:
        raise _preprocessing_error(network, f"a ramp arrives {residual:.1f} grey values off its line")
    return float(slope), float(start)


def _first_channel(network: "Network", grey: Any) -> Array:
    """Return the first channel of the network's input for a grey image: (h, w)."""
    x: Tensor = network.prepare(Image.fromarray(grey).convert("RGB"))
    return x[0, 0].double().cpu().numpy()


def _preprocessing_error(network: "Network", reason: str) -> ExtremalValueError:
    return ExtremalValueError(
        f"a preprocessing must only resize, crop and pad, so that regions can follow it, {network.name}'s does more: "
        f"{reason}; wrap the network with a simpler one"
    )
