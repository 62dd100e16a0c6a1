"""Masks of units: one value per superpixel, patch or token that the user defines."""

import torch
from torch import Tensor

from extremal.masking.area import cut, level
from extremal.masking.scaling import standardise


class Units:
    """Masks with one value per unit of the input (superpixel, patch, token), given by labels.

    Soft masks have exactly the area; cut masks consist of complete units, taken in order of value while they fit into
    the area.

    >>> labels = torch.arange(16).view(4, 4) // 4  # four rows
    >>> family = Units(labels)
    >>> mask = family(torch.tensor([[[3.0, 2.0, 1.0, 0.0]]]), torch.tensor([0.3]), temperature=0.1)
    >>> mask.shape, round(float(mask.mean()), 4), family.cut(mask[None], (0.5,))[0, 0, 0].sum(1)
    (torch.Size([1, 1, 4, 4]), 0.3, tensor([4., 4., 0., 0.]))

    Args:
        labels: (*S) int64; the unit of each place, 0 .. U−1; −1 for places that are never kept.
        like: for dtype and device.
        within: (*S) bool, true for the places of the units that may be kept; None: for all.
    """

    def __init__(self, labels: Tensor, like: Tensor | None = None, within: Tensor | None = None) -> None:
        like = torch.empty(0) if like is None else like
        self.shape = tuple(labels.shape)
        self._labels = labels.to(like.device).flatten()
        count = int(self._labels.max()) + 1
        self.parameter_shape = (count,)
        may_be_kept = self._labels >= 0 if within is None else (self._labels >= 0) & within.to(like.device).flatten()
        self._in_unit = may_be_kept.to(like.dtype)  # (P,)
        self._index = self._labels.clamp_min(0)
        self._sizes = self._in_unit.new_zeros(count).index_add_(0, self._index, self._in_unit)  # (U,) places

    @property
    def shares(self) -> Tensor:
        """The share of all places that each unit has: (U,)."""
        return self._sizes / len(self._labels)

    def smooth_parameters(self, parameters: Tensor, width: float) -> Tensor:
        """Return the parameters unchanged: units have no neighbours."""
        return parameters

    def fit(self, mask: Tensor) -> Tensor:
        """Return the mean of a mask in each unit: (B, 1, *S) -> (B, 1, U)."""
        flat = mask.flatten(2) * self._in_unit
        sums = flat.new_zeros(*flat.shape[:2], *self.parameter_shape).index_add_(2, self._index, flat)
        return sums / self._sizes.clamp_min(1)

    def to_places(self, parameters: Tensor) -> Tensor:
        """Give each place the parameter of its unit: (B, 1, U) -> (B, 1, *S)."""
        flat = parameters.index_select(2, self._index) * self._in_unit
        return flat.view(*parameters.shape[:2], *self.shape)

    def evaluate_with_margin(self, parameters: Tensor) -> Tensor:
        """Return the parameters as a mask (`to_places`); there is no margin."""
        return self.to_places(parameters)

    def crop(self, padded: Tensor) -> Tensor:
        """Return the mask unchanged: there is no margin."""
        return padded

    def cut(self, masks: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Cut masks (N, A, 1, *S) to complete units: the highest values first, each unit that still fits."""
        values = self.fit(masks.flatten(0, 1))[:, 0]  # (B, U)
        total = len(self._labels)
        room = values.new_tensor(areas).mul(total).round().repeat(len(masks))  # (B,) places
        order = values.argsort(dim=1, descending=True, stable=True)
        sizes = self._sizes[order]
        fits_at_rank = torch.zeros_like(values)
        for rank in range(values.shape[1]):
            fits = (sizes[:, rank] <= room) & (sizes[:, rank] > 0)
            fits_at_rank[:, rank] = fits
            room = room - sizes[:, rank] * fits
        kept_units = torch.zeros_like(values).scatter_(1, order, fits_at_rank)
        return self.to_places(kept_units.unsqueeze(1)).view_as(masks)

    def __call__(self, parameters: Tensor, area: Tensor, temperature: float) -> Tensor:
        """Evaluate masks of exactly these means: (B, 1, U), (B,) -> (B, 1, *S) in [0, 1]."""
        return self.to_places(level(standardise(parameters), area, temperature, self.shares.view(1, 1, -1)))


def cut_to_units(masks: Tensor, areas: tuple[float, ...], units: Tensor | None, within: Tensor | None = None) -> Tensor:
    """Cut masks (N, A, 1, *S) to exactly round(a·|Ω|) ones, or to complete units where units are given.

    Where fewer places or units are allowed, all of these are kept.

    Args:
        masks: in [0, 1].
        areas: (A,) fractions of places.
        units: (*S) the unit of each place; None: single places.
        within: (N, *S) bool, where the masks of each input may keep places; None: everywhere.
    """
    if units is None and within is None:
        return cut(masks, areas)
    if units is None:
        assert within is not None
        allowed = within.to(masks).view(len(masks), 1, 1, *within.shape[1:])
        return cut(masks * allowed, areas) * allowed
    if within is None:
        return Units(units, masks).cut(masks, areas)
    rows = zip(torch.split(masks, 1), within, strict=True)
    return torch.cat([Units(units, row, region).cut(row, areas) for row, region in rows])
