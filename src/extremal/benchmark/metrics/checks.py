"""What every measure demands of maps and regions."""

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError


def validate_maps(maps: Tensor) -> Tensor:
    """Maps (N, 1, *S), floating and finite."""
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise ExtremalTypeError(f"maps must be a floating tensor (N, 1, *S), got {kind}; convert with .float()")
    if maps.ndim < 3 or maps.shape[1] != 1:
        raise ExtremalValueError(f"maps must be (N, 1, *S), got shape {tuple(maps.shape)}; add axes with maps[:, None]")
    broken = int((~torch.isfinite(maps)).sum())
    if broken:
        raise ExtremalValueError(f"maps must be finite, got {broken} NaN or infinite values; look at the method")
    return maps


def validate_regions(maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Maps (N, 1, *S) and the regions (N, *S) that they are judged by, bool."""
    validate_maps(maps)
    if not isinstance(regions, Tensor) or regions.dtype != torch.bool:
        kind = regions.dtype if isinstance(regions, Tensor) else type(regions).__name__
        raise ExtremalTypeError(f"regions must be a bool tensor (N, *S), got {kind}; compare with a threshold first")
    wanted = (len(maps), *maps.shape[2:])
    if tuple(regions.shape) != wanted:
        raise ExtremalValueError(
            f"regions must have the shape (N, *S) = {wanted} of the maps, got {tuple(regions.shape)}"
        )
    return maps, regions.to(maps.device)


def nan_if_empty(values: Tensor, regions: Tensor) -> Tensor:
    """NaN where the region is empty: there is nothing to be found. (N,), (N, *S) -> (N,)."""
    return values.masked_fill(~regions.flatten(1).any(1), torch.nan)
