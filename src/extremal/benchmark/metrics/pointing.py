"""The pointing game (Zhang et al., 2016), and its variant by energy (Wang et al., 2020)."""

import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import nan_if_empty, validate_regions
from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.number_checks import is_number, validate_between

POINTING_TOLERANCE = 15.0  # px


def pointing_game(maps: Tensor, regions: Tensor, tolerance: float | Tensor = POINTING_TOLERANCE) -> Tensor:
    """Return 1 if a disc around the map's maximum meets the region, else 0; NaN if the region is empty.

    Ties: of several equal maxima the fraction that hit. A constant map thus scores like pointing at random.

    >>> region = torch.zeros(1, 8, 8, dtype=torch.bool)
    >>> region[0, 2, 2] = True
    >>> pointing_game(region[:, None].float(), region, 0.0), pointing_game(torch.ones(1, 1, 8, 8), region, 0.0)
    (tensor([1.]), tensor([0.0156]))

    Args:
        maps: (N, 1, *S), finite.
        regions: (N, *S), bool.
        tolerance: radius of the disc in places; or (N, dimensions), the semi-axes of an ellipse.

    Returns:
        (N,) in [0, 1].

    Raises:
        ExtremalValueError, ExtremalTypeError: maps, regions or tolerance are invalid.
    """
    maps, regions = validate_regions(maps, regions)
    radii = _semi_axes(tolerance, maps)
    hits = [
        _hit_fraction(values[0], region, radius) for values, region, radius in zip(maps, regions, radii, strict=True)
    ]
    return nan_if_empty(torch.stack(hits), regions)


def energy(maps: Tensor, regions: Tensor) -> Tensor:
    """Return Σ_inside max(0, S) / Σ max(0, S); 0 if the map has no positive value, NaN if the region is empty.

    >>> region = torch.tensor([[[True, False], [True, False]]])
    >>> energy(torch.tensor([[[[3.0, 1.0], [-5.0, 0.0]]]]), region)
    tensor([0.7500])

    Args:
        maps: (N, 1, *S), finite; negative values count as 0.
        regions: (N, *S), bool.

    Returns:
        (N,) in [0, 1].
    """
    maps, regions = validate_regions(maps, regions)
    positive = maps[:, 0].clamp_min(0.0).flatten(1).double()
    positive = positive / positive.amax(1, keepdim=True).clamp_min(1e-300)  # sums of tiny values stay exact
    total = positive.sum(1)
    fraction = (positive * regions.flatten(1)).sum(1) / total.clamp_min(1e-300)
    return nan_if_empty(fraction.to(maps.dtype), regions)


def _semi_axes(tolerance: float | Tensor, maps: Tensor) -> Tensor:
    """Return the semi-axes of the ellipses: (N, dimensions)."""
    shape = len(maps), maps.ndim - 2
    if not isinstance(tolerance, Tensor):
        if not is_number(tolerance):
            raise ExtremalTypeError(
                f"tolerance must be a number or a tensor (N, dimensions), got {type(tolerance).__name__}; e.g. 15"
            )
        tolerance = validate_between(tolerance, "tolerance", remedy="e.g. 15")
    radii = torch.as_tensor(tolerance, dtype=torch.float64)
    if radii.ndim and tuple(radii.shape) != shape:
        raise ExtremalValueError(
            f"tolerance must be one length or lengths (N, dimensions) = {shape} of the maps, got the shape "
            f"{tuple(radii.shape)}"
        )
    if bool((radii < 0).any()) or not bool(torch.isfinite(radii).all()):
        raise ExtremalValueError(f"tolerance must be finite and not negative, got {tolerance}; e.g. 15")
    return radii.expand(shape)


def _hit_fraction(values: Tensor, region: Tensor, radius: Tensor) -> Tensor:
    """Return the fraction of the maxima of a map (*S) that are within the tolerance of the region (*S)."""
    from scipy.ndimage import distance_transform_edt

    if not bool(region.any()):
        return values.new_zeros(())
    scale = radius.clamp_min(0.5 - 1e-9)  # below half a place only the place itself is within reach
    distances = distance_transform_edt(~region.cpu().numpy(), sampling=(1 / scale).tolist())
    is_hit = torch.from_numpy(distances**2 <= 1 + 1e-9)
    tops = (values == values.amax()).cpu()
    return values.new_tensor(float(is_hit[tops].double().mean()))
