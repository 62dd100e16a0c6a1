"""The domain Ω of masks: the places of an input, how far apart they are, and which of them may be kept together."""

import math
from dataclasses import dataclass

from torch import Tensor

from extremal.masking.channels import ChannelMask
from extremal.masking.level_set import LevelSet
from extremal.masking.smooth_max import SmoothMax
from extremal.masking.units import Units

ExactAreaFamily = LevelSet | ChannelMask | Units  # of masks of exactly a given area
SmoothFamily = SmoothMax | ChannelMask | Units  # of masks that the paper's solver moves


@dataclass(frozen=True, eq=False)
class Domain:
    """Where masks live, and so which families of masks there are."""

    shape: tuple[int, ...]  # S; (K,) of channels
    spacing: tuple[float, ...] = ()  # distance of neighbouring places along each dimension; empty: the same along all
    within: Tensor | None = None  # (*S) bool: where masks may be above zero; None: everywhere
    units: Tensor | None = None  # (*S) int64: the unit of each place, −1 for none; None: places by themselves
    has_neighbours: bool = True  # places have neighbours, and masks are smooth over them; channels have none

    @property
    def n_places(self) -> int:
        """|Ω|."""
        return math.prod(self.shape)

    @property
    def is_smooth(self) -> bool:
        """Whether masks are smooth over the places; those of channels and units are not."""
        return self.has_neighbours and self.units is None

    def exact_area_family(self, like: Tensor, width: float = 1.0) -> ExactAreaFamily:
        """Masks of exactly a given area; `width` is that of the filter, in lattice steps."""
        options = {"spacing": self.spacing, "within": self.within, "dtype": like.dtype, "device": like.device}
        return self._single(like) or LevelSet(self.shape, width=width, **options)  # type: ignore[arg-type]

    def smooth_family(self, like: Tensor, padded: bool = False) -> SmoothFamily:
        """The paper's masks."""
        options = {"spacing": self.spacing, "within": self.within, "dtype": like.dtype, "device": like.device}
        return self._single(like) or SmoothMax(self.shape, padded=padded, **options)  # type: ignore[arg-type]

    def _single(self, like: Tensor) -> ChannelMask | Units | None:
        """Masks of one value a channel or unit; None where masks are smooth."""
        if not self.has_neighbours:
            return ChannelMask(self.shape)
        return None if self.units is None else Units(self.units, like)
