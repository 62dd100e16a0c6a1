"""The domain Ω of masks: the places of an input, their distances, and their units."""

import math
from dataclasses import dataclass

from torch import Tensor

from extremal.masking.channels import ChannelMask
from extremal.masking.device_tensors import fill_columns
from extremal.masking.level_set import LevelSet
from extremal.masking.smooth_max import SmoothMax
from extremal.masking.units import Units

ExactAreaFamily = LevelSet | ChannelMask | Units  # masks of exactly a given area
SmoothFamily = SmoothMax | ChannelMask | Units  # masks of the paper's solver
Areas = tuple[float, ...] | Tensor  # (K,) for every input, or (N, K)


@dataclass(frozen=True, eq=False)
class Domain:
    """The places of an input; it determines which families of masks apply."""

    shape: tuple[int, ...]  # S; (K,) for channels
    spacing: tuple[float, ...] = ()  # distance of neighbouring places along each dimension; empty: the same along all
    within: Tensor | None = None  # (*S) bool: where masks may be above zero, with units complete ones; None: everywhere
    units: Tensor | None = None  # (*S) int64: the unit of each place, −1 for none; None: single places
    has_neighbours: bool = True  # masks are smooth over neighbouring places; channels have no neighbours

    @property
    def n_places(self) -> int:
        """|Ω|."""
        return math.prod(self.shape)

    @property
    def is_smooth(self) -> bool:
        """Whether masks are smooth over the places; masks of channels and units are not."""
        return self.has_neighbours and self.units is None

    def exact_area_family(self, like: Tensor, width: float = 1.0) -> ExactAreaFamily:
        """Return the masks of exactly a given area.

        Args:
            like: for dtype and device.
            width: deviation of the Gaussian filter, in lattice steps.
        """
        return self._discrete_family(like) or LevelSet(
            self.shape, width=width, spacing=self.spacing, within=self.within, dtype=like.dtype, device=like.device
        )

    def smooth_family(self, like: Tensor, padded: bool = False) -> SmoothFamily:
        """Return the paper's masks.

        Args:
            like: for dtype and device.
            padded: whether they have a margin around the input.
        """
        return self._discrete_family(like) or SmoothMax(
            self.shape, padded=padded, spacing=self.spacing, within=self.within, dtype=like.dtype, device=like.device
        )

    def _discrete_family(self, like: Tensor) -> ChannelMask | Units | None:
        """Return masks with one value per channel or unit; None where masks are smooth."""
        if not self.has_neighbours:
            return ChannelMask(self.shape)
        return None if self.units is None else Units(self.units, like, self.within)


def evaluate_masks(family: ExactAreaFamily, parameters: Tensor, areas: Areas, temperature: float) -> Tensor:
    """Evaluate masks of parameters (N, K, 1, *lattice) at K areas: (N, K, 1, *S) with these means."""
    count, columns = parameters.shape[:2]
    means = (areas if isinstance(areas, Tensor) else fill_columns(areas, parameters)).expand(count, columns)
    flat = family(parameters.flatten(0, 1), means.flatten(), temperature)
    return flat.view(count, columns, 1, *flat.shape[2:])
