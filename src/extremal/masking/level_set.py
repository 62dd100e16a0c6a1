"""Masks of exactly a given area: level sets of a smooth field."""

from collections.abc import Sequence

import torch
from torch import Tensor

from extremal.masking.area import cut, level
from extremal.masking.grid import (
    MAX_DENSE_SIZE,
    apply_along_axes,
    blur_matrix,
    gaussian_blur,
    lattice_shape,
    resampling_matrix,
    resize,
    resize_weights,
    scale_lengths,
)
from extremal.masking.scaling import standardise


class LevelSet:
    """Masks of exactly a given area: a smooth field, cut at the level that gives this area.

    The parameters are filtered by a Gaussian on the lattice, interpolated to a finer grid, standardised to mean 0 and
    deviation 1, cut by `area.level`, and interpolated to the size of the input; the level is chosen such that the mean
    of the mask *on the input* is the area.

    >>> family = LevelSet((224, 224))
    >>> mask = family(torch.randn(1, 1, 32, 32), torch.tensor([0.05]), temperature=0.3)
    >>> mask.shape, round(float(mask.mean()), 5)
    (torch.Size([1, 1, 224, 224]), 0.05)

    Args:
        shape: S, size of the mask in places.
        step: lattice step in pixels; 7 px at a short side of 224 px if None.
        grid_step: step of the grid on which the field is cut; 4 px at a short side of 224 px if None.
        width: deviation of the Gaussian filter in lattice steps.
        spacing: distance of neighbouring places along each dimension (`grid.scale_lengths`).
        within: (*S) bool; masks are zero elsewhere, and areas remain fractions of all places. None: everywhere.
        dtype: of the masks.
        device: of the masks.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        step: float | None = None,
        grid_step: float | None = None,
        width: float = 1.0,
        spacing: Sequence[float] = (),
        within: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = shape
        self.width = width
        self.parameter_shape = lattice_shape(shape, scale_lengths(7.0, shape, spacing) if step is None else step)
        self.grid = lattice_shape(shape, scale_lengths(4.0, shape, spacing) if grid_step is None else grid_step)
        self._fit_blur = scale_lengths(7.0, shape, spacing)
        like = torch.empty(0, dtype=dtype, device=device)
        self._within = None if within is None else within.to(like)
        self._weights = resize_weights(self.grid, shape, like, self._within)
        sizes = list(zip(self.parameter_shape, self.grid, shape, strict=True))
        self._to_grid = [resampling_matrix(points, cells, width, like=like) for points, cells, _ in sizes]
        self._blurs: dict[tuple[float, torch.dtype, torch.device], list[Tensor]] = {}
        self._to_input = [resampling_matrix(cells, places, like=like) for _, cells, places in sizes]

    def smooth_parameters(self, parameters: Tensor, width: float) -> Tensor:
        """Filter parameters (B, 1, *lattice) by a Gaussian of this many lattice steps."""
        if max(self.parameter_shape) > MAX_DENSE_SIZE or width <= 0:
            return gaussian_blur(parameters, width)
        key = width, parameters.dtype, parameters.device
        if key not in self._blurs:  # made once: a solver smooths in every step
            like = parameters.detach().new_empty(0)
            self._blurs[key] = [blur_matrix(size, width, like=like) for size in self.parameter_shape]
        return apply_along_axes(parameters, self._blurs[key])

    def fit(self, mask: Tensor) -> Tensor:
        """Return parameters whose level sets resemble a mask: (B, 1, *S) -> (B, 1, *lattice)."""
        return resize(gaussian_blur(mask, self._fit_blur), self.parameter_shape)

    def to_places(self, parameters: Tensor) -> Tensor:
        """Interpolate the filtered parameters to the input, without a level: (B, 1, *lattice) -> (B, 1, *S)."""
        return self._restrict(resize(gaussian_blur(parameters, self.width), self.shape))

    def cut(self, masks: Tensor, areas: tuple[float, ...]) -> Tensor:
        """Cut masks (N, A, 1, *S) to exactly these fractions of ones (`area.cut`), or to all that is within."""
        return self._restrict(cut(self._restrict(masks), areas))

    def __call__(self, parameters: Tensor, area: Tensor, temperature: float) -> Tensor:
        """Evaluate masks of exactly these means: (B, 1, *lattice), (B,) -> (B, 1, *S) in [0, 1]."""
        field = standardise(apply_along_axes(parameters, self._to_grid))
        return self._restrict(apply_along_axes(level(field, area, temperature, self._weights), self._to_input))

    def _restrict(self, mask: Tensor) -> Tensor:
        return mask if self._within is None else mask * self._within
