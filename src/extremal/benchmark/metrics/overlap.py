"""How well a map outlines a region: intersection over union at the region's own area, and average precision."""

import torch
from torch import Tensor

from extremal.benchmark.metrics.checks import nan_if_empty, validate_regions


def iou(maps: Tensor, regions: Tensor) -> Tensor:
    """Intersection over union of the region and as many of the map's highest places; NaN where the region is empty.

    Ties: of equal places the first in raster order, as `area.binary` cuts.

    Args:
        maps: (N, 1, *S), finite.
        regions: (N, *S), bool.

    Returns:
        (N,) in [0, 1].
    """
    maps, regions = validate_regions(maps, regions)
    flat, inside = maps.flatten(1), regions.flatten(1)
    order = torch.argsort(flat, dim=1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    chosen = ranks < inside.sum(1, keepdim=True)
    both, either = (chosen & inside).sum(1), (chosen | inside).sum(1)
    return nan_if_empty((both / either.clamp_min(1)).to(maps.dtype), regions)


def average_precision(maps: Tensor, regions: Tensor) -> Tensor:
    """Σ (R_k − R_(k−1))·P_k over the map's values from the highest down, equal ones together; NaN for empty regions.

    >>> average_precision(torch.tensor([[[4.0, 3.0, 2.0, 1.0]]]), torch.tensor([[True, False, True, False]]))
    tensor([0.8333])

    Args:
        maps: (N, 1, *S), finite.
        regions: (N, *S), bool.

    Returns:
        (N,) in [0, 1]; a random map has about the region's share of places.
    """
    maps, regions = validate_regions(maps, regions)
    found = [_average_precision(one, region) for one, region in zip(maps.flatten(1), regions.flatten(1), strict=True)]
    return nan_if_empty(torch.stack(found).to(maps.dtype), regions)


def _average_precision(values: Tensor, inside: Tensor) -> Tensor:
    ordered, order = values.sort(descending=True)
    right = inside[order].double().cumsum(0)
    last = torch.cat([ordered[1:] != ordered[:-1], ordered.new_ones(1, dtype=torch.bool)]).nonzero()[:, 0]
    precision = right[last] / (last + 1)
    recall = right[last] / right[-1].clamp_min(1)
    return (recall.diff(prepend=recall.new_zeros(1)) * precision).sum()
