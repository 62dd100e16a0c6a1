"""How a picture lies in what a network sees: its preprocessing resizes and crops, and the truth must follow.

Two ramps are sent through the preprocessing, one rising downwards and one to the right, and a line is fitted to each:
whatever resizes, crops or pads is found so, without being told how.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from extremal.benchmark.data.samples import Mask
from extremal.errors import ExtremalValueError
from extremal.networks.network import Network

Array = np.ndarray[Any, np.dtype[np.float64]]

MIN_FITTED, MAX_FITTED = 0.06, 0.94  # of the ramp's range that is fitted: padding and overshoot lie outside
MAX_RESIDUAL = 1.5  # grey values of 255, by which a ramp may be off its line (they are rounded twice)


@dataclass(frozen=True)
class FieldOfView:
    """Pixel centres of the picture against those of the network's input, along y and x."""

    scale: tuple[float, float]  # pixels of the picture to one of the input
    offset: tuple[float, float]  # where the input's first pixel lies in the picture
    shape: tuple[int, int]  # of the input

    def region(self, mask: Mask) -> Mask:
        """A region of the picture (H, W) in what the network sees; False outside of the picture."""
        rows, columns = (
            np.rint(offset + scale * np.arange(size)).astype(int)
            for offset, scale, size in zip(self.offset, self.scale, self.shape, strict=True)
        )
        down, across = (rows >= 0) & (rows < mask.shape[0]), (columns >= 0) & (columns < mask.shape[1])
        found = np.zeros(self.shape, dtype=bool)
        found[np.ix_(down, across)] = mask[np.ix_(rows[down], columns[across])]
        return found

    def tolerance(self, pixels: float) -> tuple[float, float]:
        """A length in the picture's pixels as lengths in the network's, down and across."""
        return pixels / self.scale[0], pixels / self.scale[1]


class FieldsOfView:
    """The frames of pictures of any size in what one network sees, each found once."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self._known: dict[tuple[int, int], FieldOfView] = {}

    def get(self, size: tuple[int, int]) -> FieldOfView:
        """The frame of pictures (H, W).

        Raises:
            ExtremalValueError: the preprocessing does more than resize, crop and pad.
        """
        if size not in self._known:
            self._known[size] = _measure_field(self.network, size)
        return self._known[size]


def _measure_field(network: Network, size: tuple[int, int]) -> FieldOfView:
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


def _fit_ramp(network: Network, values: Array, axis: int) -> tuple[float, float]:
    """Slope and start of a ramp's values (h, w) along an axis, in shares of the ramp."""
    fitted = (values > MIN_FITTED) & (values < MAX_FITTED)
    places = np.broadcast_to(np.arange(values.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1)), values.shape)
    if fitted.sum() < 8 or np.ptp(places[fitted]) < 3:
        raise _unsupported(network, "a ramp does not come through")
    slope, start = np.polyfit(places[fitted].astype(np.float64), values[fitted], 1)
    off = np.abs(start + slope * places[fitted] - values[fitted]).max() * 255
    if slope <= 0 or off > MAX_RESIDUAL:
        raise _unsupported(network, f"a ramp comes through {off:.1f} grey values off its line")
    return float(slope), float(start)


def _first_channel(network: Network, grey: Any) -> Array:
    """The first channel of what the network sees of a grey picture: (h, w)."""
    x: Tensor = network.prepare(Image.fromarray(grey).convert("RGB"))
    return x[0, 0].double().cpu().numpy()


def _unsupported(network: Network, why: str) -> ExtremalValueError:
    return ExtremalValueError(
        f"a preprocessing must only resize, crop and pad, so that regions can follow it, {network.name}'s does more: "
        f"{why}; wrap the network with a simpler one"
    )
