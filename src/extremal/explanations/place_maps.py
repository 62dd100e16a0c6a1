"""Options with one value for each place of an input: each function returns the validated tensor or raises."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from extremal.errors import ExtremalTypeError, ExtremalValueError

PlaceMap = Tensor | np.ndarray[Any, Any]  # one value for each place of an input as the network takes it: (*S)


def _to_tensor(values: PlaceMap, name: str) -> Tensor:
    try:
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise ExtremalTypeError(
            f"{name} must be a tensor or an array (*S), got {type(values).__name__}; e.g. np.asarray(image) > 0"
        ) from None


def validate_within(within: PlaceMap | None) -> Tensor | None:
    """Return a region as a bool tensor (*S)."""
    if within is None:
        return None
    region = _to_tensor(within, "within")
    if region.dtype != torch.bool:
        raise ExtremalTypeError(
            f"within must be bool (*S), true where masks may keep places, got {region.dtype}; e.g. mask > 0.5"
        )
    if not region.any():
        raise ExtremalValueError("within must be true somewhere, got a region without places; check how it was made")
    return region.clone()


def validate_units(units: PlaceMap | None) -> Tensor | None:
    """Return labels of units as an int64 tensor (*S), numbered 0 .. U−1 without gaps, −1 for no unit."""
    if units is None:
        return None
    labelled = _to_tensor(units, "units")
    if labelled.is_floating_point() or labelled.is_complex() or labelled.dtype == torch.bool:
        raise ExtremalTypeError(
            f"units must be whole numbers (*S), the label of each place, got {labelled.dtype}; e.g. superpixels"
        )
    labels, numbers = labelled.long().unique(return_inverse=True)  # type: ignore[no-untyped-call]
    n_outside = int((labels < 0).sum())
    if len(labels) - n_outside < 2:
        raise ExtremalValueError(
            f"units must name at least two units to choose from, got {len(labels) - n_outside}; label places 0, 1, 2, "
            "..., and −1 where nothing may be kept"
        )
    renumbered: Tensor = (numbers - n_outside).clamp_min(-1)
    return renumbered
