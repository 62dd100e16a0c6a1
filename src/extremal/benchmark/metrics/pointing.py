"""The pointing game (Zhang et al., 2016): does the map's maximum lie on the object, or near it?"""

import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import nan_if_empty, validate_regions
from extremal.errors import ExtremalValueError

POINTING_TOLERANCE = 15.0  # px


def pointing_game(maps: Tensor, regions: Tensor, tolerance: float | Tensor = POINTING_TOLERANCE) -> Tensor:
    """1 where a disc around the map's maximum meets the region, else 0; NaN where the region is empty.

    Ties: of equal maxima the share that hit. A constant map so gets what pointing anywhere would, not what the first
    corner gives.

    >>> region = torch.zeros(1, 8, 8, dtype=torch.bool)
    >>> region[0, 2, 2] = True
    >>> pointing_game(region[:, None].float(), region, 0.0), pointing_game(torch.ones(1, 1, 8, 8), region, 0.0)
    (tensor([1.]), tensor([0.0156]))

    Args:
        maps: (N, 1, *S), finite.
        regions: (N, *S), bool.
        tolerance: radius of the disc in places: one for all, or (N, dimensions), the half axes of an ellipse.

    Returns:
        (N,) in [0, 1].
    """
    maps, regions = validate_regions(maps, regions)
    radii = _half_axes(tolerance, maps)
    found = [_hit_fraction(one[0], region, radius) for one, region, radius in zip(maps, regions, radii, strict=True)]
    return nan_if_empty(torch.stack(found), regions)


def _half_axes(tolerance: float | Tensor, maps: Tensor) -> Tensor:
    """Half axes (N, dimensions)."""
    radii = torch.as_tensor(tolerance, dtype=torch.float64)
    if radii.ndim not in (0, 2) or bool((radii < 0).any()) or not bool(torch.isfinite(radii).all()):
        raise ExtremalValueError(
            f"tolerance must be one length or lengths (N, dimensions), finite and not negative, got {tolerance}"
        )
    return radii.expand(len(maps), maps.ndim - 2)


def _hit_fraction(values: Tensor, region: Tensor, radius: Tensor) -> Tensor:
    """The share of the maxima of one map (*S) from which the region (*S) is within reach."""
    tops = (values == values.amax()).nonzero().double()
    places = region.nonzero().double()
    if not len(places):
        return values.new_zeros(())
    scale = radius.clamp_min(0.5 - 1e-9).to(tops.device)  # less than half a place reaches the place itself only
    near = 0
    for part in torch.split(tops, max(1, 2**22 // len(places))):  # a constant map has as many maxima as places
        square = ((part[:, None] - places[None]) / scale).square().sum(2)
        near += int((square <= 1 + 1e-12).any(1).sum())
    return values.new_tensor(near / len(tops))
