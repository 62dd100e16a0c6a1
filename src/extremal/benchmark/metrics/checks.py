"""Validation that all metrics of maps and regions share."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError
from extremal.number_checks import format_value, read_numbers


def validate_maps(maps: Tensor) -> Tensor:
    """Return maps (N, 1, *S) that are floating and finite.

    Raises:
        ExtremalValueError, ExtremalTypeError: they are not.
    """
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise ExtremalTypeError(f"maps must be a floating tensor (N, 1, *S), got {kind}; convert with .float()")
    if maps.ndim < 3 or maps.shape[1] != 1 or 0 in maps.shape:
        raise ExtremalValueError(f"maps must be (N, 1, *S), got shape {tuple(maps.shape)}; add axes with maps[:, None]")
    n_not_finite = int((~torch.isfinite(maps)).sum())
    if n_not_finite:
        raise ExtremalValueError(f"maps must be finite, got {n_not_finite} NaN or infinite values; check the method")
    return maps


def validate_fractions(values: Sequence[float], name: str) -> tuple[float, ...]:
    """Return at least one fraction of places, each in [0, 1], increasing.

    Raises:
        ExtremalValueError, ExtremalTypeError: they are not.
    """
    fractions = read_numbers(values, name, "(0.1, 0.2)")
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise ExtremalValueError(
            f"{name} must be fractions of places in [0, 1], at least one, got {format_value(fractions)}; "
            "e.g. (0.1, 0.2)"
        )
    if any(second <= first for first, second in pairwise(fractions)):
        raise ExtremalValueError(f"{name} must increase, got {format_value(fractions)}; sort them, each once")
    return fractions


def validate_regions(maps: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
    """Return maps (N, 1, *S) and their regions (N, *S), bool, on one device.

    Raises:
        ExtremalValueError, ExtremalTypeError: a shape or a type is wrong, or a map is not finite.
    """
    validate_maps(maps)
    if not isinstance(regions, Tensor) or regions.dtype != torch.bool:
        kind = regions.dtype if isinstance(regions, Tensor) else type(regions).__name__
        raise ExtremalTypeError(f"regions must be a bool tensor (N, *S), got {kind}; compare with a threshold first")
    expected = (len(maps), *maps.shape[2:])
    if tuple(regions.shape) != expected:
        raise ExtremalValueError(
            f"regions must have the shape (N, *S) = {expected} of the maps, got {tuple(regions.shape)}"
        )
    return maps, regions.to(maps.device)


def nan_if_empty(values: Tensor, regions: Tensor) -> Tensor:
    """Replace values of items with an empty region by NaN: (N,), (N, *S) -> (N,)."""
    return values.masked_fill(~regions.flatten(1).any(1), torch.nan)
