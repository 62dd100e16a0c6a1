"""Masks of units: one value for each channel of a layer, or for each superpixel, patch or token that the user names."""

import torch
from torch import Tensor

from extremal.masking.area import cut, level
from extremal.masking.level_set import standardise


class Units:
    """One value for each unit of an input: superpixels, patches, tokens, whatever the user names by a label.

    Found masks have exactly the area; cut ones hold whole units, as many of the highest values as fit into the area.

    >>> labels = torch.arange(16).view(4, 4) // 4  # four rows
    >>> mask = Units(labels)
    >>> m = mask(torch.tensor([[[3.0, 2.0, 1.0, 0.0]]]), torch.tensor([0.3]), temperature=0.1)
    >>> m.shape, round(float(m.mean()), 4), mask.cut(m[None], (0.5,))[0, 0, 0].sum(1)
    (torch.Size([1, 1, 4, 4]), 0.3, tensor([4., 4., 0., 0.]))

    Args:
        labels: (*S) int64; the unit of each place, 0 .. U−1; −1 for places that are never kept.
        like: for dtype and device.
    """

    def __init__(self, labels: Tensor, like: Tensor | None = None) -> None:
        like = torch.empty(0) if like is None else like
        self.shape = tuple(labels.shape)
        self._labels = labels.to(like.device).flatten()
        count = int(self._labels.max()) + 1
        self.parameter_shape = (count,)
        self._inside = (self._labels >= 0).to(like.dtype)  # (P,)
        self._index = self._labels.clamp_min(0)
        self._sizes = self._inside.new_zeros(count).index_add_(0, self._index, self._inside)  # (U,) places

    def smooth_parameters(self, field: Tensor, width: float) -> Tensor:  # as `LevelSet` has it
        """The field itself: units have no neighbours."""
        return field

    def fit(self, mask: Tensor) -> Tensor:
        """The mean of a mask in each unit: (B, 1, *S) -> (B, 1, U)."""
        flat = mask.flatten(2) * self._inside
        sums = flat.new_zeros(*flat.shape[:2], *self.parameter_shape).index_add_(2, self._index, flat)
        return sums / self._sizes.clamp_min(1)

    def to_places(self, parameters: Tensor) -> Tensor:
        """Each place has its unit's parameter: (B, 1, U) -> (B, 1, *S)."""
        flat = parameters.index_select(2, self._index) * self._inside
        return flat.view(*parameters.shape[:2], *self.shape)

    def evaluate_padded(self, parameters: Tensor) -> Tensor:
        """The parameters as a mask, as `smooth` has it."""
        return self.to_places(parameters)

    def crop(self, whole: Tensor) -> Tensor:
        """All of it: there is no margin."""
        return whole

    def cut(self, masks: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Masks (N, A, 1, *S) cut to whole units: from the highest value down those that still fit, zeros and ones."""
        values = self.fit(masks.flatten(0, 1))[:, 0]  # (B, U)
        total = len(self._labels)
        room = values.new_tensor(areas).mul(total).round().repeat(len(masks))  # (B,) places
        order = values.argsort(dim=1, descending=True, stable=True)
        sizes = self._sizes[order]
        taken = torch.zeros_like(values)
        for rank in range(values.shape[1]):
            fits = (sizes[:, rank] <= room) & (sizes[:, rank] > 0)
            taken[:, rank] = fits
            room = room - sizes[:, rank] * fits
        chosen = torch.zeros_like(values).scatter_(1, order, taken)
        return self.to_places(chosen.unsqueeze(1)).view_as(masks)

    def __call__(self, parameters: Tensor, area: Tensor, temperature: float) -> Tensor:
        """(B, 1, U), (B,) -> (B, 1, *S) in [0, 1] with exactly these means."""
        shares = (self._sizes / len(self._labels)).view(1, 1, -1)
        return self.to_places(level(standardise(parameters), area, temperature, shares))


def cut_to_units(masks: Tensor, areas: tuple[float, ...], units: Tensor | None) -> Tensor:
    """Masks (N, A, 1, *S) cut to exactly round(a·|Ω|) ones, or to whole units.

    Args:
        units: (*S) the unit of each place; None: places by themselves.
    """
    return cut(masks, areas) if units is None else Units(units, masks).cut(masks, areas)
